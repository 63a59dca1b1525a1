"""gsplat's CUDA kernels behind `Splat(backend="gsplat")`: the two ops of kernels/splat.py by another hand."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function

from dream3d.cameras import opengl_to_opencv
from dream3d.checks import MissingError
from dream3d.kernels.splat_reference import TILE, ProjectedSplats, SplatImage, focal_lengths
from dream3d.types import Cameras


@dataclass(frozen=True)
class _Projected(ProjectedSplats):
    radii: Int[Tensor, "C N 2"]
    """Half the size of what gsplat looks at, pixels; 0 where nothing is drawn."""


def project_splats(
    means: Float[Tensor, "N 3"],
    quaternions: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, "N"],
    cameras: Cameras,
    *,
    near: float = 0.01,
    blur: float = 0.3,
    antialias: bool = False,
) -> ProjectedSplats:
    """As `dream3d.kernels.splat.project_splats`, but for `alpha_min`, which gsplat fixes at 1/255.

    Raises:
        MissingError: the Gaussians are not on a CUDA device, or gsplat or its kernels are not there.
    """
    library = _library(means.device)
    broken = ~torch.cat([means, quaternions, scales, opacities[:, None]], dim=1).isfinite().all(dim=1)
    size = means.new_tensor([cameras.width, cameras.height])
    focal = focal_lengths(cameras, means)
    intrinsics = torch.diag_embed(torch.stack([focal, focal, torch.ones_like(focal)], dim=-1))
    intrinsics[:, :2, 2] = 0.5 * size
    radii, centres, depths, conics, factors = library.fully_fused_projection(
        means, None, quaternions, scales, opengl_to_opencv(cameras.c2w).to(means), intrinsics,
        cameras.width, cameras.height, eps2d=blur, near_plane=near, calc_compensations=antialias, opacities=opacities,
    )  # fmt: skip
    drawn = (radii > 0).all(dim=-1)
    first = torch.minimum((centres.detach() - radii).floor().clamp_min(0), size)
    end = torch.minimum((centres.detach() + radii).ceil().clamp_min(0), size)
    boxes = torch.where(drawn[..., None], torch.cat([first, end], dim=-1), 0)
    low, high = boxes.long().split(2, dim=-1)
    tiles = torch.where(drawn & (high > low).all(dim=-1), ((high - 1) // TILE - low // TILE + 1).prod(dim=-1), 0)
    return _Projected(
        means=centres,
        depths=depths,
        conics=conics,
        opacities=opacities * factors if antialias else opacities.expand_as(depths),
        boxes=boxes.to(torch.int16),
        tiles=tiles.to(torch.int32),
        broken=broken,
        height=cameras.height,
        width=cameras.width,
        alpha_min=1 / 255,
        radii=radii,
    )


def composite_splats(
    projected: ProjectedSplats,
    *,
    viewed: Float[Tensor, "C N A"],
    shared: Float[Tensor, "N B"] | None = None,
    probe: Float[Tensor, "C N 2"] | None = None,
) -> SplatImage:
    """As `dream3d.kernels.splat.composite_splats`, of what `project_splats` here returned."""
    assert isinstance(projected, _Projected)
    library = _library(viewed.device)
    parts = [viewed, projected.depths[..., None]]
    if shared is not None:
        parts.insert(1, shared.expand(len(viewed), -1, -1))
    width, height = -(-projected.width // TILE), -(-projected.height // TILE)
    centres = projected.means if probe is None else _absolute(projected.means, probe)
    _, meetings, order = library.isect_tiles(centres, projected.radii, projected.depths, TILE, width, height)
    offsets = library.isect_offset_encode(meetings, len(viewed), width, height)
    image, alpha = library.rasterize_to_pixels(
        centres, projected.conics, torch.cat(parts, dim=-1), projected.opacities,
        projected.width, projected.height, TILE, offsets, order, absgrad=probe is not None,
    )  # fmt: skip
    return SplatImage(image[..., :-1], image[..., -1], alpha[..., 0])


def _library(device: torch.device) -> ModuleType:
    """gsplat, able to run there. Its kernels are compiled when they are asked for first, which takes minutes."""
    if device.type != "cuda":
        raise MissingError("Splat: backend 'gsplat' needs CUDA (its kernels have no CPU code). Use backend: dream3d.")
    try:
        import gsplat
        from gsplat.cuda._backend import _C
    except ImportError as error:
        raise MissingError("Splat: backend 'gsplat' is not installed: pip install gsplat") from error
    if _C is None:
        raise MissingError(
            "Splat: backend 'gsplat' has no kernels: it compiles them with a CUDA toolkit, which is not there. "
            "Install nvcc, or use backend: dream3d."
        )
    return gsplat


def _absolute(means: Tensor, probe: Tensor) -> Tensor:
    """The centres; on the way back the probe gets the absolute gradient that gsplat leaves at its input."""
    seen: list[Any] = []
    copy = _Absolute.apply(means, probe, seen)
    seen.append(copy)  # this very tensor is what gsplat marks; the way back lets go of it
    return copy


class _Absolute(Function):
    @staticmethod
    def forward(ctx: Any, means: Tensor, probe: Tensor, seen: list[Any]) -> Tensor:
        ctx.seen = seen
        return means.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], ctx.seen.pop().absgrad, None
