"""Ambient occlusion of a surface: parallel rays in many directions, one depth picture a direction."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import look_at
from dream3d.checks import in_range
from dream3d.kernels.mesh import project_vertices, rasterise
from dream3d.types import Cameras, Mesh

FAR = 30.0
"""Radii between the object and the camera: rays of one picture are parallel within two degrees."""

CLEAR = 1.5
"""Pixels by which a point is lifted off its surface: half a diagonal suffices on a plane, the rest is for curvature."""


def occlusion(
    points: Float[Tensor, "N 3"],
    normals: Float[Tensor, "N 3"],
    surface: Mesh,
    *,
    directions: int = 128,
    pixels: int = 512,
) -> Float[Tensor, "N 1"]:
    """The cosine-weighted share of the hemisphere over each point that sees out: glTF's occlusion, 1 is open.

    What is narrower than a pixel, that is the object's diameter over `pixels`, casts no shadow. The directions are the
    same for all points: deterministic, and free of noise from texel to texel.

    Args:
        points: on the surface, metres.
        normals: unit, outwards.
        surface: what occludes; both sides of its triangles do.
        directions: over the whole sphere, half of which a point can see.
        pixels: side of the depth pictures.

    Source: Landis, "Production-ready global illumination", SIGGRAPH 2002 course 16 (the weighting).
    """
    in_range("directions", directions, 8)
    in_range("pixels", pixels, 16, 8192)
    vertices = surface.vertices.detach().cpu().float()
    middle = 0.5 * (vertices.amin(0) + vertices.amax(0))
    radius = max(float((vertices - middle).norm(dim=-1).max()), 1e-12)
    # In units of its radius around the origin, so that no constant here depends on the object's size.
    corners, faces = (vertices - middle) / radius, surface.faces.detach().cpu()
    normals = normals.detach().cpu().float()
    lifted = (points.detach().cpu().float() - middle) / radius + normals * (CLEAR * 2 / pixels)
    seen, total = torch.zeros(len(points)), torch.zeros(len(points))
    for camera in _around(directions, pixels):
        cosine = normals @ torch.nn.functional.normalize(camera.position[0], dim=-1)
        above = (cosine > 0).nonzero()[:, 0]
        depth = rasterise(project_vertices(corners, camera), faces).depth[0]
        x, y, w = project_vertices(lifted[above], camera).points[0].unbind(-1)
        column, row = ((v / w).floor().long().clamp(0, pixels - 1) for v in (x, y))
        front = depth[row, column]
        weight = cosine[above]
        total[above] += weight
        seen[above] += weight * ((front == 0) | (w <= front))
    return torch.where(total > 0, seen / total.clamp_min(1e-12), 1.0)[:, None]


def _around(count: int, pixels: int) -> list[Cameras]:
    """Distant views of the unit sphere from everywhere, evenly: Fibonacci's lattice."""
    order = torch.arange(count, dtype=torch.float64)
    y, azimuth = 1 - (2 * order + 1) / count, order * (math.pi * (3 - math.sqrt(5)))
    level = (1 - y * y).sqrt()
    position = FAR * torch.stack([level * azimuth.sin(), y, level * azimuth.cos()], dim=-1).float()
    up = torch.tensor([0.0, 1.0, 0.0]).expand_as(position)
    c2w = look_at(position, torch.zeros_like(position), up)
    fov = torch.full((1,), 2 * math.asin(1.01 / FAR))
    return [Cameras(matrix[None], fov, pixels, pixels) for matrix in c2w]
