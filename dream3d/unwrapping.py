"""UVs for a mesh that has none."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dream3d import atlas
from dream3d.checks import in_range
from dream3d.types import Mesh

MOST_FACES = 250_000
"""Faces that xatlas is given: decided beforehand, so that the same mesh has the same UVs on any machine."""

PATIENCE = 10.0
"""Seconds by the clock for each of processor time, before a child counts as hung."""

OUT_OF_TIME = -getattr(signal, "SIGXCPU", 0)
"""What a process returns that the system stops at its limit of processor time."""


def unwrap(
    mesh: Mesh, *, texture: int, gutter: int = 4, seconds: float = 60.0, warn: Callable[[str], None] | None = None
) -> Mesh:
    """The mesh with UVs: charts of xatlas, computed in a child process of limited processor time.

    Vertices on chart borders are duplicated; normals and colours follow them. Beyond `MOST_FACES`, or when xatlas runs
    out of time or fails, a box projection takes its place and a warning says so. How busy the machine is changes
    nothing: the limit is on work done, and a clock stops only a child that has hung (`PATIENCE`).

    Args:
        mesh: xatlas takes up to 4 s of processor time at 20k faces, and at most as much for every 20k more.
        texture: side of the square texture, texels.
        gutter: empty texels between charts.
        seconds: processor time that xatlas may take; 0 goes for the box projection.
        warn: receives the warning; None raises it as a UserWarning.
    """
    in_range("texture size", texture, 64, 8192)
    in_range("gutter", gutter, 0, 64)
    vertices = mesh.vertices.detach().cpu().float().numpy()
    faces = mesh.faces.detach().cpu().long().numpy()
    try:
        source, corners, uv = _in_child(vertices, faces, texture, gutter, seconds)
    except _AtlasError as error:
        (warn or _warn)(f"UV atlas: {error}; using a box projection. Fewer faces help: --faces.")
        source, corners, uv = atlas.box_charts(vertices, faces, texture, gutter)
    index = torch.from_numpy(source)
    return replace(
        mesh,
        vertices=torch.from_numpy(vertices)[index],
        faces=torch.from_numpy(corners),
        normals=None if mesh.normals is None else mesh.normals.detach().cpu()[index],
        colors=None if mesh.colors is None else mesh.colors.detach().cpu()[index],
        uv=torch.from_numpy(uv),
    )


class _AtlasError(Exception):
    pass


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=3)


def _in_child(vertices: NDArray, faces: NDArray, texture: int, gutter: int, seconds: float) -> atlas.Atlas:
    if len(faces) > MOST_FACES or seconds == 0:
        raise _AtlasError(
            f"{len(faces):,} faces are more than xatlas is given" if seconds else "xatlas is switched off"
        )
    given = io.BytesIO()
    np.savez(given, vertices=vertices, faces=faces, texture=texture, gutter=gutter)
    # -P: a file called numpy.py in the user's folder must not be imported.
    command = [sys.executable, "-P", str(Path(atlas.__file__)), str(seconds)]
    wait = PATIENCE * seconds
    try:
        done = subprocess.run(command, input=given.getvalue(), capture_output=True, timeout=wait, check=True)
        with np.load(io.BytesIO(done.stdout), allow_pickle=False) as made:
            return made["source"], made["faces"], made["uv"]
    except subprocess.TimeoutExpired:
        raise _AtlasError(f"xatlas was stopped after {wait:g} s at {len(faces)} faces") from None
    except subprocess.CalledProcessError as error:
        if error.returncode == OUT_OF_TIME:
            raise _AtlasError(f"xatlas took more than {seconds:g} s of processor time at {len(faces)} faces") from None
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {error.returncode}"]
        raise _AtlasError(f"xatlas failed ({last[0]})") from None
    except (OSError, ValueError, KeyError) as error:
        raise _AtlasError(f"xatlas failed ({error})") from None
