"""3D Gaussians: what splatting draws, and what densification rearranges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, final, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from dream3d.checks import in_range, one_of
from dream3d.layouts import Part, check_parts, filled, nearest_part
from dream3d.representations.base import Representation, Surfaced
from dream3d.representations.splat_starts import FAINTEST as FAINTEST
from dream3d.representations.splat_starts import ball_points, parameters_of, surface_points
from dream3d.representations.splat_starts import point_splats as point_splats
from dream3d.representations.splat_surfaces import Way, surface_of
from dream3d.types import Mesh, Splats

PARAMETERS = ("means", "log_scales", "quaternions", "logits", "dc", "rest")
STATISTICS = ("pull", "views", "share")
Watch = Literal["mean", "absolute"]
"""Which gradient of the centres in the picture a rendering keeps: 3DGS's sum over pixels, or AbsGS's sum of sizes."""


@dataclass(frozen=True)
class Drawn:
    """What a rendering leaves for densification; the gradients are there after the backward pass.

    Args:
        centres: in the picture, pixels, of `C` cameras; its own gradient or, where AbsGS is wanted, a probe's.
        visible: which Gaussians reach a pixel.
        tally: zeros whose gradient is the sum of a Gaussian's weights over all pixels of all pictures.
        height: of the pictures, pixels.
        width: of the pictures, pixels.
    """

    centres: Float[Tensor, "C N 2"]
    visible: Bool[Tensor, "C N"]
    tally: Float[Tensor, "N 1"]
    height: int
    width: int


class Densification(ABC):
    """How the number of Gaussians changes. Members keep nothing: statistics and parameters are the Gaussians'."""

    @abstractmethod
    def before_step(self, gaussians: Gaussians, step: int) -> None:
        """Called before the rendering of a step; sets `gaussians.watch`."""

    @abstractmethod
    def after_step(self, gaussians: Gaussians, step: int, optimizer: Optimizer, generator: torch.Generator) -> None:
        """Called after the optimiser's step.

        Args:
            gaussians: with the statistics up to this step; changed by `gaussians.rearrange`.
            step: which it was.
            optimizer: whose state follows.
            generator: source of random numbers (CPU).
        """


