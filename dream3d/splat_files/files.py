"""Splat files by name: which format, which axes, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dream3d.checks import InputError, one_of
from dream3d.runs import write_atomically
from dream3d.splat_files.base import AXES, Axes, turned
from dream3d.splat_files.compressed_ply import decode_compressed_ply, encode_compressed_ply, is_compressed
from dream3d.splat_files.container import parse_ply
from dream3d.splat_files.glb import encode_glb
from dream3d.splat_files.ply import comments, decode_ply, encode_ply, stated_axes
from dream3d.splat_files.splat import decode_splat, encode_splat
from dream3d.splat_files.spz import MAGIC, decode_spz, encode_spz
from dream3d.types import Splats

ENDINGS = (".compressed.ply", ".ply", ".splat", ".spz", ".glb")


def write_splats(
    splats: Splats,
    path: Path,
    *,
    axes: Axes = "opengl",
    sh_degree: int | None = None,
    extras: Mapping[str, Any] | None = None,
) -> None:
    """Write Gaussians in the format of the path's ending: .ply, .compressed.ply, .splat, .spz or .glb (experimental).

    PLY and .splat files do not say which way is up. Ours is: y up, front +Z ("opengl"), as generated assets usually
    are and as viewers on three.js show them upright; a PLY file says so in a comment. Programs made for captured
    scenes (SuperSplat and PlayCanvas, antimatter15's viewer) take y for down and show that upside down: "opencv" gives
    the asset half a turn around x for them. SPZ and glTF fix their axes, to ours.

    Args:
        splats: rows with NaN or infinity are left out with a warning.
        path: its folder is made if absent. The same splats give the same bytes, and readers never see half a file.
        axes: for .ply, .compressed.ply and .splat.
        sh_degree: for .ply: pad with zeros or cut to this degree, 0 to 3; None keeps what there is.
        extras: for .glb: JSON values for asset and scene (prompt, seed, ...); never paths or user names.

    Raises:
        InputError: an unknown ending, no Gaussians, or `extras` is not JSON.
    """
    one_of("axes", axes, AXES)
    name = path.name
    match next((ending for ending in ENDINGS if name.lower().endswith(ending)), None):
        case ".compressed.ply":
            data = encode_compressed_ply(splats, axes=axes, comments=comments(axes), name=name)
        case ".ply":
            data = encode_ply(splats, axes=axes, sh_degree=sh_degree, name=name)
        case ".splat":
            data = encode_splat(splats, axes=axes, name=name)
        case ".spz":
            data = encode_spz(splats, name=name)
        case ".glb":
            data = encode_glb(splats, extras=extras, name=name)
        case _:
            raise InputError(f"{name}: expected a name that ends in one of {', '.join(ENDINGS)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)


def read_splats(path: Path, *, axes: Axes | None = None) -> Splats:
    """Read .ply (also compressed), .splat or .spz, whoever wrote it; float32 on the CPU, in our axes.

    Rows with NaN or infinity are left out with a warning; a quaternion of zeros is no rotation.

    Args:
        path: the content decides between PLY and SPZ; a .splat file has no mark, so its name must end so.
        axes: what the file's axes are; see `write_splats`. None believes the comment of a PLY file of ours, and takes
            all others as they are. Captured scenes are "opencv".

    Raises:
        InputError: no such file, not a splat file, or a damaged one: its name and what is wrong, in one line.
    """
    if axes is not None:
        one_of("axes", axes, AXES)
    name = path.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    if data.startswith(b"ply"):
        ply = parse_ply(data, name)
        splats = decode_compressed_ply(ply, name) if is_compressed(ply) else decode_ply(ply, name)
        axes = axes or stated_axes(ply.comments)
    elif data.startswith((b"\x1f\x8b", MAGIC)):
        splats = decode_spz(data, name)
    elif name.lower().endswith(".splat"):
        splats = decode_splat(data, name)
    else:
        raise InputError(f"{name}: expected a splat file (.ply, .spz or .splat), got something else.")
    return turned(splats) if axes == "opencv" else splats
