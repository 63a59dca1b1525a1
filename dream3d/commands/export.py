"""`dream3d export`: the asset of a run once more, with other settings."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from dream3d.commands.base import Parser, add_common, add_device, add_out, choice, choices, open_run, say, say_json
from dream3d.commands.generate import add_export_flags, export_choices

if TYPE_CHECKING:
    from dream3d.export import Export

LOG = logging.getLogger(__name__)
ABOUT = "Write the asset of a run again from its last checkpoint, with other settings."
EXAMPLE = "dream3d export latest --faces 8000 --texture-size 2048"

FORMATS = ("glb", "obj", "usd", "png", "ply", "compressed-ply", "splat", "spz", "splat-glb")


def add_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a run, or latest")
    add_export_flags(parser)
    add = parser.add_argument
    add(
        "--format",
        type=choices("--format", FORMATS),
        metavar="LIST",
        help="one or more of glb, obj, usd, ply (glb,obj); png for image planes; for Gaussians also compressed-ply, "
        "splat, spz, splat-glb (default: the run's)",
    )
    add(
        "--splat-axes",
        type=choice("--splat-axes", ("opengl", "opencv")),
        metavar="NAME",
        help="PLY and .splat files with y up (opengl) or down (opencv: SuperSplat, antimatter15)",
    )
    add("--unlit", action="store_true", default=None, help="colours as they are, without light")
    add("--occlusion", action="store_true", default=None, help="cast rays for a map of where little light comes")
    add("--ground", action="store_true", default=None, help="let it stand on the plane y = 0")
    add("--overwrite", action="store_true", help="replace the asset; else it goes to export-2, export-3 ...")
    add_device(parser)
    add_out(parser)
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    run, pipeline = open_run(args)
    representation = pipeline.restore(run)
    export = changed(pipeline.export, args)
    folder = run.export if args.overwrite else _free(run.export)
    name = run.path.parent.name

    def tell(line: str) -> None:
        run.log(line)
        if args.verbose:
            say(line)

    def warn(line: str) -> None:
        run.warn(line)
        LOG.warning(line)

    files = export(representation, folder, name, pipeline.extras(), say=tell, warn=warn)
    run.log(f"exported again: {', '.join(str(path.relative_to(run.path)) for path in files)}")
    if not args.quiet:
        for path in files:
            say(str(path))
    if args.json:
        say_json({"run": str(run.path), "files": [str(path) for path in files]})
    return 0


def changed(export: Export | None, args: argparse.Namespace) -> Export:
    """The run's own settings with those that were given on the command line."""
    from dream3d.export import Export

    before = export or Export()
    settings = {
        "formats": before.formats,
        "faces": before.faces,
        "texture_size": before.texture_size,
        "resolution": before.resolution,
        "iso": before.iso,
        "size_m": before.size_m,
        "ground": before.ground,
        "unlit": before.unlit,
        "occlusion": before.occlusion,
        "seconds": before.seconds,
        "splat_axes": before.splat_axes,
    }
    given = {
        "formats": args.format,
        **{key: getattr(args, key) for key in ("splat_axes", "ground", "unlit", "occlusion")},
    }
    settings |= {key: value for key, value in given.items() if value is not None}
    return Export(**{**settings, **export_choices(args)})


def _free(folder: Path) -> Path:
    """The folder if nothing is in it, else the first of `export-2`, `export-3` ... that is not there."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return folder
    number = 2
    while (found := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return found
