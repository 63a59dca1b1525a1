"""Differences and gradients of a known function."""

import torch

from dream3d.nn.differences import around, slope


def test_around_and_slope_of_a_cubic():
    scale = torch.tensor(2.0, requires_grad=True)

    def value(p):
        return scale * (p[:, 0] ** 2 + p[:, 0] * p[:, 1] + p[:, 2])

    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    x, y, _ = points.unbind(-1)
    expected = 2 * torch.stack([2 * x + y, x, torch.ones_like(x)], dim=-1)
    plus, minus = around(value, points, 0.1)
    torch.testing.assert_close((plus - minus) / 0.2, expected)
    torch.testing.assert_close((plus + minus - 2 * value(points)[:, None]).sum(-1) / 0.01, torch.full((50,), 4.0),
                               atol=2e-3, rtol=0)  # fmt: skip
    gradient = slope(value, points, track=True)
    torch.testing.assert_close(gradient, expected)
    gradient.sum().backward()  # the gradient can be trained
    torch.testing.assert_close(scale.grad, expected.detach().sum() / 2)
    assert not slope(value, points, track=False).requires_grad
