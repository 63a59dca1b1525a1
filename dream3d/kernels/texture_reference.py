"""The twins of the texture kernels in plain torch: any floating type, any device, differentiable by autograd.

Rows come first and row 0 is v = 0; texel centres lie at (i + 1/2) / size. Cube maps have their sides +x -x +y -y +z -z
with the axes of OpenGL's cube maps, seen from inside.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.kernels.texture_types import CUBE_SIDES, MOST_MIPS, Pyramid, Wrap, check_sampling

__all__ = ["Pyramid", "Wrap", "mipmap", "sample_cube", "sample_texture"]

FARTHEST_TEXEL = 1e9


def mipmap(texture: Float[Tensor, "H W C"] | Float[Tensor, "6 N N C"]) -> Pyramid:
    """The texture and its averages over 2 x 2, 4 x 4 ... texels, down to one texel; differentiable.

    Every level has the mean of the one above also where a size is odd: three texels overlap two boxes by their shares.
    """
    levels = [texture]
    while max(levels[-1].shape[-3:-1]) > 1 and len(levels) < MOST_MIPS:
        levels.append(_halve(_halve(levels[-1], -3), -2))
    return Pyramid.of(levels)


def sample_texture(
    texture: Float[Tensor, "H W C"] | Pyramid,
    uv: Float[Tensor, "*pixels 2"],
    *,
    levels: Float[Tensor, "*pixels"] | None = None,
    wrap: Literal["repeat", "clamp"] = "repeat",
) -> Float[Tensor, "*pixels C"]:
    """Bilinear lookup in a level, linear between two levels.

    Args:
        texture: a tensor has its pyramid made on the way if levels are asked for. Gradients flow here.
        uv: (0, 0) is the upper left corner, (1, 1) the lower right one. Gradients flow here too.
        levels: which level of the pyramid, 0 being the texture itself; fractions mix, the ends clamp. No gradient.
        wrap: what stands beside the texture: itself, or its rim.

    Raises:
        InputError: a shape, type or device does not fit.
    """
    pyramid = to_pyramid(texture, levels)
    check_sampling("sample_texture", pyramid, uv, levels, wrap=wrap, cube=False)
    return _sample(pyramid, uv, levels, wrap)


def sample_cube(
    texture: Float[Tensor, "6 N N C"] | Pyramid,
    directions: Float[Tensor, "*pixels 3"],
    *,
    levels: Float[Tensor, "*pixels"] | None = None,
) -> Float[Tensor, "*pixels C"]:
    """Lookup by direction, filtered across the edges of the cube's sides.

    Args:
        texture: as for `sample_texture`.
        directions: of any length but 0. Gradients flow here too.
        levels: as for `sample_texture`.

    Raises:
        InputError: a shape, type or device does not fit.
    """
    pyramid = to_pyramid(texture, levels)
    check_sampling("sample_cube", pyramid, directions, levels, wrap="cube", cube=True)
    return _sample(pyramid, directions, levels, "cube")


def to_pyramid(texture: Tensor | Pyramid, levels: Tensor | None) -> Pyramid:
    """What is to be sampled: a tensor alone has one level, and all of them where levels are asked for."""
    if isinstance(texture, Pyramid):
        return texture
    return Pyramid.of([texture]) if levels is None else mipmap(texture)


def _halve(x: Tensor, dim: int) -> Tensor:
    size = x.shape[dim]
    if size == 1:
        return x
    half = size // 2
    even, odd = (x.narrow(dim, k, size - k).unfold(dim, 1, 2).squeeze(-1) for k in (0, 1))
    if size % 2 == 0:
        return 0.5 * (even + odd)
    place = torch.arange(half, dtype=x.dtype, device=x.device).view(-1, *[1] * (-dim - 1))
    first, last = even.narrow(dim, 0, half), even.narrow(dim, 1, half)
    return ((half - place) * first + half * odd.narrow(dim, 0, half) + (place + 1) * last) / size


class _Side(NamedTuple):
    """Axes of a side of the cube: which coordinate each is, and its sign."""

    number: Tensor
    s: Tensor
    t: Tensor
    away: Tensor

    @staticmethod
    def towards(d: Tensor) -> _Side:
        size = d.detach().abs()
        x, y, z = size.unbind(dim=-1)
        axis = torch.where((x >= y) & (x >= z), 0, torch.where(y >= z, 1, 2))
        number = 2 * axis + (d.detach().gather(-1, axis[..., None])[..., 0] < 0).long()
        frame = _frames(d)[number]
        s, t, away = (frame * d[..., None, :]).sum(dim=-1).unbind(dim=-1)
        return _Side(number, s / away, t / away, away)


def _frames(like: Tensor) -> Tensor:
    """(6, 3, 3): for each side the world's axes of s (right), t (down) and the way out."""
    return like.new_tensor([
        [[0, 0, -1], [0, -1, 0], [1, 0, 0]],
        [[0, 0, 1], [0, -1, 0], [-1, 0, 0]],
        [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
        [[1, 0, 0], [0, 0, -1], [0, -1, 0]],
        [[1, 0, 0], [0, -1, 0], [0, 0, 1]],
        [[-1, 0, 0], [0, -1, 0], [0, 0, -1]],
    ])  # fmt: skip


def _sample(pyramid: Pyramid, places: Tensor, levels: Tensor | None, wrap: Wrap) -> Tensor:
    flat = places.reshape(-1, places.shape[-1])
    if levels is None:
        values = _sample_level(pyramid, flat, flat.new_zeros(len(flat), dtype=torch.long), wrap)
    else:
        most = len(pyramid.sizes) - 1
        level = levels.detach().reshape(-1).clamp(0, most)
        first = level.floor().long()
        part = (level - first)[:, None]
        pair = [_sample_level(pyramid, flat, at, wrap) for at in (first, (first + 1).clamp(max=most))]
        values = (1 - part) * pair[0] + part * pair[1]
    return values.view(*places.shape[:-1], values.shape[-1])


def _sample_level(pyramid: Pyramid, places: Tensor, level: Tensor, wrap: Wrap) -> Tensor:
    sizes = torch.tensor(pyramid.sizes, device=places.device)
    number = sizes.prod(dim=1) * (CUBE_SIDES if pyramid.cube else 1)
    offset, (height, width) = (number.cumsum(0) - number)[level], sizes[level].unbind(dim=1)
    side = None
    if wrap == "cube":
        side = _Side.towards(places)
        x, y = ((side.s + 1) * 0.5 * width - 0.5, (side.t + 1) * 0.5 * height - 0.5)
    else:
        x, y = places[:, 0] * width - 0.5, places[:, 1] * height - 0.5
    left, top = (t.detach().floor().nan_to_num(-FARTHEST_TEXEL) for t in (x, y))
    right, down = (x - left)[:, None], (y - top)[:, None]
    shares = ((1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down)
    value = places.new_zeros(())
    for k, share in enumerate(shares):
        row = top.clamp(-FARTHEST_TEXEL, FARTHEST_TEXEL).long() + k // 2
        column = left.clamp(-FARTHEST_TEXEL, FARTHEST_TEXEL).long() + k % 2
        if side is not None:
            texel = _cube_texel(side.number, row, column, height, places)
        elif wrap == "clamp":
            texel = _within(row, height) * width + _within(column, width)
        else:
            texel = row % height * width + column % width
        value = value + share * pyramid.texels[offset + texel]
    return value


def _cube_texel(number: Tensor, row: Tensor, column: Tensor, size: Tensor, like: Tensor) -> Tensor:
    """A texel beside a side is the one on another side to which its centre, on the side's prolonged plane, points."""
    inside = (row >= 0) & (column >= 0) & (row < size) & (column < size)
    s, t = ((2 * i + 1).to(like) * (1 / size.to(like)) - 1 for i in (column, row))
    frame = _frames(like)[number]
    to = _Side.towards(s[:, None] * frame[:, 0] + t[:, None] * frame[:, 1] + frame[:, 2])
    half = 0.5 * size
    there = [_within(((x + 1) * half).floor().long(), size) for x in (to.t, to.s)]
    own = (number * size + row) * size + column
    return torch.where(inside, own, (to.number * size + there[0]) * size + there[1])


def _within(i: Tensor, size: Tensor) -> Tensor:
    return torch.minimum(i.clamp(min=0), size - 1)
