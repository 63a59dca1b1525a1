"""Surfaces out of depth pictures of a ball and of a ring, which are known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dream3d.checks import RunError
from dream3d.meshing import clean, topology
from dream3d.nn.fusion import Views, around, fuse, point_cloud, poisson
from dream3d.nn.isosurface import isosurface
from dream3d.types import Cameras

RESOLUTION = 32
CELL = 2 / RESOLUTION
CPU = torch.device("cpu")


def ball(points: Tensor) -> Tensor:
    return points.norm(dim=-1) - 0.6


def ring(points: Tensor) -> Tensor:
    return ((points[..., [0, 2]].norm(dim=-1) - 0.55).square() + points[..., 1].square()).sqrt() - 0.22


def traced(distance, cameras: Cameras) -> Views:
    """Depth pictures of what a distance function describes."""
    origins, directions = cameras.rays()
    length = torch.zeros_like(directions[..., 0])
    for _ in range(60):
        length += distance(origins + length[..., None] * directions).clamp(max=0.5)
    hit = distance(origins + length[..., None] * directions).abs() < 1e-3
    depth = -length * (directions * cameras.c2w[:, None, None, :3, 2]).sum(-1)
    return Views(depth, torch.zeros_like(depth), hit.float())


@pytest.mark.parametrize("distance, most", [(ball, 0.08), (ring, 0.16)])
def test_fused_distances_are_zero_at_the_surface(distance, most: float) -> None:
    """To a fraction of a cell, closed, and with the right sign inside, where no camera sees."""
    values = fuse(lambda cameras: traced(distance, cameras), 1.0, RESOLUTION, CPU)
    assert values.shape == (RESOLUTION + 1,) * 3
    mesh = clean(isosurface(values, 0.0, 1.0))
    assert topology(mesh).watertight and topology(mesh).components == 1
    assert float(distance(mesh.vertices).abs().mean()) < most * CELL
    axis = torch.linspace(-1, 1, RESOLUTION + 1)
    true = distance(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1))
    sure = true.abs() > CELL
    assert float(((values > 0) == (true < 0))[sure].float().mean()) > 0.9995


@pytest.mark.parametrize("distance", [ball, ring])
def test_poisson_goes_through_the_points(distance) -> None:
    points, normals = point_cloud(lambda cameras: traced(distance, cameras), 1.0, RESOLUTION, CPU, views=12)
    assert float(distance(points).abs().max()) < 1e-2
    outside = distance(points + 0.05 * normals) - distance(points - 0.05 * normals)
    assert float(outside.min()) > 0.08
    mesh = isosurface(poisson(points, normals, 1.0, RESOLUTION), 0.0, 1.0)
    assert topology(mesh).watertight and topology(mesh).components == 1
    assert float(distance(mesh.vertices).abs().mean()) < 0.25 * CELL


def test_poisson_closes_a_hole() -> None:
    """A ball without its cap: the surface goes on smoothly, and how dense the points are does not matter."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(30000, 3, generator=generator), dim=-1)
    normals = normals[(normals[:, 1] < 0.9) & ((normals[:, 0] < 0) | (torch.arange(30000) % 10 == 0))]
    mesh = isosurface(poisson(0.6 * normals, normals, 1.0, RESOLUTION), 0.0, 1.0)
    assert topology(mesh).watertight and float(ball(mesh.vertices).abs().max()) < CELL


def test_pixels_that_mix_depths_have_no_say() -> None:
    """A camera that is unsure everywhere changes nothing but what it would have carved."""

    def unsure(cameras: Cameras) -> Views:
        found = traced(ball, cameras)
        return Views(found.depth + 0.3, torch.full_like(found.depth, 1.0), torch.ones_like(found.alpha))

    with pytest.raises(RunError, match="no picture shows anything solid"):
        poisson(*point_cloud(unsure, 1.0, 16, CPU, views=4), 1.0, 16)
    assert bool((fuse(unsure, 1.0, 16, CPU, views=4) > 0).any())


def test_cameras_are_all_around() -> None:
    cameras = around(24, 1.0, 8)
    away = torch.nn.functional.normalize(cameras.position, dim=-1)
    assert float(away.mean(0).norm()) < 0.05
    nearest = (away @ away.t() - 2 * torch.eye(24)).amax(0).acos()
    assert float(nearest.min()) > 0.6 * math.sqrt(4 * math.pi / 24)
