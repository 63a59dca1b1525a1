"""Losses of Gaussians."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from dream3d.checks import InputError, in_range
from dream3d.guidance.time import Ramp
from dream3d.regularizers.base import Regularizer, parts_of
from dream3d.representations.base import Representation
from dream3d.representations.gaussians import Gaussians
from dream3d.types import Render


@final
class OpacityL1(Regularizer):
    """Mean opacity of the Gaussians: what no picture needs becomes transparent, and MCMC moves it to where something is
    (3DGS-MCMC, arXiv:2404.09591, section 3.4; weight 0.01 there)."""

    def __init__(self, *, weight: float | Ramp = 0.01) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        return torch.cat([part.opacities for part in parts_of("OpacityL1", representation, Gaussians)]).mean()


@final
class ScaleL1(Regularizer):
    """Mean of the Gaussians' scales, metres (3DGS-MCMC, arXiv:2404.09591, section 3.4, weight 0.01; LucidDreamer and
    PlacidDreamer, weight 1): no large, faint ones through which everything shines."""

    def __init__(self, *, weight: float | Ramp = 0.01) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        own = [part.scales[:, : 2 if part.flat else 3] for part in parts_of("ScaleL1", representation, Gaussians)]
        return torch.cat([scales.flatten() for scales in own]).mean()


@final
class Inside(Regularizer):
    """Gaussians stay in their part's shape (the restriction box of SemanticSDS, arXiv:2410.09009).

    Summed over all, the squared depth (`Part.depth`: 1 is the surface) beyond a shape that is a little larger.

    Args:
        margin: how much larger; the paper's code has 1.1.
    """

    def __init__(self, *, weight: float | Ramp = 1.0, margin: float = 1.1) -> None:
        in_range("Inside: margin", margin, 0)
        self.weight = weight
        self.margin = margin

    def loss(self, representation: Representation, render: Render) -> Tensor:
        if not isinstance(representation, Gaussians) or representation.part is None:
            raise InputError("Inside needs Gaussians with parts.")
        depths = torch.stack([part.depth(representation.means) for part in representation.parts.values()], dim=1)
        own = depths.gather(1, representation.part[:, None])
        return (own - self.margin).clamp_min(0).square().sum()
