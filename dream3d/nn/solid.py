"""A triangle mesh as a solid: nearest points, winding numbers, signed distances. For any soup of triangles, on the CPU.

Nothing here is differentiable; all of it is deterministic.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from dream3d.checks import InputError, in_range

Array = NDArray[np.float64]

PIECES = 400_000
"""Most pieces that triangles are cut into."""
NEAREST = 8
"""Pieces whose triangles are looked at exactly for the nearest point."""
OPENING = 2.0
"""A cluster of pieces acts as one from so many of its radii away."""
FANOUT = 8
"""Pieces in a cluster, clusters in the next larger one."""
BLOCKS = (8, 16, 32)
"""Blocks along an axis in which points are looked for that have one sign."""
NEIGHBOURS = 15
"""Of a point in a body-centred cubic lattice, with itself."""
PAIRS = 1 << 20
"""Pairs of a point and a cluster that are looked at together: bounds the memory."""


class Nearest(NamedTuple):
    """Points of the surface nearest to `N` points, in their type and on their device.

    Attributes:
        distance: metres.
        face: whose triangle.
        weights: barycentric, of the face's corners.
    """

    distance: Float[Tensor, "N"]
    face: Int[Tensor, "N"]
    weights: Float[Tensor, "N 3"]


class _Clusters(NamedTuple):
    middle: Array
    area: Array  # vectors
    radius: Array


@final
class Solid:
    """Cuts large triangles into pieces no longer than `detail`, and clusters those.

    Args:
        vertices: metres.
        faces: corners. As a whole they should look outwards; a mesh of negative volume is turned over.
        detail: metres; None is a hundredth of the diagonal. Nearest points are exact but where several triangles meet
            within less than it.

    Raises:
        InputError: a vertex is not finite, or no triangle has an area.
    """

    def __init__(
        self, vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], *, detail: float | None = None
    ) -> None:
        from scipy.spatial import cKDTree

        points = vertices.detach().cpu().double().numpy()
        if not np.isfinite(points).all():
            raise InputError("Solid: expected finite vertices, got NaN or infinity.")
        corners = points[faces.detach().cpu().long().numpy()]
        if not len(corners) or not (_areas(corners) ** 2).sum(1).max() > 0:
            raise InputError(f"Solid: expected triangles with an area, got {len(corners)} without.")
        self.corners = corners
        diagonal = float(np.linalg.norm(np.ptp(corners.reshape(-1, 3), axis=0)))
        in_range("Solid: detail", detail or diagonal / 100, 1e-9)
        pieces, self._face = _cut(corners, detail or diagonal / 100)
        order = _along_a_curve(pieces.mean(1))
        self._pieces, self._face = pieces[order], self._face[order]
        self._tree = cKDTree(self._pieces.mean(1))
        centred = corners - corners.reshape(-1, 3).mean(0)
        volume = (centred[:, 0] * np.cross(centred[:, 1], centred[:, 2])).sum()
        self._turn = -1.0 if volume < 0 else 1.0

    @cached_property
    def _levels(self) -> list[_Clusters]:
        """For signs alone: who asks for nearest points does not pay for them."""
        return _clustered(self._pieces)

    def nearest(self, points: Float[Tensor, "N 3"]) -> Nearest:
        """The nearest points of the surface.

        Args:
            points: metres.
        """
        at = _double(points)
        k = min(NEAREST, len(self._pieces))
        face = self._face[np.asarray(self._tree.query(at, k=k)[1]).reshape(len(at), k)]
        weights = _closest(at[:, None], self.corners[face])
        found = np.einsum("nkc,nkcd->nkd", weights, self.corners[face])
        distance = np.linalg.norm(found - at[:, None], axis=2)
        best = distance.argmin(1)
        row = np.arange(len(at))
        return Nearest(
            torch.from_numpy(distance[row, best]).to(points),
            torch.from_numpy(face[row, best]).long().to(points.device),
            torch.from_numpy(weights[row, best]).to(points),
        )

    def winding(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """How often the surface winds around each point: 1 inside, 0 outside, and in between where it has holes.

        Jacobson et al. 2013. Far clusters act as one dipole, as in Barill et al. 2018 (first order), which costs a few
        thousandths of accuracy; pieces nearby count with their solid angles.
        """
        at = _double(points)
        total = np.zeros(len(at))
        for start in range(0, len(at), PAIRS // 64):
            some = slice(start, start + PAIRS // 64)
            total[some] = self._winding(at[some])
        return torch.from_numpy(self._turn * total).float()

    def signed_distance(self, points: Float[Tensor, "N 3"], *, band: float) -> Float[Tensor, "N"]:
        """Distance to the surface, negative where the winding number is above 1/2.

        Args:
            points: metres.
            band: how far from the surface distances are exact; beyond, they are those to the nearest piece's middle.
        """
        at = _double(points)
        distance, _ = self._tree.query(at)
        close = distance < band + self._reach
        inside = self._inside(at, distance)
        if close.any():
            distance[close] = self.nearest(torch.from_numpy(at[close])).distance.double().numpy()
        return torch.from_numpy(np.where(inside, -distance, distance)).float()

    @property
    def _reach(self) -> float:
        return float(self._levels[0].radius.max())

    def _inside(self, at: Array, distance: Array) -> NDArray[np.bool_]:
        """A point has the sign of all that are nearer to it than the surface is: few need their winding number."""
        room = distance - self._reach
        spokesman = np.arange(len(at))
        left = spokesman.copy()
        for cells in BLOCKS:
            head = _heads(at[left], room[left], cells)
            spokesman[left] = left[head]
            left = left[head == np.arange(len(left))]
        group = _together(at[left], room[left])
        one = np.unique(group, return_index=True)[1]
        inside = np.zeros(len(at), dtype=bool)
        inside[left] = (self.winding(torch.from_numpy(at[left[one]])).numpy() > 0.5)[group]
        # A spokesman of one round may have had one in the next.
        for _ in BLOCKS:
            spokesman = spokesman[spokesman]
        return inside[spokesman]

    def _winding(self, at: Array) -> Array:
        total = np.zeros(len(at))
        top = len(self._levels) - 1
        count = len(self._levels[top].radius)
        row, node = np.repeat(np.arange(len(at)), count), np.tile(np.arange(count), len(at))
        for level in range(top, -1, -1):
            cluster = self._levels[level]
            gap = cluster.middle[node] - at[row]
            square = np.einsum("nd,nd->n", gap, gap)
            far = square > (OPENING * cluster.radius[node]) ** 2
            dipole = np.einsum("nd,nd->n", gap[far], cluster.area[node[far]]) / np.maximum(square[far], 1e-60) ** 1.5
            total += np.bincount(row[far], dipole, minlength=len(at))
            row, node = row[~far], node[~far]
            if level:
                below = len(self._levels[level - 1].radius)
                row, node = row.repeat(FANOUT), (node[:, None] * FANOUT + np.arange(FANOUT)).reshape(-1)
                row, node = row[node < below], node[node < below]
        total += np.bincount(row, _solid_angles(self._pieces[node] - at[row, None]), minlength=len(at))
        return total / (4 * math.pi)


def _heads(at: Array, room: Array, cells: int) -> NDArray[np.int64]:
    """For each point one that has its sign: where a block lies within the room of one of its points that one, else
    itself."""
    side = max(float(np.ptp(at, axis=0).max()), 1e-9)
    cell = np.minimum(((at - at.min(0)) * (cells / side)).astype(np.int64), cells - 1)
    block = np.unique((cell[:, 0] * cells + cell[:, 1]) * cells + cell[:, 2], return_inverse=True)[1]
    order = np.lexsort((-room, block))
    head = order[np.flatnonzero(np.diff(block[order], prepend=-1))]
    reach = np.zeros(len(head))
    np.maximum.at(reach, block, np.linalg.norm(at - at[head[block]], axis=1))
    return np.where((reach < room[head])[block], head[block], np.arange(len(at)))


def _together(at: Array, room: Array) -> NDArray[np.int64]:
    """Numbers the groups of points that have one sign because they are in one another's room."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    k = min(NEIGHBOURS, len(at))
    gap, other = (np.asarray(x).reshape(len(at), k) for x in cKDTree(at).query(at, k=k))
    row, column = np.nonzero(gap < np.maximum(room[:, None], room[other]))
    graph = coo_matrix((np.ones(len(row), dtype=np.int8), (row, other[row, column])), shape=(len(at), len(at)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _double(points: Tensor) -> Array:
    return points.detach().cpu().double().numpy()


def _areas(corners: Array) -> Array:
    return 0.5 * np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _cut(corners: Array, detail: float) -> tuple[Array, NDArray[np.int64]]:
    """Triangles halved at their longest edges until those are short, and which triangle each comes from."""
    faces = np.arange(len(corners))
    done: list[tuple[Array, NDArray[np.int64]]] = []
    count = 0
    while len(corners):
        edges = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=2)
        long = edges.max(1) > detail
        done.append((corners[~long], faces[~long]))
        count += int((~long).sum())
        corners, faces, longest = corners[long], faces[long], edges[long].argmax(1)
        if count + 2 * len(corners) > PIECES:
            done.append((corners, faces))
            break
        turned = np.take_along_axis(corners, ((longest[:, None] + np.arange(3)) % 3)[:, :, None], axis=1)
        a, b, c = turned[:, 0], turned[:, 1], turned[:, 2]
        middle = 0.5 * (a + b)
        corners = np.concatenate([np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)])
        faces = np.concatenate([faces, faces])
    return np.concatenate([part for part, _ in done]), np.concatenate([part for _, part in done])


