"""`dream3d resume`: go on with a run that was stopped, cut off or killed."""

from __future__ import annotations

import argparse
from pathlib import Path

from dream3d.commands.base import (
    Parser,
    UsageError,
    add_common,
    add_out,
    assignment,
    device,
    number,
    open_run,
    say,
    say_json,
    whole,
)
from dream3d.commands.view import add_view, check_view, viewing
from dream3d.control import ask, goes_on
from dream3d.runs import find

ABOUT = "Go on with a run that is paused, or was stopped, cut off or killed, to the asset that it would have had."
EXAMPLE = "dream3d resume latest"


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("run", metavar="RUN", help="folder of a run, or latest")
    add("--steps", type=whole("--steps", 1), metavar="N", help="steps of the last stage: go on for longer")
    add("--max-minutes", type=number("--max-minutes", 0), metavar="X", help="stop optimising then, and export")
    add("--device", type=device, metavar="NAME", help="auto, cpu, cuda or cuda:INDEX (default: the run's)")
    add("--set", type=assignment, action="append", metavar="KEY=VALUE", help="set any key; --KEY VALUE does the same")
    add_view(parser)
    add_out(parser)
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    check_view(args)
    changes = list(args.overrides)
    if args.max_minutes is not None:
        changes.append(f"max_minutes={args.max_minutes}")
    if args.steps is not None:
        changes.append(f"stages.{_last_stage(args)}.steps={args.steps}")
    paused = find(args.run, args.out)
    if not changes and paused.state().get("status") == "paused" and goes_on(paused):
        ask(paused, "go")
        say(f"{paused.path} goes on, where it was started")
        return 0
    run, pipeline = open_run(args, changes)
    with viewing(args, pipeline):
        folder = pipeline.resume(run, rewrite=bool(changes))
    if args.json:
        say_json({"run": str(folder), "files": [str(p) for p in sorted((folder / "export").rglob("*")) if p.is_file()]})
    return 0


def _last_stage(args: argparse.Namespace) -> str:
    from dream3d.recipes import read

    stages = read(Path(find(args.run, args.out).config)).get("stages")
    if not isinstance(stages, dict) or not stages:
        raise UsageError("--steps: this run's config.yaml has no stages.")
    return list(stages)[-1]
