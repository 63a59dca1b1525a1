"""The pictures at the end of a run."""

from __future__ import annotations

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
