"""`dream3d stop`: ask a run that goes on to end here, with an asset."""

from __future__ import annotations

import argparse

from dream3d.commands.base import Parser, add_common, add_out, say
from dream3d.control import ask
from dream3d.runs import find

ABOUT = "Let a run that goes on, here or in another terminal, stop after the step in hand and export what there is."
EXAMPLE = "dream3d stop latest"


def add_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a run, or latest")
    add_out(parser)
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    found = find(args.run, args.out)
    ask(found, "stop")
    if not args.quiet:
        say(f"{found.path} will stop; go on later with: dream3d resume {found.path}")
    return 0
