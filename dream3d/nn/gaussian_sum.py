"""Sums of many Gaussians at many points, where each point feels a few of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

REACH = 3.0
"""Standard deviations at which a Gaussian ends: what is left out is below 1.2 percent of its peak."""
PAIRS = 1 << 22
"""Pairs of a point and a Gaussian that are looked at together: bounds the memory."""


@dataclass(frozen=True)
class GaussianSum:
    """f(x) = sum over i of value_i amplitude_i exp(-(x - mean_i)^T precision_i (x - mean_i) / 2), block by block.

    DreamGaussian's local query (arXiv:2309.16653, section 3.2): a block of space looks only at Gaussians that reach it.

    Args:
        means: centres.
        precisions: inverse covariances.
        extents: half sides of the boxes that hold the Gaussians up to `REACH`.
        amplitudes: peaks.
    """

    means: Float[Tensor, "N 3"]
    precisions: Float[Tensor, "N 3 3"]
    extents: Float[Tensor, "N 3"]
    amplitudes: Float[Tensor, "N"]

    @staticmethod
    def of(means: Float[Tensor, "N 3"], covariances: Float[Tensor, "N 3 3"], masses: Float[Tensor, "N"]) -> GaussianSum:
        """Out of covariances that can be inverted, and integrals over space."""
        peaks = masses / ((2 * math.pi) ** 1.5 * torch.linalg.det(covariances).sqrt())
        extents = REACH * covariances.diagonal(dim1=1, dim2=2).sqrt()
        return GaussianSum(means, torch.linalg.inv(covariances), extents, peaks)

    def __call__(
        self, points: Float[Tensor, "P 3"], values: Float[Tensor, "N F"], *, block: float
    ) -> Float[Tensor, "P F"]:
        """The sum at points.

        Args:
            points: anywhere.
            values: what each Gaussian adds up.
            block: side of the blocks of space, in the unit of the points; it changes the time, not the result.
        """
        result = values.new_zeros(len(points), values.shape[1])
        for rows in _blocks(points, block):
            some = points[rows]
            low, high = some.amin(0), some.amax(0)
            near = ((self.means + self.extents >= low) & (self.means - self.extents <= high)).all(1).nonzero()[:, 0]
            # Coordinates from the middle of the block: far from the origin squares would cancel.
            middle = 0.5 * (low + high)
            for few in near.split(max(1, PAIRS // len(some))):
                weights = self._weights(some - middle, self.means[few] - middle, few)
                result[rows] += weights @ values[few]
        return result

    def _weights(self, points: Tensor, means: Tensor, which: Tensor) -> Tensor:
        """amplitude exp(-q / 2) of some Gaussians at some points, (P, M): one product of matrices and one exponential,
        since the exponent is a polynomial of the coordinates."""
        precisions = self.precisions[which]
        slope = torch.einsum("nij,nj->ni", precisions, means)
        constant = self.amplitudes[which].log() - 0.5 * (slope * means).sum(1)
        polynomial = torch.cat([-0.5 * precisions.flatten(1), slope, constant[:, None]], dim=1)
        squares = (points[:, :, None] * points[:, None]).flatten(1)
        return (torch.cat([squares, points, torch.ones_like(points[:, :1])], dim=1) @ polynomial.t()).exp_()


def _blocks(points: Tensor, side: float) -> tuple[Tensor, ...]:
    """Indices of the points in each block of space that has any."""
    if not len(points):
        return ()
    cell = ((points - points.amin(0)) / side).long()
    x, y, z = cell.unbind(dim=1)
    most = cell.amax(0) + 1
    key = (x * most[1] + y) * most[2] + z
    order = key.argsort(stable=True)
    counts = key[order].unique_consecutive(return_counts=True)[1]
    return order.split(counts.tolist())