def _along_a_curve(points: Array) -> NDArray[np.int64]:
    """An order in which neighbours in the list are neighbours in space (Morton 1966)."""
    low = points.min(0)
    cell = ((points - low) * (1023 / max(float(np.ptp(points, axis=0).max()), 1e-12))).astype(np.int64)
    key = np.zeros(len(points), dtype=np.int64)
    for bit in range(10):
        for axis in range(3):
            key |= (cell[:, axis] >> bit & 1) << (3 * bit + axis)
    return key.argsort(kind="stable")


def _clustered(pieces: Array) -> list[_Clusters]:
    """From the pieces themselves to a handful of clusters, each of `FANOUT` consecutive ones of the level below."""
    area, middle = _areas(pieces), pieces.mean(1)
    levels = [_Clusters(middle, area, np.linalg.norm(pieces - middle[:, None], axis=2).max(1))]
    while len(levels[-1].radius) > FANOUT:
        below = levels[-1]
        first = np.arange(0, len(below.radius), FANOUT)
        size = np.linalg.norm(below.area, axis=1) + 1e-30
        weight = np.add.reduceat(size, first)
        middle = np.add.reduceat(below.middle * size[:, None], first) / weight[:, None]
        group = np.arange(len(below.radius)) // FANOUT
        reach = np.linalg.norm(below.middle - middle[group], axis=1) + below.radius
        levels.append(_Clusters(middle, np.add.reduceat(below.area, first), np.maximum.reduceat(reach, first)))
    return levels


