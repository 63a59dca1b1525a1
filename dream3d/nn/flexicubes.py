"""Dual extraction from a grid of cubes with weights that are trained: FlexiCubes (arXiv:2308.05371), from the paper.

A cube has a vertex for each piece of surface in it (dual marching cubes, Nielson 2004), and each edge of the grid that
the surface crosses has a quad between the four cubes around it. Values are negative inside; faces are counter-clockwise
seen from outside.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dream3d.checks import in_range

CORNERS = tuple((k & 1, k >> 1 & 1, k >> 2 & 1) for k in range(8))
AROUND = ((0, 0), (1, 0), (1, 1), (0, 1))
"""The two other coordinates of a cube's edges along an axis, counter-clockwise seen from its far end."""
WEIGHTS = 8 + 12 + 1
"""Of a cube: alpha of its corners, beta of its edges, gamma."""
STRENGTH = 0.99
"""How far weights go from their neutral 1 (alpha, beta) or 1/2 (gamma); at 1 quotients could have no denominator."""


def _corner(axis: int, along: int, around: tuple[int, int]) -> int:
    place = {axis: along, (axis + 1) % 3: around[0], (axis + 2) % 3: around[1]}
    return place[0] + 2 * place[1] + 4 * place[2]


EDGES = tuple((_corner(a, 0, uv), _corner(a, 1, uv)) for a in range(3) for uv in AROUND)
"""Corners of the edges of a cube: four along x, four along y, four along z."""
FACES = tuple(tuple(_corner(a, side, uv) for uv in AROUND) for a in range(3) for side in (0, 1))
"""Corners of the faces of a cube, around each: -x, +x, -y, +y, -z, +z."""


class CubeWeights(NamedTuple):
    """What FlexiCubes trains besides values and positions, for each of `C` cubes.

    Attributes:
        alpha: positive; of corners: a large one repels the crossings on its edges.
        beta: positive; of edges: the vertex is drawn to the crossing.
        gamma: positive; along which diagonal quads are split.
    """

    alpha: Float[Tensor, "C 8"]
    beta: Float[Tensor, "C 12"]
    gamma: Float[Tensor, "C"]

    @staticmethod
    def of(raw: Float[Tensor, "C 21"]) -> CubeWeights:
        """Out of numbers of any size; zeros are neutral."""
        weights = 1 + STRENGTH * torch.tanh(raw[:, :20])
        gamma = 0.5 + STRENGTH * (torch.sigmoid(raw[:, 20]) - 0.5)
        return CubeWeights(weights[:, :8], weights[:, 8:], gamma)


class CubesCrossed(NamedTuple):
    """Where the surface runs: `N` pairs of a cube and an edge of it that is crossed, `D` vertices, `Q` quads.

    Attributes:
        edges: of the grid, ends of each pair's.
        cube: of each pair; number as in `CubeWeights`.
        place: which of the cube's edges it is.
        vertex: of the surface, to which the pair belongs.
        owner: the cube of each vertex.
        quads: corners of the surface.
        fans: the four triangles of each quad around a vertex of its own, which comes after the `D` others.
    """

    edges: Int[Tensor, "N 2"]
    cube: Int[Tensor, "N"]
    place: Int[Tensor, "N"]
    vertex: Int[Tensor, "N"]
    owner: Int[Tensor, "D"]
    quads: Int[Tensor, "Q 4"]
    fans: Int[Tensor, "T 3"]


