"""What the texture kernels and their twins take, and the checks at their door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.checks import InputError, in_range, one_of
from dream3d.kernels.types import expect

MOST_MIPS = 16
"""As in custom_cuda/mesh_texture.h."""
CUBE_SIDES = 6
Wrap = Literal["repeat", "clamp", "cube"]


@dataclass(frozen=True)
class Pyramid:
    """Levels of detail of a texture or a cube map, the largest first.

    Args:
        texels: those of all levels, level by level (side by side,) row by row.
        sizes: height and width of each level.
        cube: whether a level has six sides.
    """

    texels: Float[Tensor, "texels C"]
    sizes: tuple[tuple[int, int], ...]
    cube: bool

    @staticmethod
    def of(levels: Sequence[Tensor]) -> Pyramid:
        """From (H, W, C) or (6, N, N, C) tensors, of whatever sizes: an environment map's are filtered by roughness."""
        in_range("Pyramid: number of levels", len(levels), 1, MOST_MIPS)
        cube = levels[0].ndim == 4
        for level in levels:
            shape = (CUBE_SIDES, level.shape[-2], level.shape[-2]) if cube else (None, None)
            expect("Pyramid: level", level, (*shape, levels[0].shape[-1]), like=levels[0])
            in_range("Pyramid: sides of a level", min(level.shape), 1)
        channels = levels[0].shape[-1]
        texels = torch.cat([level.reshape(-1, channels) for level in levels])
        return Pyramid(texels, tuple((int(level.shape[-3]), int(level.shape[-2])) for level in levels), cube)

    def level(self, number: int) -> Float[Tensor, "*sides H W C"]:
        """One of the tensors again."""
        sides = CUBE_SIDES if self.cube else 1
        first = sum(sides * height * width for height, width in self.sizes[:number])
        height, width = self.sizes[number]
        part = self.texels[first : first + sides * height * width]
        return part.view(*[CUBE_SIDES] * self.cube, height, width, -1)


def check_sampling(op: str, pyramid: Pyramid, places: Tensor, levels: Tensor | None, *, wrap: str, cube: bool) -> None:
    """Raise unless places and levels fit each other and the texture."""
    one_of(f"{op}: wrap", wrap, ("cube",) if cube else ("repeat", "clamp"))
    if pyramid.cube != cube:
        raise InputError(
            f"{op}: expected {'a cube map (6, N, N, C)' if cube else 'a texture (H, W, C)'}, got the other kind."
        )
    if not places.ndim:
        raise InputError(f"{op}: expected coordinates in the last axis, got a scalar.")
    expect(f"{op}: coordinates", places, (*places.shape[:-1], 3 if cube else 2), like=pyramid.texels)
    if levels is not None:
        expect(f"{op}: levels", levels, tuple(places.shape[:-1]), like=pyramid.texels)
