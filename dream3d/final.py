"""The pictures at the end of a run."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import turntable
from dream3d.media import read_pictures, row, to_bytes, write_film, write_picture
from dream3d.renderers.base import Renderer
from dream3d.representations.base import Representation
from dream3d.runs import RunFolder

VIEW_NAMES = ("front", "left", "back", "right")


@torch.no_grad()
def around(
    renderer: Renderer, representation: Representation, views: int, size: int, device: torch.device
) -> Iterator[Float[Tensor, "1 3 H W"]]:
    """Views around the object over white, one after the other, `size` pixels on a side."""
    white = torch.ones(3, device=device)
    cameras = turntable(views, size).to(device)
    for i in range(views):
        yield renderer(representation, cameras[i]).over(white)


@torch.no_grad()
def mask_picture(
    run: RunFolder, renderer: Renderer, representation: Representation, size: int, device: torch.device
) -> None:
    """Where the parts of a scene are, each in its colour: masks.png, the same four views. Nothing without parts."""
    views = []
    for camera in turntable(len(VIEW_NAMES), size).to(device):
        parts = renderer(representation, camera).aux.get("parts")
        if parts is None:
            return
        # Turns of the golden ratio around the colour circle: however many there are, neighbours differ.
        colours = [colorsys.hsv_to_rgb(0.6 + 0.618034 * i, 0.75, 0.9) for i in range(parts.shape[-1])]
        rest = 1 - parts.sum(-1, keepdim=True)
        views.append((parts @ parts.new_tensor(colours) + rest).permute(0, 3, 1, 2))
    write_picture(run.final / "masks.png", row(torch.cat(views)))


def final_pictures(run: RunFolder, draw: Callable[[int], Iterator[Tensor]], turntable_views: int) -> None:
    """Four views, a film around the object, and the film of the previews.

    Args:
        run: whose `save` folder.
        draw: makes so many views around the object.
        turntable_views: of the film; 0 for none.
    """
    four = torch.cat(list(draw(4)))
    write_picture(run.final / "views.png", row(four))
    for name, pixels in zip(VIEW_NAMES, to_bytes(four), strict=True):
        write_picture(run.final / f"{name}.png", pixels)
    if turntable_views:
        frames = [to_bytes(image)[0] for image in draw(turntable_views)]
        write_film(run.final / "turntable.mp4", frames, fps=18)
    previews = sorted(run.progress.glob("step*.jpg"))
    if previews:
        write_film(run.progress.parent / "progress.mp4", read_pictures(previews), fps=8)
