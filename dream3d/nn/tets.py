"""Tetrahedral grids of our own, and marching tetrahedra: differentiable, without a duplicated vertex.

Values are negative inside. Faces are counter-clockwise seen from outside.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from dream3d.checks import in_range

EDGES = tuple(itertools.combinations(range(4), 2))
"""Of a tetrahedron: its corners in pairs."""


@dataclass(frozen=True)
class TetGrid:
    """Tetrahedra that fill a region.

    Args:
        vertices: metres.
        tets: corners, with positive volumes.
        border: the sign that the value of a vertex must keep, so that no surface leaves the region; 0 for any.
        cell: side of the cubes of the lattice from which the tetrahedra come, metres.
    """

    vertices: Float[Tensor, "V 3"]
    tets: Int[Tensor, "T 4"]
    border: Int8[Tensor, "V"]
    cell: float


class Crossed(NamedTuple):
    """Where the surface runs.

    Attributes:
        edges: of the grid, from inside to outside; each holds one vertex of the surface.
        faces: corners as rows of `edges`.
    """

    edges: Int[Tensor, "E 2"]
    faces: Int[Tensor, "F 3"]


def bcc_grid(resolution: int, *, radius: float = 1.0) -> TetGrid:
    """The body-centred cubic lattice over [-radius, radius]^3: corners and middles of cubes, 12 tetrahedra a cube.

    All of them are alike, with dihedral angles of 60 and 90 degrees, which is why isosurface stuffing (Labelle and
    Shewchuk 2007) takes this lattice; only at the walls, where cubes have no neighbour, are there halves of pyramids.
    The walls' own vertices are outside for ever.

    Args:
        resolution: cubes along an axis; 32 has 68 705 vertices.
        radius: half the side of the box, metres.
    """
    in_range("bcc_grid: resolution", resolution, 2, 256)
    in_range("bcc_grid: radius", radius, 1e-6)
    n, cell = resolution, 2 * radius / resolution
    axis = torch.arange(n + 1, dtype=torch.float64)
    points = torch.cat([_lattice(axis), _lattice(axis[:-1] + 0.5)]) * cell - radius
    corners = torch.arange((n + 1) ** 3).view(n + 1, n + 1, n + 1)
    middles = len(corners.view(-1)) + torch.arange(n**3).view(n, n, n)
    parts = []
    for a in range(3):
        corner, middle = corners.movedim(a, 0), middles.movedim(a, 0)
        ring = [corner[:, :-1, :-1], corner[:, 1:, :-1], corner[:, 1:, 1:], corner[:, :-1, 1:]]
        # Two middles on either side of a face, with one of its edges.
        parts += [(middle[:-1], middle[1:], ring[k][1:-1], ring[k - 1][1:-1]) for k in range(4)]
        for end, plane in ((0, 0), (-1, -1)):
            a0, b0, c0, d0 = (r[plane] for r in ring)
            parts += [(middle[end], a0, b0, c0), (middle[end], a0, c0, d0)]
    tets = torch.cat([torch.stack([x.reshape(-1) for x in part], dim=1) for part in parts])
    border = (points.abs().amax(1) > radius * (1 - 1e-9)).to(torch.int8)
    return TetGrid(points.float(), _upright(points, tets).to(torch.int32), border, cell)


def refined(grid: TetGrid, values: Float[Tensor, "V"]) -> tuple[TetGrid, Float[Tensor, "W"]]:
    """The tetrahedra that the surface crosses and all that touch them, each cut into eight; the rest is dropped.

    DMTet's volume subdivision (arXiv:2111.04276). Halves of BCC tetrahedra are BCC tetrahedra. The surface
    can move within what is kept: there the border takes the sign that it has.

    Args:
        grid: any.
        values: at its vertices; new vertices, in the middles of edges, get the mean of both ends.
    """
    tets = grid.tets.long()
    inside = values.detach() < 0
    touched = torch.zeros_like(inside)
    touched[tets[_mixed(inside, tets)]] = True
    tets = tets[touched[tets].any(1)]
    used, tets = tets.unique(return_inverse=True)
    pairs = tets[:, EDGES].reshape(-1, 2).sort(1).values
    edges, middle = _unique_rows(pairs, len(used))
    m = len(used) + middle.view(-1, 6)
    new = torch.cat([torch.stack(part, dim=1) for part in _eighths(tets, m)])
    points = grid.vertices[used]
    points = torch.cat([points, points[edges].mean(1)])
    kept = values[used]
    kept = torch.cat([kept, kept[edges].mean(1)])
    new = _upright(points, new)
    border = torch.cat([grid.border[used], grid.border.new_zeros(len(edges))])
    rim = _rim(new, len(points))
    border[rim] = torch.where(kept[rim] < 0, -1, 1).to(torch.int8)
    return TetGrid(points, new.to(torch.int32), border, 0.5 * grid.cell), kept


def crossed(inside: Bool[Tensor, "V"], tets: Int[Tensor, "T 4"]) -> Crossed:
    """Marching tetrahedra's part that does not depend on how large the values are: which edges, which triangles."""
    some = tets[_mixed(inside, tets)].long()
    corner = inside[some]
    case = (corner * torch.tensor([1, 2, 4, 8], device=corner.device)).sum(1)
    ends, states = some[:, EDGES], corner[:, EDGES]
    cut = states[..., 0] != states[..., 1]
    # From inside to outside, whatever the tetrahedron's own order is.
    edges, row = _unique_rows(torch.where(states[cut][:, :1], ends[cut], ends[cut].flip(1)), len(inside))
    rows = torch.full(cut.shape, -1, device=row.device).masked_scatter(cut, row)
    one, two = (table.to(rows.device) for table in _triangles())
    alone = one[case, 0] >= 0
    pair = two[case, 0, 0] >= 0
    faces = rows[alone].gather(1, one[case[alone]])
    quads = rows[pair].gather(1, two[case[pair]].flatten(1)).view(-1, 3)
    return Crossed(edges, torch.cat([faces, quads]))


