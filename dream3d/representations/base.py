"""What every 3D representation is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from dream3d.types import Mesh

Bake = Callable[[Float[Tensor, "N 3"]], dict[str, Float[Tensor, "N C"]]]
"""Surface points (metres) to named channels: "base_color" (sRGB-coded, [0, 1]); optional "normal" (unit, world),
"roughness", "metallic", "occlusion" ([0, 1], linear)."""


@dataclass(frozen=True)
class Surfaced:
    """A triangle surface together with the function that colours it: what texture baking needs."""

    mesh: Mesh
    bake: Bake


class Representation(nn.Module, ABC):
    """The 3D thing being optimised. Subclasses are final; their constructors take `start`, the stage before or None."""

    @abstractmethod
    def to_mesh(self) -> Mesh:
        """The surface with vertex colours: the hub through which representations convert into one another.

        Raises:
            RunError: there is no surface; the message says why.
        """

    @abstractmethod
    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        """The surface at full detail, for export.

        Args:
            iso: level of the surface in the representation's own unit; None chooses it.
            resolution: cells along an axis.

        Raises:
            RunError: there is no surface at that level; the message says why.
        """

    def parameter_groups(self) -> list[dict]:
        """Optimiser groups; `lr_scale` multiplies the stage's learning rate."""
        return [{"params": list(self.parameters()), "lr_scale": 1.0}]

    def before_step(self, step: int) -> None:
        """Called before the rendering of a step (progressive detail, say)."""

    def after_step(self, step: int, optimizer: Optimizer, generator: torch.Generator | None = None) -> None:
        """Called after the optimiser's step (refresh occupancy, densify).

        Args:
            step: which it was.
            optimizer: whose state follows where parameters change their shape.
            generator: source of random numbers (CPU); None means one that is seeded by the step.
        """


class Faceted(Representation, ABC):
    """A representation that is made of triangles: what the `Raster` renderer draws.

    Attributes:
        width: raw numbers that `paint` gives a point; those of the renderer's material (`Material.width`).
    """

    width: int

    @abstractmethod
    def facets(self) -> Mesh:
        """The triangles now: differentiable in the vertices, with UVs where there are any. Asked once a rendering.

        Raises:
            RunError: there is no surface; the message says why.
        """

    @abstractmethod
    def paint(self, points: Float[Tensor, "N 3"], uv: Float[Tensor, "N 2"] | None = None) -> Float[Tensor, "N width"]:
        """What the material makes its inputs of (`Material.activate`), at points of the surface; differentiable.

        Args:
            points: metres.
            uv: of the points, origin at the top left; None where `facets` has none.
        """
