"""Panoramas to light with: made by formula, or read from a file. All are linear, of mean radiance `strength`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.checks import InputError, in_range
from dream3d.lights.environment import directions, solid_angles
from dream3d.lights.hdr import read_hdr


class Panorama(ABC):
    """Where the radiance of an environment comes from."""

    @abstractmethod
    def radiance(self) -> Float[Tensor, "H W 3"]:
        """Linear, 0 or more, twice as wide as high; axes as in `environment.py`."""


def _scaled(radiance: Tensor, strength: float) -> Tensor:
    """Of mean luminance `strength` over the sphere: a white ball looks as bright under any of them."""
    luminance = radiance @ torch.tensor([0.2126, 0.7152, 0.0722]).to(radiance)
    mean = (luminance[..., None] * solid_angles(len(radiance), like=radiance)).sum() / (4 * math.pi)
    return radiance * (strength / mean.clamp_min(1e-12))


def _towards(azimuth_deg: float, elevation_deg: float) -> Float[Tensor, "3"]:
    """Unit direction; azimuth 0 is +Z, 90 is +X, as for cameras."""
    azimuth, up = math.radians(azimuth_deg), math.radians(elevation_deg)
    return torch.tensor([math.sin(azimuth) * math.cos(up), math.sin(up), math.cos(azimuth) * math.cos(up)])


@final
class Even(Panorama):
    """The same light from everywhere: a cloudy day, and the white furnace.

    Args:
        strength: radiance.
    """

    def __init__(self, *, strength: float = 1.0) -> None:
        in_range("Even: strength", strength, 0)
        self.strength = strength

    def radiance(self) -> Float[Tensor, "H W 3"]:
        return torch.full((8, 16, 3), self.strength)


@final
class Sky(Panorama):
    """A blue sky that pales towards the horizon, brown ground, and a sun with a halo.

    Args:
        azimuth_deg: of the sun; 0 shines on the object's front, 90 on its left.
        elevation_deg: of the sun.
        sun: share of all light that comes from the sun's disc.
        size_deg: the disc's radius; the true 0.27 is smaller than a texel.
        strength: mean radiance over the sphere.
        height: rows.
    """

    def __init__(
        self,
        *,
        azimuth_deg: float = 40.0,
        elevation_deg: float = 45.0,
        sun: float = 0.35,
        size_deg: float = 4.0,
        strength: float = 1.0,
        height: int = 128,
    ) -> None:
        in_range("Sky: elevation_deg", elevation_deg, -90, 90)
        in_range("Sky: sun", sun, 0, 1)
        in_range("Sky: size_deg", size_deg, 0.5, 45)
        in_range("Sky: strength", strength, 0)
        in_range("Sky: height", height, 8, 4096)
        self.sun_at = _towards(azimuth_deg, elevation_deg)
        self.sun = sun
        self.size = math.radians(size_deg)
        self.strength = strength
        self.height = height

    def radiance(self) -> Float[Tensor, "H W 3"]:
        d = directions(self.height, like=torch.zeros(()))
        up, towards = d[..., 1:2], (d @ self.sun_at)[..., None].clamp(-1, 1)
        zenith, horizon = torch.tensor([0.20, 0.42, 0.95]), torch.tensor([0.85, 0.92, 1.0])
        ground, warm = torch.tensor([0.26, 0.22, 0.18]), torch.tensor([1.0, 0.88, 0.70])
        sky = horizon + (zenith - horizon) * up.clamp_min(0).sqrt() + 0.8 * warm * towards.clamp_min(0) ** 24
        rest = torch.lerp(ground.expand_as(d), sky, torch.sigmoid(up * self.height / 2))
        disc = warm * torch.sigmoid((self.size - torch.acos(towards.clamp(-1 + 1e-6, 1 - 1e-6))) * self.height)
        return self.strength * ((1 - self.sun) * _scaled(rest, 1.0) + self.sun * _scaled(disc, 1.0))


BOXES = ((-55.0, 35.0, 28.0, 1.0), (60.0, 20.0, 20.0, 0.55), (165.0, 50.0, 16.0, 0.9))
"""Azimuth, elevation, half side (degrees) and brightness of a key light, a fill light and a rim light."""


@final
class Studio(Panorama):
    """Soft boxes in a grey room: key, fill and rim light, and a glow from above.

    Args:
        contrast: of the boxes over the room.
        strength: mean radiance over the sphere.
        height: rows.
    """

    def __init__(self, *, contrast: float = 12.0, strength: float = 1.0, height: int = 128) -> None:
        in_range("Studio: contrast", contrast, 0)
        in_range("Studio: strength", strength, 0)
        in_range("Studio: height", height, 8, 4096)
        self.contrast = contrast
        self.strength = strength
        self.height = height

    def radiance(self) -> Float[Tensor, "H W 3"]:
        d = directions(self.height, like=torch.zeros(()))
        total = (0.35 + 0.25 * d[..., 1:2]).expand_as(d)
        for azimuth, elevation, side, bright in BOXES:
            middle = _towards(azimuth, elevation)
            right = functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1, 0]), middle), dim=0)
            over = torch.linalg.cross(middle, right)
            depth = (d @ middle)[..., None]
            reach = torch.maximum((d @ right).abs(), (d @ over).abs())[..., None]
            inside = math.tan(math.radians(side)) - reach / depth.clamp_min(1e-3)
            total = total + self.contrast * bright * torch.sigmoid(inside * self.height) * (depth > 0)
        return _scaled(total, self.strength)


@final
class HDRFile(Panorama):
    """A Radiance .hdr file, equirectangular, twice as wide as high.

    Args:
        path: the file.
        strength: factor on its radiance.
        normalize: bring its mean radiance to 1 first.
    """

    def __init__(self, *, path: str, strength: float = 1.0, normalize: bool = False) -> None:
        in_range("HDRFile: strength", strength, 0)
        self.path = path
        self.strength = strength
        self.normalize = normalize

    def radiance(self) -> Float[Tensor, "H W 3"]:
        radiance = read_hdr(self.path)
        height, width, _ = radiance.shape
        if width != 2 * height:
            raise InputError(f"{self.path}: expected a panorama twice as wide as high, got {width} x {height}.")
        return _scaled(radiance, self.strength) if self.normalize else radiance * self.strength
