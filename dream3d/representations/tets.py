"""A surface that can become any other: signed distances on a grid, and triangles out of them at every step."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.checks import InputError, RunError, in_range, one_of
from dream3d.materials.base import Material
from dream3d.materials.plain import Plain
from dream3d.nn.flexicubes import (
    WEIGHTS,
    CubesCrossed,
    CubeSurface,
    CubeWeights,
    cube_grid,
    cube_surface,
    cubes_crossed,
)
from dream3d.nn.paint import Paint
from dream3d.nn.solid import Solid
from dream3d.nn.tets import Crossed, TetGrid, bcc_grid, crossed, crossings, refined
from dream3d.representations.base import Faceted, Representation, Surfaced
from dream3d.representations.painted import baked, inherit
from dream3d.types import Mesh

SLACK = {"tets": 0.2, "flexicubes": 0.45}
"""How far a grid vertex moves along each axis, in cells: no tetrahedron turns over, no two layers of cubes meet."""
DEEPEST = 4.0
"""Distances that a grid starts with end here, in cells: what lies far from the surface must be able to change sign."""
LEAST = 1e-3
"""Distance that the border of the grid keeps from 0, in cells."""


class _Geometry(NamedTuple):
    values: Float[Tensor, "V"]
    positions: Float[Tensor, "V 3"]


@final
class Tets(Faceted):
    """DMTet (arXiv:2111.04276) or FlexiCubes (arXiv:2308.05371): signed distances (negative inside) and offsets of a
    grid's vertices, and a field `paint` of the material's inputs. The triangles are extracted anew at every rendering.

    Distances are kept in cells, so that learning rates mean the same at any resolution.

    Args:
        start: None is a ball. Tets of the same shape hand over their parameters; of anything else the surface is taken
            over (`to_mesh()`), cut off at the box, and its colours, where it has some.
        resolution: cubes of the grid along an axis. 32 "tets" have 68 705 vertices and 393 216 tetrahedra, more than
            what others call a grid of 64.
        radius: half the side of the box, metres.
        extraction: "tets" marches tetrahedra; "flexicubes" has more freedom, for sharp edges, from fewer cubes.
        geometry: "grid" trains distances and offsets themselves; "network" a hash grid with an MLP that is added to
            what the surface starts with (Fantasia3D, arXiv:2303.13873, and Magic3D, arXiv:2211.10440, do either).
        offsets: whether grid vertices move.
        subdivide: how often the tetrahedra around the starting surface are cut into eight, and the others dropped.
        ball: radius of the ball, metres.
        material: whose inputs are painted; None is `Plain`, base colour alone. As in the renderer.
        levels: grids of the hash encodings.
        log2_table: log2 of the rows of a level.
        finest: cells along an axis of the finest grid of the hash encodings.
        hidden: width of the MLPs.
        values_lr_scale: learning rate of the distances (in cells), relative to the stage's.
        offsets_lr_scale: learning rate of the offsets and of FlexiCubes' weights, relative.
        network_lr_scale: learning rate of the MLPs, relative.
    """

    vertices: Tensor
    tets: Tensor
    border: Tensor

    def __init__(
        self,
        start: Representation | None = None,
        *,
        resolution: int = 32,
        radius: float = 1.0,
        extraction: Literal["tets", "flexicubes"] = "tets",
        geometry: Literal["grid", "network"] = "grid",
        offsets: bool = True,
        subdivide: int = 0,
        ball: float = 0.5,
        material: Material | None = None,
        levels: int = 10,
        log2_table: int = 15,
        finest: int = 192,
        hidden: int = 32,
        values_lr_scale: float = 3.0,
        offsets_lr_scale: float = 1.0,
        network_lr_scale: float = 0.2,
    ) -> None:
        super().__init__()
        one_of("Tets: extraction", extraction, SLACK)
        one_of("Tets: geometry", geometry, ("grid", "network"))
        in_range("Tets: radius", radius, 1e-3)
        in_range("Tets: ball", ball, 1e-3, radius)
        in_range("Tets: subdivide", subdivide, 0, 0 if extraction == "flexicubes" else 3)
        self.resolution = resolution
        self.radius = radius
        self.extraction = extraction
        self.subdivide = subdivide
        self.material = material or Plain()
        self.width = self.material.width
        self.lr_scales = {"values": values_lr_scale, "offsets": offsets_lr_scale, "network": network_lr_scale}
        self.paint_field = Paint(
            self.width, radius=radius, levels=levels, log2_table=log2_table, finest=finest, hidden=hidden
        )
        self.network = None
        if geometry == "network":
            self.network = Paint(4, radius=radius, levels=levels, log2_table=log2_table, finest=finest, hidden=hidden)
        self.moved = offsets
        mesh = None if start is None or self._same(start) else start.to_mesh()
        self._lay(*self._grid(mesh, ball), trained=geometry == "grid", moved=offsets)
        self._known: tuple[Tensor, Crossed | CubesCrossed] | None = None
        self._register_load_state_dict_pre_hook(_make_room, with_module=True)
        if mesh is None and start is not None:
            self.load_state_dict(start.state_dict())
        else:
            inherit(self.paint_field, start, mesh)

    def _same(self, start: Representation) -> bool:
        def kind(tets: Tets) -> tuple[object, ...]:
            shapes = [parameter.shape for parameter in tets.paint_field.parameters()]
            grid = (tets.resolution, tets.radius, tets.extraction, tets.subdivide, tets.moved, tets.network is None)
            return (*grid, shapes, tets.paint_field.encoding.spec)

        return isinstance(start, Tets) and kind(self) == kind(start)

    def _grid(self, mesh: Mesh | None, ball: float) -> tuple[TetGrid | Tensor, Tensor]:
        """The grid and the distances at its vertices, in cells."""
        cell = 2 * self.radius / self.resolution
        solid = None if mesh is None else Solid(mesh.vertices, mesh.faces, detail=cell)

        def distances(points: Tensor, cell: float) -> Tensor:
            metres = points.norm(dim=1) - ball if solid is None else solid.signed_distance(points, band=3 * cell)
            return (metres / cell).clamp(-DEEPEST, DEEPEST)

        if self.extraction == "flexicubes":
            points = cube_grid(self.resolution, radius=self.radius)
            return points, distances(points, cell)
        grid = bcc_grid(self.resolution, radius=self.radius)
        values = distances(grid.vertices, grid.cell)
        for _ in range(self.subdivide):
            grid, _ = refined(grid, values)
            values = distances(grid.vertices, grid.cell)
        return grid, values

    def _lay(self, grid: TetGrid | Tensor, values: Tensor, *, trained: bool, moved: bool) -> None:
        kept = self.subdivide > 0  # others are a function of the configuration
        if isinstance(grid, TetGrid):
            vertices, border = grid.vertices, grid.border
            self.register_buffer("tets", grid.tets, persistent=kept)
        else:
            vertices = grid
            border = (vertices.abs().amax(1) > self.radius * (1 - 1e-6)).to(torch.int8)
            self.weights = nn.Parameter(torch.zeros(self.resolution**3, WEIGHTS))
        self.cell = 2 * self.radius / self.resolution / 2**self.subdivide
        self.register_buffer("vertices", vertices, persistent=kept)
        self.register_buffer("border", border, persistent=kept)
        self.values = nn.Parameter(values, requires_grad=trained)
        self.offsets = nn.Parameter(torch.zeros_like(vertices), requires_grad=trained and moved)

    def parameter_groups(self) -> list[dict]:
        scale = self.lr_scales
        groups = self.paint_field.groups(network_lr_scale=scale["network"])
        if self.network is not None:
            groups += self.network.groups(network_lr_scale=scale["network"])
        else:
            groups.append({"params": [self.values], "lr_scale": scale["values"]})
        free = [self.offsets] if self.offsets.requires_grad else []
        free += [self.weights] if self.extraction == "flexicubes" else []
        return [*groups, {"params": free, "lr_scale": scale["offsets"]}] if free else groups

    def _geometry(self) -> _Geometry:
        values, offsets = self.values, self.offsets
        if self.network is not None:
            change = self.network(self.vertices)
            values, offsets = values + change[:, 0], offsets + change[:, 1:]
        bound = self.border.to(values)
        values = torch.where(bound == 0, values, bound * (bound * values).clamp_min(LEAST))
        if not self.moved:
            return _Geometry(values, self.vertices)
        reach = SLACK[self.extraction] * self.cell * (bound == 0)[:, None]
        return _Geometry(values, self.vertices + reach * torch.tanh(offsets))

    @torch.no_grad()
    def _where(self, values: Tensor) -> Crossed | CubesCrossed:
        """Which edges and triangles: found again only when a sign has changed."""
        inside = values < 0
        if self._known is not None:
            before, found = self._known
            if before.device == inside.device and torch.equal(before, inside):
                return found
        if not bool(inside.any()):
            low = float(values.min()) * self.cell
            raise RunError(
                f"no surface: no point of the grid is inside (least distance {low:.3g} m). Lower the learning rate "
                "(values_lr_scale), or start from a larger ball."
            )
        n = self.resolution + 1
        found = crossed(inside, self.tets) if self.extraction == "tets" else cubes_crossed(inside.view(n, n, n))
        self._known = (inside, found)
        return found

    def _extract(self, geometry: _Geometry, *, soft: bool) -> CubeSurface:
        values, positions = geometry
        found = self._where(values.detach())
        if isinstance(found, CubesCrossed):
            return cube_surface(found, values, positions, CubeWeights.of(self.weights), soft=soft)
        vertices = crossings(found.edges, values, positions)
        return CubeSurface(vertices, found.faces, vertices.new_zeros(1))

    def facets(self) -> Mesh:
        extracted = self._extract(self._geometry(), soft=self.training)
        return Mesh(extracted.vertices, extracted.faces)

    def paint(self, points: Float[Tensor, "N 3"], uv: Float[Tensor, "N 2"] | None = None) -> Float[Tensor, "N width"]:
        return self.paint_field(points)

    def ends(self) -> Float[Tensor, "E 2"]:
        """Distances at the ends of the grid's edges that the surface crosses, in cells; differentiable."""
        values = self._geometry().values
        return values[self._where(values.detach()).edges]

    def spread(self) -> Float[Tensor, "D"]:
        """How uneven the crossings lie around each vertex, in cells (FlexiCubes' L_dev); differentiable.

        Raises:
            InputError: the extraction is another.
        """
        if self.extraction != "flexicubes":
            raise InputError("Tets: only flexicubes have a spread; set extraction to flexicubes.")
        return self._extract(self._geometry(), soft=True).spread / self.cell

    def to_mesh(self) -> Mesh:
        mesh, bake = self.surface().mesh, baked(self.paint_field, self.material, self.values.device)
        return Mesh(mesh.vertices, mesh.faces, colors=bake(mesh.vertices).get("base_color"))

    @torch.no_grad()
    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        """As the base says; `iso` is a distance (metres), and the resolution is the grid's own."""
        values, positions = self._geometry()
        level = 0.0 if iso is None else iso / self.cell
        shifted = torch.where(self.border == 0, values - level, values)
        vertices, faces, _ = self._extract(_Geometry(shifted, positions), soft=False)
        return Surfaced(Mesh(vertices.cpu(), faces.cpu()), baked(self.paint_field, self.material, values.device))


def _make_room(module: Tets, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A subdivided grid depends on what it started from: take the number of rows that is to be loaded."""
    if not module.subdivide:
        return
    module._known = None
    for name in ("vertices", "border", "tets", "values", "offsets"):
        own, saved = getattr(module, name), state.get(prefix + name)
        if isinstance(saved, Tensor) and saved.ndim == own.ndim and saved.shape[1:] == own.shape[1:]:
            own.data = own.data.new_empty(saved.shape)
