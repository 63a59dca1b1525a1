"""The GGX microfacet lobe: its terms, its samples, and its integral over a hemisphere as a table.

Directions point away from the surface: n normal, v to the camera, l to the light, h half way. alpha = roughness^2.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

SMOOTHEST = 0.05
"""Least roughness that is computed with: below it the lobe's peak exceeds what float32 tells apart."""

GRAZING = 1e-3
"""Least cosine between normal and view."""


def alpha_of(roughness: Tensor) -> Tensor:
    """Width of the lobe from glTF's perceptual roughness in [0, 1] (Burley 2012)."""
    return roughness.clamp(SMOOTHEST, 1) ** 2


def distribution(nh: Tensor, alpha: Tensor) -> Tensor:
    """GGX normal distribution D(h), 1/steradian (Walter et al. 2007, eq. 33)."""
    a2 = alpha**2
    # (1 - nh^2) + a2 nh^2 instead of nh^2 (a2 - 1) + 1, which cancels where the lobe is sharp.
    return a2 / (math.pi * ((1 - nh) * (1 + nh) + a2 * nh**2) ** 2)


def visibility(nv: Tensor, nl: Tensor, alpha: Tensor) -> Tensor:
    """Height-correlated Smith shadowing and masking over 4 nl nv (Heitz 2014, eq. 99)."""
    a2 = alpha**2
    shadow = nv * (nl**2 * (1 - a2) + a2).sqrt()
    mask = nl * (nv**2 * (1 - a2) + a2).sqrt()
    return 0.5 / (shadow + mask).clamp_min(1e-12)


def masking(nv: Tensor, alpha: Tensor) -> Tensor:
    """Smith's G1 for the view alone, in (0, 1]."""
    a2 = alpha**2
    return 2 * nv / (nv + (a2 + (1 - a2) * nv**2).sqrt())


def fresnel(f0: Tensor, vh: Tensor) -> Tensor:
    """Schlick's approximation (1994): share of light reflected; f0 at normal incidence."""
    return f0 + (1 - f0) * (1 - vh).clamp(0, 1) ** 5


def frame(normal: Float[Tensor, "*N 3"]) -> tuple[Float[Tensor, "*N 3"], Float[Tensor, "*N 3"]]:
    """Two unit vectors that complete unit normals to right-handed frames (Duff et al. 2017)."""
    x, y, z = normal.unbind(-1)
    sign = torch.where(z < 0, -torch.ones_like(z), torch.ones_like(z))
    a = -1 / (sign + z)
    b = x * y * a
    tangent = torch.stack([1 + sign * x * x * a, sign * b, -sign * x], dim=-1)
    return tangent, torch.stack([b, sign + y * y * a, -y], dim=-1)


def to_world(local: Tensor, normal: Tensor) -> Tensor:
    """Vectors in the frame of `normal` (its z axis) to world space."""
    tangent, bitangent = frame(normal)
    return local[..., :1] * tangent + local[..., 1:2] * bitangent + local[..., 2:] * normal


def to_local(world: Tensor, normal: Tensor) -> Tensor:
    """The inverse of `to_world`."""
    return torch.stack([(world * axis).sum(-1) for axis in (*frame(normal), normal)], dim=-1)


@functools.cache
def hammersley(count: int) -> Float[Tensor, "S 2"]:
    """Low-discrepancy points in (0, 1)^2, the same ones every time (float64)."""
    index = torch.arange(count, dtype=torch.float64)
    inverse, rest, digit = torch.zeros_like(index), index.clone(), 0.5
    while bool((rest > 0).any()):
        inverse += digit * (rest % 2)
        rest, digit = (rest / 2).floor(), digit / 2
    return torch.stack([(index + 0.5) / count, inverse + 0.5 / 2 ** math.ceil(math.log2(max(count, 2)))], dim=1)