def crossings(
    edges: Int[Tensor, "E 2"], values: Float[Tensor, "V"], positions: Float[Tensor, "V 3"]
) -> Float[Tensor, "E 3"]:
    """Where values that are linear along the edges are 0. Differentiable in values and positions.

    Args:
        edges: whose ends have different signs.
        values: at the grid's vertices.
        positions: of the grid's vertices, metres.
    """
    a, b = values[edges].unsqueeze(-1).unbind(dim=1)
    p, q = positions[edges].unbind(dim=1)
    return (p * b - q * a) / (b - a)


def marching_tets(
    values: Float[Tensor, "V"], positions: Float[Tensor, "V 3"], tets: Int[Tensor, "T 4"]
) -> tuple[Float[Tensor, "E 3"], Int[Tensor, "F 3"]]:
    """The surface where the values are 0: vertices and faces (DMTet, arXiv:2111.04276).

    Each grid edge with a change of sign holds one vertex, so there are no duplicates, and the surface is closed
    wherever it does not meet the border of the tetrahedra.

    Args:
        values: negative inside.
        positions: metres, the grid's or moved ones; no tetrahedron may have turned over.
        tets: with positive volumes.
    """
    edges, faces = crossed(values.detach() < 0, tets)
    return crossings(edges, values, positions), faces


def _lattice(axis: Tensor) -> Tensor:
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)


def _mixed(inside: Tensor, tets: Tensor) -> Tensor:
    """Numbers of the tetrahedra with corners on both sides."""
    # Four bytes are one word: several times as fast as `any` and `all` over corners, and this looks at all of them.
    word = inside.to(torch.int8).index_select(0, tets.reshape(-1)).view(torch.int32)
    return ((word != 0) & (word != 0x01010101)).nonzero()[:, 0]


def _upright(points: Tensor, tets: Tensor) -> Tensor:
    """With positive volumes; corners 0 and 1 stay in front, which `refined` counts on."""
    p = points[tets]
    volume = torch.linalg.det(p[:, 1:] - p[:, :1])
    return torch.where((volume < 0)[:, None], tets[:, [0, 1, 3, 2]], tets)


def _unique_rows(pairs: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Different rows of pairs of numbers below `number`, and for each row which one it is."""
    keys, which = (pairs[:, 0] * number + pairs[:, 1]).unique(return_inverse=True)
    return torch.stack([keys // number, keys % number], dim=1), which


def _eighths(tets: Tensor, middle: Tensor) -> list[tuple[Tensor, ...]]:
    """Four tetrahedra at the corners, and four around the diagonal of the octahedron that is left, from the middle of
    edge 01 to that of 23: in a BCC grid these are its longest edges and this is its shortest diagonal."""
    a, b, c, d = tets.unbind(1)
    ab, ac, ad, bc, bd, cd = middle.unbind(1)
    corners = [(a, ab, ac, ad), (ab, b, bc, bd), (ac, bc, c, cd), (ad, bd, cd, d)]
    return corners + [(ab, cd, *side) for side in ((ac, bc), (bc, bd), (bd, ad), (ad, ac))]


def _rim(tets: Tensor, number: int) -> Tensor:
    """Vertices of the triangles that belong to one tetrahedron only."""
    sides = torch.cat([tets[:, [i for i in range(4) if i != k]] for k in range(4)]).sort(1).values
    _, pair = _unique_rows(sides[:, :2], number)
    _, which, count = (pair * number + sides[:, 2]).unique(return_inverse=True, return_counts=True)
    return sides[count[which] == 1].unique()


@functools.cache
def _triangles() -> tuple[Int[Tensor, "16 3"], Int[Tensor, "16 2 3"]]:
    """For each case (bit k: corner k is inside) the edges of its one triangle, or of its two; -1 where it has none."""
    one, two = torch.full((16, 3), -1), torch.full((16, 2, 3), -1)
    corner = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    number = {frozenset(edge): i for i, edge in enumerate(EDGES)}
    for case in range(1, 15):
        inner = [k for k in range(4) if case >> k & 1]
        outer = [k for k in range(4) if k not in inner]
        ring = [(i, j) for i in inner for j in outer]
        if len(ring) == 4:
            ring[2], ring[3] = ring[3], ring[2]  # consecutive edges share a corner
        middle = torch.stack([corner[list(edge)].mean(0) for edge in ring])
        normal = torch.linalg.cross(middle[1] - middle[0], middle[2] - middle[0])
        if torch.dot(normal, corner[outer].mean(0) - corner[inner].mean(0)) < 0:
            ring.reverse()
        rows = torch.tensor([number[frozenset(edge)] for edge in ring])
        if len(ring) == 3:
            one[case] = rows
        else:
            two[case] = torch.stack([rows[:3], rows[[0, 2, 3]]])
    return one, two
