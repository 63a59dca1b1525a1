"""Between linear light and what a display is sent, on arrays; `nn.color` does the same on tensors, with gradients."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

SEAM = 0.04045
"""Code below which sRGB is a straight line. Both directions part here, so that one exactly undoes the other."""


def to_linear(code: ArrayLike) -> NDArray[np.float64]:
    """sRGB codes in [0, 1] to linear light (IEC 61966-2-1)."""
    code = np.asarray(code, np.float64)
    return np.where(code <= SEAM, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: ArrayLike) -> NDArray[np.float64]:
    """Linear light to sRGB codes (IEC 61966-2-1), the inverse of `to_linear`."""
    linear = np.asarray(linear, np.float64)
    low = linear <= SEAM / 12.92
    return np.where(low, 12.92 * linear, 1.055 * np.where(low, 1.0, linear) ** (1 / 2.4) - 0.055)
