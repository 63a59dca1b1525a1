"""What a light is, and who chooses it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dream3d.types import Cameras


class Light(ABC):
    """Linear light on a batch: one light for all points, or one a point (leading shapes broadcast).

    Attributes:
        texture: (*#N, 1) share of the base colour that is shown; at 0 the object is white ("textureless").
    """

    texture: Tensor

    @abstractmethod
    def diffuse(self, position: Float[Tensor, "*N 3"], normal: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
        """Radiance that leaves a white, perfectly diffuse surface: irradiance / pi.

        Args:
            position: metres.
            normal: unit, outwards.
        """

    @abstractmethod
    def at(self, view: Int[Tensor, "*N"]) -> Light:
        """The lights of points, given the view of the batch that each belongs to."""


class LightSampler(ABC):
    """Chooses the light of every view of a step."""

    @abstractmethod
    def __call__(
        self, cameras: Cameras, *, views: int = 1, step: int = 0, generator: torch.Generator | None = None
    ) -> Light:
        """One light a camera.

        Args:
            cameras: B views.
            views: consecutive cameras that see one scene and share its light.
            step: optimiser step, for schedules.
            generator: source of chance (CPU); None means none, for pictures.
        """
