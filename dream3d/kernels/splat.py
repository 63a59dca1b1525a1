"""The splat kernels as autograd ops, with the twins of splat_reference.py behind them wherever no library serves.

Same names, signatures and results as splat_reference.py, which documents them; `library` as in ops.py. Gradients have
the same bytes for any number of threads. Three ops rather than one, so that a renderer may put anything between them:

    projected = project_splats(means, quaternions, scales, opacities, cameras)
    image = composite_splats(projected, viewed=splat_colours(means, coefficients, cameras), shared=codes)
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from dream3d.checks import InputError
from dream3d.kernels import splat_reference as reference
from dream3d.kernels.build import Library
from dream3d.kernels.ops import library_for, refuse_second_derivative
from dream3d.kernels.splat_reference import TILE, focal_lengths, splat_normals
from dream3d.kernels.types import (
    ProjectedSplats,
    SplatImage,
    check_composite_splats,
    check_project_splats,
    check_splat_colours,
)
from dream3d.types import Cameras

__all__ = ["ProjectedSplats", "SplatImage", "composite_splats", "project_splats", "splat_colours", "splat_normals"]

SHAPE_OF_SLOT = 8
"""Numbers of a slot besides its features and depth: opacity, conic, centre, and the centre's absolute gradient."""


def project_splats(
    means: Float[Tensor, "N 3"],
    quaternions: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, "N"],
    cameras: Cameras,
    *,
    near: float = 0.01,
    far: float = 1e10,
    blur: float = 0.3,
    antialias: bool = False,
    alpha_min: float = 1 / 255,
    library: Library | None = None,
) -> ProjectedSplats:
    """As `splat_reference.project_splats`, differentiable once, with no gradient to the cameras."""
    limits: dict[str, float] = {"near": near, "far": far, "blur": blur, "alpha_min": alpha_min}
    check_project_splats(means, quaternions, scales, opacities, cameras, **limits)
    library = library_for(means, library)
    if library is None:
        return reference.project_splats(means, quaternions, scales, opacities, cameras, **limits, antialias=antialias)
    views = _Views.of(cameras, means)
    lens = (near, far, blur, alpha_min, int(antialias))
    centres, depths, conics, opacities, boxes, tiles, broken = _Project.apply(
        means, quaternions, scales, opacities, views, lens, library
    )
    return ProjectedSplats(
        centres, depths, conics, opacities, boxes, tiles, broken, cameras.height, cameras.width, alpha_min
    )


def composite_splats(
    projected: ProjectedSplats,
    *,
    viewed: Float[Tensor, "C N A"] | None = None,
    shared: Float[Tensor, "N B"] | None = None,
    probe: Float[Tensor, "C N 2"] | None = None,
    transmittance_min: float = 1e-4,
    library: Library | None = None,
) -> SplatImage:
    """As `splat_reference.composite_splats`, differentiable once."""
    check_composite_splats(projected, viewed, shared, probe, transmittance_min)
    library = library_for(projected.means, library)
    if library is None:
        return reference.composite_splats(
            projected, viewed=viewed, shared=shared, probe=probe, transmittance_min=transmittance_min
        )
    shape = (projected.means, projected.conics, projected.opacities, projected.depths)
    image = _Composite.apply(*shape, viewed, shared, probe, projected, transmittance_min, library)
    return SplatImage(image[..., :-2], image[..., -2], image[..., -1])


def splat_colours(
    means: Float[Tensor, "N 3"],
    coefficients: Float[Tensor, "N J 3"],
    cameras: Cameras,
    *,
    degree: int | None = None,
    library: Library | None = None,
) -> Float[Tensor, "C N 3"]:
    """As `splat_reference.splat_colours`, differentiable once, with no gradient to the cameras."""
    degree = check_splat_colours(means, coefficients, degree)
    library = library_for(means, library)
    if library is None:
        return reference.splat_colours(means, coefficients, cameras, degree=degree)
    return _Colours.apply(means, coefficients, _Views.of(cameras, means), (degree + 1) ** 2, library)


class _Views(NamedTuple):
    """Cameras as the kernels read them."""

    c2w: Tensor
    focal: Tensor
    height: int
    width: int

    @staticmethod
    def of(cameras: Cameras, like: Tensor) -> _Views:
        c2w = cameras.c2w.detach().to(like).contiguous()
        return _Views(c2w, focal_lengths(cameras, like).detach(), cameras.height, cameras.width)

    def sizes(self, splats: int) -> tuple[int, int, int, int]:
        return len(self.c2w), splats, self.width, self.height


class _Project(Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quaternions: Tensor,
        scales: Tensor,
        opacities: Tensor,
        views: _Views,
        lens: tuple[float, ...],
        library: Library,
    ) -> tuple[Tensor, ...]:
        inputs = [t.contiguous() for t in (means, quaternions, scales, opacities)]
        pairs = (len(views.c2w), len(means))
        new = means.new_empty
        outputs = (new(*pairs, 2), new(*pairs), new(*pairs, 3), new(*pairs))
        boxes, tiles = new(*pairs, 4, dtype=torch.int16), new(*pairs, dtype=torch.int32)
        broken = means.new_zeros(len(means), dtype=torch.bool)
        arguments = (*views.sizes(len(means)), *lens, views.c2w, views.focal, *inputs)
        library("d3d_splat_project", means, *arguments, *outputs, boxes, tiles, broken)
        ctx.save_for_backward(*inputs, tiles, outputs[2])
        ctx.views, ctx.lens, ctx.library = views, lens, library
        ctx.mark_non_differentiable(boxes, tiles, broken)
        return *outputs, boxes, tiles, broken

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        refuse_second_derivative("project_splats", "splat_reference")
        *inputs, tiles, conics = ctx.saved_tensors
        views, means = ctx.views, inputs[0]
        incoming = [g.contiguous() for g in gradients[:4]]
        outgoing = [torch.empty_like(t) for t in inputs]
        arguments = (*views.sizes(len(means)), *ctx.lens, views.c2w, views.focal, *inputs, tiles, conics)
        ctx.library("d3d_splat_project_backward", means, *arguments, *incoming, *outgoing)
        return *outgoing, None, None, None


