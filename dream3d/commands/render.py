"""`dream3d render`: pictures and a film of a run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dream3d.commands.base import Parser, add_common, add_device, add_out, choices, open_run, say, say_json, whole

if TYPE_CHECKING:
    import numpy as np

    from dream3d.types import Render

ABOUT = "Draw pictures or a turntable of a run from its last checkpoint, into its folder."
EXAMPLE = "dream3d render latest --views 8 --turntable"

CHANNELS = ("rgb", "normal", "depth")
FRAMES, FPS = 72, 24
"""Of the turntable: one turn in three seconds."""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a run, or latest")
    add = parser.add_argument
    add("--views", type=whole("--views", 1, 360), default=4, metavar="N", help="pictures around it (default: 4)")
    add("--turntable", action="store_true", help="also a film, one turn")
    add(
        "--aov",
        type=choices("--aov", CHANNELS),
        default=("rgb",),
        metavar="LIST",
        help="channels: rgb, normal, depth (default: rgb)",
    )
    add("--pixels", type=whole("--pixels", 16, 4096), default=256, metavar="N", help="size on a side (default: 256)")
    add_device(parser)
    add_out(parser)
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    run, pipeline = open_run(args)
    representation = pipeline.restore(run)

    import torch

    from dream3d.cameras import turntable
    from dream3d.media import write_film, write_picture

    renderer = pipeline.renderer
    folder = run.path / "save" / "render"
    folder.mkdir(parents=True, exist_ok=True)

    def draw(views: int, channels: tuple[str, ...]) -> Iterator[dict[str, np.ndarray]]:
        cameras = turntable(views, args.pixels).to(pipeline.device)
        for index in range(views):
            with torch.no_grad():
                render = renderer(representation, cameras[index], normals="normal" in channels)
            yield {name: picture(render, name) for name in channels}

    files: list[Path] = []
    for index, pictures in enumerate(draw(args.views, args.aov)):
        for name, pixels in pictures.items():
            files.append(folder / f"{name}_{index:03d}.png")
            write_picture(files[-1], pixels)
    if args.turntable:
        for name in args.aov:
            files.append(folder / f"turntable_{name}.mp4")
            write_film(files[-1], (pictures[name] for pictures in draw(FRAMES, (name,))), fps=FPS)
    if not args.quiet:
        for path in files:
            say(str(path))
    if args.json:
        say_json({"run": str(run.path), "files": [str(path) for path in files]})
    return 0


def picture(render: Render, channel: str) -> np.ndarray:
    """One channel of the first view as H W 3 bytes: colour over white; world normals as (n + 1) / 2; depth with near
    bright, scaled to what is seen."""
    import torch

    from dream3d.checks import InputError
    from dream3d.media import to_bytes

    white = torch.ones(3, device=render.rgb.device)
    if channel == "rgb":
        return to_bytes(render.over(white))[0]
    values = render.normal if channel == "normal" else render.depth
    if values is None:
        raise InputError(f"--aov: this run's renderer draws no {channel}.")
    alpha = render.alpha
    seen = alpha[0, ..., 0] > 0.5
    straight = values / alpha.clamp_min(1e-6)
    if channel == "normal":
        shown = torch.nn.functional.normalize(straight, dim=-1) * 0.5 + 0.5
    else:
        near, far = (straight[0][seen].amin(), straight[0][seen].amax()) if bool(seen.any()) else (0.0, 1.0)
        shown = (1 - 0.8 * (straight - near) / max(float(far - near), 1e-6)).expand(-1, -1, -1, 3)
    return to_bytes(torch.where(seen[None, ..., None], shown, torch.zeros_like(shown)).permute(0, 3, 1, 2))[0]
