"""What every renderer is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Int
from torch import Tensor

from dream3d.checks import InputError
from dream3d.representations.base import Representation
from dream3d.types import Cameras, Render


class Renderer(ABC):
    """Draws a representation. Differentiable with respect to the representation's parameters."""

    @abstractmethod
    def __call__(
        self,
        representation: Representation,
        cameras: Cameras,
        *,
        generator: torch.Generator | None = None,
        normals: bool = False,
    ) -> Render:
        """Draw.

        Args:
            representation: one this renderer can draw.
            cameras: B views.
            generator: source of the sampling jitter (CPU); None means none, for pictures.
            normals: also fill `Render.normal` (costs extra queries).

        Raises:
            InputError: the representation is of a kind this renderer does not draw.
        """

    def before_step(self, step: int, views: int) -> None:  # noqa: B027
        """Called before each training step: lights and shading that change over time, one choice a group of `views`
        consecutive cameras."""


def particle_of(count: int, batch: int, generator: torch.Generator) -> Int[Tensor, "B"]:
    """Which of `count` particles each row of a training batch shows: equal shares of consecutive rows, so that the
    views of a group show one particle. A batch smaller than `count` shows a random choice, one row each.

    Raises:
        InputError: the batch is larger but cannot be divided.
    """
    if batch < count:
        return torch.randperm(count, generator=generator)[:batch].sort().values
    if batch % count:
        raise InputError(f"batch must be a multiple of the {count} particles, or fewer of them (got {batch}).")
    return torch.arange(count).repeat_interleave(batch // count)
