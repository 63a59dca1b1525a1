"""Normals that are finer than the surface: normal maps and bumps."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def tangent_space(
    normal: Float[Tensor, "*N 3"], tangent: Float[Tensor, "*N 4"], code: Float[Tensor, "*N 3"]
) -> Float[Tensor, "*N 3"]:
    """World normals out of a normal map, as glTF has them: +Y up, flat is (0.5, 0.5, 1).

    Args:
        normal: unit; smooth normals of the mesh.
        tangent: unit along +u, and the handedness ±1 (`texturing.tangents`).
        code: texels in [0, 1].
    """
    local = 2 * code - 1
    bitangent = tangent[..., 3:] * torch.linalg.cross(normal, tangent[..., :3])
    world = local[..., :1] * tangent[..., :3] + local[..., 1:2] * bitangent + local[..., 2:] * normal
    return functional.normalize(world, dim=-1)


def gradient_bump(normal: Float[Tensor, "*N 3"], slope: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Normals of the surface after it is raised by a height whose gradient in space is `slope` (Blinn 1978).

    Only the part of the slope within the surface counts (Mikkelsen 2010): no UVs and no tangents are needed. To first
    order in height over the radius of curvature.

    Args:
        normal: unit.
        slope: metres of height a metre, world space.
    """
    along = slope - normal * (slope * normal).sum(-1, keepdim=True)
    return functional.normalize(normal - along, dim=-1)


def facing(normal: Float[Tensor, "*N 3"], view: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Normals turned just far enough to be seen: smooth and bumped normals may look away where the surface does not."""
    cosine = (normal * view).sum(-1, keepdim=True)
    return functional.normalize(normal - cosine.clamp_max(0) * view, dim=-1)
