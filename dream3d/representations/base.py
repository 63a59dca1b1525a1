"""What every 3D representation is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from dream3d.checks import InputError
from dream3d.materials.base import Material
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


@dataclass(frozen=True)
class Hits:
    """Points of a mesh that pictures show.

    Args:
        position: metres.
        normal: unit, smooth, outwards.
        face: which triangle.
        barycentrics: the shares of its corners.
        uv: texture coordinates, origin at the top left; None where the mesh has none.
        footprint: the way in the texture from one pixel to the next, in units of `uv`: what a mip level is chosen by.
    """

    position: Float[Tensor, "N 3"]
    normal: Float[Tensor, "N 3"]
    face: Int[Tensor, "N"]
    barycentrics: Float[Tensor, "N 3"]
    uv: Float[Tensor, "N 2"] | None = None
    footprint: Float[Tensor, "N"] | None = None

    def __getitem__(self, rows: slice) -> Hits:
        parts = (self.position, self.normal, self.face, self.barycentrics, self.uv, self.footprint)
        return Hits(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]


class Triangles(Representation, ABC):
    """A representation that is made of triangles: what the `Raster` renderer draws."""

    @abstractmethod
    def facets(self) -> Mesh:
        """The triangles now: differentiable in the vertices, with UVs where there are any. Asked once a rendering.

        Raises:
            RunError: there is no surface; the message says why.
        """

    @abstractmethod
    def inputs(self, hits: Hits, material: Material) -> dict[str, Float[Tensor, "N C"]]:
        """The material's inputs at points of `facets`, activated; differentiable.

        Beside the channels of the material it may hold others that are known, and "normal": unit, world, finer than
        that of the hit.

        Raises:
            InputError: this representation cannot feed that material.
        """


class Faceted(Triangles, ABC):
    """Triangles whose colour is a function of the place, or of UVs.

    Attributes:
        width: raw numbers that `paint` gives a point; those of the renderer's material (`Material.width`).
    """

    width: int

    @abstractmethod
    def paint(self, points: Float[Tensor, "N 3"], uv: Float[Tensor, "N 2"] | None = None) -> Float[Tensor, "N width"]:
        """What the material makes its inputs of (`Material.activate`), at points of the surface; differentiable.

        Args:
            points: metres.
            uv: of the points, origin at the top left; None where `facets` has none.
        """

    def inputs(self, hits: Hits, material: Material) -> dict[str, Float[Tensor, "N C"]]:
        if not material.width:  # it shows the shape alone
            return {}
        if self.width != material.width:
            raise InputError(
                f"{type(self).__name__} paints {self.width} numbers a point, {type(material).__name__} takes "
                f"{material.width}. Give both the same."
            )
        return material.activate(self.paint(hits.position, hits.uv))
