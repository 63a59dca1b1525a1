"""Named scalar losses of a rendering or its representation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.checks import InputError, in_range
from dream3d.guidance.time import Ramp, value_at
from dream3d.nn.solid import Solid
from dream3d.representations.base import Representation, Volume
from dream3d.representations.particles import Particles
from dream3d.representations.sdf import SDFField
from dream3d.types import Render


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
class Eikonal(Regularizer):
    """(|grad f| - 1)^2 at random points: an SDF field stays a distance (IGR, arXiv:2002.10099, eq. 3).

    Gradients are central differences, so that this is differentiated once.

    Args:
        points: half of them in the whole box, half near the surface; others at each step.
    """

    def __init__(self, *, weight: float | Ramp = 1.0, points: int = 2048) -> None:
        in_range("Eikonal: points", points, 2)
        self.weight = weight
        self.points = points

    def loss(self, representation: Representation, render: Render) -> Tensor:
        fields = _parts("Eikonal", representation, SDFField)
        errors = [(field.gradients(field.probes(self.points)).norm(dim=-1) - 1).square().mean() for field in fields]
        return torch.stack(errors).mean()


@final
class Curvature(Regularizer):
    """|Laplacian of f| near the surface of an SDF field, 1/metre (Neuralangelo, arXiv:2306.03092, eq. 9).

    Args:
        points: random ones, others at each step.
        eps: step of the differences, metres; larger ones leave details of that size alone.
    """

    def __init__(self, *, weight: float | Ramp = 1.0, points: int = 1024, eps: float = 0.02) -> None:
        in_range("Curvature: points", points, 1)
        in_range("Curvature: eps", eps, 1e-6)
        self.weight = weight
        self.points = points
        self.eps = eps

    def loss(self, representation: Representation, render: Render) -> Tensor:
        fields = _parts("Curvature", representation, SDFField)
        near = [(field, field.probes(2 * self.points)[self.points :]) for field in fields]
        return torch.stack([field.laplacian(points, eps=self.eps).abs().mean() for field, points in near]).mean()


@final
class SketchShape(Regularizer):
    """A volume is full inside an abstract mesh and empty outside (Latent-NeRF, arXiv:2211.07600, section 3.3, eq. 2-3).

    Cross-entropy of alpha = 1 - exp(-density * thickness) with inside (by winding number), weighted by
    1 - exp(-d^2 / (2 slack^2)) at distance d from the mesh: near its surface the prior decides. The mean over random
    points, where the release has a sum over the samples of rays.

    Args:
        mesh: file (GLB, OBJ, PLY, STL); y up, +Z front. It is centred and scaled.
        size: radius of the sphere into which it is scaled, metres.
        slack: how far the shape may go from the mesh, about, metres.
        thickness: of matter that should be opaque, metres.
        points: half of them in the whole box, half in occupied cells; others at each step.
    """

    def __init__(
        self,
        *,
        mesh: str,
        weight: float | Ramp = 1.0,
        size: float = 0.7,
        slack: float = 0.3,
        thickness: float = 0.2,
        points: int = 4096,
    ) -> None:
        in_range("SketchShape: size", size, 1e-3)
        in_range("SketchShape: slack", slack, 1e-6)
        in_range("SketchShape: thickness", thickness, 1e-6)
        in_range("SketchShape: points", points, 2)
        self.weight = weight
        self.mesh = mesh
        self.size = size
        self.slack = slack
        self.thickness = thickness
        self.points = points
        self._distances: dict[float, Tensor] = {}

    def distance(self, points: Float[Tensor, "N 3"], radius: float) -> Float[Tensor, "N"]:
        """Signed distance from the mesh in a box of half side `radius` (metres), interpolated from `SKETCH_CELLS`.

        Raises:
            InputError: no mesh could be read from the file.
        """
        if radius not in self._distances:
            axis = torch.linspace(-radius, radius, SKETCH_CELLS + 1)
            corners = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).flip(-1)  # z, y, x
            known = _solid(self.mesh, self.size).signed_distance(corners.reshape(-1, 3), band=self.slack)
            self._distances[radius] = known.view(1, 1, *corners.shape[:3])
        field = self._distances[radius].to(points)
        at = (points / radius).view(1, 1, 1, -1, 3)
        return functional.grid_sample(field, at, padding_mode="border", align_corners=True).view(-1)

    def loss(self, representation: Representation, render: Render) -> Tensor:
        return torch.stack([self._of(volume) for volume in _parts("SketchShape", representation, Volume)]).mean()

    def _of(self, volume: Volume) -> Tensor:
        points = volume.probes(self.points)
        depth = volume.query(points)[0] * self.thickness
        distance = self.distance(points, volume.radius)
        # The tiny number is for where a density underflows; anything larger would leave empty places without a pull.
        filled = -torch.log(-torch.expm1(-depth.clamp_min(1e-30)))
        free = torch.exp(-distance.square() / (2 * self.slack**2))
        return ((1 - free) * torch.where(distance < 0, filled, depth)).mean()


SKETCH_CELLS = 32
"""Cells along an axis in which `SketchShape` keeps distances: where they are coarse, at the surface, it is free."""


def _solid(path: str, radius: float) -> Solid:
    """A mesh file, centred on the origin and scaled into a sphere.

    Raises:
        InputError: no mesh could be read from it.
    """
    import trimesh

    try:
        mesh: Any = trimesh.load(path, force="mesh", process=False)
        vertices, faces = torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces, dtype=torch.long)
    except Exception as error:  # trimesh raises whatever its readers meet
        raise InputError(f"{path}: no mesh could be read ({type(error).__name__}).") from error
    if not len(faces):
        raise InputError(f"{path}: expected a triangle mesh, got none.")
    vertices = vertices - 0.5 * (vertices.amin(0) + vertices.amax(0))
    return Solid(vertices * (radius / vertices.norm(dim=-1).max().clamp_min(1e-12)), faces)


V = TypeVar("V", bound=Volume)


def _parts(who: str, representation: Representation, kind: type[V]) -> list[V]:
    """The representation, or each of several particles, if they are of a kind."""
    parts = list(representation) if isinstance(representation, Particles) else [representation]
    found = [part for part in parts if isinstance(part, kind)]
    if len(found) < len(parts):
        wanted = "a Field or an SDFField" if kind is Volume else f"an {kind.__name__}"
        raise InputError(f"{who} is for {wanted}, not for a {type(parts[0]).__name__}.")
    return found


def _straight(who: str, render: Render, name: str) -> tuple[Tensor, Tensor]:
    """An aux channel without its premultiplication, and the opacity (detached) by which to weigh it."""
    if name not in render.aux:
        raise InputError(f"{who} needs the aux channel '{name}': a renderer with a material draws it.")
    alpha = render.alpha.detach()
    return render.aux[name] / alpha.clamp_min(1e-3), alpha
