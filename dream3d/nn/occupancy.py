"""Which cells of a box hold matter, learned by looking now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.checks import in_range
from dream3d.kernels.reference import Occupancy

Look = Callable[[Float[Tensor, "N 3"]], tuple[Float[Tensor, "N"], Float[Tensor, "N"]]]
"""World points to densities (1/metre): the greatest around there, and one that hides whatever is behind it."""

CHUNK = 1 << 18
"""Points that are looked at together."""


@final
class OccupancyGrid(nn.Module):
    """Bounds of a density in the cells of a cube around the origin (Instant-NGP, arXiv:2201.05989, appendix C).

    It does not know the density: whoever owns it says how to look.

    Args:
        cells: along an axis; rounded up to a multiple of 8.
        radius: half the side of the cube, metres.
        refresh: optimiser steps between two looks.
    """

    peaks: Tensor
    """Decaying maximum; index order z, y, x."""
    means: Tensor
    """Running mean of what hides."""

    def __init__(self, *, cells: int, radius: float, refresh: int) -> None:
        super().__init__()
        in_range("occupancy", cells, 8, 512)
        in_range("refresh", refresh, 1)
        cells = -(-cells // 8) * 8
        self.radius = radius
        self.refresh = refresh
        self.register_buffer("peaks", torch.zeros(cells, cells, cells))
        self.register_buffer("means", torch.zeros(cells, cells, cells))
        self._occupancy: Occupancy | None = None
        self.register_load_state_dict_post_hook(OccupancyGrid._forget)

    @property
    def cells(self) -> int:
        return self.peaks.shape[0]

    @property
    def cell(self) -> float:
        """Side of a cell, metres."""
        return 2 * self.radius / self.cells

    def occupancy(self, look: Look) -> Occupancy:
        """The cells that may hold matter now."""
        if self._occupancy is None:
            if not bool(self.peaks.any()):
                self._look(look, torch.zeros_like(self.peaks)[..., None].expand(*self.peaks.shape, 3) + 0.5)
            # A cell counts when crossing it absorbs one percent of the light, or less in fields thin everywhere.
            thin = 0.01 * self.cells / (2 * self.radius)
            threshold = min(thin, float(self.peaks.mean()))
            self._occupancy = Occupancy.pack(self.peaks > threshold)
        return self._occupancy

    def after_step(self, step: int, look: Look) -> None:
        """Look, every `refresh` steps."""
        if step % self.refresh == 0:
            # Seeded by the step, so that a resumed run looks at the same points.
            generator = torch.Generator().manual_seed(step)
            self._look(look, torch.rand(*self.peaks.shape, 3, generator=generator).to(self.peaks))

    def hidden_by(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Running mean of the hiding density (1/metre) in the cells of points in the cube."""
        cell = points.div(self.radius).add_(1).mul_(0.5 * self.cells).long().clamp_(0, self.cells - 1)
        return self.means.view(-1)[(cell[:, 2] * self.cells + cell[:, 1]) * self.cells + cell[:, 0]]

    def draw(self, look: Look, count: int, generator: torch.Generator) -> Float[Tensor, "{count} 3"]:
        """Random points in occupied cells, anywhere in the cube if there are none."""
        inside = torch.rand(count, 3, generator=generator).to(self.peaks)
        occupied = self.occupancy(look).unpack().nonzero()
        if not len(occupied):
            return (2 * inside - 1) * self.radius
        which = torch.randint(len(occupied), (count,), generator=generator).to(occupied.device)
        return (occupied[which].flip(-1) + inside) * self.cell - self.radius

    def _forget(self, _: object = None) -> None:
        self._occupancy = None

    @torch.no_grad()
    def _look(self, look: Look, inside: Float[Tensor, "R R R 3"]) -> None:
        """Look at every cell once, at the relative position `inside` (x, y, z in [0, 1])."""
        index = torch.arange(self.cells, device=self.peaks.device, dtype=torch.float32)
        z, y, x = torch.meshgrid(index, index, index, indexing="ij")
        corner = torch.stack([x, y, z], dim=-1)
        points = ((corner + inside) * (2 / self.cells) - 1).view(-1, 3) * self.radius
        most, hiding = zip(*(look(chunk) for chunk in points.split(CHUNK)), strict=True)
        self.peaks.copy_(torch.maximum(self.peaks * 0.9, torch.cat(most).view_as(self.peaks)))
        self.means.lerp_(torch.cat(hiding).view_as(self.means), 0.5)
        self._occupancy = None
