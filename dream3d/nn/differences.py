"""Derivatives in space of a function that is only known at points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Value = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]]


def around(
    value: Value, points: Float[Tensor, "N 3"], step: float
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
    """Values at `points` moved along each axis by plus and by minus `step` metres: what central differences take."""
    offsets = step * torch.eye(3, dtype=points.dtype, device=points.device)
    moved = torch.stack([points[:, None] + offsets, points[:, None] - offsets])
    plus, minus = value(moved.view(-1, 3)).view(2, -1, 3)
    return plus, minus


def slope(value: Value, points: Float[Tensor, "N 3"], *, track: bool) -> Float[Tensor, "N 3"]:
    """The gradient by automatic differentiation.

    Args:
        value: twice differentiable where `track` is set.
        points: no gradient flows to them.
        track: whether the result can be differentiated itself, with respect to what `value` depends on.
    """
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(value(leaf).sum(), leaf, create_graph=track)
    return gradient
