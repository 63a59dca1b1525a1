"""Volume rendering by marching through occupied cells."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dream3d.checks import InputError, in_range, one_of
from dream3d.kernels.ops import composite, march
from dream3d.kernels.reference import Samples
from dream3d.lights import Light, LightSampler, PointLight, ShadingSwitch, Surroundings
from dream3d.materials import Material, Points
from dream3d.renderers.base import Renderer
from dream3d.representations.base import Representation, Volume
from dream3d.types import Cameras, Render

RAYS_A_CHUNK = 1 << 15
"""Rays that are drawn at once when no gradient is asked for."""

HIDDEN = 7.0
"""Optical depth behind which a sample is not looked at: exp(-7) is below one step of an 8-bit picture."""

FAINT = 1e-4
"""Share of a ray's colour below which a sample needs no normal: differences cost six queries each."""


@dataclass(frozen=True)
class _Rays:
    """A flat list of rays and what shines on them."""

    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]
    jitter: Float[Tensor, "R"] | None
    view: Int[Tensor, "R"]
    """Which camera each belongs to."""

    def __getitem__(self, part: slice) -> _Rays:
        jitter = None if self.jitter is None else self.jitter[part]
        return _Rays(self.origins[part], self.directions[part], jitter, self.view[part])


@dataclass(frozen=True)
class _Shading:
    """How a rendering turns raw numbers into colour; without a light the base colour is the colour."""

    material: Material | None
    light: Light | None
    generator: torch.Generator | None

    @property
    def lit(self) -> bool:
        return self.light is not None

    @property
    def bent(self) -> bool:
        """Whether it looks at normals: not where a switch has turned all point lights off."""
        off = isinstance(self.light, PointLight) and not bool(self.light.intensity.any())
        return self.lit and self.material is not None and self.material.needs_normals and not off

    def __call__(self, points: Points, values: dict[str, Tensor], view: Tensor) -> Tensor:
        assert self.material is not None and self.light is not None
        return self.material(points, values, self.light.at(view), generator=self.generator)


@final
class March(Renderer):
    """Emission-absorption rendering (Max 1995; NeRF, arXiv:2003.08934, eq. 3) over packed, ragged samples.

    Samples stand at multiples of a fixed step inside occupied cells. Those that the occupancy grid's running mean
    density already hides are dropped before the network is asked: in a solid object they are the majority.

    Args:
        samples: steps across the volume's diameter.
        early_stop: transmittance below which a ray ends.
        material: how light and the volume's raw numbers become colour; None takes the volume's own. Both must have the
            same channels.
        lights: what shines at each step. `Lambert` with `ShadingSwitch` is DreamFusion's (arXiv:2209.14988, section
            3.1). None is that switch, or a still studio for materials that need an environment; without a `material`
            either, the base colour is shown as it is.
        deferred: shade once a pixel, at the mean point of its ray, instead of once a sample: much cheaper, and the same
            where surfaces are hard.
        backend: "dream3d" (our kernels or their twins), "nerfacc" (CUDA only), or "auto" (dream3d).
    """

    def __init__(
        self,
        *,
        samples: int = 96,
        early_stop: float = 1e-3,
        material: Material | None = None,
        lights: LightSampler | None = None,
        deferred: bool = False,
        backend: Literal["auto", "dream3d", "nerfacc"] = "auto",
    ) -> None:
        in_range("March: samples", samples, 4, 4096)
        in_range("March: early_stop", early_stop, 0, 0.5)
        self.samples = samples
        self.early_stop = early_stop
        self.material = material
        self.lights = lights or (None if material is None else _lights_for(material))
        self.deferred = deferred
        self.backend = one_of("March: backend", backend, ("auto", "dream3d", "nerfacc"))
        self._now = (0, 1)

    def before_step(self, step: int, views: int) -> None:
        self._now = (step, views)

    def __call__(
        self,
        representation: Representation,
        cameras: Cameras,
        *,
        generator: torch.Generator | None = None,
        normals: bool = False,
    ) -> Render:
        """As the base says. Aux has the material's channels, premultiplied, where there is one; with normals also
        "view" (unit, from the camera) and "away", the part of the samples that face away from it: sum of weight
        (without gradient) times max(0, normal . view)^2.
        """
        if not isinstance(representation, Volume):
            raise InputError(f"March draws a Field or an SDFField, not a {type(representation).__name__}.")
        origins, directions = (rays.reshape(-1, 3) for rays in cameras.rays())
        jitter = None if generator is None else torch.rand(len(origins), generator=generator).to(origins)
        view = torch.arange(len(cameras), device=origins.device).repeat_interleave(cameras.height * cameras.width)
        rays = _Rays(origins, directions, jitter, view)
        shading = self._shading(representation, cameras, generator)
        chunk = len(origins) if torch.is_grad_enabled() else RAYS_A_CHUNK
        parts = [
            self._trace(representation, rays[i : i + chunk], shading, normals) for i in range(0, len(origins), chunk)
        ]
        shape = (len(cameras), cameras.height, cameras.width, -1)
        picture = {name: torch.cat([part[name] for part in parts]).view(shape) for name in parts[0]}
        main = {name: picture.pop(name) for name in ("rgb", "alpha", "depth", "normal") if name in picture}
        # The viewing direction goes along with normals: regularisers compare the two.
        aux = {**picture, "view": directions.view(shape)} if normals else picture
        return Render(**main, aux=MappingProxyType(aux))

    def _shading(self, volume: Volume, cameras: Cameras, generator: torch.Generator | None) -> _Shading:
        material = self.material or volume.material
        if material is not None and material.width not in (0, volume.width):  # 0 shows the shape alone
            raise InputError(
                f"March: {type(material).__name__} needs {material.width} numbers a point, the "
                f"{type(volume).__name__} has {volume.width}; give the representation the same material."
            )
        if self.lights is None:
            return _Shading(material, None, generator)
        if material is None:
            raise InputError("March: lights need a material, e.g. Lambert.")
        if generator is None:  # a picture, whatever the last step was
            return _Shading(material, self.lights(cameras), None)
        step, views = self._now
        return _Shading(material, self.lights(cameras, views=views, step=step, generator=generator), generator)

    def _trace(self, volume: Volume, rays: _Rays, shading: _Shading, normals: bool) -> dict[str, Tensor]:
        """Rendered channels for a flat list of rays."""
        samples = self._sample(volume, rays)
        ray = samples.ray.long()
        middle = 0.5 * (samples.t_start + samples.t_end)
        directions = rays.directions[ray]
        points = rays.origins[ray] + middle[:, None] * directions
        density, raw = volume.along(points, directions, samples.t_end - samples.t_start)
        material = shading.material
        values = volume.looks(raw) if material is None or not material.width else material.activate(raw)
        rgb, normal = values["albedo"], None
        if shading.lit and not self.deferred:
            if shading.bent:
                before = composite(density.detach(), rgb.detach(), samples, early_stop=self.early_stop)
                normal = _normals(volume, points, directions, before.weights)
            at = Points(points, -directions if normal is None else normal, -directions)
            rgb = shading(at, values, rays.view[ray])
        seen = composite(density, rgb, samples, early_stop=self.early_stop)
        out = {"rgb": seen.rgb, "alpha": seen.opacity[:, None], "depth": seen.depth[:, None]}

        def gathered(value: Tensor) -> Tensor:
            flat = value.new_zeros(len(rays.view), value.shape[-1])
            return flat.index_add(0, ray, seen.weights[:, None] * value)

        if normals or (shading.bent and self.deferred):
            normal = _normals(volume, points, directions, seen.weights) if normal is None else normal
            out["normal"] = gathered(normal)
        if normals and normal is not None:
            away = seen.weights.detach() * (normal * directions).sum(-1).clamp_min(0).square()
            out["away"] = away.new_zeros(len(rays.view)).index_add(0, ray, away)[:, None]
        if shading.material is not None:
            out |= {name: gathered(value) for name, value in values.items()}
        if shading.lit and self.deferred:
            out["rgb"] = _deferred(out, rays, shading, list(values))
        return out if normals else {name: value for name, value in out.items() if name != "normal"}

    def _step(self, volume: Volume) -> float:
        return 2 * volume.radius / self.samples

    @torch.no_grad()
    def _sample(self, volume: Volume, rays: _Rays) -> Samples:
        if self.backend == "nerfacc":
            from dream3d.renderers.nerfacc_backend import sample

            return sample(volume, rays.origins, rays.directions, self._step(volume), rays.jitter is not None)
        r = volume.radius
        samples = march(
            rays.origins,
            rays.directions,
            volume.occupancy,
            aabb=(-r, -r, -r, r, r, r),
            step=self._step(volume),
            near=0.0,
            far=1e10,
            max_samples=4 * self.samples,
            jitter=rays.jitter,
        )
        return drop_hidden(samples, volume, rays.origins, rays.directions)


