"""The built-in prior's members: what tells them apart, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dream3d.priors.builtin import GRID, PATCH, RAY_CHANNELS, TOKENS, label_size
from dream3d.priors.builtin_mv import VIEWS, share_views

LATENT_CHANNELS, LATENT_GRID = 4, 32
Shares = tuple[tuple[float, float, float], ...]
PIXEL_SHARES: Shares = ((0.9, 1.0, 0.5), (0.4, 0.9, 0.35), (0.0, 0.4, 0.15))
"""Share of the pictures between two times. In 64 x 64 pixels the shape shows through the noise up to t = 0.95 or so:
what text and camera decide (which of its two ends a car shows, say) is decided above, and seldom below 0.4."""
LATENT_SHARES: Shares = ((0.7, 1.0, 0.4), (0.35, 0.7, 0.4), (0.0, 0.35, 0.2))
"""Latents repeat themselves less than pixels do, so the same decisions fall at a little less noise."""


@dataclass(frozen=True)
class Member:
    """One network of the family.

    Attributes:
        name: of its folder in `priors/weights`, and of its class's `name`.
        size: pixels of its pictures a side.
        grid: latent pixels a side.
        latents: channels of a latent.
        channels: of the U-Net, from fine to coarse.
        attention: for each of these resolutions, whether there is attention to the text.
        views: pictures that are drawn together.
        shares: how often which times are trained.
    """

    name: str
    size: int
    grid: int
    latents: int
    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    views: int = 1
    shares: Shares = PIXEL_SHARES


def _pixels(name: str, views: int) -> Member:
    return Member(name, 64, GRID, 3 * PATCH**2, (96, 128, 192), (False, True, False), views)


MEMBERS: Mapping[str, Member] = {
    "builtin": _pixels("builtin", 1),
    "builtin-mv": _pixels("builtin-mv", VIEWS),
    "builtin-latent": Member(
        "builtin-latent", 128, LATENT_GRID, LATENT_CHANNELS, (48, 80, 128, 224), (False, False, True, False),
        shares=LATENT_SHARES,
    ),
}  # fmt: skip
"""Few and wide convolutions at the fine end, attention to the text at 8 x 8 and 4 x 4: at most 1.5 GFLOP a picture."""

AUTOENCODER: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": LATENT_CHANNELS,
    "block_out_channels": [16, 32, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 1,
    "norm_num_groups": LATENT_CHANNELS,
    "sample_size": MEMBERS["builtin-latent"].size,
    "mid_block_add_attention": False,
    "scaling_factor": 1.0,
}
"""Arguments of `AutoencoderKL`: a quarter of the size a side, as latent diffusion's f = 4."""


def architecture(member: Member, *, words: int = 128, channels: tuple[int, ...] = ()) -> dict[str, Any]:
    """Arguments of `UNet2DConditionModel`.

    Args:
        member: which.
        words: length of a word's vector.
        channels: others than the member's, for small tests.
    """
    kinds = ["CrossAttn" if seen else "" for seen in member.attention]
    return {
        "sample_size": member.grid,
        "in_channels": member.latents + RAY_CHANNELS,
        "out_channels": member.latents,
        "block_out_channels": list(channels or member.channels),
        "layers_per_block": 1,
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
        "cross_attention_dim": words,
        "attention_head_dim": 4,  # diffusers reads it as the number of heads
        "norm_num_groups": 16,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": label_size(words),
        "resnet_time_scale_shift": "scale_shift",
    }


def gflop(config: Mapping[str, Any], words: int, views: int = 1) -> float:
    """Cost of one picture's forward (2 x multiply-adds), counted by torch without computing anything."""
    from diffusers import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    grid = config["sample_size"]
    with torch.device("meta"):
        net = share_views(UNet2DConditionModel(**config), views)
        z, t = torch.zeros(views, config["in_channels"], grid, grid), torch.zeros(views)
        tokens, labels = torch.zeros(views, TOKENS, words), torch.zeros(views, label_size(words))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(z, t, tokens, class_labels=labels)
    return counter.get_total_flops() / 1e9 / views
