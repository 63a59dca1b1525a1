"""`dream3d compare`: runs side by side on one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from dream3d.commands.base import Parser, UsageError, add_common, add_out, say, say_json, size_of
from dream3d.runs import find

ABOUT = "Put runs side by side on one page: 3D views under one camera, curves on one axis, what differs in a table."
EXAMPLE = "dream3d compare outputs/a-teddy-bear/*"

PAGE = "compare.html"


def add_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="+", help="folders of runs, or latest")
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"where to write (default: {PAGE} in --out)")
    add_out(parser)
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    if len(args.run) < 2:
        raise UsageError(f"compare needs two or more runs (got {len(args.run)}). See: dream3d compare --help")
    runs = [find(text, args.out) for text in args.run]

    from dream3d.report import write_comparison

    path = write_comparison(runs, args.page or Path(args.out) / PAGE)
    if not args.quiet:
        say(f"{path} ({size_of(path.stat().st_size)})")
    if args.json:
        say_json({"page": str(path), "runs": [str(run.path) for run in runs]})
    return 0
