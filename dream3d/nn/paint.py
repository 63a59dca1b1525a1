"""What a surface is painted with: raw numbers for a material, as a field in space."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dream3d.nn.encodings import HashEncoding
from dream3d.nn.mlp import MLP

BATCH, STEPS, RATE = 4096, 200, 0.02
"""Of `Paint.fit`: points a step, Adam's steps and learning rate."""
DARKEST = 0.02
"""Distance of colours from 0 and 1 that the logit is taken of."""


@final
class Paint(nn.Module):
    """Hash grid and a small MLP: material inputs at points in a box (as in Fantasia3D, arXiv:2303.13873).

    Args:
        width: raw numbers a point.
        radius: half the side of the box, metres; points outside get what is at its walls.
        levels: grids of the hash encoding.
        log2_table: log2 of the rows of a level.
        base: cells along an axis of the coarsest grid.
        finest: cells along an axis of the finest grid.
        hidden: width of the MLP.
    """

    def __init__(
        self,
        width: int,
        *,
        radius: float = 1.0,
        levels: int = 10,
        log2_table: int = 15,
        base: int = 8,
        finest: int = 192,
        hidden: int = 32,
    ) -> None:
        super().__init__()
        self.radius = radius
        self.encoding = HashEncoding(levels=levels, log2_table=log2_table, base=base, finest=finest)
        self.mlp = MLP(self.encoding.width, width, hidden=hidden)

    def forward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N width"]:
        """Raw numbers, near 0 at first.

        Args:
            points: metres.
        """
        return self.mlp(self.encoding((points / self.radius + 1) * 0.5))

    def groups(self, *, network_lr_scale: float) -> list[dict]:
        """Optimiser groups: the table, and the MLP with its learning rate relative to the table's."""
        return [
            {"params": [self.encoding.table], "lr_scale": 1.0},
            {"params": list(self.mlp.parameters()), "lr_scale": network_lr_scale},
        ]

    @torch.enable_grad()
    def fit(self, points: Float[Tensor, "N 3"], colors: Float[Tensor, "N 3"]) -> None:
        """Start from colours: the first three numbers become theirs where a sigmoid makes colours of them.

        Args:
            points: metres.
            colors: sRGB-coded, [0, 1].
        """
        optimizer = torch.optim.Adam(self.parameters(), lr=RATE, betas=(0.9, 0.99), eps=1e-15)
        generator = torch.Generator().manual_seed(0)
        table, wanted = self.encoding.table, color_logits(colors)
        for _ in range(STEPS):
            some = torch.randint(len(points), (min(BATCH, len(points)),), generator=generator).to(points.device)
            raw = self(points[some].to(table))[:, :3]
            optimizer.zero_grad()
            functional.mse_loss(torch.sigmoid(raw), torch.sigmoid(wanted[some].to(table))).backward()
            optimizer.step()


def color_logits(colors: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Raw numbers of which a sigmoid makes these colours ([0, 1])."""
    return colors.clamp(DARKEST, 1 - DARKEST).logit()
