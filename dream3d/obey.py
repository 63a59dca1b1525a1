"""What a run does, between two steps, about what is asked of it from outside: it pauses, goes on, stops."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol, final

import pytorch_lightning as pl

from dream3d.control import EVERY, Requests
from dream3d.runs import RunFolder
from dream3d.stage import StageModule


class Line(Protocol):
    """What tells the user where the run is (`callbacks.LiveLine`)."""

    def say(self, line: str) -> None: ...

    def waited(self, seconds: float) -> None: ...


@final
class Obey(pl.Callback):
    """Does what is asked for through control.json (`dream3d.control`): waits while the run is to pause, and ends the
    training when it is to stop. A pause ends at the deadline too, and on Ctrl-C.

    Args:
        run: whose folder; run.json says "paused" meanwhile.
        save: writes a checkpoint, before it waits.
        line: shows it.
        deadline: as of `TimeLimit`.

    Attributes:
        asked: whether it was to stop.
    """

    def __init__(self, run: RunFolder, save: Callable[[StageModule], Any], line: Line, deadline: float | None) -> None:
        self.run = run
        self.save = save
        self.line = line
        self.deadline = math.inf if deadline is None else deadline
        self.requests = Requests(run)
        self.asked = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, StageModule)
        if self.requests.last() == "pause":
            self._wait(trainer, module)
        if self.requests.last() == "stop":
            self.asked = trainer.should_stop = True

    def _wait(self, trainer: pl.Trainer, module: StageModule) -> None:
        began = time.monotonic()
        self.save(module)
        self.run.update(status="paused")
        self.run.log(f"paused after step {module.step_index}")
        self.line.say(f"paused after step {module.step_index}; go on with: dream3d resume {self.run.path}")
        while self.requests.last() == "pause" and not trainer.should_stop and time.monotonic() < self.deadline:
            time.sleep(EVERY)
        self.run.update(status="running")
        self.run.log(f"paused for {time.monotonic() - began:.0f} s")
        self.line.waited(time.monotonic() - began)
