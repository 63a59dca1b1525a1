"""What is done to a gradient before it goes back into the rendering."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from jaxtyping import Float
from torch import Tensor

from dream3d.checks import in_range


class Post(ABC):
    """Changes the weighted residual, w(t) * residual."""

    @abstractmethod
    def __call__(self, g: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The same shape; never longer at any pixel."""


@final
class PixelClip(Post):
    """No channel of a pixel longer than `limit`; the direction across its channels stays (Dreamer XL,
    arXiv:2405.11252, 4.2). One outlier then does not shrink the rest, as clipping the whole gradient would.

    The paper clips the gradient at rendered colours, 0.05, and at depths; this one acts on latents, which for pixel
    priors are colours. The released code does so for colours, and for depths what `PictureClip` does.

    Args:
        limit: largest absolute value of a channel.
    """

    def __init__(self, *, limit: float = 0.05) -> None:
        in_range("PixelClip: limit", limit, 0)
        self.limit = limit

    def __call__(self, g: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return g * (self.limit / g.abs().amax(1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)


@final
class PictureClip(Post):
    """As `PixelClip`, but all pixels of all pictures by one factor, that of the worst (Dreamer XL's released code, for
    depths): the whole direction stays, and one outlier shrinks everything.

    Args:
        limit: largest absolute value of a number.
    """

    def __init__(self, *, limit: float = 0.05) -> None:
        in_range("PictureClip: limit", limit, 0)
        self.limit = limit

    def __call__(self, g: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return g * (self.limit / g.abs().amax().clamp_min(1e-12)).clamp_max(1.0)


@final
class Clamp(Post):
    """Every number by itself between -limit and limit (threestudio's `grad_clip`); directions change.

    Args:
        limit: largest absolute value.
    """

    def __init__(self, *, limit: float = 1.0) -> None:
        in_range("Clamp: limit", limit, 0)
        self.limit = limit

    def __call__(self, g: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return g.clamp(-self.limit, self.limit)
