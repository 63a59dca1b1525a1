"""What the autoencoder does before it has learnt anything."""

from __future__ import annotations

import torch
from torch.nn import functional

from dream3d.prior_training.members import AUTOENCODER
from dream3d.prior_training.shrinking import LUMA, start_by_shrinking


def pictures() -> torch.Tensor:
    """Smooth ones in [-1, 1]."""
    coarse = 2 * torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 1
    return functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(-1, 1)


def test_it_shrinks_and_enlarges() -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    net = start_by_shrinking(AutoencoderKL(**{**AUTOENCODER, "sample_size": 32}))
    images = pictures()
    with torch.no_grad():
        latents = net.encode(images).latent_dist  # type: ignore[attr-defined]
        back = net.decode(latents.mean).sample  # type: ignore[attr-defined]
    means = functional.avg_pool2d(images, 4)
    upper = functional.avg_pool2d(functional.avg_pool2d(images, 2).unflatten(2, (-1, 2)).select(3, 0), (1, 2))
    lower = functional.avg_pool2d(functional.avg_pool2d(images, 2).unflatten(2, (-1, 2)).select(3, 1), (1, 2))
    slope = torch.einsum("bchw,c->bhw", 0.5 * (upper - lower), torch.tensor(LUMA))
    for channel, expected in enumerate([*means.unbind(1), slope]):
        assert torch.allclose(latents.mean[:, channel], expected, atol=0.05), channel
    assert torch.allclose(latents.logvar, torch.full_like(latents.logvar, -6.0))
    expected = functional.interpolate(means, scale_factor=4, mode="bilinear")
    inside = (slice(None), slice(None), slice(6, -6), slice(6, -6))  # edges see zeros around the latents
    assert (back - expected)[inside].abs().mean() < 0.03
    assert (back - images)[inside].square().mean() < 0.01


def test_everything_can_still_learn() -> None:
    from diffusers import AutoencoderKL

    net = start_by_shrinking(AutoencoderKL(**{**AUTOENCODER, "sample_size": 32}))
    (net(pictures()).sample - pictures()).square().mean().backward()
    still = [n for n, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())]
    # Behind a branch that adds nothing yet, and a latent's share that is not decoded: they follow after one step.
    assert all("conv1" in n or "norm" in n or "quant_conv" in n or "encoder.conv_out" in n for n in still), still
