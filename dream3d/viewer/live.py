"""`--view`: the page of a run that is trained in this very process."""

from __future__ import annotations

import math
import time
from typing import Any, final

import pytorch_lightning as pl

from dream3d.stage import StageModule
from dream3d.viewer.server import Viewer

EVERY = 20
"""Steps between two looks at what is trained."""
SHARE = 0.1
"""Of the time, at most, that goes into them while somebody looks."""


@final
class Live(pl.Callback):
    """Shows a stage while it is trained: now and then, between two steps, and only if somebody has the page open.

    Args:
        viewer: whose page.
        every: steps between two updates.

    Attributes:
        shown: how many there were.
    """

    def __init__(self, viewer: Viewer, *, every: int = EVERY) -> None:
        self.viewer = viewer
        self.every = every
        self.shown = 0
        self._next = -math.inf

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, StageModule)
        if module.step_index % self.every:
            return
        began = time.monotonic()
        if began >= self._next and self.viewer.offer(module.stage.renderer, module.representation):
            self.shown += 1
            now = time.monotonic()
            self._next = now + (now - began) * (1 / SHARE - 1)
