"""Drawing of triangles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dream3d.checks import InputError, RunError, in_range
from dream3d.kernels.mesh import (
    Fragments,
    ProjectedVertices,
    antialias,
    find_neighbours,
    interpolate,
    mip_levels,
    project_vertices,
    rasterise,
)
from dream3d.lights import Light, LightSampler, ShadingSwitch, Surroundings
from dream3d.materials import Material, Plain, Points
from dream3d.renderers.base import Renderer
from dream3d.representations.base import Hits, Representation, Triangles
from dream3d.types import Cameras, Mesh, Render

PIXELS_A_CHUNK = 1 << 20
"""Pixels that are drawn at once when no gradient is asked for."""

HITS_A_CHUNK = 1 << 14
"""Points that are shaded at once when no gradient is asked for: what many samples a point need."""

FINEST = 16
"""log2 of the texture for which footprints are asked: kernels take anything below a texel for a texel."""

PRIVATE = ("normal", "bump", "emissive", "occlusion")
"""Inputs that are no channel of a `Render`'s aux."""


@final
class Raster(Renderer):
    """Rasterises `Triangles` (Tets, meshes, mesh files): nearest surface at the pixel centres, its inputs, shading, and
    silhouettes softened by what they cut off a pixel.

    That last step carries the gradient of the outline to the vertices (as in nvdiffrast, arXiv:2011.03277, section 3.4,
    but with a walk to the silhouette wherever it is); through positions and normals the inside has one too. Surfaces
    are drawn from both sides. `aux` holds the material's inputs, premultiplied: "albedo", "roughness", "metallic".

    Args:
        material: how a point gets its colour; None is `Plain`.
        lights: what shines; None is a still studio for materials that need an environment, else `ShadingSwitch`.
        supersample: samples a pixel and axis in pictures (training, which hands over a generator, has 1).
        walk: triangles that the search for a silhouette may cross.
        near: what is nearer along the viewing axis is cut away, metres.
    """

    def __init__(
        self,
        *,
        material: Material | None = None,
        lights: LightSampler | None = None,
        supersample: int = 1,
        walk: int = 64,
        near: float = 0.01,
    ) -> None:
        in_range("Raster: supersample", supersample, 1, 8)
        in_range("Raster: walk", walk, 1, 1 << 20)
        in_range("Raster: near", near, 1e-6)
        self.material = material or Plain()
        self.lights = lights or (Surroundings() if self.material.needs_environment else ShadingSwitch())
        self.supersample = supersample
        self.walk = walk
        self.near = near
        self._step, self._views = 0, 1
        self._indices: _Indices | None = None

    def before_step(self, step: int, views: int) -> None:
        self._step, self._views = step, views

    def __call__(
        self,
        representation: Representation,
        cameras: Cameras,
        *,
        generator: torch.Generator | None = None,
        normals: bool = False,
    ) -> Render:
        """As the base says.

        Raises:
            RunError: there is no surface, or a vertex is not finite.
        """
        if not isinstance(representation, Triangles):
            raise InputError(f"Raster draws Triangles, not a {type(representation).__name__}.")
        mesh = representation.facets()
        if broken := int((~mesh.vertices.detach().isfinite()).any(dim=-1).sum()):
            raise RunError(f"{broken} of {len(mesh.vertices)} vertices are not finite; lower the learning rate.")
        training = generator is not None
        light = self.lights(cameras, views=self._views if training else 1, step=self._step, generator=generator)
        fine = 1 if training else self.supersample
        many = cameras.resized(cameras.height * fine, cameras.width * fine)
        scene = self._scene(mesh)
        count = len(many) if torch.is_grad_enabled() else max(1, PIXELS_A_CHUNK // (many.height * many.width))
        parts = []
        for start in range(0, len(many), count):
            view = torch.arange(start, min(start + count, len(many)), device=mesh.vertices.device)
            parts.append(self._draw(representation, scene, many[start : start + count], light, view, generator))
        picture = {name: _pooled(torch.cat([part[name] for part in parts]), fine) for name in parts[0]}
        rgb, alpha, depth, normal = (picture.pop(name) for name in ("rgb", "alpha", "depth", "normal"))
        if normals:
            picture["view"] = cameras.rays()[1].to(rgb)
        return Render(rgb, alpha, depth, normal if normals else None, MappingProxyType(picture))

    def _scene(self, mesh: Mesh) -> _Scene:
        if self._indices is None or not self._indices.are_of(mesh):
            self._indices = _Indices.of(mesh)
        a, b, c = mesh.vertices[self._indices.welded.long()].unbind(dim=1)
        facing = torch.linalg.cross(b - a, c - a)
        normals = mesh.normals
        if normals is None:
            corners = self._indices.welded.long().flatten()
            summed = torch.zeros_like(mesh.vertices).index_add(0, corners, facing.repeat_interleave(3, dim=0))
            normals = functional.normalize(summed, dim=-1)[self._indices.same]
        return _Scene(mesh, normals.to(mesh.vertices), facing.detach(), self._indices)

    def _draw(
        self,
        representation: Triangles,
        scene: _Scene,
        cameras: Cameras,
        light: Light,
        view: Int[Tensor, "B"],
        generator: torch.Generator | None,
    ) -> dict[str, Float[Tensor, "B H W C"]]:
        """All channels of some views; `view` are their numbers within the batch."""
        mesh, welded = scene.mesh, scene.indices.welded
        projected = project_vertices(mesh.vertices, cameras)
        fragments = rasterise(projected, welded, near=self.near)
        where = (fragments.face >= 0).nonzero(as_tuple=True)
        hits = _hits(scene, projected, fragments, where)
        rays = cameras.rays()[1].to(mesh.vertices)
        axes = cameras.c2w[:, :3, :3].to(mesh.vertices)
        # The kernels' depth is along the viewing axis, -z of the camera; rays are longer by what they lean.
        lean = -(rays * axes[:, None, None, :, 2]).sum(dim=-1)
        away = -rays[where]
        behind = (scene.facing[hits.face] * away).sum(-1, keepdim=True) < 0
        sights = _Sights(away, torch.where(behind, -1.0, 1.0).to(away), axes[where[0]], view[where[0]])
        columns = self._shade(representation, hits, sights, light, generator)
        columns["depth"] = (fragments.depth[where] / lean[where])[:, None]
        columns["alpha"] = torch.ones_like(columns["depth"])
        widths = [column.shape[-1] for column in columns.values()]
        picture = fragments.barycentrics.new_zeros(*fragments.face.shape, sum(widths))
        picture = picture.index_put(where, torch.cat(list(columns.values()), dim=-1))
        soft = antialias(
            picture, fragments, projected, welded, neighbours=scene.indices.neighbours, walk=self.walk
        ).split(widths, dim=-1)
        # A speck's four cuts may take more of its pixel away than there is of it.
        return {
            name: part if name == "normal" else part.clamp_min(0) if name == "depth" else part.clamp(0, 1)
            for name, part in zip(columns, soft, strict=True)
        }

    def _shade(
        self,
        representation: Triangles,
        hits: Hits,
        sights: _Sights,
        light: Light,
        generator: torch.Generator | None,
    ) -> dict[str, Float[Tensor, "N C"]]:
        """Colour, normal and the material's inputs at the hits."""
        number = len(hits.face)
        count = max(number, 1) if torch.is_grad_enabled() else HITS_A_CHUNK
        parts = []
        for start in range(0, max(number, 1), count):
            some = hits[start : start + count]
            away, side, axes, view = (tensor[start : start + count] for tensor in sights)
            values = representation.inputs(some, self.material)
            points = Points(some.position, values.get("normal", some.normal), away, axes=axes)
            normal = side * points.bumped(values).normal
            rgb = points.position
            if number:
                given = {name: value for name, value in values.items() if name not in ("normal", "bump")}
                rgb = self.material(replace(points, normal=normal), given, light.at(view), generator=generator)
            shown = {name: value for name, value in values.items() if name not in PRIVATE}
            parts.append({"rgb": rgb, "normal": normal, **shown})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class _Sights(NamedTuple):
    """How hits are seen: unit direction to the camera, -1 from behind and else 1, the camera's axes, the view."""

    away: Float[Tensor, "N 3"]
    side: Float[Tensor, "N 1"]
    axes: Float[Tensor, "N 3 3"]
    view: Int[Tensor, "N"]


@dataclass(frozen=True)
class _Indices:
    """What depends on the index buffer alone, kept for as long as a representation hands over the same one.

    Attributes:
        faces: the mesh's own.
        version: of its contents.
        welded: with one vertex for all at the same place, so that UV seams are no silhouettes.
        same: for each vertex the one that stands for its place.
        neighbours: of `find_neighbours`.
    """

    faces: Tensor
    version: int
    welded: Int[Tensor, "F 3"]
    same: Int[Tensor, "V"]
    neighbours: Int[Tensor, "F 3"]

    @staticmethod
    def of(mesh: Mesh) -> _Indices:
        same = torch.arange(len(mesh.vertices), device=mesh.faces.device)
        if mesh.uv is not None and len(same):
            place = mesh.vertices.detach().unique(dim=0, return_inverse=True)[1]
            same = torch.full_like(same, len(same)).scatter_reduce(0, place, same, "amin")[place]
        welded = same[mesh.faces.long()].to(torch.int32)
        return _Indices(mesh.faces, mesh.faces._version, welded, same, find_neighbours(welded))

    def are_of(self, mesh: Mesh) -> bool:
        return self.faces is mesh.faces and self.version == mesh.faces._version and len(self.same) == len(mesh.vertices)


@dataclass(frozen=True)
class _Scene:
    mesh: Mesh
    normals: Float[Tensor, "V 3"]
    facing: Float[Tensor, "F 3"]
    indices: _Indices


def _hits(scene: _Scene, projected: ProjectedVertices, fragments: Fragments, where: tuple[Tensor, ...]) -> Hits:
    mesh = scene.mesh
    uv = [] if mesh.uv is None else [mesh.uv.to(mesh.vertices)]
    found = interpolate(torch.cat([mesh.vertices, scene.normals, *uv], dim=-1), mesh.faces, fragments)[where]
    footprint = None
    if uv:
        size = (1 << FINEST, 1 << FINEST)
        levels = mip_levels(projected, scene.indices.welded, fragments, uv[0], mesh.faces.to(torch.int32), size=size)
        footprint = torch.exp2(levels[where] - FINEST)
    return Hits(
        found[:, :3],
        functional.normalize(found[:, 3:6], dim=-1),
        fragments.face[where].long(),
        fragments.barycentrics[where],
        found[:, 6:] if uv else None,
        footprint,
    )


def _pooled(picture: Float[Tensor, "B H W C"], side: int) -> Float[Tensor, "B h w C"]:
    """Means over squares of pixels."""
    if side == 1:
        return picture
    return functional.avg_pool2d(picture.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)
