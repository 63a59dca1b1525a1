"""Depth of splatted discs against the plane that they lie in, its spread against sums over pairs, and its normals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dream3d.cameras import turntable
from dream3d.kernels.splat import composite_splats, project_splats
from dream3d.nn.depth import depth_and_distortion, depth_normals, depth_planes, squared
from dream3d.representations.splat_starts import from_z
from dream3d.types import Cameras

DOUBLE = torch.float64


def front(size: int = 32, distance: float = 2.5) -> Cameras:
    c2w = torch.eye(4, dtype=DOUBLE)[None].clone()
    c2w[0, 2, 3] = distance
    return Cameras(c2w, torch.tensor([0.8], dtype=DOUBLE), size, size)


def seen(means: Tensor, quaternions: Tensor, scales: Tensor, opacity: float, cameras: Cameras):
    """Alpha, depth (not premultiplied, along the viewing axis) and distortion."""
    projected = project_splats(means, quaternions, scales, torch.full_like(means[:, 0], opacity), cameras)
    planes = depth_planes(projected, means, quaternions, scales, cameras)
    image = composite_splats(projected, viewed=torch.cat([planes, squared(planes)], dim=-1))
    depth, distortion = depth_and_distortion(image.features, image.alpha, cameras)
    return image.alpha, depth / image.alpha.clamp_min(1e-9), distortion


@pytest.mark.parametrize("tilt", [0.0, 0.6, -1.0])
def test_discs_in_a_plane_are_as_deep_as_it_is(tilt: float) -> None:
    """And do not spread along a ray, though their centres do."""
    normal = torch.tensor([math.sin(tilt), 0.3, math.cos(tilt)], dtype=DOUBLE)
    normal = normal / normal.norm()
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(600, 3, generator=generator, dtype=DOUBLE) - 0.5
    points = points - (points @ normal)[:, None] * normal
    scales = torch.tensor([0.04, 0.03, 0], dtype=DOUBLE).repeat(600, 1)
    cameras = front(64)
    alpha, depth, distortion = seen(points, from_z(normal.expand(600, 3)), scales, 0.5, cameras)
    origins, directions = cameras.rays()
    along = -(origins @ normal) / (directions @ normal)
    true = along * -(directions[..., 2])
    solid = alpha > 0.9
    assert int(solid.sum()) > 100
    assert float((depth - true)[solid].abs().max()) < 1e-2 and float((depth - true)[solid].abs().mean()) < 3e-3
    assert distortion is not None and float(distortion[solid].sqrt().max()) < 8e-3
    projected = project_splats(points, from_z(normal.expand(600, 3)), scales, torch.full((600,), 0.5).double(), cameras)
    centres = composite_splats(projected).depth / alpha.clamp_min(1e-9)
    if tilt:
        assert float((centres - true)[solid].abs().mean()) > 5 * float((depth - true)[solid].abs().mean())


def test_spread_is_the_sum_over_pairs() -> None:
    """Five discs behind one another, seen straight on: weights and depths at the middle are known."""
    z = torch.tensor([0.4, 0.3, 0.0, -0.1, -0.6], dtype=DOUBLE)
    means = torch.zeros(5, 3, dtype=DOUBLE)
    means[:, 2] = z
    opacity = 0.4
    turned = torch.tensor([[1.0, 0, 0, 0]], dtype=DOUBLE).expand(5, 4)
    cameras = front(33)
    alpha, depth, distortion = seen(
        means, turned, torch.tensor([[0.5, 0.5, 0]]).to(means).expand(5, 3), opacity, cameras
    )
    w = opacity * (1 - opacity) ** torch.arange(5, dtype=DOUBLE)
    pairs = sum(w[i] * w[j] * (z[i] - z[j]) ** 2 for i in range(5) for j in range(i))
    assert distortion is not None and isinstance(pairs, Tensor)
    torch.testing.assert_close(distortion[0, 16, 16], pairs)
    torch.testing.assert_close(depth[0, 16, 16], (w * (2.5 - z)).sum() / w.sum())
    torch.testing.assert_close(alpha[0, 16, 16], w.sum())


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    means = 0.3 * torch.randn(6, 3, generator=generator, dtype=DOUBLE)
    quaternions = torch.randn(6, 4, generator=generator, dtype=DOUBLE)
    scales = 0.2 + 0.2 * torch.rand(6, 3, generator=generator, dtype=DOUBLE)
    cameras, weights = turntable(2, 6), torch.rand(2, 2, 6, 6, generator=generator, dtype=DOUBLE)
    cameras = Cameras(cameras.c2w.double(), cameras.fov_y.double(), 6, 6)

    def total(means: Tensor, quaternions: Tensor, scales: Tensor) -> Tensor:
        opacities = torch.full_like(means[:, 0], 0.5)
        projected = project_splats(means, quaternions, scales, opacities, cameras, alpha_min=1e-12)
        planes = depth_planes(projected, means, quaternions, scales, cameras)
        features = torch.cat([planes, squared(planes)], dim=-1)
        image = composite_splats(projected, viewed=features, transmittance_min=0)
        depth, distortion = depth_and_distortion(image.features, image.alpha, cameras)
        assert distortion is not None
        return (weights[0] * depth + weights[1] * distortion).sum()

    leaves = [t.requires_grad_() for t in (means, quaternions, scales)]
    assert torch.autograd.gradcheck(total, leaves, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_side_views_do_not_lean_to_infinity() -> None:
    """The edge of a disc, and a hair beside it: also in the blur around it, depths stay near the disc."""
    means = torch.zeros(1, 3, dtype=DOUBLE)
    scales = torch.tensor([[0.3, 0.3, 0]], dtype=DOUBLE)
    for angle in (0.0, 1e-6, 1e-3, 0.05):
        normal = torch.tensor([[math.cos(angle), 0, math.sin(angle)]], dtype=DOUBLE)
        alpha, depth, _ = seen(means, from_z(normal), scales, 0.9, front())
        assert bool(depth.isfinite().all()) and float((depth - 2.5)[alpha > 0.01].abs().max()) < 6 * 0.3, angle


def test_normals_of_a_ball() -> None:
    cameras = turntable(2, 96)
    origins, directions = cameras.rays()
    b = (origins * directions).sum(-1)
    root = b.square() - (origins.square().sum(-1) - 0.6**2)
    length = torch.where(root > 0.02, -b - root.clamp_min(0).sqrt(), 0)
    found = depth_normals(length, directions)
    known = -torch.nn.functional.max_pool2d(-(length > 0).float()[:, None], 3, stride=1)[:, 0] > 0
    true = ((origins + length[..., None] * directions) / 0.6)[:, 1:-1, 1:-1]
    assert int(known.sum()) > 1000
    assert float((found * true).sum(-1)[known].min()) > 0.995
