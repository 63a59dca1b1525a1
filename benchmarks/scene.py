"""Whether the parts of a scene are what and where its layout says.

    python benchmarks/scene.py RUN [--picture FILE]

Of each part: how far its middle is from the layout's and how much of it is inside (both by Gaussians' opacity times
area), and what the packaged judge takes it for, alone in its own frame from eight sides. The picture has the scene from
four sides, its masks, and every part alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from dream3d import config
from dream3d.cameras import turntable
from dream3d.evaluation.assets import BACKGROUND, Asset, verdict
from dream3d.evaluation.judge import TrainedJudge
from dream3d.layouts import Part
from dream3d.media import read_pictures, row, write_picture
from dream3d.renderers import Splat
from dream3d.representations import Gaussians
from dream3d.runs import RunFolder

SIZE, VIEWS = 256, 8


@torch.no_grad()
def alone(scene: Gaussians, number: int, part: Part, views: int, size: int, background: float) -> torch.Tensor:
    cameras = part.to_world(turntable(views, size))
    with scene.alone(number):
        return Splat()(scene, cameras).over(torch.full((3,), background))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    run, judge = RunFolder(args.run), TrainedJudge()
    pipeline, _ = config.load(run.config, ["device=cpu"])
    scene = pipeline.restore(run)
    assert isinstance(scene, Gaussians) and scene.part is not None
    weight = scene.opacities * scene.scales.sort(dim=1).values[:, 1:].prod(dim=1)
    print("| part | Gaussians | middle is off, m | inside | taken for | R@1 | R@5 | front is off, degrees |")
    print("|---|---|---|---|---|---|---|---|")
    for number, (name, part) in enumerate(scene.parts.items()):
        mine = scene.part == number
        share = (weight * mine / weight[mine].sum())[:, None]
        off = (share * scene.means).sum(0) - torch.tensor(part.center)
        inside = share[part.depth(scene.means) <= 1].sum()
        images = alone(scene, number, part, VIEWS, 64, BACKGROUND)
        found = verdict(Asset(args.run, part.text), images, turntable(VIEWS, 64).azimuth, judge)
        turned = "-" if found.view_error_deg is None else f"{found.view_error_deg:.0f}"
        print(
            f"| {name} | {int(mine.sum())} | {float(off.norm()):.3f} | {float(inside):.2f} | {found.looks_like} "
            f"| {found.top1:.2f} | {found.top5:.2f} | {turned} |"
        )
    if args.picture:
        rows = list(read_pictures([run.final / "views.png", run.final / "masks.png"]))
        side = rows[0].shape[0]
        lines = [row(alone(scene, number, part, 4, side, 1.0)) for number, part in enumerate(scene.parts.values())]
        write_picture(args.picture, np.concatenate([*rows, *lines]))


if __name__ == "__main__":
    main()
