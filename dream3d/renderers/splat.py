"""Splatting of Gaussians."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from dream3d.checks import InputError, RunError, in_range, one_of
from dream3d.kernels import splat
from dream3d.kernels.splat import splat_colours, splat_normals
from dream3d.nn.depth import depth_and_distortion, depth_planes, squared
from dream3d.renderers import gsplat_backend
from dream3d.renderers.base import Renderer
from dream3d.representations.base import Representation
from dream3d.representations.gaussians import Drawn, Gaussians
from dream3d.types import Cameras, Render


@final
class Splat(Renderer):
    """Projected, sorted and composited front to back (3D Gaussian Splatting, arXiv:2308.04079). It draws no random
    numbers.

    Depth is that of the Gaussians' centres; of flat ones, that of the disc under the pixel. With normals come the
    viewing directions (aux "view") and the spread of depth along each ray, sum over pairs i < j of
    w_i w_j (z_i - z_j)^2 in metres^2 (aux "distortion"). Of Gaussians with parts the aux channels "parts" say how much
    of a pixel is each part's; together they are alpha.

    Args:
        blur: added to both variances of a Gaussian in the picture, pixel^2.
        antialias: make a Gaussian fainter by what the blur adds to it (Mip-Splatting, arXiv:2311.16493): the same
            object in pictures of different sizes.
        near: what is nearer to the camera is not drawn, metres.
        backend: "dream3d" (our kernels or their twins), "gsplat" (CUDA only), or "auto" (dream3d).
    """

    def __init__(
        self,
        *,
        blur: float = 0.3,
        antialias: bool = False,
        near: float = 0.01,
        backend: Literal["auto", "dream3d", "gsplat"] = "auto",
    ) -> None:
        in_range("Splat: blur", blur, 0)
        in_range("Splat: near", near, 1e-6)
        self.blur = blur
        self.antialias = antialias
        self.near = near
        self.backend = one_of("Splat: backend", backend, ("auto", "dream3d", "gsplat"))

    def __call__(
        self,
        representation: Representation,
        cameras: Cameras,
        *,
        generator: torch.Generator | None = None,
        normals: bool = False,
    ) -> Render:
        """As the base says.

        Raises:
            RunError: a Gaussian is not finite.
            MissingError: the backend cannot be had.
        """
        if not isinstance(representation, Gaussians):
            raise InputError(f"Splat draws Gaussians, not a {type(representation).__name__}.")
        g = representation
        scales = g.scales
        ops = gsplat_backend if self.backend == "gsplat" and len(g) else splat
        projected = ops.project_splats(
            g.means, g.quaternions, scales, g.opacities, cameras,
            near=self.near, blur=self.blur, antialias=self.antialias,
        )  # fmt: skip
        if broken := int(projected.broken.sum()):
            raise RunError(f"{broken} of {len(g)} Gaussians are not finite; lower the learning rate.")
        parts = _features(g, scales, projected, cameras, normals)
        watched = g.watch is not None and torch.is_grad_enabled()
        tally = g.means.new_zeros(len(g), 1, requires_grad=True) if watched else None
        probe = torch.zeros_like(projected.means, requires_grad=True) if g.watch == "absolute" and watched else None
        shared = [channels for channels in (g.codes, tally) if channels is not None]
        seen = ops.composite_splats(
            projected,
            viewed=torch.cat([*parts.values()], dim=-1),
            shared=torch.cat(shared, dim=-1) if shared else None,
            probe=probe,
        )
        widths = [*(part.shape[-1] for part in parts.values()), len(g.parts), int(watched)]
        *pieces, codes, weights = seen.features.split(widths, dim=-1)
        shown = dict(zip(parts, pieces, strict=True))
        if tally is not None:
            shown["rgb"] = _Tally.apply(shown["rgb"], weights[..., 0])
            if probe is None:
                projected.means.retain_grad()
            centres = projected.means if probe is None else probe
            g.drawn.append(Drawn(centres, projected.visible, tally, cameras.height, cameras.width))
        directions = cameras.rays()[1].to(scales)
        # The kernels' depth is along the viewing axis, -z of the camera; rays are longer by what they lean.
        lean = -(directions * cameras.c2w[:, None, None, :3, 2].to(scales)).sum(dim=-1)
        depth, aux = seen.depth, {"view": directions} if normals else {}
        if "planes" in shown:
            on_planes, distortion = depth_and_distortion(shown["planes"], seen.alpha, cameras)
            depth = on_planes if g.flat else depth
            if distortion is not None:
                aux["distortion"] = (distortion / lean**2)[..., None]
        if g.parts:
            aux["parts"] = codes
        return Render(
            rgb=shown["rgb"],
            alpha=seen.alpha[..., None],
            depth=(depth / lean)[..., None],
            normal=shown.get("normal"),
            aux=MappingProxyType(aux),
        )


def _features(
    g: Gaussians, scales: Tensor, projected: splat.ProjectedSplats, cameras: Cameras, normals: bool
) -> dict[str, Float[Tensor, "C N F"]]:
    """What is composited, by name."""
    parts = {"rgb": splat_colours(g.means, g.coefficients, cameras, degree=g.degree)}
    if normals:
        parts["normal"] = splat_normals(g.means, g.quaternions, scales, cameras)
    if g.flat or normals:
        planes = depth_planes(projected, g.means, g.quaternions, scales, cameras)
        parts["planes"] = torch.cat([planes, squared(planes)], dim=-1) if normals else planes
    return parts


class _Tally(Function):
    """A picture as it is. On the way back every pixel of the tally's picture gets the gradient 1, and the Gaussians'
    tallies so the sum of their weights; being zeros, they send nothing on to the Gaussians' shapes."""

    @staticmethod
    def forward(ctx: Any, rgb: Tensor, tally: Tensor) -> Tensor:
        ctx.like = (tally.shape, tally.dtype, tally.device)
        return rgb.view_as(rgb)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        shape, dtype, device = ctx.like
        return gradients[0], torch.ones(shape, dtype=dtype, device=device)
