"""`dream3d render`: pictures and a film of a run, or of any mesh file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dream3d.checks import InputError, did_you_mean
from dream3d.commands.base import (
    Parser,
    UsageError,
    add_common,
    add_device,
    choice,
    choices,
    open_run,
    require_device,
    say,
    say_json,
    whole,
)

if TYPE_CHECKING:
    import numpy as np

    from dream3d.lights import Panorama
    from dream3d.types import Cameras, Render

ABOUT = "Draw pictures or a turntable of a run from its last checkpoint, or of a mesh file with its materials."
EXAMPLE = "dream3d render owl.glb --turntable --env sky --aov rgb,normal,roughness"

CHANNELS = ("rgb", "albedo", "normal", "roughness", "metallic", "depth")
MATERIALS = ("pbr", "plain", "lambert", "mc")
SKIES = ("studio", "sky", "even")
FRAMES, FPS = 72, 24
"""Of the turntable: one turn in three seconds."""

SUPERSAMPLE = 2
"""Of mesh files, whose textures may be finer than a pixel."""

Draw = Callable[["Cameras", bool], "Render"]
"""Cameras, and whether normals are wanted."""


def add_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN_OR_FILE", help="folder of a run, latest, or a .glb, .gltf, .obj, .ply file")
    add = parser.add_argument
    add("--views", type=whole("--views", 1, 360), default=4, metavar="N", help="pictures around it (default: 4)")
    add("--turntable", action="store_true", help="also a film, one turn")
    add(
        "--aov",
        type=choices("--aov", CHANNELS),
        default=("rgb",),
        metavar="LIST",
        help=f"channels: {', '.join(CHANNELS)} (default: rgb)",
    )
    size = whole("--size", 16, 4096)
    add("--size", "--pixels", dest="pixels", type=size, default=256, metavar="N", help="pixels a side (default: 256)")
    files = parser.add_argument_group("mesh files")
    files.add_argument(
        "--env", metavar="NAME", help=f"light: {', '.join(SKIES)}, or a panorama F.hdr (default: {SKIES[0]})"
    )
    files.add_argument(
        "--material",
        type=choice("--material", MATERIALS),
        metavar="NAME",
        help="shading: pbr (split sum), plain, lambert, or mc (Monte Carlo: slow, exact) (default: pbr)",
    )
    add_device(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="where the runs are (default: outputs); of a file, where the pictures go (default: FILE_render beside it)",
    )
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    if Path(args.run).suffix and not Path(args.run).is_dir():
        return _render_file(args)
    for flag, value in (("--env", args.env), ("--material", args.material)):
        if value is not None:
            raise UsageError(f"{flag} is for mesh files: a run is drawn as its recipe says. Give one of its GLBs.")
    args.out = args.out or "outputs"
    run, pipeline = open_run(args)
    representation, renderer = pipeline.restore(run), pipeline.renderer

    def draw(cameras: Cameras, normals: bool) -> Render:
        return renderer(representation, cameras.to(pipeline.device), normals=normals)

    files = _write(args, draw, run.path / "save" / "render")
    return _tell(args, {"run": str(run.path)}, files)


def _render_file(args: argparse.Namespace) -> int:
    require_device(args.device)
    from dream3d.fitting import device_named
    from dream3d.lights import Surroundings
    from dream3d.materials import PBR, Lambert, MonteCarlo, Plain
    from dream3d.mesh_files import read_mesh
    from dream3d.renderers import Raster

    path, device = Path(args.run), device_named(args.device)
    lights = Surroundings(maps={"env": panorama(args.env or SKIES[0])}, height=128)
    lights.environment("env")  # a panorama that cannot be read is said before the mesh is
    material = {"pbr": PBR, "plain": Plain, "lambert": Lambert, "mc": MonteCarlo}[args.material or MATERIALS[0]]()
    shape = read_mesh(path).to(device)
    renderer = Raster(material=material, lights=lights, supersample=SUPERSAMPLE)

    def draw(cameras: Cameras, normals: bool) -> Render:
        return renderer(shape, cameras.to(device), normals=normals)

    files = _write(args, draw, Path(args.out) if args.out else path.with_name(f"{path.stem}_render"))
    return _tell(args, {"file": str(path)}, files)


def panorama(text: str) -> Panorama:
    """What `--env` names; files are brought to a mean radiance of 1, like the others.

    Raises:
        InputError: neither a name nor a panorama.
    """
    from dream3d.lights import Even, HDRFile, Sky, Studio

    if text.lower().endswith(".hdr"):
        return HDRFile(path=text, normalize=True)
    if text not in SKIES:
        nearest = did_you_mean(text, SKIES)
        raise InputError(f"--env: '{text}' is not one of {', '.join(SKIES)}, nor a .hdr file.{nearest}")
    return {"studio": Studio, "sky": Sky, "even": Even}[text]()


def _write(args: argparse.Namespace, draw: Draw, folder: Path) -> list[Path]:
    """Pictures and films of what `draw` draws; returns the files."""
    import torch

    from dream3d.cameras import turntable
    from dream3d.media import write_film, write_picture

    def drawn(views: int, channels: tuple[str, ...]) -> Iterator[dict[str, np.ndarray]]:
        cameras = turntable(views, args.pixels)
        for index in range(views):
            with torch.no_grad():
                render = draw(cameras[index], "normal" in channels)
            yield {name: picture(render, name) for name in channels}

    files: list[Path] = []
    for index, pictures in enumerate(drawn(args.views, args.aov)):
        folder.mkdir(parents=True, exist_ok=True)
        for name, pixels in pictures.items():
            files.append(folder / f"{name}_{index:03d}.png")
            write_picture(files[-1], pixels)
    if args.turntable:
        for name in args.aov:
            files.append(folder / f"turntable_{name}.mp4")
            write_film(files[-1], (pictures[name] for pictures in drawn(FRAMES, (name,))), fps=FPS)
    return files


def _tell(args: argparse.Namespace, source: dict[str, str], files: list[Path]) -> int:
    if not args.quiet:
        for path in files:
            say(str(path))
    if args.json:
        say_json({**source, "files": [str(path) for path in files]})
    return 0


def picture(render: Render, channel: str) -> np.ndarray:
    """One channel of the first view as H W 3 bytes: colour over white; albedo as it is coded, roughness and metallic
    as grey; world normals as (n + 1) / 2; depth with near bright, scaled to what is seen."""
    import torch

    from dream3d.media import to_bytes

    white = torch.ones(3, device=render.rgb.device)
    if channel == "rgb":
        return to_bytes(render.over(white))[0]
    values = {"normal": render.normal, "depth": render.depth}.get(channel, render.aux.get(channel))
    if values is None:
        raise InputError(f"--aov: no {channel} is drawn of this.")
    alpha = render.alpha
    seen = alpha[0, ..., 0] > 0.5
    straight = values / alpha.clamp_min(1e-6)
    if channel == "normal":
        shown = torch.nn.functional.normalize(straight, dim=-1) * 0.5 + 0.5
    elif channel != "depth":
        shown = straight.expand(-1, -1, -1, 3)
    else:
        near, far = (straight[0][seen].amin(), straight[0][seen].amax()) if bool(seen.any()) else (0.0, 1.0)
        shown = (1 - 0.8 * (straight - near) / max(float(far - near), 1e-6)).expand(-1, -1, -1, 3)
    return to_bytes(torch.where(seen[None, ..., None], shown, torch.zeros_like(shown)).permute(0, 3, 1, 2))[0]
