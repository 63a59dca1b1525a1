"""The shape itself as a picture: normals shown as colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.checks import InputError, one_of
from dream3d.lights.base import Light
from dream3d.materials.base import Channel, Material, Points

Space = Literal["world", "camera"]


@final
class NormalMap(Material):
    """(n + 1) / 2 as a colour, without light: what the geometry stages of Fantasia3D (arXiv:2303.13873, section 3.2)
    and of ProlificDreamer (arXiv:2305.16213) show to the prior.

    Args:
        space: "world", whose +X, +Y, +Z are the object's left, up and front, or "camera": right, up and towards it.
    """

    def __init__(self, *, space: Space = "world") -> None:
        self.space = one_of("NormalMap: space", space, get_args(Space))

    @property
    def channels(self) -> Mapping[str, Channel]:
        return {}

    def __call__(
        self,
        points: Points,
        values: Mapping[str, Float[Tensor, "*N C"]],
        light: Light,
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*N 3"]:
        normal = points.bumped(values).normal
        if self.space == "camera":
            if points.axes is None:
                raise InputError("NormalMap: camera space needs points that know their camera; draw with Raster.")
            normal = (normal[..., None, :] @ points.axes).squeeze(-2)  # n^T R = (R^T n)^T
        return 0.5 * normal + 0.5
