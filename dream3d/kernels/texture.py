"""The texture kernels as autograd ops, with the twins of texture_reference.py behind them wherever no library serves.

Same names, signatures and results as texture_reference.py, which documents them; `library` as in ops.py. On a CPU all
results have the same bytes for any number of threads; on CUDA the last bits of the texels' gradient vary.
"""

from __future__ import annotations

import ctypes
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from dream3d.kernels import texture_reference as reference
from dream3d.kernels.build import Library
from dream3d.kernels.ops import library_for, refuse_second_derivative
from dream3d.kernels.texture_reference import mipmap, to_pyramid
from dream3d.kernels.texture_types import Pyramid, Wrap, check_sampling

__all__ = ["Pyramid", "Wrap", "mipmap", "sample_cube", "sample_texture"]

WRAPS: tuple[Wrap, ...] = ("repeat", "clamp", "cube")
"""In the order of `enum Wrap` of custom_cuda/mesh_texture.h."""


def sample_texture(
    texture: Float[Tensor, "H W C"] | Pyramid,
    uv: Float[Tensor, "*pixels 2"],
    *,
    levels: Float[Tensor, "*pixels"] | None = None,
    wrap: Literal["repeat", "clamp"] = "repeat",
    library: Library | None = None,
) -> Float[Tensor, "*pixels C"]:
    """As `texture_reference.sample_texture`, differentiable once."""
    pyramid = to_pyramid(texture, levels)
    check_sampling("sample_texture", pyramid, uv, levels, wrap=wrap, cube=False)
    library = library_for(pyramid.texels, library)
    if library is None:
        return reference.sample_texture(pyramid, uv, levels=levels, wrap=wrap)
    return _Sample.apply(pyramid.texels, uv, levels, pyramid.sizes, wrap, library)


def sample_cube(
    texture: Float[Tensor, "6 N N C"] | Pyramid,
    directions: Float[Tensor, "*pixels 3"],
    *,
    levels: Float[Tensor, "*pixels"] | None = None,
    library: Library | None = None,
) -> Float[Tensor, "*pixels C"]:
    """As `texture_reference.sample_cube`, differentiable once."""
    pyramid = to_pyramid(texture, levels)
    check_sampling("sample_cube", pyramid, directions, levels, wrap="cube", cube=True)
    library = library_for(pyramid.texels, library)
    if library is None:
        return reference.sample_cube(pyramid, directions, levels=levels)
    return _Sample.apply(pyramid.texels, directions, levels, pyramid.sizes, "cube", library)


class _Sample(Function):
    @staticmethod
    def forward(
        ctx: Any,
        texels: Tensor,
        places: Tensor,
        levels: Tensor | None,
        sizes: tuple[tuple[int, int], ...],
        wrap: Wrap,
        library: Library,
    ) -> Tensor:
        texels, places = texels.contiguous(), places.contiguous()
        levels = None if levels is None else levels.contiguous()
        values = texels.new_empty(*places.shape[:-1], texels.shape[1])
        flat = (ctypes.c_int32 * (2 * len(sizes)))(*(size for level in sizes for size in level))
        ctx.arguments = (places.numel() // places.shape[-1], len(sizes), texels.shape[1], WRAPS.index(wrap), flat)
        library("d3d_mesh_texture", texels, *ctx.arguments, texels, places, levels, values)
        ctx.save_for_backward(texels, places, levels)
        ctx.library = library
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        op = "sample_cube" if ctx.arguments[3] == WRAPS.index("cube") else "sample_texture"
        refuse_second_derivative(op, "texture_reference")
        texels, places, levels = ctx.saved_tensors
        g_texels = torch.zeros_like(texels) if ctx.needs_input_grad[0] else None
        g_places = torch.empty_like(places) if ctx.needs_input_grad[1] else None
        inputs = (*ctx.arguments, texels, places, levels, gradient.contiguous(), texels.numel())
        ctx.library("d3d_mesh_texture_backward", texels, *inputs, g_texels, g_places)
        return g_texels, g_places, None, None, None, None
