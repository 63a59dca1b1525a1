"""A signed distance field over a box, drawn as a volume: hash grid and a small MLP."""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from dream3d.checks import InputError, RunError, in_range, one_of
from dream3d.materials.base import Material
from dream3d.nn.differences import around, slope
from dream3d.nn.encodings import HashEncoding
from dream3d.nn.isosurface import isosurface, sample_grid
from dream3d.nn.mlp import MLP
from dream3d.nn.occupancy import OccupancyGrid
from dream3d.nn.solid import Solid
from dream3d.representations.base import Representation, Surfaced, Volume
from dream3d.types import Mesh

UNIT = 0.1
"""Metres that the network's output of 1 stands for: shapes then change about as fast as a Field's."""
DARK = 7.0
"""Optical depth that counts as hidden, as in `March`."""
SOLID = 1e4
"""Density (1/metre) of cells that hide all: one sample is enough."""
FIT_POINTS, FIT_BATCH, FIT_NEAR = 24_000, 4096, 0.04
"""Of fitting to a mesh: distances computed, points a step, and how far (metres) points scatter around the surface."""

Density = Literal["neus", "volsdf"]


@final
class SDFField(Volume):
    """Signed distance f (metres, negative inside) and colour, with a learned sharpness s of the drawn surface.

    f = |x| - sphere + MLP(hash(x)): it starts as a ball. What `March` draws of it is either of

    - "neus" (arXiv:2106.10689, eq. 13): a piece of a ray from f_a to f_b keeps sigmoid(s f_b) / sigmoid(s f_a) of the
      light, all of it where f rises. Taken from the two ends, a ray's product telescopes: the picture is right at any
      step, and no gradient of f is needed. Two queries a sample.
    - "volsdf" (arXiv:2106.12052, eq. 2-3): density s * Laplace CDF of scale 1 / s at -f. One query a sample; the step
      must resolve 1 / s.

    Nothing makes f a distance but `Eikonal`.

    Args:
        start: the stage before. An SDFField of the same shape hands over its parameters; of anything else the surface
            (`to_mesh()`) and its colours are fitted. None is a ball.
        material: what the field gives the inputs of; None is a colour. A renderer lights it (`March`).
        density: "neus" or "volsdf".
        radius: half the side of the box, metres.
        levels: grids of the hash encoding.
        log2_table: log2 of the rows of a level; 15 to 17 on a CPU, 19 on a GPU.
        base: cells along an axis of the coarsest grid.
        finest: cells along an axis of the finest grid.
        hidden: width of the MLP.
        sphere: radius of the ball, metres.
        sharpness: s to start with, 1/metre.
        sharpest: greatest s.
        occupancy: cells along an axis of the occupancy grid; a multiple of 8.
        refresh: optimiser steps between two refreshes of the occupancy grid.
        network_lr_scale: learning rate of the MLP relative to the hash table's.
        sharpness_lr_scale: learning rate of log s, relative; 0 keeps it.
        fit_steps: optimiser steps of fitting to a mesh.

    Raises:
        InputError: the surface of `start` does not fit into the box.
    """

    def __init__(
        self,
        start: Representation | None = None,
        *,
        material: Material | None = None,
        density: Density = "neus",
        radius: float = 1.0,
        levels: int = 10,
        log2_table: int = 15,
        base: int = 8,
        finest: int = 192,
        hidden: int = 32,
        sphere: float = 0.5,
        sharpness: float = 30.0,
        sharpest: float = 300.0,
        occupancy: int = 48,
        refresh: int = 16,
        network_lr_scale: float = 0.2,
        sharpness_lr_scale: float = 0.1,
        fit_steps: int = 300,
    ) -> None:
        super().__init__()
        in_range("SDFField: radius", radius, 1e-3)
        in_range("SDFField: sphere", sphere, 1e-3, radius)
        in_range("SDFField: sharpness", sharpness, 1e-3, sharpest)
        in_range("SDFField: fit_steps", fit_steps, 1)
        self.law = one_of("SDFField: density", density, ("neus", "volsdf"))
        self.material = material
        self.radius = radius
        self.sphere = sphere
        self.sharpest = sharpest
        self.network_lr_scale = network_lr_scale
        self.sharpness_lr_scale = sharpness_lr_scale
        self.encoding = HashEncoding(levels=levels, log2_table=log2_table, base=base, finest=finest)
        self.mlp = MLP(self.encoding.width, 1 + self.width, hidden=hidden)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(sharpness)))
        self.grid = OccupancyGrid(cells=occupancy, radius=radius, refresh=refresh)
        self.register_buffer("trained", torch.zeros((), dtype=torch.long))
        if isinstance(start, SDFField):
            self._hand_over(start)
        elif start is not None:
            self._fit(start.to_mesh(), fit_steps)

    @property
    def sharpness(self) -> Tensor:
        """s, 1/metre."""
        return self.log_sharpness.exp()

    def _raw(self, points: Float[Tensor, "N 3"], *, twice: bool = False) -> tuple[Tensor, Tensor]:
        """Signed distance and the material's raw numbers."""
        raw = self.mlp(self.encoding((points / self.radius + 1) * 0.5, twice=twice))
        # The norm has no slope at the origin; a little below the square root gives it the one of a smooth ball.
        ball = (points.square().sum(-1) + 1e-12).sqrt() - self.sphere
        return ball + UNIT * raw[:, 0], raw[:, 1:]

    def distance(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """f, metres: negative inside."""
        return self._raw(points)[0]

    def along(
        self, points: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"], lengths: Float[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N width"]]:
        if self.law == "volsdf":
            distance, raw = self._raw(points)
            return laplace_density(distance, self.sharpness), raw
        half = 0.5 * lengths[:, None] * directions
        distance, raw = self._raw(torch.cat([points - half, points + half]))
        first, last = distance.chunk(2)
        return neus_depth(first, last, self.sharpness) / lengths, 0.5 * (raw[: len(points)] + raw[len(points) :])

    def query(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N width"]]:
        distance, raw = self._raw(points)
        return self._most(distance), torch.cat(list(self.looks(raw).values()), dim=-1)

    def _most(self, distance: Tensor) -> Tensor:
        """Density that a ray meets which goes straight in."""
        s = self.sharpness
        return laplace_density(distance, s) if self.law == "volsdf" else s * torch.sigmoid(-s * distance)

    def bounds(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        distance = self.distance(points)
        # Anywhere in a cell the distance differs by its diagonal at most.
        diagonal = math.sqrt(3) * self.grid.cell
        most = self._most(distance - diagonal)
        if self.law == "volsdf":
            return most, self._most(distance)
        # A ray that only grazes is not hidden by how long it was in there, but by how deep.
        return most, torch.where(distance < -DARK / self.sharpness - diagonal, SOLID, 0.0)

    def gradients(
        self, points: Float[Tensor, "N 3"], *, mode: Literal["finite", "analytic"] = "finite", eps: float | None = None
    ) -> Float[Tensor, "N 3"]:
        """Of f, not normalised: of length 1 where f is a distance. `mode` and `eps` as for `Field.normals`."""
        one_of("gradients: mode", mode, ("finite", "analytic"))
        if mode == "analytic":
            track = torch.is_grad_enabled()
            return slope(lambda p: self._raw(p, twice=track)[0], points, track=track)
        step = self._eps(eps)
        plus, minus = around(self.distance, points, step)
        return (plus - minus) / (2 * step)

    def laplacian(self, points: Float[Tensor, "N 3"], *, eps: float | None = None) -> Float[Tensor, "N"]:
        """Of f, 1/metre, by differences: twice the mean curvature of the level set where f is a distance."""
        step = self._eps(eps)
        plus, minus = around(self.distance, points, step)
        return ((plus + minus).sum(-1) - 6 * self.distance(points)) / step**2

    def normals(
        self, points: Float[Tensor, "N 3"], *, mode: Literal["finite", "analytic"] = "finite", eps: float | None = None
    ) -> Float[Tensor, "N 3"]:
        return functional.normalize(self.gradients(points, mode=mode, eps=eps), dim=-1, eps=1e-8)

    def _eps(self, eps: float | None) -> float:
        return eps or max(self.radius / self.encoding.spec.finest, 0.01 * self.radius)

    def after_step(self, step: int, optimizer: Optimizer, generator: torch.Generator | None = None) -> None:
        self.trained += 1
        with torch.no_grad():
            self.log_sharpness.clamp_(max=math.log(self.sharpest))
        self.grid.after_step(step, self.bounds)

    def parameter_groups(self) -> list[dict]:
        return [
            {"params": [self.encoding.table], "lr_scale": 1.0},
            {"params": list(self.mlp.parameters()), "lr_scale": self.network_lr_scale},
            {"params": [self.log_sharpness], "lr_scale": self.sharpness_lr_scale},
        ]

    def to_mesh(self) -> Mesh:
        return self.colored(self.surface(resolution=64).mesh)

    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        """As the base says; `iso` is a distance in metres, 0 by default."""
        level = 0.0 if iso is None else iso
        inside = level - sample_grid(self.distance, self.radius, resolution, self.grid.peaks.device)
        if not bool((inside > 0).any()):
            raise RunError(
                f"no surface: after {int(self.trained)} steps the distance is nowhere below {level:g} m, "
                f"at least {level - float(inside.max()):.3g} m. Train longer, with less sparsity."
            )
        cell = 2 * self.radius / resolution
        return Surfaced(isosurface(inside, 0.0, self.radius), lambda points: self.bake(points, cell))

    def _fit(self, mesh: Mesh, steps: int) -> None:
        """Distance and colour of a mesh, by Adam on points around and between."""
        if (reach := float(mesh.vertices.abs().max())) > self.radius:
            raise InputError(f"SDFField: the surface reaches {reach:.3g} m, the box {self.radius:g} m. Raise radius.")
        solid, generator = Solid(mesh.vertices, mesh.faces), torch.Generator().manual_seed(0)
        on = _drawn(mesh.vertices.detach().cpu().float()[mesh.faces.cpu()], FIT_POINTS // 2, generator)
        near = on + FIT_NEAR * torch.randn(on.shape, generator=generator)
        between = (2 * torch.rand(on.shape, generator=generator) - 1) * self.radius
        points = torch.cat([on, near[: len(on) // 2], between[: len(on) // 2]]).clamp(-self.radius, self.radius)
        distance, colors = solid.signed_distance(points, band=4 * FIT_NEAR), None
        if mesh.colors is not None:
            at = solid.nearest(points)
            colors = (at.weights[..., None] * mesh.colors.detach().cpu()[mesh.faces.cpu()[at.face]]).sum(1)
        beside = (distance.abs() < FIT_NEAR)[:, None].float()
        device = self.encoding.table.device
        rates = [{**group, "lr": 0.01 * group["lr_scale"]} for group in self.parameter_groups()[:2]]
        optimizer = torch.optim.Adam(rates, betas=(0.9, 0.99), eps=1e-15)
        with torch.enable_grad():
            for step in range(steps):
                which = torch.randint(len(points), (FIT_BATCH,), generator=generator)
                found, raw = self._raw(points[which].to(device))
                loss = (found - distance[which].to(device)).abs().mean()
                if colors is not None:
                    color = self.looks(raw)["albedo"]
                    miss = beside[which].to(device) * (color - colors[which].to(device)).square()
                    loss = loss + 0.1 * miss.mean()
                optimizer.zero_grad()
                loss.backward()
                for group in optimizer.param_groups:
                    group["lr"] = 0.01 * group["lr_scale"] * min(1.0, 2 * (1 - step / steps))
                optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _drawn(corners: Float[Tensor, "F 3 3"], count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """Points spread evenly over triangles."""
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    face = torch.multinomial(area, count, replacement=True, generator=generator)
    root, other = torch.rand(2, count, 1, generator=generator)
    root = root.sqrt()
    weight = torch.cat([1 - root, root * (1 - other), root * other], dim=-1)
    return (weight[..., None] * corners[face]).sum(1)


def neus_depth(first: Float[Tensor, "N"], last: Float[Tensor, "N"], s: Float[Tensor, ""]) -> Float[Tensor, "N"]:
    """Optical depth of pieces of rays between two signed distances: -log(1 - alpha) of NeuS (arXiv:2106.10689, eq. 13).

    In logarithms nothing overflows and nothing is divided by 0, however deep inside.
    """
    return (functional.logsigmoid(s * first) - functional.logsigmoid(s * last)).relu()


def laplace_density(distance: Float[Tensor, "N"], s: Float[Tensor, ""]) -> Float[Tensor, "N"]:
    """s times the distribution function, at -distance, of Laplace's law of scale 1 / s (arXiv:2106.12052, eq. 2-3):
    s deep inside, s / 2 on the surface, 0 far outside."""
    return s * (0.5 + 0.5 * distance.sign() * torch.expm1(-distance.abs() * s))
