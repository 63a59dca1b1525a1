"""Draws particles."""

from __future__ import annotations

from types import MappingProxyType
from typing import final

import torch

from dream3d.checks import InputError
from dream3d.renderers.base import Renderer, particle_of
from dream3d.representations.base import Representation
from dream3d.representations.particles import Particles
from dream3d.types import Cameras, Render


@final
class Each(Renderer):
    """Draws every one of `Particles` with its share of the cameras: consecutive views show one particle.

    Without a generator, for pictures, all cameras see the first particle, which is the one that is exported.

    Args:
        renderer: draws one particle.
    """

    def __init__(self, *, renderer: Renderer) -> None:
        self.renderer = renderer

    def before_step(self, step: int, views: int) -> None:
        self.renderer.before_step(step, views)

    def __call__(
        self,
        representation: Representation,
        cameras: Cameras,
        *,
        generator: torch.Generator | None = None,
        normals: bool = False,
    ) -> Render:
        if not isinstance(representation, Particles):
            raise InputError(f"Each draws Particles, not a {type(representation).__name__}.")
        if generator is None:
            return self.renderer(representation[0], cameras, normals=normals)
        which = particle_of(len(representation), len(cameras), generator)
        parts = [
            self.renderer(representation[i], cameras[which == i], generator=generator, normals=normals)
            for i in which.unique().tolist()
        ]
        return Render(
            torch.cat([p.rgb for p in parts]),
            torch.cat([p.alpha for p in parts]),
            _joined([p.depth for p in parts]),
            _joined([p.normal for p in parts]),
            MappingProxyType({name: torch.cat([p.aux[name] for p in parts]) for name in parts[0].aux}),
        )


def _joined(pieces: list[torch.Tensor | None]) -> torch.Tensor | None:
    there = [piece for piece in pieces if piece is not None]
    return torch.cat(there) if there else None
