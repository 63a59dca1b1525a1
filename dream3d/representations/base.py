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
from dream3d.kernels.reference import Occupancy
from dream3d.materials.base import Material
from dream3d.materials.normals import gradient_bump
from dream3d.nn.isosurface import inward_colors
from dream3d.nn.occupancy import CHUNK, OccupancyGrid
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


class Volume(Representation, ABC):
    """A representation that fills a box with matter: what the `March` renderer draws.

    Attributes:
        radius: half the side of the box around the origin, metres.
        grid: which cells of the box hold matter.
        material: what its raw numbers are the inputs of; None is a colour and no more.
        trained: steps so far.
    """

    radius: float
    grid: OccupancyGrid
    material: Material | None
    trained: Tensor

    @abstractmethod
    def along(
        self, points: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"], lengths: Float[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N width"]]:
        """What pieces of rays hold; differentiable.

        Args:
            points: middles of the pieces, metres.
            directions: unit, the way light does not go: from the camera.
            lengths: of the pieces, metres.

        Returns:
            density (1/metre, 0 or more: a piece absorbs 1 - exp(-density * length)) and raw numbers (see `looks`).
        """

    @abstractmethod
    def query(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N width"]]:
        """Density (1/metre; the greatest of all directions) and the channels of `looks`, side by side."""

    @abstractmethod
    def normals(self, points: Float[Tensor, "N 3"], *, eps: float | None = None) -> Float[Tensor, "N 3"]:
        """Unit outward normals; differentiable.

        Args:
            points: metres.
            eps: over how many metres differences are taken; None chooses.
        """

    @abstractmethod
    def bounds(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """For the occupancy grid, see `dream3d.nn.occupancy.Look`."""

    @property
    def width(self) -> int:
        """Raw numbers a point."""
        return 3 if self.material is None else self.material.width

    @property
    def occupancy(self) -> Occupancy:
        """Which cells of the box may hold matter; refreshed as training goes on."""
        return self.grid.occupancy(self.bounds)

    def looks(self, raw: Float[Tensor, "N width"]) -> dict[str, Float[Tensor, "N C"]]:
        """Raw numbers as the material's channels, each in its range; without a material "albedo" alone."""
        return {"albedo": torch.sigmoid(raw)} if self.material is None else self.material.activate(raw)

    def probes(self, count: int) -> Float[Tensor, "M 3"]:
        """Random points, as many in the whole box as in occupied cells (in that order), others after each step."""
        generator = torch.Generator().manual_seed(int(self.trained))
        half = max(count // 2, 1)
        anywhere = (2 * torch.rand(half, 3, generator=generator) - 1) * self.radius
        return torch.cat([anywhere.to(self.grid.peaks), self.grid.draw(self.bounds, half, generator)])

    def colored(self, mesh: Mesh) -> Mesh:
        """A surface of this volume with its colours at the vertices, on the CPU."""
        with torch.no_grad():
            _, channels = self.query(mesh.vertices.to(self.grid.peaks.device))
        return Mesh(mesh.vertices, mesh.faces, colors=channels[:, :3].cpu())

    @torch.no_grad()
    def bake(self, points: Float[Tensor, "N 3"], cell: float) -> dict[str, Float[Tensor, "N C"]]:
        """What a camera in front of each point of the surface would see: see `Bake`.

        Args:
            points: metres.
            cell: size of the cells in which the surface was found, metres.
        """
        seen, normals = [], []
        for chunk in points.to(self.grid.peaks.device).split(CHUNK // 8):
            normals.append(self.normals(chunk, eps=cell))
            seen.append(inward_colors(self.query, chunk, normals[-1], cell))
        found, normal = torch.cat(seen), torch.cat(normals)
        widths = {"albedo": 3} if self.material is None else {k: c.width for k, c in self.material.channels.items()}
        channels = dict(zip(widths, found.split(list(widths.values()), dim=-1), strict=True))
        if "bump" in channels:
            normal = gradient_bump(normal, channels.pop("bump"))
        baked = {"base_color": channels.pop("albedo"), **channels, "normal": normal}
        return {name: value.cpu() for name, value in baked.items()}

    def _hand_over(self, start: Volume) -> None:
        """Take the parameters of a volume of the same class and shape; its material may have had other channels."""
        given = start.state_dict()
        for name, own in self.state_dict().items():
            theirs = given[name] if name in given else own
            if own.ndim and own.shape != theirs.shape and own.shape[1:] == theirs.shape[1:] and name.startswith("mlp."):
                # The colour is first in all of them; what is new starts from its own random numbers.
                rows = min(len(own), len(theirs))
                given[name] = torch.cat([theirs[:rows], own[rows:].to(theirs)])
        self.load_state_dict(given)
