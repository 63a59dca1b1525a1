"""`dream3d report`: a run's page, made anew."""

from __future__ import annotations

import argparse

from dream3d.commands.base import Parser, add_common, add_out, say, say_json, size_of
from dream3d.runs import find

ABOUT = "Make the report of a run anew: one HTML file in its folder that opens without a network."
EXAMPLE = "dream3d report latest"


def add_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="+", help="folders of runs, or latest")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    add_out(parser)
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    runs = [find(text, args.out) for text in args.run]

    from dream3d.report import write_report

    paths = [write_report(run) for run in runs]
    for path in paths:
        if not args.quiet:
            say(f"{path} ({size_of(path.stat().st_size)})")
        if args.open:
            import webbrowser

            webbrowser.open(path.as_uri())
    if args.json:
        say_json({"reports": [str(path) for path in paths]})
    return 0
