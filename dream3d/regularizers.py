"""Named scalar losses of a rendering or its representation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from dream3d.checks import InputError, in_range, one_of
from dream3d.guidance.time import Ramp, value_at
from dream3d.nn.depth import depth_normals
from dream3d.nn.triangles import cotangent_laplacian, face_normals, mesh_edges, uniform_laplacian
from dream3d.representations.base import Faceted, Representation
from dream3d.representations.gaussians import Gaussians
from dream3d.representations.particles import Particles
from dream3d.representations.tets import Tets
from dream3d.types import Mesh, Render


class Regularizer(ABC):
    """A loss beside the objective, with its weight (a constant or a `Ramp`)."""

    weight: float | Ramp
    needs_normals: bool = False

    @abstractmethod
    def loss(self, representation: Representation, render: Render) -> Tensor:
        """The unweighted loss, one number."""

    def __call__(self, representation: Representation, render: Render, step: int) -> Tensor:
        """Weighted loss at this step."""
        return value_at(self.weight, step) * self.loss(representation, render)


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
class SmoothAlbedo(Regularizer):
    """Total variation of the rendered base colour inside the object: shading that was painted on would have to vary.

    On the aux channel "albedo" (premultiplied, sRGB-coded), as intrinsic decompositions since Retinex do it.
    """

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        albedo, alpha = _straight("SmoothAlbedo", render, "albedo")
        dx = (albedo[:, :, 1:] - albedo[:, :, :-1]).abs() * torch.minimum(alpha[:, :, 1:], alpha[:, :, :-1])
        dy = (albedo[:, 1:] - albedo[:, :-1]).abs() * torch.minimum(alpha[:, 1:], alpha[:, :-1])
        return dx.mean() + dy.mean()


@final
class MaterialEntropy(Regularizer):
    """Binary entropy of the rendered "metallic" (premultiplied) over the object: a place is metal or it is not."""

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        metallic, alpha = _straight("MaterialEntropy", render, "metallic")
        p = metallic.clamp(1e-3, 1 - 1e-3)
        entropy = -(p * p.log() + (1 - p) * (1 - p).log())
        return (alpha * entropy).sum() / alpha.sum().clamp_min(1.0)


@final
class PlausibleAlbedo(Regularizer):
    """Squared excess of the rendered base colour over what real surfaces reflect, on average over the object.

    Nothing reflects all light, which would glow in a furnace, nor none, which no light could ever show. The limits are
    those between which Fantasia3D (arXiv:2303.13873, released recipes) clamps, where the gradient would end.

    Args:
        low: least plausible value of the aux channel "albedo" (premultiplied, sRGB-coded).
        high: greatest one.
    """

    def __init__(self, *, weight: float | Ramp = 1.0, low: float = 0.03, high: float = 0.97) -> None:
        in_range("PlausibleAlbedo: low", low, 0, 1)
        in_range("PlausibleAlbedo: high", high, low, 1)
        self.weight = weight
        self.low = low
        self.high = high

    def loss(self, representation: Representation, render: Render) -> Tensor:
        albedo, alpha = _straight("PlausibleAlbedo", render, "albedo")
        excess = (albedo - self.high).clamp_min(0) ** 2 + (self.low - albedo).clamp_min(0) ** 2
        return (alpha * excess.mean(-1, keepdim=True)).sum() / alpha.sum().clamp_min(1.0)


@final
class Inside(Regularizer):
    """Gaussians stay in their part's shape (the restriction box of SemanticSDS, arXiv:2410.09009).

    Summed over all, the squared depth (`Part.depth`: 1 is the surface) beyond a shape that is a little larger.

    Args:
        margin: how much larger; the paper's code has 1.1.
    """

    def __init__(self, *, weight: float | Ramp = 1.0, margin: float = 1.1) -> None:
        in_range("Inside: margin", margin, 0)
        self.weight = weight
        self.margin = margin

    def loss(self, representation: Representation, render: Render) -> Tensor:
        if not isinstance(representation, Gaussians) or representation.part is None:
            raise InputError("Inside needs Gaussians with parts.")
        depths = torch.stack([part.depth(representation.means) for part in representation.parts.values()], dim=1)
        own = depths.gather(1, representation.part[:, None])
        return (own - self.margin).clamp_min(0).square().sum()


def _straight(who: str, render: Render, name: str) -> tuple[Tensor, Tensor]:
    """An aux channel without its premultiplication, and the opacity (detached) by which to weigh it."""
    if name not in render.aux:
        raise InputError(f"{who} needs the aux channel '{name}': a renderer with a material draws it.")
    alpha = render.alpha.detach()
    return render.aux[name] / alpha.clamp_min(1e-3), alpha


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


@final
class OpacityL1(Regularizer):
    """Mean opacity of the Gaussians: what no picture needs becomes transparent, and MCMC moves it to where something is
    (3DGS-MCMC, arXiv:2404.09591, section 3.4; weight 0.01 there)."""

    def __init__(self, *, weight: float | Ramp = 0.01) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        return torch.cat([part.opacities for part in _gaussians("OpacityL1", representation)]).mean()


@final
class ScaleL1(Regularizer):
    """Mean of the Gaussians' scales, metres (3DGS-MCMC, arXiv:2404.09591, section 3.4, weight 0.01; LucidDreamer and
    PlacidDreamer, weight 1): no large, faint ones through which everything shines."""

    def __init__(self, *, weight: float | Ramp = 0.01) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        own = [part.scales[:, : 2 if part.flat else 3] for part in _gaussians("ScaleL1", representation)]
        return torch.cat([scales.flatten() for scales in own]).mean()


def _gaussians(who: str, representation: Representation) -> list[Gaussians]:
    """The Gaussians, or those of all particles."""
    parts = list(representation) if isinstance(representation, Particles) else [representation]
    found = [part for part in parts if isinstance(part, Gaussians)]
    if not found or len(found) < len(parts):
        raise InputError(f"{who} is for Gaussians, not for a {type(parts[0]).__name__}.")
    return found


@final
class Laplacian(Regularizer):
    """Mean squared length of the Laplacian at the vertices: flat places stay flat, and triangles even.

    "uniform" (as nvdiffrec, arXiv:2111.12503) measures in edge lengths, mean squared: the
    same at any scale and any resolution. "cotangent" measures curvature (1/metre^2, 4/r^2 on a ball of radius r) and
    leaves triangles as they are.

    Args:
        weight: of this loss.
        kind: which Laplacian.
    """

    def __init__(self, *, weight: float | Ramp = 1.0, kind: Literal["uniform", "cotangent"] = "uniform") -> None:
        self.weight = weight
        self.kind = one_of("Laplacian: kind", kind, ("uniform", "cotangent"))

    def loss(self, representation: Representation, render: Render) -> Tensor:
        mesh = _facets("Laplacian", representation)
        if self.kind == "cotangent":
            return cotangent_laplacian(mesh.vertices, mesh.faces).square().sum(1).mean()
        ends = mesh_edges(mesh.faces, len(mesh.vertices)).ends
        square = (mesh.vertices[ends[:, 0]] - mesh.vertices[ends[:, 1]]).detach().square().sum(1).mean()
        return uniform_laplacian(mesh.vertices, mesh.faces).square().sum(1).mean() / square.clamp_min(1e-20)


@final
class NormalConsistency(Regularizer):
    """Mean of 1 - cosine of the angle between faces that share an edge (as Magic3D, arXiv:2211.10440)."""

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        mesh = _facets("NormalConsistency", representation)
        pairs = mesh_edges(mesh.faces, len(mesh.vertices)).faces
        one, other = face_normals(mesh.vertices, mesh.faces)[pairs[pairs[:, 0] >= 0]].unbind(1)
        return (1 - (one * other).sum(1)).sum() / max(1, len(one))


@final
class EdgeLength(Regularizer):
    """Mean squared difference of the edges' lengths from a target (metres^2); 0 shrinks them (Pixel2Mesh,
    arXiv:1804.01654).

    Args:
        weight: of this loss.
        target: metres.
    """

    def __init__(self, *, weight: float | Ramp = 1.0, target: float = 0.0) -> None:
        in_range("EdgeLength: target", target, 0)
        self.weight = weight
        self.target = target

    def loss(self, representation: Representation, render: Render) -> Tensor:
        mesh = _facets("EdgeLength", representation)
        a, b = mesh.vertices[mesh_edges(mesh.faces, len(mesh.vertices)).ends].unbind(1)
        # The norm's gradient at length 0 is not a number.
        return (((a - b).square().sum(1) + 1e-20).sqrt() - self.target).square().mean()


@final
class SignChanges(Regularizer):
    """Cross-entropy between the two ends of each grid edge that the surface of `Tets` crosses: fewer of them, so no
    floaters and no inner walls (nvdiffrec, arXiv:2111.12503; FlexiCubes, arXiv:2308.05371)."""

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        ends = _grid("SignChanges", representation).ends()
        return 2 * functional.binary_cross_entropy_with_logits(ends, (ends.detach().flip(1) > 0).to(ends))


@final
class Spread(Regularizer):
    """How uneven the crossings lie around FlexiCubes' vertices, mean absolute deviation in cells: better shaped
    triangles, and no flaps (L_dev of arXiv:2308.05371)."""

    def __init__(self, *, weight: float | Ramp = 1.0) -> None:
        self.weight = weight

    def loss(self, representation: Representation, render: Render) -> Tensor:
        return _grid("Spread", representation).spread().mean()


def _facets(who: str, representation: Representation) -> Mesh:
    if not isinstance(representation, Faceted):
        raise InputError(f"{who} needs triangles (Tets, Shell), not {type(representation).__name__}.")
    return representation.facets()


def _grid(who: str, representation: Representation) -> Tets:
    if not isinstance(representation, Tets):
        raise InputError(f"{who} needs the grid of Tets, not {type(representation).__name__}.")
    return representation