def sample_cosine(u: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N 3"]:
    """Directions in the local frame with density nl / pi."""
    phi, radius = 2 * math.pi * u[..., 0], u[..., 1].sqrt()
    return torch.stack([radius * phi.cos(), radius * phi.sin(), (1 - u[..., 1]).clamp_min(0).sqrt()], dim=-1)


def sample_half(view: Float[Tensor, "*V 3"], alpha: Float[Tensor, "*A 1"], u: Float[Tensor, "*U 2"]) -> Tensor:
    """Half vectors of the visible normals in the local frame (Dupuy and Benyoub, arXiv:2306.05044, listing 3).

    The light reflected about them has density `masking(nv) * distribution(nh) / (4 nv)`.

    Args:
        view: unit, local, z above 0. All leading shapes broadcast.
        alpha: width of the lobe.
        u: in (0, 1).
    """
    flat = torch.cat([alpha, alpha, torch.ones_like(alpha)], dim=-1)
    standard = functional.normalize(view * flat, dim=-1)
    phi = 2 * math.pi * u[..., 0]
    z = (1 - u[..., 1]) * (1 + standard[..., 2]) - standard[..., 2]
    sine = (1 - z**2).clamp_min(0).sqrt()
    cap = torch.stack([sine * phi.cos(), sine * phi.sin(), z], dim=-1)
    return functional.normalize((cap + standard) * flat, dim=-1)


def round_lobe(nl: Tensor, alpha: Tensor) -> Tensor:
    """f nl of the lobe seen head-on, n = v: what environments are convolved with, not normalised.

    With shadowing: Karis (2013) weighs D by nl alone, which is too narrow where it is rough.
    """
    nh = ((1 + nl) / 2).clamp(0, 1).sqrt()
    nl = nl.clamp_min(0)
    return distribution(nh, alpha) * visibility(torch.ones_like(nl), nl, alpha) * nl


ROWS, COLUMNS, SAMPLES = 48, 64, 1024
"""Of the table: roughness in equal steps, square roots of nv in equal steps, light directions at each."""


class Lobe(NamedTuple):
    """The GGX lobe under a view, integrated over light directions. All (*N, 1).

    Attributes:
        a: of an even light F0 a + b is reflected (Karis 2013, eq. 8).
        b: see `a`.
        up: the light's mean direction is up * n + along * (nv n - v), not normalised.
        along: see `up`; a mirror has up = nv and along = 1.
        roughness: at which the round lobe of n = v scatters as much about its mean.
    """

    a: Tensor
    b: Tensor
    up: Tensor
    along: Tensor
    roughness: Tensor


@functools.cache
def _table() -> Float[Tensor, "5 R V"]:
    """The numbers of `Lobe` over roughness and square root of nv, float64."""
    roughness = torch.linspace(0, 1, ROWS, dtype=torch.float64)
    nv = (torch.linspace(0, 1, COLUMNS, dtype=torch.float64) ** 2).clamp(GRAZING, 1 - 1e-4)
    view = torch.stack([(1 - nv**2).sqrt(), torch.zeros_like(nv), nv], dim=-1)[:, None]
    spread = torch.stack([_concentration(alpha) for alpha in alpha_of(roughness)])
    rows = []
    for alpha in alpha_of(roughness):
        half = sample_half(view, alpha.expand(COLUMNS, 1, 1), hammersley(SAMPLES))
        vh = (view * half).sum(-1).clamp(0, 1)
        light = 2 * vh[..., None] * half - view
        nl = light[..., 2].clamp_min(0)
        weight = 4 * view[..., 2] * nl * visibility(view[..., 2], nl, alpha) / masking(view[..., 2], alpha)
        edge = (1 - vh) ** 5
        mean = (weight[..., None] * light).sum(1) / weight.sum(1, keepdim=True)
        # Concentration falls with roughness: look its roughness up backwards.
        wanted = mean.norm(dim=-1).clamp(spread[-1], spread[0])
        place = torch.searchsorted(-spread, -wanted).clamp(1, ROWS - 1)
        share = (spread[place - 1] - wanted) / (spread[place - 1] - spread[place]).clamp_min(1e-12)
        alike = torch.lerp(roughness[place - 1], roughness[place], share)
        along = -mean[:, 0] / view[:, 0, 0]
        rows.append(torch.stack([((1 - edge) * weight).mean(1), (edge * weight).mean(1), mean[:, 2], along, alike]))
    return torch.stack(rows, dim=1)


def _concentration(alpha: Tensor) -> Tensor:
    """Length of the mean light direction of the round lobe, by samples with density D / 4."""
    half = sample_half(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), alpha.view(1), hammersley(SAMPLES))
    nl = 2 * half[:, 2] ** 2 - 1
    weight = round_lobe(nl, alpha) / distribution(half[:, 2], alpha)
    return (weight * nl).sum() / weight.sum()


def lobe(nv: Float[Tensor, "*N 1"], roughness: Float[Tensor, "*N 1"]) -> Lobe:
    """The lobe from the table, which is computed once a process.

    Args:
        nv: cosine between normal and view, clamped to [1e-3, 1].
        roughness: perceptual, clamped to [0, 1].
    """
    nv, roughness = torch.broadcast_tensors(nv.clamp(GRAZING, 1).sqrt(), roughness.clamp(0, 1))
    grid = torch.cat([nv, roughness], dim=-1).reshape(1, -1, 1, 2) * 2 - 1
    found = functional.grid_sample(_table().to(grid)[None], grid, padding_mode="border", align_corners=True)
    return Lobe(*found.view(5, *nv.shape))
