"""What every regulariser is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from torch import Tensor

from dream3d.checks import InputError
from dream3d.guidance.time import Ramp, value_at
from dream3d.representations.base import Representation
from dream3d.representations.particles import Particles
from dream3d.types import Render

R = TypeVar("R", bound=Representation)


class Regularizer(ABC):
    """A loss beside the objective, with its weight (a constant or a `Ramp`)."""

    weight: float | Ramp
    needs_normals: bool = False

    @abstractmethod
    def loss(self, representation: Representation, render: Render) -> Tensor:
        """The unweighted loss, one number."""

    def __call__(self, representation: Representation, render: Render, step: int) -> Tensor:
        """Weighted loss at this step."""
        return value_at(self.weight, step) * self.loss(representation, render)


def parts_of(who: str, representation: Representation, kind: type[R]) -> list[R]:
    """The representation, or each of several particles.

    Raises:
        InputError: one is not of the kind.
    """
    parts = list(representation) if isinstance(representation, Particles) else [representation]
    found = [part for part in parts if isinstance(part, kind)]
    if not found or len(found) < len(parts):
        raise InputError(f"{who} is for {kind.__name__}, not for {type(parts[0]).__name__}.")
    return found
