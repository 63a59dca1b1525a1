"""Compressed PLY of PlayCanvas and SuperSplat: 16 bytes a Gaussian, in chunks of 256 that share their bounds.

Element `chunk` has float32 bounds of position, log scale and (in newer files) colour. Element `vertex` has four uint32:
position and scale in 11 + 10 + 11 bits and colour in 8 + 8 + 8 within those bounds, opacity in 8 more, and the
quaternion as the index of its largest entry (2 bits) and the other three in 10 bits each. Element `sh`, if there, has
the rest of the spherical harmonics in bytes over [-4, 4].
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dream3d.checks import InputError
from dream3d.splat_files.base import Axes, Table, checked_count, damaged, to_splats, to_table, turned, with_color
from dream3d.splat_files.container import Ply, to_ply
from dream3d.types import Splats

CHUNK = 256
LARGEST_LOG_SCALE = 20.0
SH_RANGE = 8.0
"""Width of the interval around 0 that bytes of spherical harmonics cover."""

BOUNDS = {
    "position": tuple(f"{side}_{key}" for side in ("min", "max") for key in "xyz"),
    "scale": tuple(f"{side}_scale_{key}" for side in ("min", "max") for key in "xyz"),
    "color": tuple(f"{side}_{key}" for side in ("min", "max") for key in "rgb"),
}
PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
POINT, BYTES, THREE = (11, 10, 11), (8, 8, 8, 8), (10, 10, 10)
OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def is_compressed(ply: Ply) -> bool:
    return "vertex" in ply.elements and "packed_position" in (ply.elements["vertex"].dtype.names or ())


def encode_compressed_ply(
    splats: Splats, *, axes: Axes = "opengl", comments: tuple[str, ...] = (), name: str = "PLY"
) -> bytes:
    """The file's bytes; along a Morton curve, so that the 256 of a chunk are neighbours."""
    table = to_table(name, turned(splats) if axes == "opencv" else splats)
    table = table.at(np.argsort(_morton(table.means), kind="stable"))
    scales = table.log_scales().clip(-LARGEST_LOG_SCALE, LARGEST_LOG_SCALE)
    bounds, shares = {}, {}
    for key, values in {"position": table.means, "scale": scales, "color": table.colors()}.items():
        bounds[key], shares[key] = _within_chunks(values.astype(np.float32))
    chunks = np.zeros(len(bounds["color"]), [(field, "<f4") for fields in BOUNDS.values() for field in fields])
    for key, fields in BOUNDS.items():
        for field, column in zip(fields, bounds[key].T, strict=True):
            chunks[field] = column
    rows = np.zeros(len(scales), [(field, "<u4") for field in PACKED])
    rows["packed_position"] = _pack(shares["position"], POINT)
    rows["packed_scale"] = _pack(shares["scale"], POINT)
    rows["packed_color"] = _pack(np.concatenate([shares["color"], table.opacities[:, None]], axis=1), BYTES)
    rows["packed_rotation"] = _pack_rotation(table.quaternions)
    elements = {"chunk": chunks, "vertex": rows}
    if table.sh.shape[1] > 1:
        rest = np.trunc((table.rest() / SH_RANGE + 0.5) * 256).clip(0, 255).astype(np.uint8)
        named = np.dtype([(f"f_rest_{i}", "u1") for i in range(rest.shape[1])])
        elements["sh"] = np.ascontiguousarray(rest).view(named)[:, 0]
    return to_ply(comments, elements)


