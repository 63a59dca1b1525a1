"""A density and colour field over a box: hash grid and a small MLP."""

from __future__ import annotations

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from dream3d.checks import in_range, one_of
from dream3d.materials.base import Material
from dream3d.nn.differences import around, slope
from dream3d.nn.encodings import HashEncoding
from dream3d.nn.isosurface import automatic_iso, isosurface, sample_grid
from dream3d.nn.mlp import MLP
from dream3d.nn.occupancy import OccupancyGrid
from dream3d.representations.base import Representation, Surfaced, Volume
from dream3d.types import Mesh


@final
class Field(Volume):
    """Volumetric density (1/metre) and display-referred colour, without view dependence.

    density = sharpness * softplus(MLP(hash(x)) + blob(x)) with the linear blob `blob_density * (1 - |x| / blob_radius)`
    of Magic3D (arXiv:2211.10440): the object starts as a soft ball in the middle instead of a fog everywhere.

    Args:
        start: the stage before; a Field of the same shape hands over its parameters, anything else is ignored here.
        material: what the field gives the inputs of; None is a colour. A renderer lights it (`March`).
        radius: half the side of the box, metres.
        levels: grids of the hash encoding.
        log2_table: log2 of the rows of a level; 15 to 17 on a CPU, 19 on a GPU.
        base: cells along an axis of the coarsest grid.
        finest: cells along an axis of the finest grid.
        hidden: width of the MLP.
        sharpness: how fast density rises with the network's output: more gives harder surfaces in fewer steps.
        blob_density: strength of the starting ball.
        blob_radius: where the starting ball's bias crosses zero, metres.
        occupancy: cells along an axis of the occupancy grid; a multiple of 8.
        refresh: optimiser steps between two refreshes of the occupancy grid.
        network_lr_scale: learning rate of the MLP relative to the hash table's.
    """

    def __init__(
        self,
        start: Representation | None = None,
        *,
        material: Material | None = None,
        radius: float = 1.0,
        levels: int = 10,
        log2_table: int = 15,
        base: int = 8,
        finest: int = 192,
        hidden: int = 32,
        sharpness: float = 3.0,
        blob_density: float = 10.0,
        blob_radius: float = 0.5,
        occupancy: int = 48,
        refresh: int = 16,
        network_lr_scale: float = 0.2,
    ) -> None:
        super().__init__()
        in_range("Field: radius", radius, 1e-3)
        in_range("Field: blob_radius", blob_radius, 1e-3)
        in_range("Field: sharpness", sharpness, 1e-3)
        self.material = material
        self.radius = radius
        self.sharpness = sharpness
        self.blob_density = blob_density
        self.blob_radius = blob_radius
        self.network_lr_scale = network_lr_scale
        self.encoding = HashEncoding(levels=levels, log2_table=log2_table, base=base, finest=finest)
        self.mlp = MLP(self.encoding.width, 1 + self.width, hidden=hidden)
        self.grid = OccupancyGrid(cells=occupancy, radius=radius, refresh=refresh)
        self.register_buffer("trained", torch.zeros((), dtype=torch.long))
        self.register_load_state_dict_pre_hook(_renamed)
        if isinstance(start, Field):
            self._hand_over(start)

    def _raw(self, points: Float[Tensor, "N 3"], *, twice: bool = False) -> Float[Tensor, "N one_and_width"]:
        raw = self.mlp(self.encoding((points / self.radius + 1) * 0.5, twice=twice))
        blob = self.blob_density * (1 - points.norm(dim=-1, keepdim=True) / self.blob_radius)
        return raw + functional.pad(blob, (0, self.width))

    def along(
        self, points: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"], lengths: Float[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N width"]]:
        raw = self._raw(points)
        return self.sharpness * functional.softplus(raw[:, 0]), raw[:, 1:]

    def query(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N width"]]:
        """Density (1/metre, 0 or more) and colour ([0, 1]), or all channels of the material, at world points."""
        raw = self._raw(points)
        channels = self.looks(raw[:, 1:])
        return self.sharpness * functional.softplus(raw[:, 0]), torch.cat(list(channels.values()), dim=-1)

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Density alone (1/metre), 0 or more."""
        return self.sharpness * functional.softplus(self._raw(points)[:, 0])

    def normals(
        self, points: Float[Tensor, "N 3"], *, mode: Literal["finite", "analytic"] = "finite", eps: float | None = None
    ) -> Float[Tensor, "N 3"]:
        """Unit outward normals: the direction in which density falls fastest.

        "finite" takes central differences over `eps` metres (default: half a cell of the finest grid at most 0.01
        of the radius; Neuralangelo, arXiv:2306.03092, uses the same step as the active cell) and its gradient reaches
        the parameters through the kernels. "analytic" differentiates the interpolation itself, exact but piecewise
        constant-ish across cells; its gradient goes through the plain-torch twin, which costs about ten times as much.
        """
        one_of("normals: mode", mode, ("finite", "analytic"))
        if mode == "analytic":
            track = torch.is_grad_enabled()
            gradient = slope(lambda p: functional.softplus(self._raw(p, twice=track)[:, 0]), points, track=track)
            return -functional.normalize(gradient, dim=-1, eps=1e-8)
        step = eps or max(self.radius / self.encoding.spec.finest, 0.01 * self.radius)
        plus, minus = around(self.density, points, step)
        return -functional.normalize(plus - minus, dim=-1, eps=1e-8)

    def bounds(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        density = self.density(points)
        return density, density

    def after_step(self, step: int, optimizer: Optimizer, generator: torch.Generator | None = None) -> None:
        self.trained += 1
        self.grid.after_step(step, self.bounds)

    def parameter_groups(self) -> list[dict]:
        return [
            {"params": [self.encoding.table], "lr_scale": 1.0},
            {"params": list(self.mlp.parameters()), "lr_scale": self.network_lr_scale},
        ]

    def to_mesh(self) -> Mesh:
        return self.colored(self.surface(resolution=64).mesh)

    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        values = sample_grid(self.density, self.radius, resolution, self.grid.peaks.device)
        cell = 2 * self.radius / resolution
        level = automatic_iso(values, cell) if iso is None else iso
        mesh = isosurface(values, level, self.radius, steps=int(self.trained))
        return Surfaced(mesh, lambda points: self.bake(points, cell))


def _renamed(_module: object, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Checkpoints from when the grid was no part of its own."""
    for name in ("peaks", "means"):
        if prefix + name in state:
            state[f"{prefix}grid.{name}"] = state.pop(prefix + name)
