"""An autoencoder's first weights, with which it already shrinks and enlarges pictures.

A network of group norms that starts from noise learns last what matters most, the absolute colours, because a norm
takes them away. Here a signal `s` travels along one channel and meets the last norm in a group with `-s`, `K` and `-K`:
the group's mean is 0 whatever the picture, its variance hardly depends on `s`, and `silu(s) - silu(-s) = s`, so that
norm and activation together let `s` through. What residual branches add starts at zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

LEVEL = 10.0
"""K: large against signals, which are of order 1."""
LOG_VARIANCE = -6.0
LUMA = (0.299, 0.587, 0.114)


@torch.no_grad()
def start_by_shrinking(autoencoder: nn.Module) -> nn.Module:
    """Latents become the mean colours of 4 x 4 pixels and, fourth, how much brighter the upper half of them is than the
    lower; pictures come back interpolated. Channels without a task keep their random weights.

    Args:
        autoencoder: diffusers' `AutoencoderKL` for pictures in [-1, 1]: three blocks of different widths, four latent
            channels, norms of four groups of at least four channels. Changed in place.
    """
    net: Any = autoencoder
    for block in net.modules():
        if type(block).__name__ == "ResnetBlock2D":
            block.conv2.weight.zero_()
            block.conv2.bias.zero_()
            if block.conv_shortcut is not None:
                _carry(block.conv_shortcut, torch.eye(4))
    colours = torch.eye(3)
    first, second = (block.downsamplers[0].conv for block in net.encoder.down_blocks[:2])
    _carry(net.encoder.conv_in, colours, [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    # diffusers pads below and on the right: these are the 2 x 2 pixels that become one.
    mean, slope = [[1, 1, 0], [1, 1, 0], [0, 0, 0]], [[1, 1, 0], [-1, -1, 0], [0, 0, 0]]
    _carry(first, colours, mean, scale=0.25)
    _carry(second, colours, mean, scale=0.25)
    _carry(second, torch.tensor([LUMA]), slope, scale=0.25, first=3)
    _let_through(net.encoder.down_blocks[2].resnets[0].conv_shortcut, net.encoder, signals=4)
    net.encoder.conv_out.bias[4:] = LOG_VARIANCE
    _carry(net.decoder.conv_in, torch.eye(4), [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    for block in net.decoder.up_blocks[:2]:
        _carry(block.upsamplers[0].conv, torch.eye(4), [[1, 2, 1], [2, 4, 2], [1, 2, 1]], scale=1 / 16)
    _let_through(net.decoder.up_blocks[2].resnets[0].conv_shortcut, net.decoder, signals=3)
    for conv in (net.quant_conv, net.post_quant_conv):
        _carry(conv, torch.eye(len(conv.weight)))
    return autoencoder


def _carry(
    conv: nn.Conv2d,
    mixing: Tensor,
    kernel: Sequence[Sequence[float]] = ((1.0,),),
    *,
    scale: float = 1.0,
    first: int = 0,
) -> None:
    """Make channels from `first` on mixtures (rows) of the first channels of the input, each seen through `kernel`."""
    into, out_of = mixing.shape
    rows = slice(first, first + into)
    conv.weight[rows] = 0
    conv.weight[rows, :out_of] = mixing[:, :, None, None] * scale * torch.tensor(kernel, dtype=mixing.dtype)
    assert conv.bias is not None
    conv.bias[rows] = 0


def _let_through(last: nn.Conv2d, half: Any, *, signals: int) -> None:
    """Spread the signals over the groups of the half's last norm, with what they need there, and gather them again.

    Args:
        last: the map on the way there that is not a residual branch.
        half: encoder or decoder.
        signals: how many.
    """
    norm, out = half.conv_norm_out, half.conv_out
    size = norm.num_channels // norm.num_groups
    out.weight.zero_()
    out.bias.zero_()
    assert last.bias is not None
    for signal in range(signals):
        plus, minus, high, low = range(signal * size, signal * size + 4)
        for channel, sign, level in ((plus, 1, 0.0), (minus, -1, 0.0), (high, 0, LEVEL), (low, 0, -LEVEL)):
            last.weight[channel] = 0
            last.weight[channel, signal] = sign
            last.bias[channel] = level
        norm.weight[[plus, minus]] = LEVEL * math.sqrt(2 / size)
        out.weight[signal, plus, 1, 1], out.weight[signal, minus, 1, 1] = 1, -1
