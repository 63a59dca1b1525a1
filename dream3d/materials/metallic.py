"""glTF's metallic-roughness model as shares of light, such that no light is made or lost in an even surrounding."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.nn.microfacet import Lobe

DIELECTRIC = 0.04
"""Reflected at normal incidence by what is no metal (glTF 2.0, appendix B)."""

FRESNEL_MEAN = 1 / 21
"""Cosine-weighted mean of (1 - cos)^5."""


class Shares(NamedTuple):
    """What becomes of an even light, by the view; the three add up to 1 for white, whatever the rest is.

    Attributes:
        f0: reflected at normal incidence.
        single: by one bounce on the microfacets; its lobe is GGX.
        multiple: by several bounces, spread as from a diffuse surface.
        diffuse: by what enters and comes out again.
    """

    f0: Float[Tensor, "*N 3"]
    single: Float[Tensor, "*N 3"]
    multiple: Float[Tensor, "*N 3"]
    diffuse: Float[Tensor, "*N 3"]


def shares(
    base: Float[Tensor, "*N 3"],
    lobe: Lobe,
    metallic: Float[Tensor, "*N 1"],
) -> Shares:
    """Metallic-roughness with energy compensation (Fdez-Agüera 2019, JCGT 8(1), listing 3).

    A blend of a metal and of a dielectric, each in balance by itself (glTF 2.0, appendix B, mixes them alike).
    The split sum alone (Karis 2013) loses up to two thirds of the light on rough metal and makes some on dielectrics,
    since its diffuse part does not know what the specular one took.

    Args:
        base: linear base colour in [0, 1].
        lobe: of the roughness, under the view.
        metallic: [0, 1].
    """
    single, multiple = _bounced(base, lobe)
    below, scattered = _bounced(torch.full_like(base, DIELECTRIC), lobe)
    f0 = torch.lerp(torch.full_like(base, DIELECTRIC), base, metallic)
    diffuse = (1 - metallic) * base * (1 - below - scattered)
    return Shares(f0, torch.lerp(below, single, metallic), torch.lerp(scattered, multiple, metallic), diffuse)


def _bounced(f0: Tensor, lobe: Lobe) -> tuple[Tensor, Tensor]:
    """Shares that come back after one bounce and after several."""
    single = f0 * lobe.a + lobe.b
    lost = 1 - lobe.a - lobe.b
    mean = f0 + (1 - f0) * FRESNEL_MEAN
    return single, single * mean * lost / (1 - mean * lost)
