"""The local sum against the sum over all pairs."""

from __future__ import annotations

import pytest
import torch

from dream3d.nn.gaussian_sum import GaussianSum


def spread(number: int) -> tuple[GaussianSum, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    half = 0.05 * torch.randn(number, 3, 3, generator=generator, dtype=torch.float64)
    covariances = half @ half.mT + 1e-4 * torch.eye(3)
    means = torch.rand(number, 3, generator=generator, dtype=torch.float64) - 0.5
    return GaussianSum.of(means, covariances, torch.rand(number, generator=generator).double()), means, covariances


@pytest.mark.parametrize("block", [0.05, 0.3, 5.0])
def test_blocks_change_nothing_but_what_is_far(block: float) -> None:
    matter, means, covariances = spread(60)
    points = torch.rand(500, 3, dtype=torch.float64) - 0.5
    values = torch.rand(60, 2, dtype=torch.float64)
    offsets = points[:, None] - means
    q = torch.einsum("pni,nij,pnj->pn", offsets, torch.linalg.inv(covariances), offsets)
    peaks = matter.amplitudes * torch.exp(-0.5 * q)
    far = (offsets.abs() > matter.extents).any(dim=2)
    assert bool((peaks <= matter.amplitudes * 0.0112).masked_select(far).all())
    found = matter(points, values, block=block)
    exact, left_out = peaks @ values, (peaks * far) @ values
    assert bool((found <= exact + 1e-9).all()) and bool((found >= exact - left_out - 1e-9).all())


def test_integral_is_the_mass() -> None:
    covariance = torch.diag(torch.tensor([0.01, 0.02, 0.005]).double())[None]
    matter = GaussianSum.of(torch.zeros(1, 3).double(), covariance, torch.tensor([0.7]).double())
    axis = torch.linspace(-1, 1, 81, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    total = matter(points, torch.ones(1, 1).double(), block=9.0).sum() * (2 / 80) ** 3
    assert float(total) == pytest.approx(0.7, rel=1e-6)


def test_nothing_at_nowhere() -> None:
    matter, _, _ = spread(3)
    assert matter(torch.zeros(0, 3).double(), torch.ones(3, 1).double(), block=0.1).shape == (0, 1)
    none, _, _ = spread(0)
    assert torch.equal(none(torch.zeros(2, 3).double(), torch.ones(0, 1).double(), block=0.1), torch.zeros(2, 1))
