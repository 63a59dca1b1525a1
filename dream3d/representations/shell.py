"""A given triangle mesh: what is painted, and, if wanted, what moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.checks import InputError, in_range, one_of
from dream3d.kernels.mesh import ProjectedVertices, interpolate, rasterise
from dream3d.kernels.texture import sample_texture
from dream3d.materials.base import Material
from dream3d.materials.plain import Plain
from dream3d.nn.color import to_srgb
from dream3d.nn.paint import Paint, color_logits
from dream3d.nn.solid import Solid
from dream3d.nn.tets import bcc_grid, marching_tets
from dream3d.representations.base import Faceted, Representation, Surfaced
from dream3d.representations.painted import baked, inherit
from dream3d.types import Mesh
from dream3d.unwrapping import unwrap

FILES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
MOST_FACES = 2_000_000
BALL = 12
"""Resolution of the ball that stands where there is nothing to start from."""


@final
class Shell(Faceted):
    """The triangles of a file or of the stage before, with paint: a field in space (Fantasia3D, arXiv:2303.13873) or a
    texture (Latent-Paint, arXiv:2211.07600).

    Args:
        start: whose surface it is (`to_mesh()`), with its colours; a Shell of the same configuration hands over all.
        file: .glb, .gltf, .obj, .ply, .stl or .off, whose surface it is instead. Neither: a ball.
        fit: radius of the sphere around the origin into which a file is scaled, metres; None takes it as it is.
        paint: "field" or "texture", for which the mesh is unwrapped: at most some 20 000 faces.
        texture: texels along a side.
        moving: whether the vertices are trained.
        radius: half the side of the box of the field, metres.
        material: whose inputs are painted; None is `Plain`, base colour alone. As in the renderer.
        levels: grids of the field's hash encoding.
        log2_table: log2 of the rows of a level.
        finest: cells along an axis of the finest grid of the field.
        hidden: width of the field's MLP.
        vertices_lr_scale: learning rate of the vertices (metres), relative to the stage's.
        network_lr_scale: learning rate of the MLP, relative.
    """

    vertices: Tensor
    faces: Tensor
    uv: Tensor | None

    def __init__(
        self,
        start: Representation | None = None,
        *,
        file: str | None = None,
        fit: float | None = 0.6,
        paint: Literal["field", "texture"] = "field",
        texture: int = 512,
        moving: bool = False,
        radius: float = 1.0,
        material: Material | None = None,
        levels: int = 10,
        log2_table: int = 15,
        finest: int = 256,
        hidden: int = 32,
        vertices_lr_scale: float = 0.1,
        network_lr_scale: float = 0.2,
    ) -> None:
        super().__init__()
        one_of("Shell: paint", paint, ("field", "texture"))
        in_range("Shell: texture", texture, 64, 8192)
        in_range("Shell: radius", radius, 1e-3)
        self.material = material or Plain()
        self.width = self.material.width
        self.moving = moving
        self.lr_scales = (vertices_lr_scale, network_lr_scale)
        mesh = _ball(0.5) if start is None else start.to_mesh()
        if file is not None:
            mesh = read_mesh(file, fit=fit)
        self.paint_field = self.texels = None
        if paint == "field":
            self.paint_field = Paint(
                self.width, radius=radius, levels=levels, log2_table=log2_table, finest=finest, hidden=hidden
            )
        else:
            mesh = unwrap(mesh, texture=texture)
            self.texels = nn.Parameter(torch.zeros(texture, texture, self.width))
        self.vertices = nn.Parameter(mesh.vertices.detach().float().cpu().clone(), requires_grad=moving)
        self.register_buffer("faces", mesh.faces.detach().cpu().to(torch.int32).clone())
        self.register_buffer("uv", None if mesh.uv is None or self.texels is None else mesh.uv.float().clone())
        self._register_load_state_dict_pre_hook(_make_room, with_module=True)
        if isinstance(start, Shell) and file is None and self._same(start):
            self.load_state_dict(start.state_dict())
        elif self.paint_field is not None:
            inherit(self.paint_field, start if file is None else None, mesh)
        elif mesh.colors is not None and self.texels is not None:
            self.texels.data[..., :3] = _drawn(mesh, color_logits(mesh.colors.detach().float().cpu()), texture)

    def _same(self, start: Shell) -> bool:
        def shapes(shell: Shell) -> dict[str, tuple[int, ...]]:
            return {k: tuple(v.shape) for k, v in shell.state_dict().items() if k not in ("vertices", "faces", "uv")}

        return shapes(self) == shapes(start)

    def parameter_groups(self) -> list[dict]:
        vertices, network = self.lr_scales
        groups = [] if self.paint_field is None else self.paint_field.groups(network_lr_scale=network)
        if self.texels is not None:
            groups.append({"params": [self.texels], "lr_scale": 1.0})
        if self.moving:
            groups.append({"params": [self.vertices], "lr_scale": vertices})
        return groups

    def facets(self) -> Mesh:
        return Mesh(self.vertices, self.faces, uv=self.uv)

    def paint(self, points: Float[Tensor, "N 3"], uv: Float[Tensor, "N 2"] | None = None) -> Float[Tensor, "N width"]:
        if self.paint_field is not None:
            return self.paint_field(points)
        if uv is None or self.texels is None:
            raise InputError("Shell: a texture is looked up by UVs; give those of the points.")
        return sample_texture(self.texels, uv, wrap="clamp")

    def to_mesh(self) -> Mesh:
        with torch.no_grad():
            values = self.material.activate(self.paint(self.vertices, self.uv))
        color = values["albedo"].cpu() if "albedo" in values else None
        return Mesh(self.vertices.detach().cpu(), self.faces.cpu(), colors=color)

    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        """As the base says, with the triangles that are there: neither argument counts."""
        mesh = Mesh(self.vertices.detach().cpu(), self.faces.cpu(), uv=None if self.uv is None else self.uv.cpu())
        if self.paint_field is not None or mesh.uv is None:
            return Surfaced(mesh, baked(self.paint, self.material, self.vertices.device))
        solid, corners = Solid(mesh.vertices, mesh.faces), mesh.uv[mesh.faces.long()]

        def look(points: Float[Tensor, "N 3"]) -> Tensor:
            near = solid.nearest(points)
            uv = (corners[near.face] * near.weights[..., None]).sum(1)
            return self.paint(points, uv.to(points))

        return Surfaced(mesh, baked(look, self.material, self.vertices.device))


def read_mesh(file: str | Path, *, fit: float | None = 0.6) -> Mesh:
    """The triangles of a file, all its parts as one; equal vertices are merged, triangles without an area dropped.

    Args:
        file: of one of the kinds in `FILES`; its own axes are kept.
        fit: radius of the sphere around the origin into which it is moved and scaled, metres; None for not at all.

    Raises:
        InputError: the file is not there, of another kind, damaged, without triangles, too large or not finite.
    """
    import trimesh

    path = Path(file).expanduser()
    if path.suffix.lower() not in FILES:
        raise InputError(f"{path}: expected a mesh file ({', '.join(FILES)}), got '{path.suffix}'.")
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    try:
        parts = trimesh.load(path, force="scene", process=False).dump()  # pyright: ignore[reportCallIssue]
        meshes: list[Any] = [part for part in parts if len(getattr(part, "faces", ()))]
    except Exception as error:  # its readers raise whatever they meet
        raise InputError(f"{path}: no mesh could be read ({type(error).__name__}).") from error
    count = sum(len(mesh.faces) for mesh in meshes)
    if not 1 <= count <= MOST_FACES:
        raise InputError(f"{path}: expected 1 to {MOST_FACES} triangles, got {count}.")
    points = np.concatenate([np.asarray(mesh.vertices, dtype=np.float64) for mesh in meshes])
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    faces = np.concatenate([np.asarray(mesh.faces) + start for mesh, start in zip(meshes, first, strict=True)])
    if not np.isfinite(points).all():
        raise InputError(f"{path}: expected finite vertices, got NaN or infinity.")
    if fit is not None:
        points = _fitted(points, fit, path)
    points, row, into = np.unique(points.astype(np.float32), axis=0, return_index=True, return_inverse=True)
    faces = into.reshape(-1)[faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(1)]
    if not len(faces):
        raise InputError(f"{path}: every triangle is without an area.")
    colors = _colors(meshes, path)
    return Mesh(torch.from_numpy(points), torch.from_numpy(faces), colors=None if colors is None else colors[row])


def _fitted(points: np.ndarray, radius: float, path: Path) -> np.ndarray:
    in_range("Shell: fit", radius, 1e-3)
    points = points - 0.5 * (points.min(0) + points.max(0))
    size = float(np.linalg.norm(points, axis=1).max())
    if not size > 0:
        raise InputError(f"{path}: expected a surface with a size, got a point.")
    return points * (radius / size)


def _colors(meshes: list[Any], path: Path) -> Tensor | None:
    """Of the vertices, sRGB-coded, if all parts have them."""
    if any(mesh.visual.kind != "vertex" for mesh in meshes):
        return None
    codes = np.concatenate([np.asarray(mesh.visual.vertex_colors)[:, :3] for mesh in meshes])
    colors = torch.from_numpy(codes.astype(np.float32) / 255)
    return to_srgb(colors) if path.suffix.lower() in (".glb", ".gltf") else colors  # glTF's are linear


def _ball(radius: float) -> Mesh:
    grid = bcc_grid(BALL)
    vertices, faces = marching_tets(grid.vertices.norm(dim=1) - radius, grid.vertices, grid.tets)
    return Mesh(vertices, faces)


@torch.no_grad()
def _drawn(mesh: Mesh, values: Float[Tensor, "V C"], side: int) -> Float[Tensor, "side side C"]:
    """A texture out of values at the vertices of a mesh with UVs."""
    assert mesh.uv is not None  # it was unwrapped
    flat = torch.cat([mesh.uv * side, torch.ones(len(mesh.uv), 1)], dim=1)  # as a camera sees it that sees the texture
    fragments = rasterise(ProjectedVertices(flat[None], side, side), mesh.faces)
    return _spread(interpolate(values, mesh.faces, fragments)[0], fragments.face[0] >= 0)


def _spread(image: Tensor, known: Tensor) -> Tensor:
    """Texels that no triangle covers get the nearest known ones, for bilinear lookups at the charts' rims."""
    from scipy.ndimage import distance_transform_edt

    if not bool(known.any()):
        return image
    nearest = distance_transform_edt(~known.numpy(), return_distances=False, return_indices=True)
    row, column = (torch.from_numpy(index.astype(np.int64)) for index in np.asarray(nearest))
    return image[row, column]


def _make_room(module: Shell, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take the number of vertices and faces that is to be loaded."""
    for name in ("vertices", "faces", "uv"):
        own, saved = getattr(module, name), state.get(prefix + name)
        if isinstance(own, Tensor) and isinstance(saved, Tensor) and saved.shape[1:] == own.shape[1:]:
            own.data = own.data.new_empty(saved.shape)
