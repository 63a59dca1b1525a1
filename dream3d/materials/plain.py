"""Base colour without light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.lights.base import Light
from dream3d.materials.base import Channel, Material, Points


@final
class Plain(Material):
    """The base colour itself: light, if any, is painted on, as in DreamFusion's first steps and in plain fields."""

    needs_normals = False

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
        return self.need(values, "albedo")[0]
