"""Splatting of Gaussians."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd import Function

from dream3d.checks import InputError, RunError, in_range
from dream3d.kernels.splat import composite_splats, project_splats, splat_colours, splat_normals
from dream3d.renderers.base import Renderer
from dream3d.representations.base import Representation
from dream3d.representations.gaussians import Drawn, Gaussians
from dream3d.types import Cameras, Render


@final
class Splat(Renderer):
    """Projected, sorted and composited front to back (3D Gaussian Splatting, arXiv:2308.04079), by our kernels or their
    twins. It draws no random numbers. Of Gaussians with parts the aux channels "parts" say how much of a pixel is each
    part's; together they are alpha.

    Args:
        blur: added to both variances of a Gaussian in the picture, pixel^2.
        antialias: make a Gaussian fainter by what the blur adds to it (Mip-Splatting, arXiv:2311.16493): the same
            object in pictures of different sizes.
        near: what is nearer to the camera is not drawn, metres.
    """

    def __init__(self, *, blur: float = 0.3, antialias: bool = False, near: float = 0.01) -> None:
        in_range("Splat: blur", blur, 0)
        in_range("Splat: near", near, 1e-6)
        self.blur = blur
        self.antialias = antialias
        self.near = near

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
        """
        if not isinstance(representation, Gaussians):
            raise InputError(f"Splat draws Gaussians, not a {type(representation).__name__}.")
        g = representation
        scales = g.scales
        projected = project_splats(
            g.means, g.quaternions, scales, g.opacities, cameras,
            near=self.near, blur=self.blur, antialias=self.antialias,
        )  # fmt: skip
        if broken := int(projected.broken.sum()):
            raise RunError(f"{broken} of {len(g)} Gaussians are not finite; lower the learning rate.")
        features = [splat_colours(g.means, g.coefficients, cameras, degree=g.degree)]
        if normals:
            features.append(splat_normals(g.means, g.quaternions, scales, cameras))
        watched = g.watch is not None and torch.is_grad_enabled()
        tally = g.means.new_zeros(len(g), 1, requires_grad=True) if watched else None
        probe = torch.zeros_like(projected.means, requires_grad=True) if g.watch == "absolute" and watched else None
        shared = [channels for channels in (g.codes, tally) if channels is not None]
        seen = composite_splats(
            projected,
            viewed=torch.cat(features, dim=-1),
            shared=torch.cat(shared, dim=-1) if shared else None,
            probe=probe,
        )
        rgb, rest = seen.features[..., :3], seen.features[..., 3:]
        if tally is not None:
            rgb = _Tally.apply(rgb, rest[..., -1])
            if probe is None:
                projected.means.retain_grad()
            centres = projected.means if probe is None else probe
            g.drawn.append(Drawn(centres, projected.visible, tally, cameras.height, cameras.width))
        directions = cameras.rays()[1].to(scales)
        # The kernels' depth is along the viewing axis, -z of the camera; rays are longer by what they lean.
        lean = -(directions * cameras.c2w[:, None, None, :3, 2].to(scales)).sum(dim=-1)
        aux = {"view": directions} if normals else {}
        if g.parts:
            first = sum(f.shape[-1] for f in features) - 3
            aux["parts"] = rest[..., first : first + len(g.parts)]
        return Render(
            rgb=rgb,
            alpha=seen.alpha[..., None],
            depth=(seen.depth / lean)[..., None],
            normal=rest[..., :3] if normals else None,
            aux=MappingProxyType(aux),
        )


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