class CubeSurface(NamedTuple):
    """Triangles, and how regular they are.

    Attributes:
        vertices: metres.
        faces: counter-clockwise seen from outside.
        spread: mean absolute deviation of each dual vertex's distances to its crossings, metres: the paper's L_dev.
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    spread: Float[Tensor, "D"]


def cube_grid(resolution: int, *, radius: float = 1.0) -> Float[Tensor, "V 3"]:
    """Corners of cubes over [-radius, radius]^3; index order x, y, z.

    Args:
        resolution: cubes along an axis.
        radius: half the side of the box, metres.
    """
    in_range("cube_grid: resolution", resolution, 2, 512)
    in_range("cube_grid: radius", radius, 1e-6)
    axis = torch.linspace(-radius, radius, resolution + 1)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)


def cubes_crossed(inside: Bool[Tensor, "R R R"]) -> CubesCrossed:
    """The part that does not depend on how large the values are.

    Where the signs of a face's corners alternate, its two inside corners are kept apart; only if then on both sides of
    it one vertex would belong to all four edges, and the edge between these two vertices to four quads, they are joined
    (cases C16 and C19 of the paper; Wenger 2013). So every edge has two faces.

    Args:
        inside: at the corners; none on the border of the grid.
    """
    n = inside.shape[0] - 1
    patches, joined = (table.to(inside.device) for table in _tables())
    case = torch.zeros(n, n, n, dtype=torch.long, device=inside.device)
    for k, (x, y, z) in enumerate(CORNERS):
        case += inside[x : x + n, y : y + n, z : z + n].long() << k
    case = case.view(-1)
    cubes = ((case > 0) & (case < 255)).nonzero()[:, 0]
    some = case[cubes]
    step = torch.tensor([n * n, n, 1], device=inside.device)
    # The cube across the face that joins four edges, where there is one, must want the same.
    face = joined[some]
    across = cubes + step[face.clamp_min(0) >> 1] * ((face & 1) * 2 - 1)
    agree = (face >= 0) & (joined[case[across.clamp(0, len(case) - 1)]] == (face ^ 1))
    patch = patches[agree.long(), some]
    first = torch.cat([cubes.new_zeros(1), (patch.amax(1) + 1).cumsum(0)])
    row, place = (patch >= 0).nonzero(as_tuple=True)
    vertex = first[row] + patch[row, place]
    x, y, z = cubes // (n * n), cubes // n % n, cubes % n
    m = n + 1
    base = (x * m + y) * m + z
    offset = torch.tensor([(x * m + y) * m + z for x, y, z in CORNERS], device=base.device)
    edges = base[row, None] + offset[torch.tensor(EDGES, device=base.device)[place]]
    quads = _quads(edges, place, vertex, inside.reshape(-1))
    owner = cubes.repeat_interleave(first.diff())
    centre = len(owner) + torch.arange(len(quads), device=quads.device)
    fans = torch.cat([torch.stack([quads[:, k], quads[:, (k + 1) % 4], centre], dim=1) for k in range(4)])
    return CubesCrossed(edges, cubes[row], place, vertex, owner, quads, fans)


def cube_surface(
    crossed: CubesCrossed,
    values: Float[Tensor, "V"],
    positions: Float[Tensor, "V 3"],
    weights: CubeWeights,
    *,
    soft: bool = True,
) -> CubeSurface:
    """Vertices and triangles. Differentiable in values, positions and weights.

    Args:
        crossed: from `cubes_crossed`, for values of these signs.
        values: at the grid's corners.
        positions: of these, metres.
        weights: of all cubes.
        soft: four triangles a quad around a vertex that gamma moves, for training; else two, split along
            the diagonal with the larger product of gammas.
    """
    ends = torch.tensor(EDGES, device=values.device)[crossed.place]
    s = values[crossed.edges] * weights.alpha[crossed.cube].gather(1, ends)
    p, q = positions[crossed.edges].unbind(1)
    points = (p * s[:, 1:] - q * s[:, :1]) / (s[:, 1:] - s[:, :1])
    beta = weights.beta[crossed.cube, crossed.place]
    number = len(crossed.owner)
    share = beta / _sums(beta, crossed.vertex, number)[crossed.vertex]
    vertices = _sums(points * share[:, None], crossed.vertex, number)
    spread = _deviations((points - vertices[crossed.vertex]).norm(dim=1), crossed.vertex, number)
    quads, gamma = crossed.quads, weights.gamma[crossed.owner[crossed.quads]]
    even, odd = gamma[:, 0] * gamma[:, 2], gamma[:, 1] * gamma[:, 3]
    if not soft:
        split = torch.where((even >= odd)[:, None], quads, quads.roll(-1, dims=1))
        return CubeSurface(vertices, torch.cat([split[:, [0, 1, 2]], split[:, [0, 2, 3]]]), spread)
    corner = vertices[quads]
    along, athwart = corner[:, [0, 2]].mean(1), corner[:, [1, 3]].mean(1)
    middle = (along * even[:, None] + athwart * odd[:, None]) / (even + odd)[:, None]
    return CubeSurface(torch.cat([vertices, middle]), crossed.fans, spread)


def _quads(edges: Tensor, place: Tensor, vertex: Tensor, inside: Tensor) -> Tensor:
    """Four pairs share an edge of the grid: their vertices in the order of `AROUND`, turned outwards."""
    # Around an edge along +x, the cube in which it is the edge at (0, 0) lies at (+, +), and so on.
    order = ((edges[:, 0] * 3 + place // 4) * 4 + place % 4).argsort()
    quads = vertex[order].view(-1, 4)
    outwards = inside[edges[order[::4], 0]]
    return torch.where(outwards[:, None], quads, quads.flip(1))


def _sums(values: Tensor, rows: Tensor, number: int) -> Tensor:
    return values.new_zeros(number, *values.shape[1:]).index_add(0, rows, values)


def _deviations(distances: Tensor, rows: Tensor, number: int) -> Tensor:
    count = _sums(torch.ones_like(distances), rows, number).clamp_min(1)
    mean = _sums(distances, rows, number) / count
    return _sums((distances - mean[rows]).abs(), rows, number) / count


@functools.cache
def _tables() -> tuple[Int[Tensor, "2 256 12"], Int[Tensor, "256"]]:
    """For each case (bit k: corner k is inside) the piece of surface at each edge, -1 for none, as is and with the
    joining face's inside corners joined; and that face, -1 for none."""
    patches, joined = torch.full((2, 256, 12), -1), torch.full((256,), -1)
    for case in range(256):
        pieces, one = _pieces(case, None)
        patches[:, case] = torch.tensor(pieces)
        if one:
            (face,) = one
            joined[case] = face
            patches[1, case] = torch.tensor(_pieces(case, face)[0])
    return patches, joined


def _pieces(case: int, flipped: int | None) -> tuple[list[int], list[int]]:
    """The piece at each edge, and the ambiguous faces all of whose edges are in one piece."""
    piece = [i if (case >> a ^ case >> b) & 1 else -1 for i, (a, b) in enumerate(EDGES)]
    number = {frozenset(edge): i for i, edge in enumerate(EDGES)}
    ambiguous = []

    def join(i: int, j: int) -> None:
        old, new = piece[i], piece[j]
        piece[:] = [new if k == old else k for k in piece]

    for f, ring in enumerate(FACES):
        inner = [case >> k & 1 for k in ring]
        side = [number[frozenset((ring[k - 1], ring[k]))] for k in range(4)]  # side k ends at corner k
        cut = [i for i in side if piece[i] >= 0]
        if len(cut) == 2:
            join(*cut)
        elif len(cut) == 4:
            ambiguous.append((f, side))
            for k in range(4):
                if inner[k] != (f == flipped):
                    join(side[k], side[(k + 1) % 4])
    names = sorted({k for k in piece if k >= 0})
    pieces = [names.index(k) if k >= 0 else -1 for k in piece]
    return pieces, [f for f, side in ambiguous if len({pieces[i] for i in side}) == 1]
