"""`dream3d pause`: ask a run that goes on to wait."""

from __future__ import annotations

import argparse

from dream3d.commands.base import Parser, add_request, request

ABOUT = "Let a run that goes on, here or in another terminal, save a checkpoint and wait after the step in hand."
EXAMPLE = "dream3d pause latest"


def add_arguments(parser: Parser) -> None:
    add_request(parser)


def run(args: argparse.Namespace) -> int:
    return request(args, "pause", "{run} will wait; let it go on with: dream3d resume {run}")
