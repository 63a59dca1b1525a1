"""Layouts: which things are where in a scene."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.checks import InputError, in_range, one_of
from dream3d.types import Cameras

Point = tuple[float, float, float]

MOST_PARTS = 32
"""Of a scene: each is a channel of every rendering."""
ALONE = 0.9
"""Radius, metres, of the ball that a part fills when it is looked at alone: that of whole objects elsewhere."""


@final
class Part:
    """One thing of a scene: what it is, and the box or the ellipsoid in which it is.

    Its own frame is where its prompt is meant: upright, the middle in the origin, the front towards +Z, and so large
    that its shape just fits into a ball of radius `ALONE`.

    Args:
        text: its prompt.
        center: the middle, metres: x to the right of who looks from the front, y up, z to the front.
        size: width, height and depth before it is turned, metres.
        shape: "box", or "sphere", which fits into that box and is an ellipsoid where the sizes differ.
        rotation_deg: about its z axis, then x, then y, given as x, y, z; [0, 90, 0] turns its front to +X.
    """

    def __init__(
        self,
        *,
        text: str,
        center: Point,
        size: Point,
        shape: Literal["box", "sphere"] = "box",
        rotation_deg: Point = (0.0, 0.0, 0.0),
    ) -> None:
        if not text.strip():
            raise InputError("Part: text is empty; say what it is.")
        one_of(f"Part '{text}': shape", shape, ("box", "sphere"))
        for what, numbers, low, high in (
            ("center", center, -1e3, 1e3),
            ("size", size, 1e-3, 1e3),
            ("rotation_deg", rotation_deg, -360, 360),
        ):
            for number in numbers:
                in_range(f"Part '{text}': {what}", number, low, high)
        self.text = text
        self.center = center
        self.size = size
        self.shape = shape
        self.rotation_deg = rotation_deg

    @property
    def reach(self) -> float:
        """From the middle to the farthest point of the shape, metres."""
        return 0.5 * (math.hypot(*self.size) if self.shape == "box" else max(self.size))

    @property
    def farthest(self) -> float:
        """From the world's origin to the farthest point of the shape, metres; of a sphere no less than that."""
        if self.shape == "sphere":
            return math.hypot(*self.center) + self.reach
        corners = 0.5 * torch.cartesian_prod(*[torch.tensor([-side, side]) for side in self.size])
        return float((corners @ self.rotation.T + torch.tensor(self.center)).norm(dim=-1).max())

    @property
    def scale(self) -> float:
        """Metres of the world in a metre of its own frame."""
        return self.reach / ALONE

    @cached_property
    def rotation(self) -> Float[Tensor, "3 3"]:
        """From its own axes to the world's."""
        x, y, z = (_about(axis, math.radians(angle)) for axis, angle in enumerate(self.rotation_deg))
        return y @ x @ z

    def points(self, count: int) -> Float[Tensor, "{count} 3"]:
        """Evenly in the shape, in the world; from torch's own generator."""
        if self.shape == "box":
            inside = 2 * torch.rand(count, 3) - 1
        else:
            direction = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
            inside = torch.rand(count, 1).pow(1 / 3) * direction
        return 0.5 * inside * torch.tensor(self.size) @ self.rotation.T + torch.tensor(self.center)

    def depth(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """How far out points of the world are: 0 is the middle, 1 the surface, 2 that of a shape twice as large."""
        local = (points - points.new_tensor(self.center)) @ self.rotation.to(points)
        share = 2 * local / points.new_tensor(self.size)
        return share.abs().amax(-1) if self.shape == "box" else share.square().sum(-1).clamp_min(1e-12).sqrt()

    def to_world(self, cameras: Cameras) -> Cameras:
        """Cameras of its own frame, in the world: what they see of the part is the same."""
        rotation, center = self.rotation.to(cameras.c2w), cameras.c2w.new_tensor(self.center)
        return _moved(cameras, rotation @ cameras.c2w[:, :3, :3], cameras.position * self.scale @ rotation.T + center)

    def to_own(self, cameras: Cameras) -> Cameras:
        """Undoes `to_world`."""
        rotation, center = self.rotation.to(cameras.c2w), cameras.c2w.new_tensor(self.center)
        position = (cameras.position - center) @ rotation / self.scale
        return _moved(cameras, rotation.T @ cameras.c2w[:, :3, :3], position)


@final
class Layout:
    """What a layout file says.

    Args:
        parts: the things, by any name.
        prompt: for all of them together; empty where the file has none.
    """

    def __init__(self, *, parts: dict[str, Part], prompt: str = "") -> None:
        check_parts(parts, math.inf)
        self.parts = parts
        self.prompt = prompt


def check_parts(parts: Mapping[str, Part], radius: float) -> None:
    """Raise unless there are as many parts as can be told apart, and all reach into a ball of so many metres."""
    if not 1 <= len(parts) <= MOST_PARTS:
        raise InputError(f"parts: expected 1–{MOST_PARTS}, got {len(parts)}.")
    for name, part in parts.items():
        if part.farthest > radius:
            raise InputError(
                f"parts.{name} reaches {part.farthest:.2f} m from the origin, and what is beyond {radius:g} m is not "
                "seen: move it to the middle, or make the scene smaller."
            )


def filled(parts: Mapping[str, Part], count: int) -> Float[Tensor, "N 3"]:
    """`count` points or a few more, evenly in every part, as many in each; from torch's own generator."""
    each = -(-count // len(parts))
    return torch.cat([part.points(each) for part in parts.values()])


def nearest_part(parts: Mapping[str, Part], points: Float[Tensor, "N 3"]) -> Tensor:
    """Which part each point belongs to: that in which it is deepest."""
    return torch.stack([part.depth(points) for part in parts.values()]).argmin(0)


def _about(axis: int, angle: float) -> Float[Tensor, "3 3"]:
    """A turn about x, y or z, counter-clockwise for who looks against the axis."""
    turn = torch.eye(3)
    one, two = (axis + 1) % 3, (axis + 2) % 3
    turn[one, one] = turn[two, two] = math.cos(angle)
    turn[one, two], turn[two, one] = -math.sin(angle), math.sin(angle)
    return turn


def _moved(cameras: Cameras, rotation: Float[Tensor, "B 3 3"], position: Float[Tensor, "B 3"]) -> Cameras:
    c2w = cameras.c2w.clone()
    c2w[:, :3, :3], c2w[:, :3, 3] = rotation, position
    return replace(cameras, c2w=c2w)
