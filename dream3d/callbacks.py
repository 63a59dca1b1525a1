"""What happens between steps: the live line, pictures, metrics, checkpoints, stopping on Ctrl-C or after a time."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, final

import pytorch_lightning as pl
import torch

from dream3d.cameras import turntable
from dream3d.checkpoints import thin, write
from dream3d.checks import RunError
from dream3d.fitting import seed_all
from dream3d.media import row, write_picture
from dream3d.runs import RunFolder, write_atomically
from dream3d.stage import StageModule

PLAIN_EVERY = 30.0
"""Seconds between lines where there is no terminal."""
METRICS_EVERY = 10
SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What asks a run to stop."""


def memory_gb(device: torch.device) -> float:
    """Peak memory so far: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


@final
class LiveLine(pl.Callback):
    """One line that says where the run is: rewritten in place on a terminal, else printed now and then.

    Args:
        title: "stage 1/2 coarse".
        preview_every: steps between previews, for "next preview in".
        quiet: print nothing.
    """

    def __init__(self, title: str, *, preview_every: int, quiet: bool = False) -> None:
        self.title = title
        self.preview_every = preview_every
        self.quiet = quiet
        self._live: Any = None
        self._first = self._shown = self._began = 0.0
        self._start = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StageModule)
        self._start, self._began, self._shown = module.step_index, time.monotonic(), time.monotonic()
        if self.quiet or not sys.stdout.isatty():
            return
        from rich.console import Console
        from rich.live import Live

        self._live = Live("", console=Console(), refresh_per_second=4, transient=False)
        self._live.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, StageModule)
        now = time.monotonic()
        if self.quiet or now - self._shown < (0.25 if self._live else PLAIN_EVERY):
            return
        self._shown = now
        self._say(self.line(module))

    def line(self, module: StageModule) -> str:
        """step 1240/5000 · 3.1 it/s · ETA 20:13 · loss 0.31 · opacity 0.18 · 6.2 GB · next preview in 60"""
        step, steps = module.step_index, module.stage.steps
        rate = (step - self._start) / max(time.monotonic() - self._began, 1e-9)
        left = (steps - step) / max(rate, 1e-9)
        eta = f"{int(left // 3600)}:{int(left % 3600 // 60):02d}:{int(left % 60):02d}" if left >= 3600 else (
            f"{int(left // 60):02d}:{int(left % 60):02d}"
        )  # fmt: skip
        parts = [
            self.title,
            f"step {step}/{steps}",
            f"{rate:.1f} it/s",
            f"ETA {eta}",
            f"loss {float(module.last['loss']):.3g}",
            f"opacity {float(module.last['opacity']):.2f}",
            f"{memory_gb(module.device):.1f} GB",
        ]
        if self.preview_every:
            parts.append(f"next preview in {self.preview_every - step % self.preview_every}")
        return " · ".join(parts)

    def waited(self, seconds: float) -> None:
        """Time that is not the steps': the run was paused."""
        self._began += seconds

    def say(self, line: str) -> None:
        """Something else in its place, until the next step."""
        if not self.quiet:
            self._say(line)

    def _say(self, line: str) -> None:
        if self._live:
            self._live.update(line)
        else:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StageModule)
        if not self.quiet and module.last:
            self._say(self.line(module))
        self.close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back."""
        if self._live:
            self._live.stop()
            self._live = None


@final
class Previews(pl.Callback):
    """Four views (front, left, back, right) side by side, every so many steps, as JPEG.

    Args:
        folder: where they go.
        every: steps between them; 0 for none.
        offset: added to the step in the file's name: steps of the stages before.
        size: pixels on a side of each view.
    """

    def __init__(self, folder: Path, *, every: int, offset: int = 0, size: int = 96) -> None:
        self.folder = folder
        self.every = every
        self.offset = offset
        self.size = size

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StageModule)
        if self.every and module.step_index == 0:
            self._draw(module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, StageModule)
        if self.every and (module.step_index % self.every == 0 or module.step_index == module.stage.steps):
            self._draw(module)

    @torch.no_grad()
    def _draw(self, module: StageModule) -> None:
        cameras = turntable(4, self.size).to(module.device)
        render = module.stage.renderer(module.representation, cameras)
        picture = row(render.over(torch.ones(3, device=module.device)))
        write_picture(self.folder / f"step{self.offset + module.step_index:06d}.jpg", picture)


@final
class Metrics(pl.Callback):
    """metrics.jsonl and metrics.csv: every `METRICS_EVERY` steps what the step reported.

    Args:
        run: whose folder.
        stage: name of the stage, a column.
    """

    def __init__(self, run: RunFolder, stage: str) -> None:
        self.run = run
        self.stage = stage
        self._columns: list[str] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, StageModule)
        if module.step_index % METRICS_EVERY and module.step_index != module.stage.steps:
            return
        numbers = {name: float(value) for name, value in module.last.items()}
        # JSON has no NaN: what is not finite is null there and an empty cell in the table.
        shown = {name: round(value, 6) if math.isfinite(value) else None for name, value in numbers.items()}
        row = {"stage": self.stage, "step": module.step_index, **shown}
        with (self.run.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._tabulate(row)

    def _tabulate(self, row: dict[str, Any]) -> None:
        """Add a row to metrics.csv. A stage that reports something new widens the table."""
        path = self.run.path / "metrics.csv"
        if not self._columns and path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                self._columns = next(csv.reader(file), [])
        new = [name for name in row if name not in self._columns]
        if new:
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            self._columns += new
            filled = [
                self._columns,
                *([*cells, *("" for _ in new)] for cells in list(csv.reader(before.splitlines()))[1:]),
            ]
            text = io.StringIO(newline="")
            csv.writer(text).writerows(filled)
            write_atomically(path, text.getvalue())
        with path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)


def rewind(run: RunFolder, steps: Mapping[str, int]) -> None:
    """Take back from metrics.jsonl and metrics.csv what a resumed run will report again, and half a last line.

    Args:
        run: whose folder.
        steps: of each stage, how many are done.
    """
    path = run.path / "metrics.jsonl"
    if not path.exists():
        return
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            if row["step"] <= steps.get(row["stage"], 0):
                rows.append(row)
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
    text = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    write_atomically(run.path / "metrics.csv", text.getvalue())


@final
class Checkpoints(pl.Callback):
    """Saves what continuing needs; `last.ckpt` points to the newest, the last few and all stage ends are kept.

    Args:
        folder: where they go.
        every: steps between them.
        stage: name of the stage, stored along.
        offset: steps of the stages before, for the file's name.
        ends: steps after which a stage ends, counted like the file's name.
    """

    def __init__(self, folder: Path, *, every: int, stage: str, offset: int = 0, ends: Collection[int] = ()) -> None:
        self.folder = folder
        self.every = every
        self.stage = stage
        self.offset = offset
        self.ends = ends

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, StageModule)
        if module.step_index % self.every == 0 or module.step_index == module.stage.steps:
            self.require_finite(module)
            self.save(module)

    def save(self, module: StageModule) -> Path | None:
        """Write a checkpoint now.

        None, and nothing is written, where a parameter is not finite, or in the middle of a step, from where continuing
        would not lead to the same end: the last good checkpoint stays the last one.
        """
        if not module.settled or not module.is_finite():
            return None
        path = self.folder / f"step{self.offset + module.step_index:06d}.ckpt"
        write(path, {"stage": self.stage, **module.checkpoint()})
        link = self.folder / ".last.tmp"
        # Without symbolic links (some file systems) only the shorthand is lost.
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)
            link.symlink_to(path.name)
            os.replace(link, self.folder / "last.ckpt")
        thin(self.folder, self.ends)
        return path

    def require_finite(self, module: StageModule) -> None:
        """Stop a run whose parameters are beyond saving.

        Raises:
            RunError: which they are.
        """
        if module.is_finite():
            return
        trained = [*module.representation.named_parameters(), *module.objective.named_parameters()]
        bad = ", ".join(name for name, p in trained if not bool(p.detach().isfinite().all()))
        raise RunError(
            f"{bad} is not finite after step {module.step_index}. The last good checkpoint is kept; "
            "lower the learning rate or the guidance scale."
        )


@final
class Seeds(pl.Callback):
    """Makes the global generators (torch, numpy, Python) a function of (seed, stage, step) as well, for those parts of
    a step that draw from them; so no checkpoint need hold their state."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, StageModule)
        seed_all(module.seed, module.number, int(batch))


@final
class TimeLimit(pl.Callback):
    """Ends the training at a moment of `time.monotonic()`; None is never.

    Attributes:
        asked: whether it did.
    """

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.asked = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.asked = trainer.should_stop = True


@final
class Interrupt(pl.Callback):
    """Ctrl-C or SIGTERM once ends the training after the step in hand; twice stops at once.

    Attributes:
        asked: whether the first one came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        def first(number: int, frame: Any) -> None:
            self.asked = True
            trainer.should_stop = True
            sys.stderr.write("\nstopping after this step; Ctrl-C again stops at once\n")
            for each in SIGNALS:
                signal.signal(each, signal.default_int_handler)

        # Only the main thread may set handlers; elsewhere Ctrl-C is the caller's business.
        with contextlib.suppress(ValueError):
            for each in SIGNALS:
                self._before[each] = signal.signal(each, first)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._give_back()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._give_back()

    def _give_back(self) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
        self._before = {}
