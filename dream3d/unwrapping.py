"""UVs for a mesh that has none."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dream3d import atlas
from dream3d.checks import in_range
from dream3d.types import Mesh


def unwrap(mesh: Mesh, *, texture: int, gutter: int = 4, seconds: float = 60.0) -> Mesh:
    """The mesh with UVs: charts of xatlas, computed in a child process that is stopped after `seconds`.

    Vertices on chart borders are duplicated; normals and colours follow them. When xatlas runs out of time or fails, a
    warning says so and a box projection takes its place.

    Args:
        mesh: at most some 20k faces; xatlas takes more than twice as long for twice as many.
        texture: side of the square texture, texels.
        gutter: empty texels between charts.
        seconds: time limit for xatlas.
    """
    in_range("texture size", texture, 64, 8192)
    in_range("gutter", gutter, 0, 64)
    vertices = mesh.vertices.detach().cpu().float().numpy()
    faces = mesh.faces.detach().cpu().long().numpy()
    try:
        source, corners, uv = _in_child(vertices, faces, texture, gutter, seconds)
    except _AtlasError as error:
        warnings.warn(f"UV atlas: {error}; using a box projection. Fewer faces help: --faces.", stacklevel=2)
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


def _in_child(vertices: NDArray, faces: NDArray, texture: int, gutter: int, seconds: float) -> atlas.Atlas:
    given = io.BytesIO()
    np.savez(given, vertices=vertices, faces=faces, texture=texture, gutter=gutter)
    # -P: a file called numpy.py in the user's folder must not be imported.
    command = [sys.executable, "-P", str(Path(atlas.__file__))]
    try:
        done = subprocess.run(command, input=given.getvalue(), capture_output=True, timeout=seconds, check=True)
        with np.load(io.BytesIO(done.stdout), allow_pickle=False) as made:
            return made["source"], made["faces"], made["uv"]
    except subprocess.TimeoutExpired:
        raise _AtlasError(f"xatlas was stopped after {seconds:g} s at {len(faces)} faces") from None
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {error.returncode}"]
        raise _AtlasError(f"xatlas failed ({last[0]})") from None
    except (OSError, ValueError, KeyError) as error:
        raise _AtlasError(f"xatlas failed ({error})") from None
