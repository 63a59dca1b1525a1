"""The main job on a list of prompts: seconds, what the judge sees in the GLBs, and a contact sheet of them.

    python benchmarks/assets.py --out FOLDER [--prompts configs/prompts/sixteen.txt] [--sheet docs/images/sixteen.jpg]

Every prompt is one `dream3d generate PROMPT` in a process of its own, with no other flag than those after `--`. Prompts
whose asset is in FOLDER already are not made again. The sheet shows the colours of the GLBs, unlit, from four sides.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image, ImageDraw

from dream3d.commands.base import table
from dream3d.commands.evaluate import lines
from dream3d.evaluation.assets import Asset, judge_asset, pictures, summary
from dream3d.evaluation.judge import TrainedJudge
from dream3d.media import row

PIXELS, COLUMNS, LABEL = 128, 2, 18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--prompts", type=Path, default=Path("configs/prompts/sixteen.txt"), help="one a line")
    parser.add_argument("--sheet", type=Path, help="picture to write")
    parser.add_argument("--limit", type=int, help="only the first so many")
    parser.add_argument("flags", nargs="*", help="after --: further flags of `dream3d generate`")
    args = parser.parse_args()
    texts = [line.strip() for line in args.prompts.read_text(encoding="utf-8").splitlines()]
    prompts = [text for text in texts if text and not text.startswith("#")][: args.limit]
    made = [make(prompt, args.out, args.flags) for prompt in prompts]
    judge = TrainedJudge()
    judge.load()
    verdicts = [judge_asset(Asset(path, prompt), judge) for prompt, (path, _) in zip(prompts, made, strict=True)]
    result = summary(verdicts, judge)
    result["seconds"] = {prompt: seconds for prompt, (_, seconds) in zip(prompts, made, strict=True)}
    (args.out / "assets.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines(result)))
    print("\n".join(table([("prompt", "seconds"), *((p, f"{s:.0f}") for p, s in result["seconds"].items())])))
    if args.sheet:
        contact_sheet(prompts, [path for path, _ in made], [v.looks_like for v in verdicts]).save(args.sheet)


def make(prompt: str, out: Path, flags: list[str]) -> tuple[Path, float]:
    """The asset of a prompt and the seconds that its process took."""
    note = out / f"{prompt.replace(' ', '-')}.json"
    if not note.exists():
        command = [sys.executable, "-m", "dream3d", "generate", prompt, "--out", str(out), "--quiet", "--json", *flags]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - began
        files = json.loads(done.stdout)["files"]
        (path,) = (file for file in files if file.endswith(".glb"))
        note.write_text(json.dumps({"glb": path, "seconds": seconds}), encoding="utf-8")
        print(f"{prompt}: {seconds:.0f} s", flush=True)
    told = json.loads(note.read_text(encoding="utf-8"))
    return Path(told["glb"]), told["seconds"]


def contact_sheet(prompts: list[str], paths: list[Path], seen: list[str]) -> Image.Image:
    """Four views of each, with the prompt and what most views look like to the judge."""
    rows = -(-len(prompts) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * 4 * PIXELS, rows * (PIXELS + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (prompt, path, name) in enumerate(zip(prompts, paths, seen, strict=True)):
        x, y = index % COLUMNS * 4 * PIXELS, index // COLUMNS * (PIXELS + LABEL)
        sheet.paste(Image.fromarray(row(pictures(path, 4, pixels=PIXELS)[0])), (x, y))
        draw.text((x + 4, y + PIXELS + 2), f"{prompt}   (judged: {name})", fill="black")
    return sheet


if __name__ == "__main__":
    main()
