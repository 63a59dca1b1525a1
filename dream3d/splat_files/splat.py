"""`.splat`, the format of antimatter15's viewer: 32 bytes a Gaussian, no header, no view-dependent colour.

Position and scale as 3 + 3 float32 (little-endian, scale linear), red green blue opacity as bytes of 255ths, and the
quaternion w x y z as bytes of (b - 128) / 128.
"""

from __future__ import annotations

import numpy as np

from dream3d.splat_files.base import (
    Axes,
    Table,
    checked_count,
    damaged,
    to_bytes,
    to_splats,
    to_table,
    turned,
    with_color,
)
from dream3d.types import Splats

ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quaternions", "u1", 4)])


def encode_splat(splats: Splats, *, axes: Axes = "opengl", name: str = ".splat") -> bytes:
    """The file's bytes: the largest and most opaque first, since viewers show a file while it comes in.

    Colours beyond [0, 1] are clamped, and everything above spherical harmonics of degree 0 is lost.
    """
    table = to_table(name, turned(splats) if axes == "opencv" else splats)
    table = table.at(np.argsort(-table.scales.prod(axis=1) * table.opacities, kind="stable"))
    rows = np.zeros(len(table.means), ROW)
    rows["means"], rows["scales"] = table.means, table.scales
    rows["rgba"] = to_bytes(255 * np.concatenate([table.colors(), table.opacities[:, None]], axis=1))
    rows["quaternions"] = to_bytes(128 * table.quaternions + 128)
    return rows.tobytes()


def decode_splat(data: bytes, name: str) -> Splats:
    """Raises InputError unless the length is a multiple of 32 and no scale is negative: there is no other mark."""
    if len(data) % ROW.itemsize:
        raise damaged(name, f"expected a multiple of {ROW.itemsize} bytes, got {len(data):,}")
    checked_count(name, len(data) // ROW.itemsize)
    rows = np.frombuffer(data, ROW)
    scales = rows["scales"].astype(np.float64)
    if (scales < 0).any():
        raise damaged(name, f"{int((scales < 0).any(axis=1).sum()):,} of {len(rows):,} scales are negative")
    rgba = rows["rgba"] / 255.0
    quaternions = (rows["quaternions"] - 128.0) / 128
    means = rows["means"].astype(np.float64)
    return to_splats(name, Table(means, quaternions, scales, rgba[:, 3], with_color(rgba[:, :3])))