@final
class Gaussians(Representation):
    """3D Gaussian Splatting (arXiv:2308.04079): `log_scales`, `logits` of opacity, `quaternions` (w, x, y, z, of any
    length) and spherical harmonics `dc` and `rest`; draw them with the renderer `Splat`.

    With `flat` they are discs (2D Gaussian Splatting, arXiv:2403.17888) with two scales and a normal, the third axis:
    they lie on surfaces, which depth and normals then follow (regularisers `DepthNormal` and `Distortion`). They are
    drawn as Gaussians whose third scale is 0. Unlike in the paper, where a ray meets the disc exactly, the projection
    is linearised at the centre, and the picture's blur adds to the outline rather than bounding it from below: large
    discs near the camera are not quite in perspective. Their depth is that of the disc under each pixel.

    Learning rates are relative to the stage's, which is that of the colours. The defaults are in the proportions of
    DreamGaussian (arXiv:2309.16653): 0.001 for means, 0.005 for scales and rotations, 0.05 for opacities, 0.01.

    Args:
        start: None is a ball of random points. Gaussians and Splats hand over theirs, of anything else the surface is
            covered (`to_mesh()`).
        count: number of Gaussians to start with, where `start` does not say.
        flat: discs rather than ellipsoids. From a surface they start lying on it, from a ball in all directions.
        sh_degree: of the spherical harmonics, 0 (colour is the same from everywhere) to 3.
        degree_every: steps after which one more degree takes part; 0 for all from the start.
        ball: radius of the ball, metres.
        opacity: to start with.
        radius: half the side of the box in which the surface is looked for, metres.
        surface_from: how the surface is found: "density", "fusion" of depth pictures, or "poisson".
        densify: how the number of Gaussians changes; None for not at all.
        parts: the things of a scene, by any name, as a layout file has them: without `start` each is filled with as
            many points. A Gaussian is of the part in which it then is deepest, and stays so; `Splat` draws which.
        means_lr_scale: learning rate of the centres, relative.
        scales_lr_scale: learning rate of the scales' logarithms, relative.
        quaternions_lr_scale: learning rate of the quaternions, relative.
        logits_lr_scale: learning rate of the opacities' logits, relative.
        rest_lr_scale: learning rate of the harmonics above degree 0, relative.
    """

    means: nn.Parameter
    log_scales: nn.Parameter
    quaternions: nn.Parameter
    logits: nn.Parameter
    dc: nn.Parameter
    rest: nn.Parameter
    pull: Tensor
    views: Tensor
    share: Tensor
    trained: Tensor
    part: Tensor | None

    def __init__(
        self,
        start: Representation | Splats | None = None,
        *,
        count: int = 2000,
        flat: bool = False,
        sh_degree: int = 0,
        degree_every: int = 0,
        ball: float = 0.5,
        opacity: float = 0.1,
        radius: float = 1.0,
        surface_from: Way = "density",
        densify: Densification | None = None,
        parts: dict[str, Part] | None = None,
        means_lr_scale: float = 0.1,
        scales_lr_scale: float = 0.5,
        quaternions_lr_scale: float = 0.5,
        logits_lr_scale: float = 5.0,
        rest_lr_scale: float = 0.05,
    ) -> None:
        super().__init__()
        in_range("Gaussians: count", count, 0, 10_000_000)
        in_range("Gaussians: sh_degree", sh_degree, 0, 3)
        in_range("Gaussians: degree_every", degree_every, 0)
        in_range("Gaussians: ball", ball, 1e-3)
        in_range("Gaussians: opacity", opacity, FAINTEST, 1 - FAINTEST)
        in_range("Gaussians: radius", radius, 1e-3)
        one_of("Gaussians: surface_from", surface_from, get_args(Way))
        self.flat = flat
        self.surface_from: Way = surface_from
        self.sh_degree = sh_degree
        self.degree_every = degree_every
        self.radius = radius
        self.densify = densify
        self.lr_scales = (means_lr_scale, scales_lr_scale, quaternions_lr_scale, logits_lr_scale, 1.0, rest_lr_scale)
        self.watch: Watch | None = None
        self.drawn: list[Drawn] = []
        self.parts = dict(parts or {})
        self._alone: int | None = None
        part = start.part if isinstance(start, Gaussians) and list(start.parts) == list(self.parts) else None
        if start is None:
            if self.parts:
                points = filled(self.parts, count)
                colors = 0.5 + 0.1 * (torch.rand_like(points) - 0.5)
            else:
                points, colors = ball_points(count, ball)
            normals = torch.randn(len(points), 3) if flat else None
            start = point_splats(points, colors, normals=normals, opacity=opacity)
        elif isinstance(start, Gaussians):
            start = start.to_splats()
        elif isinstance(start, Representation):
            points, colors, normals = surface_points(start.to_mesh(), count)
            start = point_splats(points, colors, normals=normals if flat else None, opacity=opacity)
        for name, value in parameters_of(start, (sh_degree + 1) ** 2, flat=flat).items():
            setattr(self, name, nn.Parameter(value))
        for name in STATISTICS:
            self.register_buffer(name, torch.zeros(len(start)))
        self.register_buffer("trained", torch.zeros((), dtype=torch.long))
        if self.parts:
            check_parts(self.parts, radius)
            part = nearest_part(self.parts, start.means) if part is None else part.clone()
        self.register_buffer("part", part)
        self._register_load_state_dict_pre_hook(_make_room, with_module=True)

    def __len__(self) -> int:
        return len(self.means)

    @property
    def scales(self) -> Float[Tensor, "N 3"]:
        """Standard deviations along the Gaussians' own axes, metres; of flat ones the third is 0."""
        scales = self.log_scales.exp()
        return functional.pad(scales, (0, 1)) if self.flat else scales

    @property
    def opacities(self) -> Float[Tensor, "N"]:
        """In [0, 1]; 0 for all but one part while that is `alone`."""
        opacities = self.logits.sigmoid()
        return opacities if self._alone is None else opacities * (self.part == self._alone)

    @property
    def codes(self) -> Float[Tensor, "N K"] | None:
        """Of each Gaussian: 1 in the channel of its part; None where there are no parts."""
        return None if self.part is None else functional.one_hot(self.part, len(self.parts)).to(self.means)

    @contextmanager
    def alone(self, part: int) -> Iterator[None]:
        """Within this, nothing but one part can be seen, and only it gets a gradient."""
        self._alone = part
        try:
            yield
        finally:
            self._alone = None

    @property
    def coefficients(self) -> Float[Tensor, "N K 3"]:
        """Spherical harmonics, all degrees."""
        return torch.cat([self.dc, self.rest], dim=1)

    @property
    def degree(self) -> int:
        """How many degrees of the harmonics take part by now."""
        return min(self.sh_degree, int(self.trained) // self.degree_every) if self.degree_every else self.sh_degree

    @torch.no_grad()
    def to_splats(self) -> Splats:
        """What is drawn, activated, on the device where it is."""
        quaternions = functional.normalize(self.quaternions, dim=-1)
        return Splats(self.means.clone(), quaternions, self.scales, self.opacities, self.coefficients)

    def parameter_groups(self) -> list[dict]:
        parameters = (getattr(self, name) for name in PARAMETERS)
        return [{"params": [p], "lr_scale": scale} for p, scale in zip(parameters, self.lr_scales, strict=True)]

    def before_step(self, step: int) -> None:
        self.drawn.clear()
        if self.densify is not None:
            self.densify.before_step(self, step)

    def after_step(self, step: int, optimizer: Optimizer, generator: torch.Generator | None = None) -> None:
        self.trained += 1
        for drawn in self.drawn:
            self._note(drawn)
        self.drawn.clear()  # and with it the graph, which knows the old shapes
        if self.densify is not None:
            self.densify.after_step(self, step, optimizer, generator or torch.Generator().manual_seed(step))

    @torch.no_grad()
    def _note(self, drawn: Drawn) -> None:
        """Add up how hard a rendering pulled at the centres, in how many views, and how much of the pictures they are.

        Pulls are in 3DGS's unit: gradients of one picture's loss with respect to coordinates that run from -1 to 1.
        The statistics stay finite where a step is not.
        """
        if drawn.centres.grad is not None:
            half = 0.5 * drawn.centres.new_tensor([drawn.width, drawn.height])
            pulls = (drawn.centres.grad * half).norm(dim=-1).nan_to_num(0, 0, 0) * len(drawn.centres)
            self.pull += (pulls * drawn.visible).sum(0)
            self.views += drawn.visible.sum(0)
        if drawn.tally.grad is not None:
            self.share += drawn.tally.grad[:, 0] / (drawn.height * drawn.width)

    @torch.no_grad()
    def rearrange(
        self,
        source: Int[Tensor, "M"],
        optimizer: Optimizer,
        *,
        fresh: Bool[Tensor, "M"],
        changed: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        """Put `M` Gaussians in the place of these; the optimiser's running means move along, statistics begin anew.

        Args:
            source: which Gaussian each of the new ones comes from.
            optimizer: trains these Gaussians.
            fresh: whose running means begin at 0.
            changed: parameters by name, where they are not those of the source.
        """
        for name in PARAMETERS:
            old: nn.Parameter = getattr(self, name)
            # Another object rather than another `.data`: a graph that still lives has noted the shape of the old one.
            new = nn.Parameter(changed.get(name, old.detach()[source]).clone())
            setattr(self, name, new)
            for group in optimizer.param_groups:
                group["params"] = [new if p is old else p for p in group["params"]]
            if old in optimizer.state:
                optimizer.state[new] = _moved(optimizer.state.pop(old), old, source, fresh)
        if self.part is not None:
            self.part = self.part[source]
        self.forget()

    def forget(self) -> None:
        """Statistics begin anew."""
        for name in STATISTICS:
            setattr(self, name, getattr(self, name).new_zeros(len(self)))

    def to_mesh(self) -> Mesh:
        surfaced = self.surface(resolution=64)
        return Mesh(
            surfaced.mesh.vertices, surfaced.mesh.faces, colors=surfaced.bake(surfaced.mesh.vertices)["base_color"]
        )

    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        """By `surface_from`; see `surface_of` for the three ways and their units."""
        return surface_of(
            self.to_splats(), self.radius, self.surface_from, iso=iso, resolution=resolution, steps=int(self.trained)
        )


def _moved(state: dict[str, Any], like: Tensor, source: Tensor, fresh: Tensor) -> dict[str, Any]:
    """An optimiser's state of a parameter whose rows come from `source`; those that are fresh are 0."""

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.shape != like.shape:
            return value
        return torch.where(fresh.view(-1, *(1 for _ in like.shape[1:])), 0, value[source])

    return {name: moved(value) for name, value in state.items()}


def _make_room(module: Gaussians, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give the parameters the number of rows that is to be loaded. The optimiser goes on knowing them."""
    for name in (*PARAMETERS, *STATISTICS, "part"):
        own, saved = getattr(module, name), state.get(prefix + name)
        if own is None or not isinstance(saved, Tensor):
            continue
        if saved.ndim == own.ndim and saved.shape[1:] == own.shape[1:]:
            own.data = own.data.new_empty(saved.shape)
