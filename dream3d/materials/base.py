"""What a material is, and the points that it shades."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.checks import InputError, in_range
from dream3d.lights.base import Light
from dream3d.lights.environment import Environment
from dream3d.materials.normals import gradient_bump

Visible = Callable[[Float[Tensor, "*N 3"], Float[Tensor, "S *N 3"]], Float[Tensor, "S *N 1"]]
"""Positions and, for each, S unit directions: 1 where nothing is in the way to the light, else 0."""


@dataclass(frozen=True)
class Points:
    """Where light meets a surface: pixels, samples along rays, texels; any leading shape. World space.

    Args:
        position: metres.
        normal: unit, outwards.
        view: unit, from the point to the camera.
        visible: casts shadows; None means that nothing does.
        axes: of the camera, right, up and backwards as columns; None where no camera is known.
    """

    position: Float[Tensor, "*N 3"]
    normal: Float[Tensor, "*N 3"]
    view: Float[Tensor, "*N 3"]
    visible: Visible | None = None
    axes: Float[Tensor, "*#N 3 3"] | None = None

    def bumped(self, values: Mapping[str, Tensor]) -> Points:
        """With the normal that the channel "bump", if there is one, gives them."""
        if "bump" not in values:
            return self
        return replace(self, normal=gradient_bump(self.normal, values["bump"]))


class Channel(NamedTuple):
    """One input of a material: how many numbers a point, and their range."""

    width: int
    low: float = 0.0
    high: float = 1.0


class Material(ABC):
    """Turns inputs at points, and a light, into display-referred colour.

    Inputs are named: "albedo" (sRGB-coded, as every colour outside), "roughness" and "metallic" (linear, as in glTF),
    "bump" (world-space slope of a height field, dimensionless). Light is added up linearly inside, and coded once.

    Attributes:
        needs_normals: whether it looks at the points' normals.
        needs_environment: whether no light but an `Environment` will do.
    """

    needs_normals: bool = True
    needs_environment: bool = False

    @property
    @abstractmethod
    def channels(self) -> Mapping[str, Channel]:
        """The inputs, in the order in which a network gives them."""

    @abstractmethod
    def __call__(
        self,
        points: Points,
        values: Mapping[str, Float[Tensor, "*N C"]],
        light: Light,
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*N 3"]:
        """Colour in [0, 1], sRGB-coded, not premultiplied. Differentiable in inputs, normals and light.

        Args:
            points: to be shaded.
            values: every channel at the points, activated.
            light: one for all points, or one a point (`Light.at`).
            generator: source of the sampling jitter (CPU), for materials that sample.

        Raises:
            InputError: a channel is missing, or the light is of a kind that this material cannot use.
        """

    @property
    def width(self) -> int:
        """Numbers a point that `activate` expects."""
        return sum(channel.width for channel in self.channels.values())

    def activate(self, raw: Float[Tensor, "*N C"]) -> dict[str, Float[Tensor, "*N c"]]:
        """A network's or texture's raw numbers, of any size, as channels within their ranges; 0 is the middle.

        Raises:
            InputError: `raw` has another width.
        """
        if raw.shape[-1] != self.width:
            raise InputError(f"{type(self).__name__}: expected {self.width} numbers a point, got {raw.shape[-1]}.")
        parts = raw.split([channel.width for channel in self.channels.values()], dim=-1)
        return {
            name: channel.low + (channel.high - channel.low) * torch.sigmoid(part)
            for (name, channel), part in zip(self.channels.items(), parts, strict=True)
        }

    def need(self, values: Mapping[str, Tensor], *names: str) -> tuple[Tensor, ...]:
        """The named channels.

        Raises:
            InputError: one is missing.
        """
        for name in names:
            if name not in values:
                raise InputError(
                    f"{type(self).__name__} needs the channel '{name}', got {', '.join(values) or 'none'}."
                )
        return tuple(values[name] for name in names)


def glow(values: Mapping[str, Tensor]) -> Tensor | float:
    """Linear radiance that the surface sends out by itself: the channel "emissive", if there is one."""
    return values.get("emissive", 0.0)


def environment_of(who: str, light: Light) -> Environment:
    """The light, for materials that need a panorama.

    Raises:
        InputError: it is of another kind.
    """
    if not isinstance(light, Environment):
        raise InputError(f"{who} needs an Environment, not a {type(light).__name__}. Take `Surroundings` as lights.")
    return light


def metallic_roughness(
    what: str, roughness: tuple[float, float], metallic: tuple[float, float], bump: float
) -> dict[str, Channel]:
    """The channels of a glTF 2.0 material: its ranges, checked, and a "bump" unless its greatest slope is 0."""
    channels = {
        "albedo": Channel(3),
        "roughness": _in_unit(f"{what}: roughness", roughness),
        "metallic": _in_unit(f"{what}: metallic", metallic),
    }
    return channels | ({"bump": Channel(3, -bump, bump)} if bump else {})


def _in_unit(what: str, low_high: tuple[float, float]) -> Channel:
    """A channel of one number from a pair of limits within [0, 1], checked."""
    low, high = low_high
    in_range(f"{what}[0]", low, 0, 1)
    in_range(f"{what}[1]", high, low, 1)
    return Channel(1, low, high)
