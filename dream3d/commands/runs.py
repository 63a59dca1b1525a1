"""`dream3d runs`: what there is, what is in it, and away with it."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dream3d.checks import RunFolderError
from dream3d.commands.base import Parser, UsageError, add_common, add_out, choice, say, say_json, size_of, table
from dream3d.runs import RunFolder, find, list_runs

ABOUT = "List, show or remove runs."
EXAMPLE = "dream3d runs show latest"

ACTIONS = ("list", "show", "rm")
RUNNING, PAUSED = "running", "paused"


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("action", nargs="?", type=choice("runs", ACTIONS), default="list", help="list, show or rm (default: list)")
    add("run", nargs="*", metavar="RUN", help="folders of runs, or latest")
    add("--failed", action="store_true", help="only runs that failed or were cut off")
    add_out(parser)
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    if args.action == "list":
        if args.run:
            raise UsageError("runs list takes no RUN. Did you mean: dream3d runs show")
        return _list(args)
    if args.failed and args.run:
        raise UsageError("--failed and RUN exclude each other: both say which runs.")
    runs = [run for run, _ in _chosen(args)] if args.failed else [find(text, args.out) for text in args.run]
    if not runs and not args.failed:
        raise UsageError(f"runs {args.action} needs RUN, such as latest. See: dream3d runs --help")
    return _show(args, runs) if args.action == "show" else _remove(args, runs)


def status(state: Mapping[str, Any]) -> str:
    """The run's status; one that says it is running while its process is gone was cut off."""
    said = str(state.get("status", "unknown"))
    return "cut off" if said in (RUNNING, PAUSED) and not _alive(state.get("pid")) else said


def _alive(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _chosen(args: argparse.Namespace) -> list[tuple[RunFolder, Mapping[str, Any]]]:
    runs = list_runs(args.out)
    return [(run, state) for run, state in runs if status(state) in ("failed", "cut off")] if args.failed else runs


def _list(args: argparse.Namespace) -> int:
    runs = _chosen(args)
    if not runs and not args.quiet:
        say(f'no runs in {args.out} yet: dream3d generate "a teddy bear"')
    for line in table([(status(state), str(run.path), str(state.get("prompt", ""))) for run, state in runs]):
        say(line)
    if args.json:
        say_json([{"run": str(run.path), **state, "status": status(state)} for run, state in runs])
    return 0


def _show(args: argparse.Namespace, runs: list[RunFolder]) -> int:
    shown = []
    for run in runs:
        state = {**run.state()}
        state["status"] = status(state)
        files = [path for path in sorted(run.path.rglob("*")) if path.is_file() and not path.is_symlink()]
        shown.append({"run": str(run.path), **state, "files": [str(path) for path in files]})
        if args.quiet:
            continue
        say(str(run.path))
        for line in table([(f"  {key}", _worded(value)) for key, value in state.items()]):
            say(line)
        say("  files")
        rows = [(f"    {path.relative_to(run.path)}", size_of(path.stat().st_size)) for path in files]
        for line in table(rows):
            say(line)
    if args.json:
        say_json(shown)
    return 0


def _worded(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_worded(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_worded, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _remove(args: argparse.Namespace, runs: list[RunFolder]) -> int:
    for run in runs:
        if status(run.state()) in (RUNNING, PAUSED):
            raise RunFolderError(f"{run.path} is running (pid {run.state().get('pid')}): stop it first.")
    for run in runs:
        shutil.rmtree(run.path)
        if not any(run.path.parent.iterdir()):
            run.path.parent.rmdir()
        if not args.quiet:
            say(f"removed {run.path}")
    _mend_latest(Path(args.out))
    if args.json:
        say_json({"removed": [str(run.path) for run in runs]})
    return 0


def _mend_latest(out: Path) -> None:
    """Let `latest` name the newest run that is left."""
    link = out / "latest"
    if not link.is_symlink() or link.exists():
        return
    link.unlink()
    left = list_runs(out)
    if left:
        link.symlink_to(left[-1][0].path.relative_to(out))