def _lights_for(material: Material) -> LightSampler:
    return Surroundings() if material.needs_environment else ShadingSwitch()


def _normals(volume: Volume, points: Tensor, directions: Tensor, weights: Tensor) -> Float[Tensor, "N 3"]:
    """Normals of the samples that count; the others look at the camera, as any unit vector will do for them."""
    kept = (weights.detach() > FAINT).nonzero()[:, 0]
    return (-directions).index_put((kept,), volume.normals(points[kept]))


def _deferred(out: dict[str, Tensor], rays: _Rays, shading: _Shading, channels: list[str]) -> Tensor:
    """Premultiplied colour of pixels, shaded where their rays end on average."""
    alpha = out["alpha"]
    share = 1 / alpha.clamp_min(1e-3)
    # The little keeps a direction where there is nothing, for materials that divide by its cosine.
    normal = -rays.directions if "normal" not in out else out["normal"] - 1e-6 * rays.directions
    normal = functional.normalize(normal, dim=-1)
    points = Points(rays.origins + out["depth"] * share * rays.directions, normal, -rays.directions)
    return alpha * shading(points, {name: out[name] * share for name in channels}, rays.view)


def drop_hidden(
    samples: Samples, volume: Volume, origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"]
) -> Samples:
    """Leave out the samples that lie behind `HIDDEN` of optical depth by half the running mean of what hides."""
    if not len(samples.t_start):
        return samples
    ray = samples.ray.long()
    middle = 0.5 * (samples.t_start + samples.t_end)
    mean = volume.grid.hidden_by(origins[ray] + middle[:, None] * directions[ray])
    # Double precision: the running sum goes over all rays, and its differences must stay exact to far below HIDDEN.
    depth = torch.cumsum((mean * (samples.t_end - samples.t_start)).double() * 0.5, dim=0)
    before = torch.nn.functional.pad(depth, (1, 0))
    keep = before[:-1] - before[samples.offsets[:-1].long()][ray] < HIDDEN
    count = torch.nn.functional.pad(torch.cumsum(keep, dim=0), (1, 0))
    return Samples(
        offsets=count[samples.offsets.long()].to(torch.int32),
        t_start=samples.t_start[keep],
        t_end=samples.t_end[keep],
        ray=samples.ray[keep],
    )
