"""One 3D run per objective: same prompt, same seed, the same number of predictions of the prior.

    python benchmarks/objectives.py --out FOLDER [--sheet docs/images/objectives.jpg] [--only sds,vsd,esd,asd,csm,ism]

Each is `dream3d generate PROMPT --guidance NAME`, that is the default recipe with the method's own objective, weight,
times and noise. What a step of it asks of the prior is counted in two steps; the run gets as many steps as the budget
has room for, and every ramp of the recipe is stretched in proportion. What critics predict comes on top and shows in
the seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from dream3d.kernels.environment import set_thread_policy

set_thread_policy()

from PIL import Image, ImageDraw  # noqa: E402

from dream3d import config  # noqa: E402
from dream3d.commands.base import table  # noqa: E402
from dream3d.evaluation.assets import Asset, judge_asset, pictures  # noqa: E402
from dream3d.evaluation.judge import TrainedJudge  # noqa: E402
from dream3d.fitting import fit  # noqa: E402
from dream3d.media import row  # noqa: E402

MAIN = "sds,vsd,esd,asd,csm,ism"
PIXELS, LABEL = 160, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", default=MAIN, help="names of --guidance")
    parser.add_argument("--prompt", default="a hamburger")
    parser.add_argument("--budget", type=int, default=8000, help="predictions of the prior")
    parser.add_argument("--sheet", type=Path, help="picture to write")
    args = parser.parse_args()
    judge = TrainedJudge()
    judge.load()
    rows = [("objective", "steps", "a step", "seconds", "R@1", "R@5", "similarity", "looks like")]
    made = {}
    for name in args.only.split(","):
        path, told = run(name, args)
        seen, made[name] = judge_asset(Asset(path, args.prompt), judge), path
        figures = (f"{seen.top1:.2f}", f"{seen.top5:.2f}", f"{seen.similarity:.2f}", seen.looks_like)
        rows.append((name, str(told["steps"]), f"{told['cost']:.0f}", f"{told['seconds']:.0f}", *figures))
    print("\n".join(table(rows)))
    if args.sheet:
        sheet(made).save(args.sheet)


def run(name: str, args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The asset of one objective, and what it took; one that is there already is not made again."""
    note = args.out / f"{name}.json"
    if not note.exists():
        args.out.mkdir(parents=True, exist_ok=True)
        dream3d = [sys.executable, "-m", "dream3d", "generate"]
        asked = [*dream3d, args.prompt, "--guidance", name, "--seed", "0", "--out", str(args.out), "--dry-run"]
        tree = yaml.safe_load(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
        recipe = args.out / f"{name}.yaml"
        recipe.write_text(yaml.safe_dump(tree), encoding="utf-8")
        cost = predictions(recipe)
        stage = list(tree["stages"].values())[-1]
        steps = round(args.budget / cost)
        stretch(stage, steps / stage["steps"])
        stage["steps"] = steps
        recipe.write_text(yaml.safe_dump(tree), encoding="utf-8")
        began = time.perf_counter()
        done = subprocess.run(
            [*dream3d, "--config", str(recipe), "--quiet", "--json"], capture_output=True, text=True, check=True
        )
        seconds = time.perf_counter() - began
        (glb,) = (file for file in json.loads(done.stdout)["files"] if file.endswith(".glb"))
        told = {"glb": glb, "steps": steps, "cost": cost, "seconds": seconds}
        note.write_text(json.dumps(told), encoding="utf-8")
        print(f"{name}: {steps} steps of {cost:.0f} predictions, {seconds:.0f} s", flush=True)
    told = json.loads(note.read_text(encoding="utf-8"))
    return Path(told["glb"]), told


def predictions(recipe: Path, steps: int = 2) -> float:
    """Predictions that a step of the last stage asks of its prior."""
    pipeline, _ = config.load(recipe, ["device=cpu"])
    name, stage = list(pipeline.stages.items())[-1]
    stage.steps = steps
    fit(pipeline.module(name), pipeline.device, [])
    return stage.prior.asked / steps


def stretch(tree: Any, by: float) -> None:
    """Make every ramp of a recipe longer or shorter."""
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        return
    if tree.get("class_path") == "Ramp":
        for key in {"steps", "begin"} & set(tree["init_args"]):
            tree["init_args"][key] = max(int(key == "steps"), round(tree["init_args"][key] * by))
    for value in tree.values():
        stretch(value, by)


def sheet(made: dict[str, Path]) -> Image.Image:
    """One row an objective: the GLB's colours, unlit, from four sides."""
    picture = Image.new("RGB", (LABEL + 4 * PIXELS, len(made) * PIXELS), "white")
    draw = ImageDraw.Draw(picture)
    for index, (name, path) in enumerate(made.items()):
        draw.text((8, index * PIXELS + PIXELS // 2), name.upper(), fill="black")
        sides = pictures(path, 4, pixels=PIXELS)[0]
        picture.paste(Image.fromarray(row(sides)), (LABEL, index * PIXELS))
    return picture


if __name__ == "__main__":
    main()
