"""Physically based shading from an environment: the integral itself, by sampling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.checks import in_range
from dream3d.lights.base import Light
from dream3d.lights.environment import Environment
from dream3d.materials.base import Channel, Material, Points, environment_of, glow, metallic_roughness
from dream3d.materials.metallic import Shares, shares
from dream3d.materials.normals import facing
from dream3d.nn.color import Tone, display, to_linear
from dream3d.nn.microfacet import (
    GRAZING,
    alpha_of,
    distribution,
    fresnel,
    hammersley,
    lobe,
    masking,
    sample_cosine,
    sample_half,
    to_local,
    to_world,
    visibility,
)

BLOCK = 64
"""Samples that are looked at together: bounds the memory when no gradient is asked for."""


@final
class MonteCarlo(Material):
    """The model of `PBR` with its integral over directions, and shadows where `Points.visible` casts them.

    A third each of the directions follow the cosine, the visible microfacets and the brightness of the light; all are
    weighted by the mean of the three densities (Veach and Guibas 1995, balance heuristic). Directions are held fixed
    in the gradient, which is that of the integral, not of the sampling. They come from a fixed set of low-discrepancy
    numbers, or from one that a generator shifts for each point.

    Args:
        samples: directions a point, a third of each kind.
        roughness: range.
        metallic: range; equal ends pin it.
        bump: greatest slope of a bump that is an input too, 0 for none.
        tone: how light above 1 is shown.
    """

    needs_environment = True

    def __init__(
        self,
        *,
        samples: int = 256,
        roughness: tuple[float, float] = (0.08, 0.9),
        metallic: tuple[float, float] = (0.0, 0.9),
        bump: float = 0.0,
        tone: Tone = "neutral",
    ) -> None:
        in_range("MonteCarlo: samples", samples, 3, 1 << 20)
        self._channels = metallic_roughness("MonteCarlo", roughness, metallic, bump)
        self.samples = samples
        self.tone: Tone = tone

    @property
    def channels(self) -> Mapping[str, Channel]:
        return self._channels

    def __call__(
        self,
        points: Points,
        values: Mapping[str, Float[Tensor, "*N C"]],
        light: Light,
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*N 3"]:
        radiance = self.linear(points, values, light, generator=generator) + glow(values)
        return display(radiance, tone=self.tone)

    def linear(
        self,
        points: Points,
        values: Mapping[str, Float[Tensor, "*N C"]],
        light: Light,
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*N 3"]:
        """Linear radiance towards the camera."""
        light = environment_of("MonteCarlo", light)
        albedo, roughness, metallic = self.need(values, "albedo", "roughness", "metallic")
        points = points.bumped(values)
        normal, view = facing(points.normal, points.view), points.view
        nv = (normal * view).sum(-1, keepdim=True).clamp_min(GRAZING)
        part = shares(to_linear(1 - light.texture * (1 - albedo)), lobe(nv, roughness), metallic)
        alpha = alpha_of(roughness)
        u = hammersley(-(-self.samples // 3)).to(normal)
        u = u.view(-1, *[1] * (normal.ndim - 1), 2)
        if generator is not None:
            # Shifted around the square (Cranley and Patterson 1976): no two points repeat the same error.
            u = (u + torch.rand(*normal.shape[:-1], 2, generator=generator).to(u)) % 1
        total = torch.zeros_like(normal)
        for some in u.split(BLOCK):
            direction, density = _directions(normal, view, alpha, nv, light, some)
            value = _scattered(normal, view, direction, nv, alpha, part) * light.radiance(direction)
            if points.visible is not None:
                value = value * points.visible(points.position, direction)
            total = total + (value / density).sum(0)
        return total / (3 * len(u))


@torch.no_grad()
def _directions(
    normal: Tensor, view: Tensor, alpha: Tensor, nv: Tensor, environment: Environment, u: Tensor
) -> tuple[Tensor, Tensor]:
    """Unit light directions of the three kinds (3 S, *N, 3) and the mean of their densities (3 S, *N, 1)."""
    local = to_local(view, normal)
    local = torch.cat([local[..., :2], local[..., 2:].clamp_min(GRAZING)], dim=-1)
    local = torch.nn.functional.normalize(local, dim=-1)
    half = sample_half(local, alpha, u)
    bounced = 2 * (local * half).sum(-1, keepdim=True) * half - local
    u = u.expand(*half.shape[:-1], 2)
    light = torch.cat([to_world(bounced, normal), to_world(sample_cosine(u), normal), environment.sample(u)])
    half = torch.nn.functional.normalize(light + view, dim=-1)
    nh, nl = ((normal * v).sum(-1, keepdim=True) for v in (half, light))
    glossy = masking(nv, alpha) * distribution(nh.clamp(0, 1), alpha) / (4 * nv)
    return light, ((glossy + nl.clamp_min(0) / math.pi + environment.density(light)) / 3).clamp_min(1e-8)


def _scattered(normal: Tensor, view: Tensor, light: Tensor, nv: Tensor, alpha: Tensor, part: Shares) -> Tensor:
    """f * max(0, n . l)."""
    half = torch.nn.functional.normalize(light + view, dim=-1)
    nl, nh = ((normal * v).sum(-1, keepdim=True).clamp(0, 1) for v in (light, half))
    vh = (view * half).sum(-1, keepdim=True).clamp(0, 1)
    specular = distribution(nh, alpha) * visibility(nv, nl, alpha) * fresnel(part.f0, vh)
    return nl * (specular + (part.multiple + part.diffuse) / math.pi)
