"""A point light near the camera that is switched on and off by chance: DreamFusion's shading schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dream3d.checks import groups_of, in_range
from dream3d.lights.base import Light, LightSampler
from dream3d.types import Cameras


@final
@dataclass(frozen=True)
class PointLight(Light):
    """ambient + intensity * max(0, n . l), without fall-off (DreamFusion, arXiv:2209.14988, section 3.1).

    Args:
        position: metres.
        intensity: of a white surface that faces the light, linear.
        ambient: from everywhere, linear.
        texture: see `Light`.
    """

    position: Float[Tensor, "*N 3"]
    intensity: Float[Tensor, "*N 1"]
    ambient: Float[Tensor, "*N 1"]
    texture: Float[Tensor, "*N 1"]

    def diffuse(self, position: Float[Tensor, "*N 3"], normal: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
        towards = functional.normalize(self.position - position, dim=-1)
        cosine = (normal * towards).sum(-1, keepdim=True).clamp_min(0)
        return (self.ambient + self.intensity * cosine).expand_as(position)

    def at(self, view: Int[Tensor, "*N"]) -> PointLight:
        return PointLight(self.position[view], self.intensity[view], self.ambient[view], self.texture[view])


@final
class ShadingSwitch(LightSampler):
    """First base colour alone; then by chance base colour, shaded, or shaded without texture, with a random light.

    Shading without texture forbids shapes that are only painted on (DreamFusion, arXiv:2209.14988, section 3.1). The
    light stands where normalise(camera + spread * noise) points, near the camera's distance. For pictures, without
    chance, it stands at the camera and the object is shaded.

    Args:
        start: steps of base colour alone.
        shaded: probability of shading afterwards.
        textureless: probability that a shaded view shows no texture.
        ambient: share of the light that comes from everywhere when shaded.
        soft: draw `ambient` evenly from [0, 1] instead.
        spread: standard deviation of the light around the camera, in camera distances.
        distance: least and greatest distance of the light, in camera distances.
    """

    def __init__(
        self,
        *,
        start: int = 1000,
        shaded: float = 0.75,
        textureless: float = 0.5,
        ambient: float = 0.1,
        soft: bool = False,
        spread: float = 0.8,
        distance: tuple[float, float] = (0.7, 1.2),
    ) -> None:
        in_range("ShadingSwitch: start", start, 0)
        in_range("ShadingSwitch: shaded", shaded, 0, 1)
        in_range("ShadingSwitch: textureless", textureless, 0, 1)
        in_range("ShadingSwitch: ambient", ambient, 0, 1)
        in_range("ShadingSwitch: spread", spread, 0)
        in_range("ShadingSwitch: distance[0]", distance[0], 1e-3)
        in_range("ShadingSwitch: distance[1]", distance[1], distance[0])
        self.start = start
        self.shaded = shaded
        self.textureless = textureless
        self.ambient = ambient
        self.soft = soft
        self.spread = spread
        self.distance = distance

    def __call__(
        self, cameras: Cameras, *, views: int = 1, step: int = 0, generator: torch.Generator | None = None
    ) -> PointLight:
        position = cameras.position
        if generator is None:
            one = torch.ones_like(position[:, :1])
            return PointLight(position, one * (1 - self.ambient), one * self.ambient, one)
        groups = groups_of(len(cameras), views)
        # Always the same number of draws, so that what follows does not depend on the schedule.
        noise = torch.randn(groups, 3, generator=generator).to(position)
        chance = torch.rand(groups, 4, generator=generator).to(position)[..., None].unbind(1)
        first = position[::views]
        away = first.norm(dim=-1, keepdim=True)
        near, far = self.distance
        place = functional.normalize(first / away + self.spread * noise, dim=-1) * away
        place = place * (near + (far - near) * chance[0])
        lit = (chance[1] < self.shaded) & (step >= self.start)
        ambient = chance[3] if self.soft else torch.full_like(chance[3], self.ambient)
        ambient = torch.where(lit, ambient, torch.ones_like(ambient))
        texture = 1 - (lit & (chance[2] < self.textureless)).to(position)
        parts = (part.repeat_interleave(views, dim=0) for part in (place, 1 - ambient, ambient, texture))
        return PointLight(*parts)
