"""Draws a scene, and its parts alone."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from dream3d.checks import InputError, groups_of, in_range
from dream3d.layouts import Part
from dream3d.renderers.base import Renderer
from dream3d.representations.base import Representation
from dream3d.representations.gaussians import Gaussians
from dream3d.types import Cameras, Render

WHOLE = -1


@final
class Focus(Renderer):
    """In training, shows the whole scene to some of the cameras and to each of the others one part, alone and in its
    own frame (`Part`), where priors expect an object: the local steps of SemanticSDS (arXiv:2410.09009) and of other
    compositional methods, side by side in one batch.

    Which is drawn anew each time, in shares that are as even as the batch allows: the aux channel "subject" (B,) holds
    the number of the part, or -1. Depths are in metres of the frame, normals along its axes. Only objectives that ask
    for it (`RegionSDS`) go with it. Without a generator, for pictures, every camera sees the whole.

    Args:
        renderer: draws Gaussians.
        whole: share of the pictures that show the whole.
    """

    def __init__(self, *, renderer: Renderer, whole: float = 0.25) -> None:
        in_range("Focus: whole", whole, 0, 1)
        self.renderer = renderer
        self.whole = whole
        self._views = 1

    def before_step(self, step: int, views: int) -> None:
        self._views = views
        self.renderer.before_step(step, views)

    def __call__(
        self,
        representation: Representation,
        cameras: Cameras,
        *,
        generator: torch.Generator | None = None,
        normals: bool = False,
    ) -> Render:
        if not isinstance(representation, Gaussians) or not representation.parts:
            raise InputError("Focus draws Gaussians with parts: give the representation some, or --layout FILE.")
        if generator is None:
            return self.renderer(representation, cameras, normals=normals)
        parts = list(representation.parts.values())
        subject = self.subjects(len(cameras), len(parts), generator)
        drawn: list[Render] = []
        for number in (shown := subject.unique()).tolist():
            rows = cameras[subject == number]
            if number == WHOLE:
                drawn.append(self.renderer(representation, rows, generator=generator, normals=normals))
                continue
            with representation.alone(number):
                seen = parts[number].to_world(rows)
                render = self.renderer(representation, seen, generator=generator, normals=normals)
            drawn.append(_in_frame(render, parts[number]))
        back = torch.cat([(subject == number).nonzero()[:, 0] for number in shown]).argsort()
        return _joined(drawn, back, subject)

    def subjects(self, batch: int, parts: int, generator: torch.Generator) -> Int[Tensor, "B"]:
        """What each picture of a batch shows; those of a group show the same."""
        groups = groups_of(batch, self._views)
        # One even grid with a random offset: no share is off by more than one picture.
        even = (torch.arange(groups) + torch.rand(1, generator=generator)) / groups
        drawn = ((even - self.whole) / max(1 - self.whole, 1e-9) * parts).floor().long().clamp(WHOLE, parts - 1)
        mixed = drawn[torch.randperm(groups, generator=generator)]  # rows have their own sectors of the circle
        return mixed.repeat_interleave(self._views)


def _in_frame(render: Render, part: Part) -> Render:
    """What cameras of the world saw, as those of the part's own frame see it."""
    turn = part.rotation.to(render.rgb)
    aux = dict(render.aux)
    if "view" in aux:
        aux["view"] = aux["view"] @ turn
    if "distortion" in aux:  # metres^2
        aux["distortion"] = aux["distortion"] / part.scale**2
    return dataclasses.replace(
        render,
        depth=None if render.depth is None else render.depth / part.scale,
        normal=None if render.normal is None else render.normal @ turn,
        aux=MappingProxyType(aux),
    )


def _joined(drawn: list[Render], rows: Int[Tensor, "B"], subject: Int[Tensor, "B"]) -> Render:
    """Renders of some rows each, in the order of the batch."""

    def joined(pieces: list[Tensor | None]) -> Tensor | None:
        there = [piece for piece in pieces if piece is not None]
        return torch.cat(there)[rows.to(there[0].device)] if there else None

    fields = {name: joined([getattr(r, name) for r in drawn]) for name in ("rgb", "alpha", "depth", "normal")}
    aux = {name: joined([r.aux[name] for r in drawn]) for name in drawn[0].aux}
    aux["subject"] = subject.to(drawn[0].rgb.device)
    return Render(**fields, aux=MappingProxyType(aux))  # pyright: ignore[reportArgumentType] rgb and alpha are there
