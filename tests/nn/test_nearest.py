"""The nearest points of a solid against all points of it."""

from __future__ import annotations

import pytest
import torch

from dream3d.nn.solid import Nearest, Solid
from tests.kernels.mesh_scenes import DOUBLE, icosphere, soup


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def places(vertices: torch.Tensor, faces: torch.Tensor, found: Nearest) -> torch.Tensor:
    face, shares = found.face, found.weights
    assert (shares >= -1e-9).all() and torch.allclose(shares.sum(1), torch.ones(len(shares), dtype=DOUBLE))
    return (vertices[faces[face]] * shares[..., None]).sum(1)


def test_a_ball_is_nearest_straight_below() -> None:
    vertices, faces = icosphere(4)
    points = 1.5 * torch.nn.functional.normalize(torch.randn(500, 3, dtype=DOUBLE), dim=1)
    found = places(vertices, faces, Solid(vertices, faces).nearest(points))
    assert (found - points / 1.5).norm(dim=1).max() < 0.02


def test_nothing_is_nearer(generator: torch.Generator) -> None:
    """Triangles of very different sizes, points all around: no point of a dense net over them lies nearer."""
    small, faces = soup(60, DOUBLE, generator)
    vertices = torch.cat([small, 3 * soup(3, DOUBLE, generator)[0]])
    faces = torch.cat([faces, 180 + torch.arange(9).view(3, 3)])
    points = 2 * torch.rand(300, 3, dtype=DOUBLE, generator=generator) - 1
    found = (places(vertices, faces, Solid(vertices, faces).nearest(points)) - points).norm(dim=1)
    step = torch.linspace(0, 1, 25, dtype=DOUBLE)
    u, v = (x[(step[:, None] + step[None]) <= 1 + 1e-9] for x in torch.meshgrid(step, step, indexing="ij"))
    net = torch.stack([1 - u - v, u, v], dim=1) @ vertices[faces]
    best = torch.cdist(points, net.view(-1, 3)).amin(dim=1)
    assert (found < best + 0.03).all() and (found < best + 1e-9).float().mean() > 0.97 and (found > best - 0.15).all()


def test_a_point_of_the_surface_is_its_own_nearest(generator: torch.Generator) -> None:
    vertices, faces = icosphere(2)
    face = torch.randint(len(faces), (200,), generator=generator)
    shares = torch.rand(200, 3, dtype=DOUBLE, generator=generator)
    points = (vertices[faces[face]] * (shares / shares.sum(1, keepdim=True))[..., None]).sum(1)
    torch.testing.assert_close(places(vertices, faces, Solid(vertices, faces).nearest(points)), points)
