"""Losses of rendered materials."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from dream3d.checks import InputError, in_range
from dream3d.guidance.time import Ramp
from dream3d.regularizers.base import Regularizer
from dream3d.representations.base import Representation
from dream3d.types import Render


@final
class SmoothAlbedo(Regularizer):
    """Total variation of the rendered base colour inside the object: shading that was painted on would have to vary.

    On the aux channel "albedo" (premultiplied, sRGB-coded), as intrinsic decompositions since Retinex do it.
    """

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        albedo, alpha = _straight("SmoothAlbedo", render, "albedo")
        dx = (albedo[:, :, 1:] - albedo[:, :, :-1]).abs() * torch.minimum(alpha[:, :, 1:], alpha[:, :, :-1])
        dy = (albedo[:, 1:] - albedo[:, :-1]).abs() * torch.minimum(alpha[:, 1:], alpha[:, :-1])
        return dx.mean() + dy.mean()


@final
class MaterialEntropy(Regularizer):
    """Binary entropy of the rendered "metallic" (premultiplied) over the object: a place is metal or it is not."""

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        metallic, alpha = _straight("MaterialEntropy", render, "metallic")
        p = metallic.clamp(1e-3, 1 - 1e-3)
        entropy = -(p * p.log() + (1 - p) * (1 - p).log())
        return (alpha * entropy).sum() / alpha.sum().clamp_min(1.0)


@final
class PlausibleAlbedo(Regularizer):
    """Squared excess of the rendered base colour over what real surfaces reflect, on average over the object.

    Nothing reflects all light, which would glow in a furnace, nor none, which no light could ever show. The limits are
    those between which Fantasia3D (arXiv:2303.13873, released recipes) clamps, where the gradient would end.

    Args:
        low: least plausible value of the aux channel "albedo" (premultiplied, sRGB-coded).
        high: greatest one.
    """

    def __init__(self, *, weight: float | Ramp = 1.0, low: float = 0.03, high: float = 0.97) -> None:
        in_range("PlausibleAlbedo: low", low, 0, 1)
        in_range("PlausibleAlbedo: high", high, low, 1)
        self.weight = weight
        self.low = low
        self.high = high

    def loss(self, representation: Representation, render: Render) -> Tensor:
        albedo, alpha = _straight("PlausibleAlbedo", render, "albedo")
        excess = (albedo - self.high).clamp_min(0) ** 2 + (self.low - albedo).clamp_min(0) ** 2
        return (alpha * excess.mean(-1, keepdim=True)).sum() / alpha.sum().clamp_min(1.0)


def _straight(who: str, render: Render, name: str) -> tuple[Tensor, Tensor]:
    """An aux channel without its premultiplication, and the opacity (detached) by which to weigh it."""
    if name not in render.aux:
        raise InputError(f"{who} needs the aux channel '{name}': a renderer with a material draws it.")
    alpha = render.alpha.detach()
    return render.aux[name] / alpha.clamp_min(1e-3), alpha
