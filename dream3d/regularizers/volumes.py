"""Losses of volumes and of signed distances."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.checks import in_range
from dream3d.guidance.time import Ramp
from dream3d.mesh_files import read_mesh
from dream3d.nn.solid import Solid
from dream3d.regularizers.base import Regularizer, parts_of
from dream3d.representations.base import Representation, Volume
from dream3d.representations.sdf import SDFField
from dream3d.types import Render

SKETCH_CELLS = 32
"""Cells along an axis in which `SketchShape` keeps distances: where they are coarse, at the surface, it is free."""


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
        fields = parts_of("Eikonal", representation, SDFField)
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
        fields = parts_of("Curvature", representation, SDFField)
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
        return torch.stack([self._of(volume) for volume in parts_of("SketchShape", representation, Volume)]).mean()

    def _of(self, volume: Volume) -> Tensor:
        points = volume.probes(self.points)
        depth = volume.query(points)[0] * self.thickness
        distance = self.distance(points, volume.radius)
        # The tiny number is for where a density underflows; anything larger would leave empty places without a pull.
        filled = -torch.log(-torch.expm1(-depth.clamp_min(1e-30)))
        free = torch.exp(-distance.square() / (2 * self.slack**2))
        return ((1 - free) * torch.where(distance < 0, filled, depth)).mean()


def _solid(path: str, radius: float) -> Solid:
    """A mesh file, centred on the origin and scaled into a sphere.

    Raises:
        InputError: no mesh could be read from it.
    """
    mesh = read_mesh(path).facets()
    return Solid(mesh.vertices * (radius / mesh.vertices.norm(dim=-1).max().clamp_min(1e-12)), mesh.faces)
