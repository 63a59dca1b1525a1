"""`dream3d pause`: ask a run that goes on to wait."""

from __future__ import annotations

import argparse

from dream3d.commands.base import Parser, add_common, add_out, say
from dream3d.control import ask
from dream3d.runs import find

ABOUT = "Let a run that goes on, here or in another terminal, save a checkpoint and wait after the step in hand."
EXAMPLE = "dream3d pause latest"


def add_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a run, or latest")
    add_out(parser)
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    found = find(args.run, args.out)
    ask(found, "pause")
    if not args.quiet:
        say(f"{found.path} will wait; let it go on with: dream3d resume {found.path}")
    return 0
