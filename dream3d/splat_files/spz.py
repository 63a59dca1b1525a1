"""SPZ (Niantic), versions 2 and 3: a tenth to a sixth of the PLY. Axes are the format's own: x right, y up, z back.

A gzip stream of a 16-byte header (magic, version, count, SH degree, fractional bits, flags, 0; little-endian) and then,
one after the other for all Gaussians: positions (24-bit fixed point), opacities, colours, log scales, rotations,
spherical harmonics, in bytes. Rotations are x, y, z in a byte each (version 2), or in 32 bits the index of the largest
of x, y, z, w and the other three in 10 bits each, a sign and 9 for the size (version 3).
"""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dream3d.checks import InputError
from dream3d.splat_files.base import Table, checked_count, damaged, to_bytes, to_splats, to_table
from dream3d.types import Splats

MAGIC = b"NGSP"
HEADER = struct.Struct("<4sIIBBBB")
GZIP = 31
"""zlib's `wbits` for a gzip stream; zlib writes no time into it."""

COLOR_SCALE = 0.15
"""Of the first harmonic, smaller than SH_C0: colours beyond [0, 1] fit, which higher degrees may bring back."""

SH_STEPS = (8, 16)
"""Of 128ths, for degree 1 and above: as coarse as the reference's default (5 and 4 bits), since it zips better."""

