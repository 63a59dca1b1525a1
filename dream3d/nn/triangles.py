"""Measures of triangle meshes that are differentiable in the vertices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

FLATTEST = 1e-3
"""Smallest sine of an angle whose cotangent is taken at its word."""


class MeshEdges(NamedTuple):
    """The edges of a mesh, each once.

    Attributes:
        ends: its vertices.
        faces: two that share it, if exactly two do, else -1.
    """

    ends: Int[Tensor, "E 2"]
    faces: Int[Tensor, "E 2"]


def mesh_edges(faces: Int[Tensor, "F 3"], vertices: int) -> MeshEdges:
    """The edges of the faces of a mesh with so many vertices."""
    faces = faces.long()
    pairs = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(1).values
    keys, which, count = (pairs[:, 0] * vertices + pairs[:, 1]).unique(return_inverse=True, return_counts=True)
    owner = torch.arange(len(faces), device=faces.device).repeat(3)[which.argsort(stable=True)]
    first = count.cumsum(0) - count
    both = torch.stack([owner[first], owner[(first + 1).clamp_max(len(owner) - 1)]], dim=1)
    both = torch.where((count == 2)[:, None], both, -1)
    return MeshEdges(torch.stack([keys // vertices, keys % vertices], dim=1), both)


def face_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "F 3"]:
    """Unit, outwards where faces are counter-clockwise seen from outside; zero where there is no area."""
    a, b, c = vertices[faces.long()].unbind(1)
    return functional.normalize(torch.linalg.cross(b - a, c - a), dim=1, eps=1e-20)


def uniform_laplacian(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "V 3"]:
    """From each vertex to the mean of its neighbours, metres; 0 for a vertex without any."""
    ends = mesh_edges(faces, len(vertices)).ends
    a, b = torch.cat([ends, ends.flip(1)]).unbind(1)
    total = torch.zeros_like(vertices).index_add(0, a, vertices[b])
    count = torch.zeros_like(vertices[:, 0]).index_add(0, a, torch.ones_like(vertices[a, 0]))
    return torch.where(count[:, None] > 0, total / count.clamp_min(1)[:, None] - vertices, 0)


def cotangent_laplacian(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "V 3"]:
    """Twice the mean curvature times the normal inwards, 1/metre (Meyer et al. 2003, equation 8, with thirds of areas).

    Angles and areas count as constants: gradients come from the differences of positions alone, as in implicit fairing
    (Desbrun et al. 1999). It sees the shape and not how it is triangulated, as the uniform one does.
    """
    faces = faces.long()
    fixed = vertices.detach()[faces]
    areas = torch.zeros_like(vertices[:, 0])
    total = torch.zeros_like(vertices)
    for k in range(3):
        to, back = fixed[:, (k + 1) % 3] - fixed[:, k], fixed[:, k - 1] - fixed[:, k]
        twice = torch.linalg.cross(to, back).norm(dim=1)
        areas = areas.index_add(0, faces[:, k], twice / 6)
        cot = (to * back).sum(1) / twice.clamp_min(FLATTEST * to.norm(dim=1) * back.norm(dim=1)).clamp_min(1e-20)
        i, j = faces[:, (k + 1) % 3], faces[:, k - 1]
        pull = 0.5 * cot[:, None] * (vertices[j] - vertices[i])
        total = total.index_add(0, i, pull).index_add(0, j, -pull)
    return total / areas.clamp_min(1e-12)[:, None]