def _solid_angles(triangles: Array) -> Array:
    """Of triangles seen from the origin, positive from within (van Oosterom and Strackee 1983)."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
    volume = (a * np.cross(b, c)).sum(1)
    below = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
    return 2 * np.arctan2(volume, below)


def _closest(points: Array, corners: Array) -> Array:
    """Barycentric weights of the points of triangles that are nearest to points (Ericson 2005, section 5.1.5)."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    ab, ac, ap = b - a, c - a, points - a
    d1, d2 = (ab * ap).sum(-1), (ac * ap).sum(-1)
    d3, d4 = d1 - (ab * ab).sum(-1), d2 - (ab * ac).sum(-1)
    d5, d6 = d1 - (ab * ac).sum(-1), d2 - (ac * ac).sum(-1)
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2

    def share(part: Array, whole: Array) -> Array:
        return np.clip(part / np.where(np.abs(whole) < 1e-300, 1.0, whole), 0, 1)

    zero, one = np.zeros_like(d1), np.ones_like(d1)
    w, v, u = share(d4 - d3, (d4 - d3) + (d5 - d6)), share(d1, d1 - d3), share(d2, d2 - d6)
    total = np.where(va + vb + vc == 0, 1.0, va + vb + vc)
    choices = [
        ((d1 <= 0) & (d2 <= 0), (one, zero, zero)),
        ((d3 >= 0) & (d4 <= d3), (zero, one, zero)),
        ((d6 >= 0) & (d5 <= d6), (zero, zero, one)),
        ((vc <= 0) & (d1 >= 0) & (d3 <= 0), (1 - v, v, zero)),
        ((vb <= 0) & (d2 >= 0) & (d6 <= 0), (1 - u, zero, u)),
        ((va <= 0) & (d4 >= d3) & (d5 >= d6), (zero, 1 - w, w)),
    ]
    inner = (va / total, vb / total, vc / total)
    picked = [np.select([when for when, _ in choices], [what[i] for _, what in choices], inner[i]) for i in range(3)]
    return np.clip(np.stack(picked, axis=-1), 0, 1)
