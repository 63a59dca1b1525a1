"""Normal maps and bumps."""

import math

import torch
from torch.nn import functional

from dream3d.materials import facing, gradient_bump, tangent_space


def unit(*shape):
    return functional.normalize(torch.randn(*shape, 3, dtype=torch.float64), dim=-1)


def test_tangent_space_axes():
    n, t = torch.tensor([[0.0, 0, 1]]), torch.tensor([[1.0, 0, 0, 1]])
    flat, right, up = torch.tensor([[0.5, 0.5, 1]]), torch.tensor([[1.0, 0.5, 0.5]]), torch.tensor([[0.5, 1.0, 0.5]])
    torch.testing.assert_close(tangent_space(n, t, flat), n)
    torch.testing.assert_close(tangent_space(n, t, right), t[:, :3])
    torch.testing.assert_close(tangent_space(n, t, up), torch.tensor([[0.0, 1, 0]]))
    mirrored = t * torch.tensor([1.0, 1, 1, -1])
    torch.testing.assert_close(tangent_space(n, mirrored, up), torch.tensor([[0.0, -1, 0]]))


def test_a_tilted_plane():
    """A plane raised by h = 0.5 x has the normal (-0.5, 0, 1), whatever the slope is across the plane."""
    n = torch.tensor([[0.0, 0, 1]])
    expected = functional.normalize(torch.tensor([[-0.5, 0, 1]]), dim=-1)
    for across in (0.0, 3.0):
        torch.testing.assert_close(gradient_bump(n, torch.tensor([[0.5, 0, across]])), expected)


def test_a_ball_with_waves():
    """Against the true normal of r = 1 + h(x), by finite differences of the surface."""
    p, size, waves = unit(50), 1e-3, 7.0
    slope = torch.zeros_like(p)
    slope[:, 0] = size * waves * (waves * p[:, 0]).cos()
    leaf = p.clone().requires_grad_()
    r = leaf.norm(dim=-1)
    implicit = r - 1 - size * (waves * leaf[:, 0] / r).sin()
    (true,) = torch.autograd.grad(implicit.sum(), leaf)
    found, true = gradient_bump(p, slope), functional.normalize(true, dim=-1)
    bumped = (true - p).norm(dim=-1).max()
    assert (found - true).norm(dim=-1).max() < 2e-3 * bumped / size * 1e-3


def test_facing_turns_only_what_looks_away():
    n, v = unit(200), unit(200)
    turned, cosine = facing(n, v), (n * v).sum(-1)
    torch.testing.assert_close(turned[cosine >= 0], n[cosine >= 0])
    assert (turned * v).sum(-1).min() > -1e-12
    torch.testing.assert_close(turned.norm(dim=-1), torch.ones(200, dtype=torch.float64))
    assert math.isclose(float((turned * v).sum(-1)[cosine < 0].abs().max()), 0, abs_tol=1e-9)
