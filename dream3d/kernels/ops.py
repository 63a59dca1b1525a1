"""The kernels as autograd ops, with the twins of reference.py behind them wherever no library serves.

Same names, signatures and results as reference.py, which documents them. Each op takes `library` last: None picks the
machine's float32 library, a library given by hand (the tests' float64 build) must match the tensors' type.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from dream3d.checks import InputError
from dream3d.kernels import build, reference
from dream3d.kernels.build import Library
from dream3d.kernels.environment import tune_allocator
from dream3d.kernels.reference import to_offsets
from dream3d.kernels.types import (
    Box,
    Composited,
    HashGridSpec,
    Occupancy,
    Samples,
    check_composite,
    check_hash_grid,
    check_march,
)

__all__ = ["Composited", "HashGridSpec", "Occupancy", "Samples", "backend", "composite", "hash_grid", "march"]

tune_allocator()


def backend(device: torch.device | str) -> str:
    """What serves float32 tensors on `device`, for people: "cpu v3 (12 threads)", "cuda sm_90", "torch twins"."""
    library = build.library(torch.device(device).type)
    return str(library) if library else reference.backend(device)


def hash_grid(
    positions: Float[Tensor, "N 3"],
    table: Float[Tensor, "rows 2"],
    spec: HashGridSpec,
    *,
    library: Library | None = None,
) -> Float[Tensor, "N width"]:
    """As `reference.hash_grid`, differentiable once. On CUDA the table gradient's last bits vary: atomic additions."""
    check_hash_grid(positions, table, spec)
    library = library_for(table, library)
    if library is None:
        return reference.hash_grid(positions, table, spec)
    return _HashGrid.apply(positions, table, spec, library)


def march(
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    occupancy: Occupancy,
    *,
    aabb: Box,
    step: float,
    near: float,
    far: float,
    max_samples: int,
    jitter: Float[Tensor, "R"] | None = None,
    library: Library | None = None,
) -> Samples:
    """As `reference.march`: the same samples, found by skipping empty cells and blocks of cells."""
    check_march(origins, directions, occupancy, aabb=aabb, step=step, max_samples=max_samples, jitter=jitter)
    library = library_for(origins, library)
    if library is None:
        return reference.march(
            origins, directions, occupancy, aabb=aabb, step=step, near=near, far=far, max_samples=max_samples,
            jitter=jitter,
        )  # fmt: skip
    rays = [None if t is None else t.detach().contiguous() for t in (origins, directions, jitter)]
    grid = (occupancy.bits.contiguous(), occupancy.coarse.contiguous(), occupancy.resolution)
    box = (ctypes.c_double * 6)(*aabb)
    limits = (float(step), float(near), float(far), min(max_samples, (1 << 31) - 1))
    count = origins.new_empty(len(origins), dtype=torch.int32)
    inputs = (len(origins), rays[0], rays[1], *grid, box, *limits, rays[2])
    library("d3d_march", origins, *inputs, None, count, None, None, None)
    offsets = to_offsets(count)
    total = int(offsets[-1])
    t_start, t_end = origins.new_empty(total), origins.new_empty(total)
    ray = count.new_empty(total)
    library("d3d_march", origins, *inputs, offsets, None, t_start, t_end, ray)
    return Samples(offsets, t_start, t_end, ray)


def composite(
    density: Float[Tensor, "M"],
    rgb: Float[Tensor, "M 3"],
    samples: Samples,
    *,
    early_stop: float = 1e-4,
    library: Library | None = None,
) -> Composited:
    """As `reference.composite`, differentiable once."""
    check_composite(density, rgb, samples, early_stop)
    library = library_for(density, library)
    if library is None:
        return reference.composite(density, rgb, samples, early_stop=early_stop)
    pieces = (samples.offsets, samples.t_start, samples.t_end)
    return Composited(*_Composite.apply(density, rgb, *pieces, float(early_stop), library))


def library_for(tensor: Tensor, library: Library | None) -> Library | None:
    """The library that works on `tensor`: the given one, else the machine's; None leaves it to the twin.

    Raises:
        InputError: the given library works on another type or device.
    """
    if library is not None:
        if library.dtype != tensor.dtype or library.device_type != tensor.device.type:
            raise InputError(
                f"library: {library.path.name} works on {library.dtype} on {library.device_type}, "
                f"got {tensor.dtype} on {tensor.device}."
            )
        return library
    return build.library(tensor.device.type) if tensor.dtype == torch.float32 else None


def refuse_second_derivative(op: str, twins: str = "reference") -> None:
    """Raise in a backward pass that is itself recorded; `twins` is the module that can do it."""
    if torch.is_grad_enabled():
        raise InputError(
            f"{op}: the kernel is differentiable once (create_graph=True was asked for); "
            f"call dream3d.kernels.{twins}.{op} for second derivatives."
        )


class _HashGrid(Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, table: Tensor, spec: HashGridSpec, library: Library) -> Tensor:
        positions, table = positions.contiguous(), table.contiguous()
        features = table.new_empty(len(positions), spec.width)
        library("d3d_hash_grid", table, build.hash_grid_struct(spec), len(positions), positions, table, features)
        ctx.save_for_backward(positions, table)
        ctx.spec, ctx.library = spec, library
        return features

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        refuse_second_derivative("hash_grid")
        positions, table = ctx.saved_tensors
        for_positions, for_table = ctx.needs_input_grad[:2]
        # Zeroed because the kernel adds into it; the other one it writes.
        table_gradient = torch.zeros_like(table) if for_table else None
        position_gradient = torch.empty_like(positions) if for_positions else None
        inputs = (build.hash_grid_struct(ctx.spec), len(positions), positions, table, gradient.contiguous())
        ctx.library("d3d_hash_grid_backward", table, *inputs, table_gradient, position_gradient)
        return position_gradient, table_gradient, None, None


class _Composite(Function):
    @staticmethod
    def forward(
        ctx: Any,
        density: Tensor,
        rgb: Tensor,
        offsets: Tensor,
        t_start: Tensor,
        t_end: Tensor,
        early_stop: float,
        library: Library,
    ) -> tuple[Tensor, ...]:
        inputs = [t.contiguous() for t in (offsets, density, rgb, t_start, t_end)]
        rays = len(offsets) - 1
        weights, colour = density.new_empty(len(density)), density.new_empty(rays, 3)
        depth, opacity = density.new_empty(rays), density.new_empty(rays)
        library("d3d_composite", density, rays, *inputs, early_stop, weights, colour, depth, opacity)
        ctx.save_for_backward(*inputs, weights, colour, depth, opacity)
        ctx.early_stop, ctx.library = early_stop, library
        ctx.set_materialize_grads(False)  # outputs that no loss looks at cost nothing
        return weights, colour, depth, opacity

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        refuse_second_derivative("composite")
        inputs, outputs = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        offsets, density, rgb = inputs[:3]
        incoming = [None if g is None else g.contiguous() for g in gradients]
        g_density, g_rgb = torch.empty_like(density), torch.empty_like(rgb)
        ctx.library(
            "d3d_composite_backward", density, len(offsets) - 1, *inputs, ctx.early_stop, *outputs, *incoming,
            g_density, g_rgb,
        )  # fmt: skip
        return g_density, g_rgb, None, None, None, None, None
