"""`dream3d stop`: ask a run that goes on to end here, with an asset."""

from __future__ import annotations

import argparse

from dream3d.commands.base import Parser, add_request, request

ABOUT = "Let a run that goes on, here or in another terminal, stop after the step in hand and export what there is."
EXAMPLE = "dream3d stop latest"


def add_arguments(parser: Parser) -> None:
    add_request(parser)


def run(args: argparse.Namespace) -> int:
    return request(args, "stop", "{run} will stop; go on later with: dream3d resume {run}")
