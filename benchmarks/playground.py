"""The 2D playground: one row of pictures an objective, same prompt, same seed, same number of steps.

    python benchmarks/playground.py --out docs/images/playground.png [--only SDS,VSD | all] [--steps N] [--threads N]

Everything else is the recipe `image_vsd`, so that rows differ in the objective alone: four particles, guidance 7.5
where an objective takes a guider, its critic where it takes one; noiser and w(t) are the objective's own.
Beside each name: predictions a step and picture (prior + critic), saturation (mean of max - min over the channels),
pixels outside [0, 1] in per cent, the mean distance between two of the pictures, and seconds.
"""

from __future__ import annotations

import argparse
import inspect
import time
from pathlib import Path

from dream3d.kernels.environment import set_thread_policy

set_thread_policy()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image as Picture  # noqa: E402
from PIL import ImageDraw  # noqa: E402

from dream3d import config  # noqa: E402
from dream3d.checks import Dream3DError, one_of  # noqa: E402
from dream3d.fitting import fit  # noqa: E402
from dream3d.guidance import CFG, Objective  # noqa: E402
from dream3d.media import row  # noqa: E402
from dream3d.prompts import Prompt  # noqa: E402
from dream3d.representations import Image  # noqa: E402
from dream3d.stage import Stage, StageModule  # noqa: E402

MAIN = ("SDS", "CSD", "NFSD", "ASD", "ISM", "CSM", "SDI", "VSD", "ESD", "SwiftBrush")
APART = {"RegionSDS": "is SDS without regions", "VPCSM": "follows a picture, which the built-in prior does not take"}
LABEL, SCALE = 210, 2


def main() -> None:
    parser = argparse.ArgumentParser(description="One row of pictures an objective.")
    parser.add_argument("--out", required=True, help="PNG of the sheet")
    parser.add_argument("--only", default=",".join(MAIN), help="names, or all")
    parser.add_argument("--prompt", default="a teddy bear")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    there, rows = config.members(Objective), []
    for name in there if args.only == "all" else args.only.split(","):
        if args.only == "all" and name in APART:
            print(f"{name} {APART[name]}: left out", flush=True)
            continue
        try:
            rows.append(paint(there[one_of("--only", name, there)], args.prompt, args.steps, torch.device(args.device)))
        except Dream3DError as error:
            print(f"{name}: {error}", flush=True)
    if not rows:
        raise SystemExit(1)
    sheet = np.concatenate(rows)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(sheet).save(args.out)


def paint(cls: type, prompt: str, steps: int, device: torch.device) -> np.ndarray:
    """One labelled row."""
    pipeline, _ = config.load("image_vsd", [f"device={device}"])
    base = pipeline.stages["picture"]
    given = {"guider": CFG(scale=7.5), "scale": 7.5, "critic": base.objective.critic}
    objective = cls(**{key: value for key, value in given.items() if key in inspect.signature(cls).parameters})
    stage = Stage(
        representation=base.representation,
        renderer=base.renderer,
        prior=base.prior.to(device),
        objective=objective,
        cameras=base.cameras,
        time=base.time,
        optimizer=base.optimizer,
        batch=base.batch,
        steps=steps,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(pipeline.seed)
        image = base.representation(None).to(device)
    assert isinstance(image, Image)
    module, began = StageModule(stage, Prompt(prompt), image, seed=pipeline.seed), time.monotonic()
    fit(module, device, [])
    pictures = image.pictures.detach().cpu()
    asked = [stage.prior.asked, sum(c.asked for c in module.critics)]
    saturation = (pictures.clamp(0, 1).amax(1) - pictures.clamp(0, 1).amin(1)).mean()
    outside = ((pictures < 0) | (pictures > 1)).float().mean() * 100
    flat = pictures.flatten(1)
    apart = torch.pdist(flat).mean() / flat.shape[1] ** 0.5
    per = [count / steps / stage.batch for count in asked]
    lines = [cls.__name__, f"{per[0]:.1f} + {per[1]:.1f} predictions", f"saturation {saturation:.2f}"]
    lines += [f"outside {outside:.0f} %", f"apart {apart:.2f}", f"{time.monotonic() - began:.0f} s"]
    print(" | ".join(lines), flush=True)
    pixels = row(pictures).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    label = Picture.new("RGB", (LABEL, pixels.shape[0]), "white")
    ImageDraw.Draw(label).multiline_text((8, 8), "\n".join(lines), fill="black", spacing=6)
    return np.concatenate([np.asarray(label), pixels], axis=1)


if __name__ == "__main__":
    main()
