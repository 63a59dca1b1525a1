"""Losses of a rendering: opacity, depth, normals."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from dream3d.checks import InputError
from dream3d.guidance.time import Ramp
from dream3d.nn.depth import depth_normals
from dream3d.regularizers.base import Regularizer
from dream3d.representations.base import Representation
from dream3d.types import Render


@final
class Sparsity(Regularizer):
    """mean sqrt(alpha^2 + 0.01): fewer covered pixels (DreamFusion, arXiv:2209.14988, appendix A.2)."""

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        return (render.alpha**2 + 0.01).sqrt().mean()


@final
class Opaque(Regularizer):
    """Binary entropy of the accumulated opacity: pixels become all object or all background (Latent-NeRF,
    arXiv:2211.07600)."""

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        alpha = render.alpha.clamp(1e-3, 1 - 1e-3)
        return -(alpha * alpha.log() + (1 - alpha) * (1 - alpha).log()).mean()


@final
class Orientation(Regularizer):
    """Visible normals face the camera (Ref-NeRF, arXiv:2112.03907, eq. 11), on rendered normals.

    Uses depth-independent picture-space normals: a rendered normal that points away along the viewing axis of its pixel
    is penalised by the square of the excess.
    """

    needs_normals = True

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        if render.normal is None or "view" not in render.aux:
            raise InputError("Orientation needs a render with normals and the aux channel 'view' (March draws both).")
        away = (render.normal * render.aux["view"]).sum(-1).clamp_min(0)
        return (away**2).mean()


@final
class SampleOrientation(Regularizer):
    """Samples that are seen face the camera: sum of weight (without gradient) times max(0, n . view)^2, on average over
    the picture (Ref-NeRF, arXiv:2112.03907, eq. 11), on the aux channel "away" that `March` draws.

    `Orientation` looks at the mean normal of a ray; this one also finds layers whose normals cancel.
    """

    needs_normals = True

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        if "away" not in render.aux:
            raise InputError("SampleOrientation needs a render with the aux channel 'away' (March draws it).")
        return render.aux["away"].mean()


@final
class Smooth(Regularizer):
    """Total variation of the rendered depth (metres) inside the object: flat faces stay flat, steps stay possible."""

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        if render.depth is None:
            raise InputError("Smooth needs a render with depth.")
        # Depth where nothing is hit would be 0: far behind, weighted by how opaque both neighbours are.
        alpha = render.alpha.detach()
        depth = render.depth / render.alpha.clamp_min(1e-3)
        dx = (depth[:, :, 1:] - depth[:, :, :-1]).abs() * torch.minimum(alpha[:, :, 1:], alpha[:, :, :-1])
        dy = (depth[:, 1:] - depth[:, :-1]).abs() * torch.minimum(alpha[:, 1:], alpha[:, :-1])
        return dx.mean() + dy.mean()


@final
class Flatness(Regularizer):
    """One less the cosine between neighbouring normals, rendered, on average over the object: faces become flat.

    Works with every renderer that draws normals. Steps in depth count too, so keep it weak.
    """

    needs_normals = True

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        if render.normal is None:
            raise InputError("Flatness needs a render with normals.")
        alpha = render.alpha.detach()[..., 0]
        normal = functional.normalize(render.normal, dim=-1, eps=1e-4)
        bent = normal.new_zeros(())
        for axis in (1, 2):
            n, a = (x.unbind(axis) for x in (normal, alpha))
            first, last = torch.stack(n[:-1], axis), torch.stack(n[1:], axis)
            both = torch.minimum(torch.stack(a[:-1], axis), torch.stack(a[1:], axis))
            bent = bent + (both * (1 - (first * last).sum(-1))).sum()
        return bent / alpha.sum().clamp_min(1.0)


@final
class DepthNormal(Regularizer):
    """Rendered normals are those of the surface that the depths form (2DGS, arXiv:2403.17888, eq. 14).

    sum_i w_i (1 - n_i . N) = alpha - normal . N, N from the depths around a pixel, averaged over the pictures. Depth is
    the mean along the ray; a pixel counts as much as the most transparent of its four neighbours is opaque (detached).
    """

    needs_normals = True

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        if render.normal is None or render.depth is None or "view" not in render.aux:
            raise InputError("DepthNormal needs a render with normals, depth and the aux channel 'view'.")
        alpha = render.alpha[..., 0]
        around = depth_normals(render.depth[..., 0] / alpha.clamp_min(1e-3), render.aux["view"])
        sides = torch.stack([alpha[:, 1:-1, 2:], alpha[:, 1:-1, :-2], alpha[:, 2:, 1:-1], alpha[:, :-2, 1:-1]])
        off = alpha[:, 1:-1, 1:-1] - (render.normal[:, 1:-1, 1:-1] * around).sum(-1)
        return (sides.detach().amin(0) * off).mean()


@final
class Distortion(Regularizer):
    """Surfaces along a ray come together (2DGS, arXiv:2403.17888, eq. 13; before it Mip-NeRF 360, arXiv:2111.12077).

    The mean of the aux channel "distortion": sum over pairs i < j of w_i w_j (z_i - z_j)^2, as in 2DGS's released code;
    the paper has |z_i - z_j|. z is in metres, there a share of the way from near to far.
    """

    needs_normals = True

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        if "distortion" not in render.aux:
            raise InputError("Distortion needs the aux channel 'distortion': Splat draws it.")
        return render.aux["distortion"].mean()
