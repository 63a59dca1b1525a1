"""The training of the members and of the autoencoder that one of them needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dream3d.checks import InputError
from dream3d.prior_training.batches import Batches
from dream3d.prior_training.export import SCHEDULER, TIMESTEPS
from dream3d.prior_training.members import AUTOENCODER, Member, architecture
from dream3d.prior_training.shrinking import start_by_shrinking
from dream3d.prior_training.train import Task
from dream3d.priors.builtin import to_patches
from dream3d.priors.builtin_mv import share_views

LEAST, MOST = 0.7, 5.0
"""Weight of the error in the clean picture: SNR within these bounds. The upper one is min-SNR-gamma's (Hang et al.,
arXiv:2303.09556); the lower one (as in Salimans & Ho, arXiv:2202.00512, section 4) keeps the high noise levels alive,
where text and camera decide what the picture will be."""
KL_WEIGHT, EDGE_WEIGHT = 1e-6, 1.0
SCALE_BATCHES, SCALE_COUNT = 8, 16


@final
class Denoising(Task):
    """A member: predicts the clean picture from a noisy one, the text and the camera.

    Args:
        member: which.
        batches: where pictures come from, of the member's size and grid.
        config: arguments of `UNet2DConditionModel`; None takes the member's.
        encode: pictures in [0, 1] to latents; None for members of pictures.
    """

    # Text, camera and their products enter here. What a turn by half changes (a sofa's back has its front's outline)
    # is a small part of the loss, so that this layer lags behind the rest.
    swift = ("class_embedding.",)

    def __init__(
        self,
        member: Member,
        batches: Batches,
        *,
        config: dict[str, Any] | None = None,
        encode: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        from diffusers import DDPMScheduler

        self.member, self.batches = member, batches
        self.config = architecture(member, words=batches.text.size) if config is None else config
        self.encode = to_patches if encode is None else encode
        self.shares = torch.tensor(member.shares, device=batches.device)
        self.alphas_cumprod = DDPMScheduler(**SCHEDULER).alphas_cumprod.to(batches.device)

    def network(self) -> nn.Module:
        from diffusers import UNet2DConditionModel

        net = cast(nn.Module, UNet2DConditionModel(**self.config))
        return share_views(net, self.member.views) if self.member.views > 1 else net

    def loss(self, net: Callable[..., Any], count: int, generator: torch.Generator) -> Tensor:
        views = self.member.views
        if count % views:
            raise InputError(f"batch: expected a multiple of {views} views, got {count}.")
        batch = self.batches.draw(count, generator, views)
        with torch.no_grad():
            z = self.encode(batch.images).float()
        level = draw_levels(count // views, generator, self.shares).repeat_interleave(views)
        eps = torch.randn(z.shape, generator=generator, device=z.device)
        kept = self.alphas_cumprod[level].view(-1, 1, 1, 1)
        weight = (kept / (1 - kept)).clamp(LEAST, MOST)
        z_t = kept.sqrt() * z + (1 - kept).sqrt() * eps
        on = batch.on.tensors
        z_in = torch.cat([z_t, on["rays"]], 1).contiguous(memory_format=torch.channels_last)
        out = net(z_in, level, on["tokens"], class_labels=on["labels"], return_dict=False)[0]
        return (weight * (out.float() - z).square()).mean()


def draw_levels(count: int, generator: torch.Generator, shares: Float[Tensor, "n 3"]) -> Int[Tensor, "B"]:
    """Random noise levels; `shares` as in `Member.shares`, on the generator's device."""
    part = torch.multinomial(shares[:, 2], count, replacement=True, generator=generator)
    low, high, _ = shares[part].unbind(1)
    t = low + (high - low) * torch.rand(count, generator=generator, device=shares.device)
    return (t * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)


@final
class Autoencoding(Task):
    """The autoencoder of the latent member: absolute error of colours and of their differences between neighbours, and
    a touch of KL (Rombach et al., arXiv:2112.10752, section 3.1, without the adversary).

    Args:
        batches: where pictures come from.
        config: arguments of `AutoencoderKL`; None takes `members.AUTOENCODER`.
    """

    def __init__(self, batches: Batches, *, config: dict[str, Any] | None = None) -> None:
        self.batches = batches
        self.config = dict(AUTOENCODER) if config is None else config

    def network(self) -> nn.Module:
        from diffusers import AutoencoderKL

        return start_by_shrinking(cast(nn.Module, AutoencoderKL(**self.config)))

    def loss(self, net: Callable[..., Any], count: int, generator: torch.Generator) -> Tensor:
        images = 2 * self.batches.pictures(count, generator).images - 1
        model = cast(Any, net)
        inner = getattr(model, "_orig_mod", model)
        posterior = inner.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator, device=images.device)
        out = inner.decode(posterior.mean + posterior.std * noise).sample.float()
        error = (out - images).abs().mean()
        edges = sum((_slopes(out, axis) - _slopes(images, axis)).abs().mean() for axis in (2, 3))
        return error + EDGE_WEIGHT * edges + KL_WEIGHT * posterior.kl().mean()

    @torch.no_grad()
    def facts(self, net: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        """Scale that gives latents the variance 1 (arXiv:2112.10752, appendix G), and how well pictures come back."""
        model, latents, errors = cast(Any, net), [], []
        for _ in range(SCALE_BATCHES):
            images = 2 * self.batches.pictures(SCALE_COUNT, generator).images - 1
            z = model.encode(images).latent_dist.mean
            latents.append(z.float())
            errors.append((0.5 * (model.decode(z).sample - images)).square().mean((1, 2, 3)))
        psnr = -10 * torch.cat(errors).log10()
        return {"scaling_factor": 1 / float(torch.cat(latents).std()), "psnr": float(psnr.mean())}


def _slopes(images: Float[Tensor, "B C H W"], axis: int) -> Tensor:
    return images.diff(dim=axis)