EXTENSIONS = 0x2
LEAST_BITS, MOST_BITS = 12, 20
COUNTS = (0, 3, 8, 15, 24)
HALF = math.sqrt(0.5)
OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def encode_spz(splats: Splats, *, version: Literal[2, 3] = 3, name: str = "SPZ") -> bytes:
    """The file's bytes.

    Positions are off by 2^-16 of the largest coordinate at most (but by 2^-21 m in something tiny), or by 2^-13 m as in
    the reference where that is finer; logarithms of scales by 1/32 within [e^-10, e^5.9] metres, opacities by 1/510,
    plain colours by 1/270, harmonics of degree 1 by 1/28 and of higher degrees by 1/15 within [-1, 1].
    """
    table = to_table(name, splats)
    degree = math.isqrt(table.sh.shape[1]) - 1
    bits = _fractional_bits(table.means)
    header = HEADER.pack(MAGIC, version, len(table.means), degree, bits, 0, 0)
    steps = np.array([SH_STEPS[0]] * 3 + [SH_STEPS[1]] * 12)[: table.sh.shape[1] - 1, None]
    levels = np.floor(table.sh[:, 1:] * 128 + 0.5) + 128
    parts = [
        header,
        _to_fixed(table.means, bits),
        to_bytes(255 * table.opacities),
        to_bytes(255 * (COLOR_SCALE * table.sh[:, 0] + 0.5)),
        to_bytes(16 * (table.log_scales() + 10)),
        (_smallest_three if version == 3 else _first_three)(np.roll(table.quaternions, -1, axis=1)),
        (np.floor((levels + steps // 2) / steps) * steps).clip(0, 255).astype(np.uint8),
    ]
    stream = zlib.compressobj(6, zlib.DEFLATED, GZIP)
    return b"".join([*(stream.compress(bytes(part)) for part in parts), stream.flush()])


def decode_spz(data: bytes, name: str) -> Splats:
    """Raises InputError if it is cut, damaged, of another version, or has extensions (whose layout is not settled).

    No more is unpacked than the header asks for. Degree 4 is cut to degree 3 with a warning.
    """
    stream = zlib.decompressobj(GZIP)
    zipped = data[:2] == b"\x1f\x8b"
    head = _inflate(stream, data, HEADER.size, name) if zipped else data[: HEADER.size]
    if len(head) < HEADER.size or not head.startswith(MAGIC):
        raise InputError(f"{name}: expected an SPZ file, got something else or less than its header.")
    _, version, number, degree, bits, flags, _ = HEADER.unpack(head)
    if version not in (2, 3):
        raise InputError(f"{name}: expected SPZ version 2 or 3, got {version}.")
    if degree >= len(COUNTS) or bits > 31:
        raise damaged(name, f"SH degree {degree} and {bits} fractional bits")
    if flags & EXTENSIONS:
        raise InputError(f"{name}: expected an SPZ file without extensions, got flags {flags:#x}.")
    checked_count(name, number)
    widths = (9, 1, 3, 3, version + 1, 3 * COUNTS[degree])
    size = number * sum(widths)
    body = _inflate(stream, stream.unconsumed_tail, size + 1, name) if zipped else data[HEADER.size :]
    if len(body) != size or (zipped and not stream.eof):
        got = f"{len(body):,}" if len(body) <= size else "more"
        raise damaged(name, f"{number:,} Gaussians need {size:,} bytes{' and a checksum' if zipped else ''}, got {got}")
    ends = np.cumsum([number * width for width in widths])
    parts = np.split(np.frombuffer(body, np.uint8), ends[:-1])
    points, alpha, color, scale, rotation, rest = (part.reshape(number, -1) for part in parts)
    if degree > 3:
        warnings.warn(f"{name}: spherical harmonics of degree 4 are cut to degree 3.", stacklevel=2)
    first = (color / 255.0 - 0.5) / COLOR_SCALE
    harmonics = (rest.reshape(number, COUNTS[degree], 3)[:, : COUNTS[3]] - 128.0) / 128
    xyzw = (_from_smallest_three if version == 3 else _from_first_three)(rotation)
    table = Table(
        means=_from_fixed(points, bits),
        quaternions=np.roll(xyzw, 1, axis=1),
        scales=np.exp(scale / 16.0 - 10),
        opacities=alpha[:, 0] / 255.0,
        sh=np.concatenate([first[:, None], harmonics], axis=1),
    )
    return to_splats(name, table)


def _inflate(stream: Any, data: bytes, most: int, name: str) -> bytes:
    try:
        return stream.decompress(data, most)
    except zlib.error as error:
        raise damaged(name, f"its gzip stream ({error})") from None


def _fractional_bits(means: NDArray[np.float64]) -> int:
    """Bits behind the point: 16 for the largest coordinate, the reference's 12 at least, fewer if they do not fit."""
    _, whole = math.frexp(float(np.abs(means).max()))  # largest < 2^whole
    bits = min(max(LEAST_BITS, 16 - whole), MOST_BITS, 22 - whole)
    if bits < 0:
        raise InputError(f"SPZ: expected coordinates below {2**22:,} m, got {np.abs(means).max():g}.")
    return bits


def _to_fixed(means: NDArray[np.float64], bits: int) -> bytes:
    whole = np.floor(means * 2.0**bits + 0.5).astype("<i4")
    return whole.reshape(-1, 1).view(np.uint8)[:, :3].tobytes()


def _from_fixed(points: NDArray[np.uint8], bits: int) -> NDArray[np.float64]:
    parts = points.reshape(-1, 3, 3).astype(np.int32)
    whole = parts[..., 0] | parts[..., 1] << 8 | parts[..., 2] << 16
    return np.where(whole >= 1 << 23, whole - (1 << 24), whole) / 2.0**bits


def _first_three(xyzw: NDArray[np.float64]) -> bytes:
    signs = np.where(xyzw[:, 3:] < 0, -1, 1)
    return to_bytes(127.5 * signs * xyzw[:, :3] + 127.5).tobytes()


def _from_first_three(rotation: NDArray[np.uint8]) -> NDArray[np.float64]:
    xyz = rotation / 127.5 - 1
    return np.concatenate([xyz, np.sqrt(np.maximum(0, 1 - (xyz**2).sum(axis=1, keepdims=True)))], axis=1)


def _smallest_three(xyzw: NDArray[np.float64]) -> bytes:
    rows = np.arange(len(xyzw))
    largest = np.abs(xyzw).argmax(axis=1)
    negate = xyzw[rows, largest] < 0
    packed = largest.astype("<u4")
    for column in OTHERS[largest].T:
        value = xyzw[rows, column]
        size = np.floor(511 * np.abs(value) / HALF + 0.5).clip(max=511).astype("<u4")
        packed = (packed << np.uint32(10)) | (((value < 0) ^ negate).astype("<u4") << np.uint32(9)) | size
    return packed.astype("<u4").tobytes()


def _from_smallest_three(rotation: NDArray[np.uint8]) -> NDArray[np.float64]:
    packed = np.ascontiguousarray(rotation).view("<u4")[:, 0].astype(np.uint32)
    rows = np.arange(len(packed))
    largest = (packed >> np.uint32(30)).astype(np.intp)
    xyzw = np.zeros((len(packed), 4))
    for column, shift in zip(OTHERS[largest].T, (20, 10, 0), strict=True):
        size = ((packed >> np.uint32(shift)) & np.uint32(511)) * (HALF / 511)
        xyzw[rows, column] = np.where((packed >> np.uint32(shift + 9)) & np.uint32(1), -size, size)
    xyzw[rows, largest] = np.sqrt(np.maximum(0, 1 - (xyzw**2).sum(axis=1)))
    return xyzw
