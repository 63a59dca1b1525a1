"""The nearest place of a triangle mesh."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

PER_FACE = 4
"""Points a triangle, on average, that are spread over a mesh."""

LEAST = 1 << 14
"""Points that are spread over a mesh of few triangles: they must not stand far apart."""

CANDIDATES = 8
"""Nearest ones of these whose triangles are looked at."""


@final
class NearestPlace:
    """Where a mesh is nearest to a point, among the triangles of the nearest of many points that are spread over it.
    Exact but where two triangles are about equally near: there the distance is off by their spacing at most.

    Args:
        vertices: metres.
        faces: corners.
    """

    def __init__(self, vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> None:
        from scipy.spatial import cKDTree

        self.corners = vertices[faces.long()].detach().cpu().double().numpy()
        a, b, c = (self.corners[:, k] for k in range(3))
        area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
        count = 1 + (max(PER_FACE * len(area), LEAST) * area / max(area.sum(), 1e-300)).astype(np.int64)
        self.face = np.arange(len(area)).repeat(count)
        order = np.arange(len(self.face)) - (count.cumsum() - count).repeat(count)
        # The R2 sequence (Roberts 2018) fills a square evenly; folded over, it fills a triangle.
        u, v = (np.mod(0.5 + order * step, 1.0) for step in (0.7548776662466927, 0.5698402909980532))
        over = u + v > 1
        u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
        shares = np.stack([1 - u - v, u, v], axis=1)
        shares[order == 0] = 1 / 3
        self.tree = cKDTree((self.corners[self.face] * shares[..., None]).sum(1))

    def __call__(self, points: Float[Tensor, "N 3"]) -> tuple[Int[Tensor, "N"], Float[Tensor, "N 3"]]:
        """Faces and barycentrics."""
        p = points.detach().cpu().double().numpy()
        face = self.face[self.tree.query(p, k=min(CANDIDATES, len(self.face)))[1].reshape(len(p), -1)]
        shares = _nearest_shares(self.corners[face], p[:, None])
        away = np.linalg.norm((self.corners[face] * shares[..., None]).sum(2) - p[:, None], axis=-1)
        best = (np.arange(len(p)), away.argmin(1))
        return torch.from_numpy(face[best]).to(points.device), torch.from_numpy(shares[best]).to(points)


def _nearest_shares(corners: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Barycentrics (*N, 3) of the places of triangles (*N, 3, 3) that are nearest to points (*N, 3): inside, or on the
    nearest edge."""
    a, b, c = (corners[..., k, :] for k in range(3))

    def dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x * y).sum(-1)

    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11, d20, d21 = dot(ab, ab), dot(ab, ac), dot(ac, ac), dot(ap, ab), dot(ap, ac)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-300)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inside = np.stack([1 - v - w, v, w], axis=-1)
    best, far = inside, np.where((inside >= 0).all(-1), -1.0, np.inf)
    for k in range(3):
        start, end = corners[..., k, :], corners[..., (k + 1) % 3, :]
        way = end - start
        t = np.clip(dot(p - start, way) / np.maximum(dot(way, way), 1e-300), 0, 1)
        away = dot(start + t[..., None] * way - p, start + t[..., None] * way - p)
        edge = np.zeros_like(inside)
        edge[..., k], edge[..., (k + 1) % 3] = 1 - t, t
        nearer = away < far
        best, far = np.where(nearer[..., None], edge, best), np.where(nearer, away, far)
    return best
