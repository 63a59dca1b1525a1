"""Radiance .hdr pictures (RGBE): what environment maps come in. Files are a stranger's: every size is checked."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dream3d.checks import InputError
from dream3d.runs import write_atomically

LARGEST = 1 << 27
"""Texels (16384 x 8192) and bytes of a texel's four: more is taken for damage rather than for work."""

HEADER = 1 << 14
"""Bytes in which the header must end."""

RUNS = range(8, 1 << 15)
"""Widths whose rows may be run-length coded."""


def read_hdr(path: str | Path) -> Float[Tensor, "H W 3"]:
    """Linear radiance of a Radiance picture (flat, or run-length coded by rows), top row first.

    Raises:
        InputError: no such file, another format, another orientation than -Y +X, or damage; one line each.
    """
    path = Path(path)
    try:
        if path.stat().st_size > 4 * LARGEST:
            raise InputError(f"{path.name}: expected at most {4 * LARGEST:,} bytes, got {path.stat().st_size:,}.")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    return decode_hdr(data, name=path.name)


def decode_hdr(data: bytes, *, name: str = "HDR") -> Float[Tensor, "H W 3"]:
    """`read_hdr` of a file's bytes."""
    if not data.startswith((b"#?RADIANCE", b"#?RGBE")):
        raise InputError(f"{name}: expected a Radiance picture (#?RADIANCE), got something else. Save it as .hdr.")
    head, blank, rest = data[:HEADER].partition(b"\n\n")
    size, newline, _ = rest.partition(b"\n")
    if not blank or not newline:
        raise _damaged(name, "its header does not end")
    lines = head.decode("latin-1").split("\n")
    kind = [line.partition("=")[2].strip() for line in lines if line.startswith("FORMAT=")]
    if kind != ["32-bit_rle_rgbe"]:
        raise InputError(f"{name}: expected FORMAT=32-bit_rle_rgbe, got {kind[0] if kind else 'none'}.")
    match = re.fullmatch(rb"-Y (\d{1,6}) \+X (\d{1,6})", size.strip())
    if not match:
        raise InputError(f"{name}: expected a size '-Y height +X width', got '{size[:40].decode('latin-1')}'.")
    height, width = int(match[1]), int(match[2])
    if not 0 < height * width <= LARGEST:
        raise InputError(f"{name}: expected 1 to {LARGEST:,} texels, got {width} x {height}.")
    body = data[len(head) + len(blank) + len(size) + len(newline) :]
    rgbe = _texels(np.frombuffer(body, np.uint8), height, width, name)
    # EXPOSURE says by what the values were multiplied: the scene's are wanted.
    exposure = 1.0
    for line in lines:
        if line.startswith("EXPOSURE="):
            try:
                exposure *= float(line.partition("=")[2])
            except ValueError:
                raise _damaged(name, f"'{line[:40]}'") from None
    if not 1e-12 < exposure < 1e12:
        raise _damaged(name, f"an exposure of {exposure:g}")
    scale = np.ldexp(1.0, rgbe[..., 3:].astype(np.int32) - 136) / exposure
    scale[rgbe[..., 3] == 0] = 0
    return torch.from_numpy((rgbe[..., :3] * scale).astype(np.float32))


def _damaged(name: str, why: str) -> InputError:
    return InputError(f"{name} is damaged: {why}.")


def _texels(data: NDArray[np.uint8], height: int, width: int, name: str) -> NDArray[np.uint8]:
    coded = width in RUNS and len(data) >= 4 and data[0] == 2 and data[1] == 2 and data[2] < 128
    if not coded:
        if len(data) < 4 * height * width:
            raise _damaged(name, f"{len(data):,} bytes of {4 * height * width:,}")
        return data[: 4 * height * width].reshape(height, width, 4)
    # A run makes at most 127 texels of 2 bytes: a short file cannot ask for a large picture.
    if len(data) < height * (4 + 8 * -(-width // 127)):
        raise _damaged(name, f"{len(data):,} bytes are too few for {width} x {height}")
    picture = np.empty((height, 4, width), np.uint8)
    raw, at = data.tobytes(), 0
    for y in range(height):
        if raw[at : at + 2] != b"\x02\x02" or int.from_bytes(raw[at + 2 : at + 4], "big") != width:
            raise _damaged(name, f"row {y} has no beginning")
        at += 4
        for channel in range(4):
            at = _run(raw, at, picture[y, channel], f"row {y}", name)
    return picture.transpose(0, 2, 1)


def _run(raw: bytes, at: int, out: NDArray[np.uint8], where: str, name: str) -> int:
    """Decode one channel of a row; where the next begins."""
    x, width = 0, len(out)
    while x < width:
        if at + 1 >= len(raw):
            raise _damaged(name, f"it ends in {where}")
        count, same = raw[at], raw[at] > 128
        count -= 128 if same else 0
        taken = 1 if same else count
        if not 0 < count <= width - x or at + 1 + taken > len(raw):
            raise _damaged(name, f"a run of {count} does not fit in {where}")
        out[x : x + count] = raw[at + 1] if same else np.frombuffer(raw, np.uint8, count, at + 1)
        x, at = x + count, at + 1 + taken
    return at


def encode_hdr(radiance: Float[Tensor, "H W 3"]) -> bytes:
    """A flat Radiance picture: each texel within 1/256 of its largest channel; what was read comes out as it was. (Its
    rows are never taken for coded ones, which begin 2 2 and a byte below 128: the largest mantissa is 128 or more.)

    Raises:
        InputError: not H W 3, or a value that is negative, not finite, or 1e38 and more.
    """
    values = radiance.detach().cpu().double().numpy()
    if values.ndim != 3 or values.shape[2] != 3 or not values.size:
        raise InputError(f"HDR: expected radiance (H, W, 3), got {tuple(values.shape)}.")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() < 1e38):
        raise InputError("HDR: expected finite radiance, 0 or more. Clamp it first.")
    largest = values.max(axis=2)
    exponent = np.frexp(largest)[1]
    # 255.5 and more rounds to 256, which needs the next exponent.
    exponent += np.rint(np.ldexp(largest, 8 - exponent)) > 255
    mantissa = np.rint(np.ldexp(values, 8 - exponent[..., None]))
    dark = (exponent < -127) | (largest == 0)
    rgbe = np.concatenate([mantissa, (exponent + 128)[..., None]], axis=2)
    rgbe[dark] = 0
    height, width = largest.shape
    head = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n"
    return head.encode() + rgbe.astype(np.uint8).tobytes()


def write_hdr(path: str | Path, radiance: Float[Tensor, "H W 3"]) -> None:
    """`encode_hdr` into a file, atomically."""
    write_atomically(Path(path), encode_hdr(radiance))
