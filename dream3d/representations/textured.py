"""Meshes with the textures they came with: drawn, not trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dream3d.checks import InputError
from dream3d.kernels.texture import Pyramid, mipmap, sample_texture
from dream3d.materials.base import Material
from dream3d.materials.normals import tangent_space
from dream3d.nn.color import to_linear, to_srgb
from dream3d.nn.solid import Solid
from dream3d.representations.base import Hits, Representation, Surfaced, Triangles
from dream3d.types import Mesh

WIDTHS = {"base": 3, "orm": 3, "normal": 3, "emissive": 3}
"""Numbers that a look gives a point: linear colour; occlusion, roughness, metallic; tangent-space normal; light."""


@dataclass(frozen=True)
class Look:
    """The material of a part of a mesh, as glTF 2.0 has it: textures times factors. Textures have v = 0 at the top.

    Args:
        base: sRGB-coded base colour; None is white.
        orm: linear occlusion, roughness and metallic; None is 1, 1, 1.
        normal: tangent space, +Y up, coded to [0, 1]; None is flat.
        emissive: sRGB-coded; None is white.
        base_factor: linear.
        orm_factor: of the three.
        emissive_factor: linear; the light that leaves the surface by itself.
    """

    base: Float[Tensor, "H W 3"] | None = None
    orm: Float[Tensor, "H W 3"] | None = None
    normal: Float[Tensor, "H W 3"] | None = None
    emissive: Float[Tensor, "H W 3"] | None = None
    base_factor: tuple[float, float, float] = (1.0, 1.0, 1.0)
    orm_factor: tuple[float, float, float] = (1.0, 1.0, 0.0)
    emissive_factor: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Sheets:
    """A mesh with its materials.

    Args:
        mesh: triangles; `uv` where there are textures, `normals` (else smooth ones are made), `colors` multiply the
            base colour.
        part: the look of each triangle.
        looks: the materials.
        tangents: unit along +u, and the handedness ±1 (glTF's TANGENT); needed where a look has a normal map.
    """

    mesh: Mesh
    part: Int[Tensor, "F"]
    looks: tuple[Look, ...]
    tangents: Float[Tensor, "V 4"] | None = None


@final
class Textured(Triangles):
    """Any textured mesh, with mip levels, normal maps and as many materials as it has. It has no parameters: nothing
    of it is trained. Draw it with `Raster` under any material.

    Args:
        start: the mesh (`mesh_files.read_mesh`).
    """

    vertices: Tensor
    faces: Tensor
    part: Tensor
    factors: Tensor
    normals: Tensor | None
    colors: Tensor | None
    uv: Tensor | None
    tangents: Tensor | None

    def __init__(self, start: Sheets | Representation | None = None) -> None:
        super().__init__()
        if not isinstance(start, Sheets):
            raise InputError(
                f"Textured: expected a mesh with its materials (Sheets), got {type(start).__name__}. Read one with "
                "dream3d.mesh_files.read_mesh."
            )
        mesh = start.mesh
        if len(start.part) != len(mesh.faces) or (len(start.part) and int(start.part.max()) >= len(start.looks)):
            raise InputError(f"Textured: expected one of {len(start.looks)} looks for each of {len(mesh.faces)} faces.")
        if start.tangents is None and any(look.normal is not None for look in start.looks):
            raise InputError("Textured: normal maps need tangents. Compute them with dream3d.texturing.tangents.")
        self._keep("vertices", mesh.vertices.detach().float())
        self._keep("faces", mesh.faces.to(torch.int32))
        self._keep("part", start.part.long())
        for name in ("normals", "colors", "uv"):
            value = getattr(mesh, name)
            self._keep(name, None if value is None else value.detach().float())
        self._keep("tangents", start.tangents)
        looks = [_Sampler(look) for look in start.looks]
        self._keep("factors", torch.stack([look.factors for look in looks]))
        self.looks = nn.ModuleList(looks)

    def _keep(self, name: str, value: Tensor | None) -> None:
        self.register_buffer(name, value)

    def facets(self) -> Mesh:
        return Mesh(self.vertices, self.faces, normals=self.normals, uv=self.uv)

    def inputs(self, hits: Hits, material: Material) -> dict[str, Float[Tensor, "N C"]]:
        return self.known(hits)

    def known(self, hits: Hits) -> dict[str, Float[Tensor, "N C"]]:
        """All that the textures say of points, for whatever material."""
        part = self.part[hits.face]
        flat = self.factors[part]
        if hits.uv is not None:
            for number in part.unique().tolist():
                rows = (part == number).nonzero()[:, 0]
                footprint = None if hits.footprint is None else hits.footprint[rows]
                flat[rows] = self.looks[number](hits.uv[rows], footprint)
        base, orm, code, emissive = flat.split(list(WIDTHS.values()), dim=-1)
        if self.colors is not None:
            base = base * to_linear(self._at(hits, self.colors))
        values = {"albedo": to_srgb(base.clamp(0, 1)), "roughness": orm[:, 1:2], "metallic": orm[:, 2:]}
        values |= {"occlusion": orm[:, :1], "emissive": emissive}
        if self.tangents is not None:
            tangent = self._at(hits, self.tangents)
            along = functional.normalize(tangent[:, :3], dim=-1)
            tangent = torch.cat([along, torch.where(tangent[:, 3:] < 0, -1.0, 1.0)], dim=-1)
            values["normal"] = tangent_space(hits.normal, tangent, code)
        return values

    def _at(self, hits: Hits, corners: Float[Tensor, "V C"]) -> Float[Tensor, "N C"]:
        return (corners[self.faces[hits.face].long()] * hits.barycentrics[..., None]).sum(dim=1)

    def to_mesh(self) -> Mesh:
        """With the base colours that the textures have at the corners."""
        corner = torch.arange(3, device=self.faces.device)
        colours = self.vertices.new_zeros(len(self.vertices), 3)
        for k in corner.tolist():
            face = torch.arange(len(self.faces), device=self.faces.device)
            hits = self._hits(face, functional.one_hot(corner[k], 3).to(self.vertices).expand(len(face), 3))
            colours[self.faces[:, k].long()] = self.known(hits)["albedo"]
        return Mesh(self.vertices, self.faces.long(), normals=self.normals, colors=colours)

    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        """The mesh, and the textures at the nearest of its points; `iso` and `resolution` mean nothing here."""
        solid = Solid(self.vertices, self.faces)

        def bake(points: Float[Tensor, "N 3"]) -> dict[str, Tensor]:
            near = solid.nearest(points.to(self.vertices))
            values = self.known(self._hits(near.face, near.weights))
            named = {"base_color": values["albedo"]}
            return named | {k: values[k] for k in ("roughness", "metallic", "occlusion", "normal") if k in values}

        return Surfaced(replace(self.to_mesh(), normals=None), bake)

    def _hits(self, face: Int[Tensor, "N"], barycentrics: Float[Tensor, "N 3"]) -> Hits:
        blank = Hits(barycentrics, barycentrics, face, barycentrics)
        a, b, c = self.vertices[self.faces[face].long()].unbind(dim=1)
        normal = torch.linalg.cross(b - a, c - a) if self.normals is None else self._at(blank, self.normals)
        uv = None if self.uv is None else self._at(blank, self.uv)
        return replace(
            blank, position=self._at(blank, self.vertices), normal=functional.normalize(normal, dim=-1), uv=uv
        )


class _Sampler(nn.Module):
    """A look on its device, with mip levels; colours are made linear before they are averaged."""

    factors: Tensor

    def __init__(self, look: Look) -> None:
        super().__init__()
        maps = {"base": look.base, "orm": look.orm, "normal": look.normal, "emissive": look.emissive}
        self.sizes: dict[str, tuple[tuple[int, int], ...]] = {}
        for name, image in maps.items():
            if image is not None:
                image = image.detach().float()
                pyramid = mipmap(to_linear(image) if name in ("base", "emissive") else image)
                self.register_buffer(name, pyramid.texels)
                self.sizes[name] = pyramid.sizes
        flat = (0.5, 0.5, 1.0)
        factors = (*look.base_factor, *look.orm_factor, *flat, *look.emissive_factor)
        self.register_buffer("factors", torch.tensor(factors, dtype=torch.float32))

    def forward(self, uv: Float[Tensor, "N 2"], footprint: Float[Tensor, "N"] | None) -> Float[Tensor, "N 12"]:
        parts = []
        for name, factor in zip(WIDTHS, self.factors.split(list(WIDTHS.values())), strict=True):
            if name not in self.sizes:
                parts.append(factor.expand(len(uv), -1))
                continue
            sizes = self.sizes[name]
            levels = None if footprint is None else torch.log2(footprint * max(sizes[0])).clamp_min(0)
            texel = sample_texture(Pyramid(getattr(self, name), sizes, cube=False), uv.contiguous(), levels=levels)
            parts.append(texel if name == "normal" else texel * factor)
        return torch.cat(parts, dim=-1)
