"""Several independent representations, optimised together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast, final

import torch
from torch import nn
from torch.optim import Optimizer

from dream3d.checks import in_range
from dream3d.representations.base import Representation, Surfaced
from dream3d.types import Mesh


@final
class Particles(Representation):
    """`count` representations of one kind: the particles of variational objectives (VSD, arXiv:2305.16213, sec. 3.2).

    They share what the objective trains and nothing else; each starts from its own random numbers. Draw them with the
    renderer `Each`. The first one is exported.

    Args:
        start: the stage before; other `Particles` hand over to each its counterpart, anything else goes to all.
        of: makes one of them.
        count: how many.
    """

    def __init__(
        self,
        start: Representation | None = None,
        *,
        of: Callable[[Representation | None], Representation],
        count: int = 4,
    ) -> None:
        super().__init__()
        in_range("Particles: count", count, 1, 256)
        before = list(start) if isinstance(start, Particles) else [start]
        self.parts = nn.ModuleList(of(before[i % len(before)]) for i in range(count))

    def __iter__(self) -> Iterator[Representation]:
        return (cast(Representation, part) for part in self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Representation:
        return cast(Representation, self.parts[index])

    def to_mesh(self) -> Mesh:
        return self[0].to_mesh()

    def surface(self, *, iso: float | None = None, resolution: int = 128) -> Surfaced:
        return self[0].surface(iso=iso, resolution=resolution)

    def parameter_groups(self) -> list[dict]:
        return [group for part in self for group in part.parameter_groups()]

    def before_step(self, step: int) -> None:
        for part in self:
            part.before_step(step)

    def after_step(self, step: int, optimizer: Optimizer, generator: torch.Generator | None = None) -> None:
        for part in self:
            part.after_step(step, optimizer, generator)
