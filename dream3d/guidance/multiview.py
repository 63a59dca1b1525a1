"""Several views in one picture."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from jaxtyping import Float
from torch import Tensor

from dream3d.checks import InputError, in_range
from dream3d.guidance.base import Guider, Noised, Objective, guided
from dream3d.guidance.guiders import CFG
from dream3d.priors.base import Condition, Prior


@final
class MultiViewSDS(Objective):
    """SDS on a grid of views (BoostDream, Yu et al., arXiv:2401.16764): a 2D prior judges them in one picture.

        residual = views of (guided eps(grid_t) - eps),     grid = side x side views, a turn divided evenly

    The prior sees latents of `side` times its usual size: U-Nets take them, and attention then relates the views. A
    prompt such as "four views of ..." helps. Where the prior treats tiles independently this is SDS on each view. All
    views of a grid share t.

    The paper's code was not found; it also conditions on normals of the same grid (a ControlNet prior here) and works
    in three stages (recipes here).

    Args:
        side: views along an edge of the grid.
        guider: how the predictions become one; None is CFG 101, as SDS in threestudio.
    """

    def __init__(self, *, side: int = 2, guider: Guider | None = None) -> None:
        super().__init__()
        in_range("MultiViewSDS: side", side, 1, 8)
        self.side = side
        self.views = side**2
        self.guider = guider or CFG(scale=101.0)

    def residual(self, prior: Prior, x: Noised) -> Float[Tensor, "B C h w"]:
        if len(x.t) % self.views or bool((x.t.view(-1, self.views) != x.t[:: self.views, None]).any()):
            raise InputError(f"MultiViewSDS: expected groups of {self.views} views that share one t (got {len(x.t)}).")
        grid = replace(
            x,
            z=self.joined(x.z),
            z_t=self.joined(x.z_t),
            t=x.t[:: self.views],
            added=self.joined(x.eps),
            conditions={name: self._condition(c, x.z.shape[-2:]) for name, c in x.conditions.items()},
        )
        return self.split(guided(prior, (self.guider, grid))[0] - grid.eps)

    def joined(self, views: Float[Tensor, "B C h w"]) -> Float[Tensor, "G C H W"]:
        """Groups of views as grids, row by row."""
        side, (c, h, w) = self.side, views.shape[1:]
        tiles = views.reshape(-1, side, side, c, h, w).permute(0, 3, 1, 4, 2, 5)
        return tiles.reshape(-1, c, side * h, side * w)

    def split(self, grids: Float[Tensor, "G C H W"]) -> Float[Tensor, "B C h w"]:
        """Undoes `joined`."""
        side, c, h, w = self.side, grids.shape[1], grids.shape[2] // self.side, grids.shape[3] // self.side
        return grids.reshape(-1, c, side, h, side, w).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, h, w)

    def _condition(self, condition: Condition, size: tuple[int, ...]) -> Condition:
        """Maps, of latents or pixels, are joined like the views; of all else the first view of a grid speaks for it."""
        tensors = condition.tensors.items()
        maps = {
            n for n, t in tensors if t.ndim == 4 and all(s % h == 0 for s, h in zip(t.shape[-2:], size, strict=True))
        }
        return Condition({n: self.joined(t) if n in maps else t[:: self.views] for n, t in tensors})
