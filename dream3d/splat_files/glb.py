"""GLB with KHR_gaussian_splatting: Gaussians inside glTF 2.0. Experimental: few programs read it yet.

A primitive of points with POSITION, the extension's ROTATION (x, y, z, w), SCALE (linear, metres), OPACITY and
SH_DEGREE_l_COEF_n as float32, and COLOR_0 for programs that know only points. Axes are glTF's, which are ours: y up,
front +Z.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream3d import __version__
from dream3d.checks import InputError
from dream3d.splat_files.base import Table, to_table
from dream3d.srgb import to_linear
from dream3d.types import Splats

EXTENSION = "KHR_gaussian_splatting"
POINTS, ARRAY_BUFFER = 0, 34962
COMPONENTS = {"f4": 5126, "u2": 5123}
KINDS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


def encode_glb(splats: Splats, *, extras: Mapping[str, Any] | None = None, name: str = "splats") -> bytes:
    """The file's bytes. `extras` are JSON values for asset and scene (prompt, seed, ...); else InputError."""
    attributes = _attributes(to_table(name, splats))
    views, accessors, start = [], [], 0
    for key, values in attributes.items():
        views.append({"buffer": 0, "byteOffset": start, "byteLength": values.nbytes, "target": ARRAY_BUFFER})
        kind = values.dtype.str[1:]
        accessor = {"bufferView": len(accessors), "componentType": COMPONENTS[kind], "count": len(values)}
        accessors.append({**accessor, "type": KINDS[values.shape[1]]})
        if kind == "u2":
            accessors[-1]["normalized"] = True
        if key == "POSITION":
            accessors[-1] |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        start += values.nbytes
    told = {"extras": dict(extras)} if extras else {}
    facts = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    ways = {"projection": "perspective", "sortingMethod": "cameraDistance"}
    primitive = {
        "attributes": {key: i for i, key in enumerate(attributes)},
        "mode": POINTS,
        "extensions": {EXTENSION: facts | ways},
    }
    tree = {
        "asset": {"version": "2.0", "generator": f"dream3d {__version__}", **told},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0], **told}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"byteLength": start}],
        "bufferViews": views,
        "accessors": accessors,
    }
    try:
        text = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"extras: expected JSON values, got something else ({error}).") from None
    text += b" " * (-len(text) % 4)
    body = b"".join(values.tobytes() for values in attributes.values())
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _attributes(table: Table) -> dict[str, NDArray]:
    """By semantic name; every row is a multiple of four bytes long, as glTF asks."""
    harmonics = {}
    for degree in range(4):
        for order in range(2 * degree + 1):
            if degree * degree + order < table.sh.shape[1]:
                harmonics[f"SH_DEGREE_{degree}_COEF_{order}"] = table.sh[:, degree * degree + order]
    # Linear light and not the display-referred splat colour: what glTF says that COLOR_0 is for those who show points.
    color = np.concatenate([to_linear(table.colors().clip(0, 1)), table.opacities[:, None]], axis=1)
    own = {"ROTATION": np.roll(table.quaternions, -1, axis=1), "SCALE": table.scales, **harmonics}
    own["OPACITY"] = table.opacities[:, None]
    return {
        "POSITION": table.means.astype("<f4"),
        "COLOR_0": np.floor(color * 65535 + 0.5).astype("<u2"),
        **{f"{EXTENSION}:{key}": values.astype("<f4") for key, values in own.items()},
    }
