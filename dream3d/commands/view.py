"""`dream3d view`: a run or a file in the browser; and the flags with which other commands show what they do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dream3d.checks import InputError
from dream3d.commands.base import Parser, UsageError, add_common, add_device, add_out, require_device, say, whole
from dream3d.runs import STATE, RunFolder, find

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from dream3d.pipeline import Pipeline
    from dream3d.renderers.base import Renderer
    from dream3d.representations.base import Representation

ABOUT = "Show a run, whoever started it, or a file (.glb, .ply, .spz, .splat) in the browser, until Ctrl-C."
EXAMPLE = "dream3d view latest"

HERE = "127.0.0.1"
FILES = (".glb", ".ply", ".spz", ".splat")


def add_arguments(parser: Parser) -> None:
    parser.add_argument("what", metavar="RUN_OR_FILE", help="folder of a run, latest, or a file")
    _add_address(parser)
    parser.add_argument("--open", action="store_true", help="open the browser")
    add_device(parser)
    add_out(parser)
    add_common(parser)
    parser.set_defaults(device="cpu")  # a run may need all that a GPU has


def _add_address(parser: Parser) -> None:
    add = parser.add_argument
    add("--host", metavar="ADDRESS", help=f"let others in, with a token: 0.0.0.0 or a name (default: {HERE}, nobody)")
    add("--port", type=whole("--port", 0, 65535), metavar="N", help="0 for any (default: 8080 or the next free)")


def add_view(parser: Parser) -> None:
    """The flags of commands that train."""
    parser.add_argument("--view", action="store_true", help="show it in the browser while it goes on")
    _add_address(parser)


def check_view(args: argparse.Namespace) -> None:
    """Refuse an address without a page."""
    if not args.view and (args.host is not None or args.port is not None):
        raise UsageError("--host and --port say where the page of --view is; add --view.")


def run(args: argparse.Namespace) -> int:
    path = Path(args.what)
    folder = None if path.suffix.lower() in FILES and not (path / STATE).exists() else find(args.what, args.out)
    if folder is None and not path.is_file():
        raise InputError(f"no file at {path}.")
    require_device(args.device)

    from dream3d.viewer import Viewer

    viewer = Viewer(host=args.host or HERE, port=args.port)
    try:
        if folder is None:
            viewer.show_file(path)
        else:
            viewer.follow(folder, lambda run: restored(run, args.device))
        say(f"{folder.path if folder else path} at {viewer.address}")
        if not args.quiet:
            say("Ctrl-C ends the viewer, not the run")
        if args.open:
            import webbrowser

            webbrowser.open(viewer.address)
        with suppress(KeyboardInterrupt):
            viewer.wait()
    finally:
        viewer.close()
    return 0


def restored(run: RunFolder, device: str) -> tuple[Renderer, Representation]:
    """What a run's newest checkpoint holds, and what draws it.

    Raises:
        Dream3DError: its configuration or the checkpoint is damaged.
    """
    from dream3d import config

    pipeline, _ = config.load(run.config, [f"device={device}", "quiet=true"])
    representation = pipeline.restore(run)
    return pipeline.renderer, representation


@contextmanager
def viewing(args: argparse.Namespace, pipeline: Pipeline) -> Iterator[None]:
    """With --view, the page of what the pipeline does meanwhile, and after that for as long as somebody looks."""
    if not args.view:
        yield
        return
    from dream3d.viewer import Viewer
    from dream3d.viewer.live import Live

    viewer = Viewer(host=args.host or HERE, port=args.port)
    viewer.live = True

    runs: list[RunFolder] = []

    def watch(run: RunFolder, stage: str) -> pl.Callback:
        viewer.follow(run)
        runs.append(run)
        return Live(viewer)

    pipeline.watch = watch
    try:
        say(f"viewer {viewer.address}")
        yield
        if runs and viewer.watched():
            viewer.live = False
            viewer.follow(runs[-1], lambda run: restored(run, "cpu"))
            say("the viewer stays while somebody has it open; Ctrl-C ends it")
            with suppress(KeyboardInterrupt):
                viewer.stay()
    finally:
        pipeline.watch = None
        viewer.close()