def decode_compressed_ply(ply: Ply, name: str) -> Splats:
    """Raises InputError if elements, properties or counts do not fit together."""
    rows = ply.elements["vertex"]
    chunks = _element(ply, "chunk", (*BOUNDS["position"], *BOUNDS["scale"]), "f4", name)
    _element(ply, "vertex", PACKED, "u4", name)
    number = checked_count(name, len(rows))
    if len(chunks) != -(-number // CHUNK):
        raise damaged(name, f"{number:,} Gaussians need {-(-number // CHUNK):,} chunks, got {len(chunks):,}")
    colored = set(BOUNDS["color"]) <= set(chunks.dtype.names or ())

    def spread(key: str, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        ends = np.stack([chunks[field].astype(np.float64) for field in BOUNDS[key]], axis=1).repeat(CHUNK, axis=0)
        low, high = ends[:number, :3], ends[:number, 3:]
        return low * (1 - shares) + high * shares

    color = _unpack(rows["packed_color"], BYTES)
    rest = None
    if "sh" in ply.elements:
        fields = ply.elements["sh"].dtype.names or ()
        wanted = tuple(f"f_rest_{i}" for i in range(len(fields)))
        if len(fields) not in (9, 24, 45):
            raise InputError(f"{name}: expected 9, 24 or 45 properties of element sh, got {len(fields)}.")
        levels = np.stack([_element(ply, "sh", wanted, "u1", name)[field] for field in wanted], axis=1)
        if len(levels) != number:
            raise damaged(name, f"{number:,} Gaussians, but spherical harmonics for {len(levels):,}")
        # A byte is a bin of which the middle is meant; the outermost ones stand for the ends, as in its authors' code.
        shares = np.where(levels == 0, 0, np.where(levels == 255, 1, (levels + 0.5) / 256))
        rest = (shares - 0.5) * SH_RANGE
    with np.errstate(over="ignore", invalid="ignore"):
        table = Table(
            means=spread("position", _unpack(rows["packed_position"], POINT)),
            quaternions=_unpack_rotation(rows["packed_rotation"]),
            scales=np.exp(spread("scale", _unpack(rows["packed_scale"], POINT))),
            opacities=color[:, 3],
            sh=with_color(spread("color", color[:, :3]) if colored else color[:, :3], rest),
        )
    return to_splats(name, table)


def _element(ply: Ply, element: str, fields: tuple[str, ...], kind: str, name: str) -> NDArray:
    if element not in ply.elements:
        raise damaged(name, f"packed Gaussians without an element {element}")
    rows = ply.elements[element]
    known = rows.dtype.names or ()
    for field in fields:
        if field not in known or rows.dtype[field].str[1:] != kind:
            raise damaged(name, f"element {element} has no {field} of type {kind}")
    return rows


def _within_chunks(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Bounds of every chunk, low then high (chunks, 6), and where between them the values are (N, 3)."""
    starts = np.arange(0, len(values), CHUNK)
    low, high = np.minimum.reduceat(values, starts, axis=0), np.maximum.reduceat(values, starts, axis=0)
    bounds = np.concatenate([low, high], axis=1)
    ends = bounds.astype(np.float64).repeat(CHUNK, axis=0)[: len(values)]
    width = ends[:, 3:] - ends[:, :3]
    return bounds, (values - ends[:, :3]) / np.where(width > 0, width, 1)


def _pack(shares: NDArray[np.float64], bits: tuple[int, ...]) -> NDArray[np.uint32]:
    """Numbers in [0, 1] as unsigned fractions of the given widths, the first one highest."""
    packed = np.zeros(len(shares), np.uint32)
    for column, width in zip(shares.T, bits, strict=True):
        top = (1 << width) - 1
        packed = (packed << np.uint32(width)) | np.floor(column * top + 0.5).clip(0, top).astype(np.uint32)
    return packed


def _unpack(packed: NDArray, bits: tuple[int, ...]) -> NDArray[np.float64]:
    whole = packed.astype(np.uint32)
    columns, shift = [], sum(bits)
    for width in bits:
        shift -= width
        top = (1 << width) - 1
        columns.append(((whole >> np.uint32(shift)) & np.uint32(top)) / top)
    return np.stack(columns, axis=1)


def _pack_rotation(quaternions: NDArray[np.float64]) -> NDArray[np.uint32]:
    rows = np.arange(len(quaternions))
    largest = np.abs(quaternions).argmax(axis=1)
    # q and -q are one rotation: the largest entry is taken as positive and left out.
    signs = np.where(quaternions[rows, largest] < 0, -1.0, 1.0)[:, None]
    others = (signs * quaternions)[rows[:, None], OTHERS[largest]]
    return (largest.astype(np.uint32) << np.uint32(30)) | _pack(others * math.sqrt(0.5) + 0.5, THREE)


def _unpack_rotation(packed: NDArray) -> NDArray[np.float64]:
    others = (_unpack(packed, THREE) - 0.5) * math.sqrt(2)
    largest = (packed.astype(np.uint32) >> np.uint32(30)).astype(np.intp)
    rows = np.arange(len(others))
    quaternions = np.zeros((len(others), 4))
    quaternions[rows[:, None], OTHERS[largest]] = others
    quaternions[rows, largest] = np.sqrt(np.maximum(0, 1 - (others**2).sum(axis=1)))
    return quaternions


def _morton(means: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Interleaved bits of the positions, 21 an axis."""
    low = means.min(axis=0)
    width = (means.max(axis=0) - low).max()
    cells = ((means - low) / (width if width > 0 else 1) * ((1 << 21) - 1)).astype(np.uint64)
    code = np.zeros(len(means), np.uint64)
    for bit in range(21):
        for axis in range(3):
            code |= ((cells[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return code
