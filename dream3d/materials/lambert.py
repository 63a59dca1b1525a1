"""A perfectly diffuse surface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.lights.base import Light
from dream3d.materials.base import Channel, Material, Points, glow
from dream3d.nn.color import to_linear, to_srgb


@final
class Lambert(Material):
    """albedo * (irradiance / pi), under any light, which may hide the texture (`Light.texture`).

    Args:
        linear: multiply linear light, then code it; False multiplies display codes, as DreamFusion's releases do
            (darker shadows, and the gradient is that of the paper).
    """

    def __init__(self, *, linear: bool = True) -> None:
        self.linear = linear

    @property
    def channels(self) -> Mapping[str, Channel]:
        return {"albedo": Channel(3)}

    def __call__(
        self,
        points: Points,
        values: Mapping[str, Float[Tensor, "*N C"]],
        light: Light,
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*N 3"]:
        points = points.bumped(values)
        albedo = 1 - light.texture * (1 - self.need(values, "albedo")[0])
        shade = light.diffuse(points.position, points.normal)
        if not self.linear:
            return (albedo * shade).clamp(0, 1)
        return to_srgb((to_linear(albedo) * shade + glow(values)).clamp(0, 1))