class _Binned(NamedTuple):
    """Slots of (Gaussian, tile) meetings, and the order in which tiles look at them; see custom_cuda/splat_bin.h."""

    offsets: Tensor
    tile_offsets: Tensor
    order: Tensor
    pairs: Tensor

    @staticmethod
    def of(projected: ProjectedSplats, library: Library) -> _Binned:
        cameras, splats = projected.tiles.shape
        ends = projected.tiles.flatten().cumsum(dim=0, dtype=torch.long)
        total = int(ends[-1]) if len(ends) else 0
        if total >= 1 << 31:
            raise InputError(
                f"composite_splats: {total} meetings of Gaussians and tiles are more than 2^31; "
                "draw fewer cameras at once, or smaller pictures."
            )
        offsets = torch.nn.functional.pad(ends, (1, 0)).to(torch.int32)
        tiles = cameras * -(-projected.width // TILE) * -(-projected.height // TILE)
        order, pairs = offsets.new_empty(2, total).unbind()
        binned = _Binned(offsets, offsets.new_zeros(tiles + 1), order, pairs)
        if total:
            arguments = (cameras, splats, projected.width, projected.height, total, projected.boxes,
                         projected.depths.detach(), offsets)  # fmt: skip
            results = (binned.order, binned.pairs, binned.tile_offsets)
            size = (ctypes.c_int64 * 1)()
            library("d3d_splat_bin", offsets, *arguments, None, size, *results)
            workspace = offsets.new_empty(size[0], dtype=torch.uint8)
            library("d3d_splat_bin", offsets, *arguments, workspace, size, *results)
        return binned


class _Composite(Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        conics: Tensor,
        opacities: Tensor,
        depths: Tensor,
        viewed: Tensor | None,
        shared: Tensor | None,
        probe: Tensor | None,
        projected: ProjectedSplats,
        transmittance_min: float,
        library: Library,
    ) -> Tensor:
        binned = _Binned.of(projected, library)
        features = [None if f is None else f.contiguous() for f in (viewed, shared)]
        counts = [0 if f is None else f.shape[-1] for f in features]
        shape = [t.contiguous() for t in (means, conics, opacities, depths)]
        sizes = (*depths.shape, projected.width, projected.height, projected.alpha_min, transmittance_min)
        scene = (binned.tile_offsets, binned.order, binned.pairs, projected.boxes.contiguous(), *shape)
        image = means.new_empty(len(depths), projected.height, projected.width, sum(counts) + 2)
        library("d3d_splat_composite", means, *sizes, *scene, *counts, *features, image)
        ctx.save_for_backward(*scene, *features, image, binned.offsets)
        ctx.sizes, ctx.counts, ctx.library = sizes, counts, library
        return image

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        refuse_second_derivative("composite_splats", "splat_reference")
        *scene, viewed, shared, image, offsets = ctx.saved_tensors
        means, conics, opacities, depths = scene[4:]
        slots = means.new_empty(len(scene[1]), sum(ctx.counts) + 1 + SHAPE_OF_SLOT)
        g_viewed, g_shared = (None if f is None else torch.empty_like(f) for f in (viewed, shared))
        g_depths, g_opacities, g_conics, g_means = (torch.empty_like(t) for t in (depths, opacities, conics, means))
        g_probe = torch.empty_like(means) if ctx.needs_input_grad[6] else None
        ctx.library(
            "d3d_splat_composite_backward", means, *ctx.sizes, *scene, *ctx.counts, viewed, shared,
            image, gradient.contiguous(), offsets, slots,
            g_viewed, g_shared, g_depths, g_opacities, g_conics, g_means, g_probe,
        )  # fmt: skip
        return g_means, g_conics, g_opacities, g_depths, g_viewed, g_shared, g_probe, None, None, None


class _Colours(Function):
    @staticmethod
    def forward(ctx: Any, means: Tensor, coefficients: Tensor, views: _Views, number: int, library: Library) -> Tensor:
        means, coefficients = means.contiguous(), coefficients.contiguous()
        colours = means.new_empty(len(views.c2w), len(means), 3)
        sizes = (len(views.c2w), len(means), number, coefficients.shape[1])
        library("d3d_splat_colours", means, *sizes, views.c2w, means, coefficients, colours)
        ctx.save_for_backward(views.c2w, means, coefficients, colours)
        ctx.sizes, ctx.library = sizes, library
        return colours

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        refuse_second_derivative("splat_colours", "splat_reference")
        inputs = ctx.saved_tensors
        outgoing = [torch.empty_like(t) for t in inputs[1:3]]
        ctx.library("d3d_splat_colours_backward", inputs[1], *ctx.sizes, *inputs, gradient.contiguous(), *outgoing)
        return *outgoing, None, None, None
