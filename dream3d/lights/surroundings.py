"""A fixed or rotating set of environments."""

from __future__ import annotations

import math
from typing import Literal, final, get_args

import torch
from torch import Tensor

from dream3d.checks import InputError, groups_of, in_range, one_of
from dream3d.lights.base import LightSampler
from dream3d.lights.environment import Environment, prefiltered
from dream3d.lights.panoramas import Panorama, Studio
from dream3d.types import Cameras

Turn = Literal["fixed", "free", "camera"]


@final
class Surroundings(LightSampler):
    """One environment a step out of several, turned about the vertical.

    Changing the light while the material stays is what keeps shadows and highlights out of the base colour. Without
    chance, for pictures, it is the first one as it stands.

    Args:
        maps: environments by name; None is a `Studio`.
        turn: "free" turns each group of views by chance, "camera" keeps the light still relative to the first camera of
            a group, "fixed" does neither.
        height: rows of the prefiltered maps.
    """

    def __init__(self, *, maps: dict[str, Panorama] | None = None, turn: Turn = "fixed", height: int = 64) -> None:
        if maps is not None and not maps:
            raise InputError("Surroundings: expected at least one map, got none.")
        one_of("Surroundings: turn", turn, get_args(Turn))
        in_range("Surroundings: height", height, 8, 1024)
        self.maps = maps or {"studio": Studio()}
        self.turn = turn
        self.height = height
        self._made: dict[str, Environment] = {}

    def environment(self, name: str) -> Environment:
        """One of `maps`, prefiltered; computed once."""
        if name not in self._made:
            with torch.no_grad():
                self._made[name] = prefiltered(self.maps[name].radiance(), height=self.height)
        return self._made[name]

    def __call__(
        self, cameras: Cameras, *, views: int = 1, step: int = 0, generator: torch.Generator | None = None
    ) -> Environment:
        names = list(self.maps)
        groups = groups_of(len(cameras), views)
        if generator is None:
            which, angle = 0, torch.zeros(groups)
        else:
            which = int(torch.randint(len(names), (), generator=generator))
            angle = 2 * math.pi * torch.rand(groups, generator=generator)
        if self.turn == "camera":
            angle = cameras.azimuth[::views]
        elif self.turn == "fixed":
            angle = torch.zeros(groups)
        light = self.environment(names[which]).to(cameras.c2w)
        return light.rotated(about_y(angle.to(cameras.c2w).repeat_interleave(views)))


def about_y(angle: Tensor) -> Tensor:
    """Rotations (*N, 3, 3) that turn +Z towards +X by `angle` radians, as azimuths count."""
    c, s, o, i = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, o, s, o, i, o, -s, o, c], dim=-1).unflatten(-1, (3, 3))
