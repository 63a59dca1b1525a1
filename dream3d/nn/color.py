"""Between linear light and what a display is sent: the only place where sRGB and tone are computed on tensors."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.srgb import SEAM

Tone = Literal["neutral", "clip"]


def to_linear(code: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """sRGB codes to linear light (IEC 61966-2-1); 0 and 1 stay, values above 1 go on along the same power."""
    low = code <= SEAM
    # The unused branch must have a finite slope too: 0 times infinity is NaN.
    power = ((torch.where(low, torch.ones_like(code), code) + 0.055) / 1.055) ** 2.4
    return torch.where(low, code / 12.92, power)


def to_srgb(linear: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Linear light to sRGB codes (IEC 61966-2-1), the inverse of `to_linear`."""
    low = linear <= SEAM / 12.92
    power = 1.055 * torch.where(low, torch.ones_like(linear), linear) ** (1 / 2.4) - 0.055
    return torch.where(low, linear * 12.92, power)


def display(linear: Float[Tensor, "*N 3"], *, tone: Tone = "neutral") -> Float[Tensor, "*N 3"]:
    """Linear radiance (0 or more) to display-referred colour in [0, 1].

    "clip" cuts at 1, where the gradient ends. "neutral" is the Khronos PBR Neutral tone mapper (2024): hue and contrast
    stay below 0.8, highlights roll off towards white and keep a gradient; it takes off the 4 % that a dielectric
    reflects, so that base colours come out as painted.
    """
    return to_srgb(linear.clamp(0, 1) if tone == "clip" else _neutral(linear))


COMPRESS, DESATURATE = 0.8 - 0.04, 0.15


def _neutral(linear: Tensor) -> Tensor:
    least = linear.amin(dim=-1, keepdim=True)
    color = linear - torch.where(least < 0.08, least - 6.25 * least**2, torch.full_like(least, 0.04))
    peak = color.amax(dim=-1, keepdim=True)
    room = 1 - COMPRESS
    high = peak.clamp_min(COMPRESS)
    rolled = 1 - room**2 / (high + room - COMPRESS)
    white = 1 - 1 / (DESATURATE * (high - rolled) + 1)
    bright = color * (rolled / high) * (1 - white) + rolled * white
    return torch.where(peak < COMPRESS, color, bright)
