"""Light from infinitely far away, in all directions: a panorama, prefiltered for diffuse and glossy surfaces.

Panoramas are equirectangular, top row up. The middle column is the light that comes from +Z, which the object's front
faces; the column at a quarter is +X (the object's left). This is Mitsuba 3's `envmap` without a transform.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dream3d.checks import InputError, in_range
from dream3d.lights.base import Light
from dream3d.nn.microfacet import alpha_of, round_lobe

LEVELS = 11
"""Prefiltered roughnesses, 0 to 1 in equal steps."""


def directions(height: int, *, like: Tensor) -> Float[Tensor, "H W 3"]:
    """Unit world directions of the texel centres of a panorama twice as wide as high."""
    options = {"device": like.device, "dtype": like.dtype}
    polar = (torch.arange(height, **options) + 0.5) * (math.pi / height)
    azimuth = math.pi - (torch.arange(2 * height, **options) + 0.5) * (math.pi / height)
    polar, azimuth = torch.meshgrid(polar, azimuth, indexing="ij")
    return torch.stack([polar.sin() * azimuth.sin(), polar.cos(), polar.sin() * azimuth.cos()], dim=-1)


def solid_angles(height: int, *, like: Tensor) -> Float[Tensor, "H 1 1"]:
    """Steradians of a texel in each row, exactly: they sum to 4 pi."""
    edge = torch.arange(height + 1, device=like.device, dtype=like.dtype) * (math.pi / height)
    return ((edge[:-1].cos() - edge[1:].cos()) * (math.pi / height)).view(-1, 1, 1)


def lookup(
    stack: Float[Tensor, "D H W 3"], direction: Float[Tensor, "*N 3"], level: Float[Tensor, "*N 1"] | None = None
) -> Float[Tensor, "*N 3"]:
    """Interpolated radiance from a stack of panoramas, seamless around and over the poles.

    Args:
        stack: D panoramas.
        direction: unit.
        level: which, in [0, D - 1], interpolated; None is the first.
    """
    depth, height, width, _ = stack.shape
    # Neighbours of the first and last texels: around the back, and beyond a pole on the opposite meridian.
    over = stack.roll(width // 2, dims=2)
    tall = torch.cat([over[:, :1], stack, over[:, -1:]], dim=1)
    padded = torch.cat([tall[:, :, -1:], tall, tall[:, :, :1]], dim=2)
    x, y, z = direction.unbind(-1)
    flat2 = x * x + z * z
    pole = flat2 < 1e-14  # neither angle has a slope there
    azimuth = torch.atan2(-x, torch.where(pole, torch.ones_like(z), z))
    polar = math.pi / 2 - torch.atan2(y, torch.where(pole, torch.full_like(x, 1e-14), flat2).sqrt())
    column = (0.5 + azimuth / (2 * math.pi)) * width + 0.5
    line = polar / math.pi * height + 0.5
    which = torch.zeros_like(x) if level is None else level.squeeze(-1).expand_as(x)
    sizes = (width + 1, height + 1, max(depth - 1, 1))
    at = torch.stack([2 * v / size - 1 for v, size in zip((column, line, which), sizes, strict=True)], dim=-1)
    volume = padded.permute(3, 0, 1, 2)[None]
    found = functional.grid_sample(
        volume, at.reshape(1, 1, 1, -1, 3).to(volume), padding_mode="border", align_corners=True
    )
    return found.reshape(3, -1).t().reshape(direction.shape)


@final
@dataclass(frozen=True)
class Environment(Light):
    """A panorama and its prefiltered forms; made by `prefiltered`. Differentiable in the panorama.

    Args:
        panorama: linear radiance.
        glossy: mean radiance in the lobe of n = v = r for roughnesses from 0 to 1 (after Karis 2013, eq. 7).
        even: irradiance / pi.
        texture: see `Light`.
        rotation: from the panorama's axes to the world's, for all points or one a point.
    """

    panorama: Float[Tensor, "H W 3"]
    glossy: Float[Tensor, "D h w 3"]
    even: Float[Tensor, "h w 3"]
    texture: Float[Tensor, "*N 1"]
    rotation: Float[Tensor, "*N 3 3"]

    def _inward(self, direction: Tensor) -> Tensor:
        rotation = self.rotation.to(direction)
        return (direction[..., None, :] @ rotation).squeeze(-2)  # d^T R = (R^T d)^T

    def radiance(self, direction: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
        """What is seen in unit world directions, linear: also the backdrop of a picture."""
        return lookup(self.panorama[None].to(direction), self._inward(direction))

    def specular(self, direction: Float[Tensor, "*N 3"], roughness: Float[Tensor, "*N 1"]) -> Float[Tensor, "*N 3"]:
        """Prefiltered radiance around unit world directions for roughness in [0, 1]."""
        level = roughness.clamp(0, 1) * (len(self.glossy) - 1)
        return lookup(self.glossy.to(direction), self._inward(direction), level)

    @torch.no_grad()
    def sample(self, u: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N 3"]:
        """Unit world directions in proportion to brightness, out of numbers in (0, 1)^2; see `density`."""
        weight = self._brightness().to(u)
        height, width = weight.shape
        edges = torch.nn.functional.pad(weight.flatten().cumsum(0), (1, 0))
        at = u[..., 0].contiguous() * edges[-1]
        texel = (torch.searchsorted(edges, at, right=True) - 1).clamp(0, height * width - 1)
        across = ((at - edges[texel]) / (edges[texel + 1] - edges[texel]).clamp_min(1e-30)).clamp(0, 1)
        row = texel // width
        azimuth = math.pi - (texel % width + across) * (2 * math.pi / width)
        # Even in the cosine of the polar angle is even in area.
        top, bottom = ((row + i).to(u).mul(math.pi / height).cos() for i in (0, 1))
        y = top + (bottom - top) * u[..., 1]
        flat = (1 - y**2).clamp_min(0).sqrt()
        inward = torch.stack([flat * azimuth.sin(), y, flat * azimuth.cos()], dim=-1)
        return (self.rotation.to(u) @ inward[..., None]).squeeze(-1)

    @torch.no_grad()
    def density(self, direction: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        """Of `sample`, 1/steradian."""
        weight = self._brightness().to(direction)
        height, width = weight.shape
        x, y, z = self._inward(direction).unbind(-1)
        column = ((0.5 + torch.atan2(-x, z) / (2 * math.pi)) * width).long().clamp(0, width - 1)
        row = (torch.acos(y.clamp(-1, 1)) / math.pi * height).long().clamp(0, height - 1)
        area = solid_angles(height, like=direction).view(-1)
        return (weight[row, column] / (weight.sum() * area[row]))[..., None]

    def _brightness(self) -> Float[Tensor, "h w"]:
        """Light from each texel of the smallest roughness but 0: blurred a little, so that none is left out that
        interpolation lights up."""
        glossy = self.glossy[1].detach().mean(dim=-1)
        return (glossy + 0.05 * glossy.mean()) * solid_angles(len(glossy), like=glossy)[..., 0]

    def diffuse(self, position: Float[Tensor, "*N 3"], normal: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
        return lookup(self.even[None].to(normal), self._inward(normal))

    def at(self, view: Int[Tensor, "*N"]) -> Environment:
        if self.rotation.ndim == 2:
            return self
        return dataclasses.replace(self, rotation=self.rotation[view], texture=self.texture[view])

    def rotated(self, rotation: Float[Tensor, "*N 3 3"]) -> Environment:
        """Turned about the world's axes, all or each view's; exact, since directions turn and not texels."""
        return dataclasses.replace(
            self,
            rotation=rotation.to(self.rotation) @ self.rotation,
            texture=self.texture.expand(*rotation.shape[:-2], 1),
        )

    def to(self, like: Tensor) -> Environment:
        """On the device and in the type of another tensor."""
        return Environment(*(getattr(self, f.name).to(like) for f in dataclasses.fields(self)))


def prefiltered(panorama: Float[Tensor, "H W 3"], *, height: int = 64, levels: int = LEVELS) -> Environment:
    """Convolve a panorama with the lobes that materials ask for: exact sums over all its texels, without samples.

    Args:
        panorama: linear radiance, 0 or more, twice as wide as high.
        height: rows of the prefiltered maps; mirrors (roughness 0) show no more than that.
        levels: roughnesses from 0 to 1.

    Raises:
        InputError: the panorama has another shape.
    """
    if panorama.ndim != 3 or panorama.shape[2] != 3 or panorama.shape[1] != 2 * panorama.shape[0]:
        raise InputError(f"environment: expected a panorama (H, 2 H, 3), got {tuple(panorama.shape)}.")
    in_range("environment: height", height, 8, 1024)
    in_range("environment: levels", levels, 2, 64)
    small = _resized(panorama, height)
    alphas = alpha_of(torch.linspace(0, 1, levels, dtype=torch.float64))
    glossy = [small] + [_convolved(small, lambda nl, a=alpha: round_lobe(nl, a)) for alpha in alphas[1:]]
    even = _convolved(small, lambda nl: nl.clamp_min(0))
    one = torch.ones(1, dtype=panorama.dtype, device=panorama.device)
    return Environment(panorama, torch.stack(glossy), even, one, torch.eye(3).to(panorama))


def _resized(panorama: Tensor, height: int) -> Tensor:
    """Means over solid angle."""
    if panorama.shape[0] % height:
        # Interpolated to more rows first, never to fewer: that would skip a small sun.
        rows = height * -(-panorama.shape[0] // height)
        panorama = lookup(panorama[None], directions(rows, like=panorama))
    weight = solid_angles(panorama.shape[0], like=panorama).expand_as(panorama)
    both = torch.stack([panorama * weight, weight]).permute(0, 3, 1, 2)
    total, area = functional.avg_pool2d(both, panorama.shape[0] // height)
    return (total / area).permute(1, 2, 0)


def _convolved(panorama: Float[Tensor, "H W 3"], lobe: Callable[[Tensor], Tensor]) -> Float[Tensor, "H W 3"]:
    """Means of the panorama under a round lobe about each texel.

    From one row to another the lobe depends on the difference of columns alone: a product after a Fourier transform.

    Args:
        panorama: what is averaged.
        lobe: weight by the cosine of the angle from the lobe's middle, not normalised.
    """
    height, width, _ = panorama.shape
    like = torch.zeros((), dtype=torch.float64, device=panorama.device)
    d = directions(height, like=like)
    weight = lobe((d[:, 0] @ d.view(-1, 3).t()).clamp(-1, 1)).view(height, height, width)
    weight = weight * solid_angles(height, like=like)[..., 0]
    weight = weight / weight.sum(dim=(1, 2), keepdim=True)
    # Even about the lobe's middle, so its transform is real.
    spectrum = torch.fft.rfft(weight).real.permute(2, 0, 1)
    # In double precision: the transform of a sun leaves its rounding errors in the dark.
    light = torch.fft.rfft(panorama.double(), dim=1).transpose(0, 1)
    mean = torch.complex(spectrum @ light.real, spectrum @ light.imag)
    return torch.fft.irfft(mean.transpose(0, 1), n=width, dim=1).to(panorama)
