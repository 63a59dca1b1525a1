"""What every splat file needs: tables of numbers, the two axis conventions, limits, and errors of one line."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dream3d.checks import InputError
from dream3d.types import Splats

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic: a plain colour is 1/2 + SH_C0 * (first row of `Splats.sh`)."""

LIMIT = 10_000_000
"""Gaussians in a file at most; beyond it a count is taken for damage rather than for work."""

SMALLEST_SCALE = 1e-12
"""Metres. Files hold logarithms of scales; a flat Gaussian's 0 has none."""

NEAREST_OPACITY = 2.0**-24
"""From 0 and from 1: files hold logits of opacities, and float32 tells nothing nearer apart."""

Axes = Literal["opengl", "opencv"]
AXES: dict[Axes, str] = {"opengl": "y up, front +Z", "opencv": "y down, front -Z"}


class Table(NamedTuple):
    """`Splats` as float64 arrays: means (N, 3), quaternions (N, 4), scales (N, 3), opacities (N,), sh (N, K, 3)."""

    means: NDArray[np.float64]
    quaternions: NDArray[np.float64]
    scales: NDArray[np.float64]
    opacities: NDArray[np.float64]
    sh: NDArray[np.float64]

    def log_scales(self) -> NDArray[np.float64]:
        return np.log(np.maximum(self.scales, SMALLEST_SCALE))

    def colors(self) -> NDArray[np.float64]:
        """Display-referred, without what depends on the view; not clamped. (N, 3)."""
        return 0.5 + SH_C0 * self.sh[:, 0]

    def rest(self) -> NDArray[np.float64]:
        """Rows of `sh` after the first, one channel after the other as PLY files have them: (N, 3 (K - 1))."""
        return self.sh[:, 1:].transpose(0, 2, 1).reshape(len(self.sh), -1)

    def at(self, index: NDArray) -> Table:
        """A selection or another order of the rows."""
        return Table(*(values[index] for values in self))


def damaged(name: str, why: str) -> InputError:
    return InputError(f"{name} is damaged: {why}.")


def checked_count(name: str, number: int) -> int:
    """`number` Gaussians, unless it is none or more than a file is believed to hold."""
    if number == 0:
        raise InputError(f"{name}: expected at least one Gaussian, got none.")
    if number > LIMIT:
        raise InputError(f"{name}: expected at most {LIMIT:,} Gaussians, got {number:,}.")
    return number


def to_table(name: str, splats: Splats) -> Table:
    """What is worth writing: rows that are finite, quaternions of length 1, opacities in [0, 1], scales from 0."""
    fields = (splats.means, splats.quaternions, splats.scales, splats.opacities, splats.sh)
    table = _finite(name, Table(*(values.detach().cpu().double().numpy() for values in fields)))
    return table._replace(
        quaternions=_unit(table.quaternions),
        scales=table.scales.clip(min=0),
        opacities=table.opacities.clip(0, 1),
    )


def to_splats(name: str, table: Table) -> Splats:
    """What was read, as float32 tensors; rows that are not finite are left out with a warning."""
    table = _finite(name, table)
    table = table._replace(quaternions=_unit(table.quaternions))
    return Splats(*(torch.from_numpy(values.astype(np.float32)) for values in table))


def turned(splats: Splats) -> Splats:
    """Half a turn around x: OpenGL's axes (y up, the viewer looks along -z) to OpenCV's (y down, along +z), and back.

    A change of signs only, so twice is exactly the same. Harmonics keep or change theirs as products of x, y, z do.
    """
    flips = splats.means.new_tensor([1.0, -1.0, -1.0])
    y, z = -1.0, -1.0
    signs = [1, y, z, 1, y, y * z, 1, z, 1, y, y * z, y, z, 1, z, 1]
    return dataclasses.replace(
        splats,
        means=splats.means * flips,
        quaternions=splats.quaternions * splats.quaternions.new_tensor([1.0, 1.0, -1.0, -1.0]),
        sh=splats.sh * splats.sh.new_tensor(signs)[: splats.sh.shape[1], None],
    )


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 + 0.5 * np.tanh(0.5 * logits)


def logit(opacities: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = opacities.clip(NEAREST_OPACITY, 1 - NEAREST_OPACITY)
    return np.log(inside / (1 - inside))


def to_bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The nearest of 0 ... 255."""
    return np.floor(values + 0.5).clip(0, 255).astype(np.uint8)


def with_color(colors: NDArray[np.float64], rest: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """`sh` (N, K, 3) of display-referred colours (N, 3) and of what `Table.rest` gives."""
    first = ((colors - 0.5) / SH_C0)[:, None]
    if rest is None:
        return first
    return np.concatenate([first, rest.reshape(len(rest), 3, -1).transpose(0, 2, 1)], axis=1)


def _finite(name: str, table: Table) -> Table:
    checked_count(name, len(table.means))
    # As float32, what Splats and most files hold.
    with np.errstate(over="ignore"):
        flat = np.concatenate([values.astype(np.float32).reshape(len(values), -1) for values in table], axis=1)
    good = np.flatnonzero(np.isfinite(flat).all(axis=1))
    if len(good) == len(flat):
        return table
    if not len(good):
        raise InputError(f"{name}: expected Gaussians of finite numbers, got NaN or infinity in all {len(flat):,}.")
    lost = f"{len(flat) - len(good):,} of {len(flat):,}"
    warnings.warn(f"{name}: {lost} Gaussians hold NaN or infinity and are left out.", stacklevel=4)
    return table.at(good)


def _unit(quaternions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length 1; a zero becomes no rotation, as in 3DGS' own code."""
    length = np.linalg.norm(quaternions, axis=1, keepdims=True)
    none = np.array([1.0, 0.0, 0.0, 0.0])
    return np.where(length > 0, quaternions / np.where(length > 0, length, 1), none)
