"""sRGB and tone: exact inverses, finite gradients."""

import pytest
import torch

from dream3d.nn.color import display, to_linear, to_srgb
from dream3d.srgb import SEAM


def test_srgb_round_trip_is_exact():
    codes = torch.cat([torch.linspace(0, 1.5, 4001, dtype=torch.float64), torch.tensor([SEAM], dtype=torch.float64)])
    torch.testing.assert_close(to_srgb(to_linear(codes)), codes, rtol=0, atol=1e-15)
    torch.testing.assert_close(to_linear(to_srgb(codes)), codes, rtol=0, atol=1e-15)
    bytes_ = torch.arange(256.0)
    assert torch.equal((to_srgb(to_linear(bytes_ / 255)) * 255).round(), bytes_)


def test_srgb_known_values():
    assert to_linear(torch.tensor(0.5)).item() == pytest.approx(0.21404114, abs=1e-7)
    assert to_srgb(torch.tensor(0.18)).item() == pytest.approx(0.46135613, abs=1e-7)


@pytest.mark.parametrize("tone", ["neutral", "clip"])
def test_display_stays_in_range_with_finite_gradients(tone):
    linear = torch.tensor([[0.0, 0, 0], [0.01, 0.2, 0.5], [0.9, 0.1, 0.0], [1, 1, 1], [50, 2, 0.1]]).requires_grad_()
    shown = display(linear, tone=tone)
    assert 0 <= shown.min() and shown.max() <= 1
    shown.sum().backward()
    assert torch.isfinite(linear.grad).all()


def test_neutral_keeps_a_gradient_in_highlights_and_hue_below():
    bright = torch.tensor([3.0, 3.0, 3.0]).requires_grad_()
    display(bright).sum().backward()
    assert (bright.grad > 1e-3).all()
    middle = torch.tensor([0.6, 0.4, 0.2])
    torch.testing.assert_close(to_linear(display(middle)), middle - 0.04)
