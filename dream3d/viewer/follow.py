"""A run as its folder tells it: how far, how it goes, what there is to see. Reads little, and only what is new."""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from dream3d.checkpoints import stored
from dream3d.checks import RunFolderError
from dream3d.control import BUSY, goes_on
from dream3d.runs import RunFolder

POINTS = 2000
"""Of a curve; longer ones are thinned, since they are sent whole."""
COLUMNS = 24
NAME = re.compile(r"[\w .()/·-]{1,40}")
"""Of a curve. Folders come from strangers, and names end up in a page."""
LARGEST = 64_000_000
"""Bytes of metrics that are read."""
RECENT = 60.0
"""Seconds over which the speed is measured."""


@dataclass(frozen=True)
class Curve:
    """Steps of the run and what was measured there; NaN where it was not finite."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Snapshot:
    """A run at a moment.

    Attributes:
        status: as in run.json, or "cut off", or "preparing".
        prompt: in full.
        stage: name of the stage in hand.
        step: of the run, all stages counted together.
        steps: of all stages.
        rate: steps a second of late; 0 where it is not known.
        words: reason of its end and warnings.
        curves: by name.
        preview: newest picture of the four sides.
        asset: newest mesh.
        checkpoint: newest one.
    """

    status: str = "preparing"
    prompt: str = ""
    stage: str = ""
    step: int = 0
    steps: int = 0
    rate: float = 0.0
    words: tuple[str, ...] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)
    preview: Path | None = None
    asset: Path | None = None
    checkpoint: Path | None = None

    @property
    def busy(self) -> bool:
        """Whether a process is at it, so that it can be asked for something."""
        return self.status in BUSY

    @property
    def done(self) -> float:
        """Share of all steps."""
        return min(1.0, self.step / self.steps) if self.steps else 0.0


@final
class Follower:
    """Looks into the folder of a run, whoever writes it.

    Args:
        run: the folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._at: tuple[int, int] | None = None  # metrics.jsonl: which file, and up to which byte
        self._rows: list[dict[str, Any]] = []
        self._speed: deque[tuple[float, int]] = deque(maxlen=200)

    def look(self) -> Snapshot:
        """What there is now."""
        state = self._state()
        self._read()
        steps = {str(name): n for name, n in _mapping(state.get("steps")).items() if isinstance(n, int)}
        offsets = {name: sum(list(steps.values())[:i]) for i, name in enumerate(steps)}
        last = self._rows[-1] if self._rows else {}
        step = offsets.get(last.get("stage", ""), 0) + last.get("step", 0)
        status = str(state.get("status", "preparing"))
        if status in BUSY and not goes_on(self.run):
            status = "cut off"
        if status == "done":
            step = sum(steps.values())
        warnings = state.get("warnings")
        words = [state.get("reason"), *(warnings if isinstance(warnings, list) else [])]
        return Snapshot(
            status=status,
            prompt=str(state.get("prompt", "")),
            stage=str(last.get("stage", next(iter(steps), ""))),
            step=step,
            steps=sum(steps.values()),
            rate=self._rate(step) if status == "running" else 0.0,
            words=tuple(str(word) for word in words if word),
            curves=_curves(self._rows, offsets),
            preview=_newest(self.run.progress.glob("step*.jpg"), by_name=True),
            asset=_newest(p for p in self.run.export.glob("*.glb") if not p.name.endswith(".splats.glb")),
            checkpoint=next(reversed(stored(self.run.ckpts)), None),
        )

    def _state(self) -> dict[str, Any]:
        try:
            state = self.run.state()
        except RunFolderError:  # not written yet
            return {}
        return state if isinstance(state, dict) else {}

    def _read(self) -> None:
        """The rows that were added to metrics.jsonl; all of them where the file is another one."""
        try:
            with (self.run.path / "metrics.jsonl").open("rb") as file:
                about = (self.run.path / "metrics.jsonl").stat()
                if self._at is None or self._at[0] != about.st_ino or self._at[1] > about.st_size:
                    self._at, self._rows = (about.st_ino, 0), []
                file.seek(self._at[1])
                data = file.read(LARGEST)
        except OSError:
            self._at, self._rows = None, []
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._at = self._at[0], self._at[1] + len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                row = json.loads(line)
                if isinstance(row["stage"], str) and isinstance(row["step"], int):
                    self._rows.append(row)

    def _rate(self, step: int) -> float:
        now = time.monotonic()
        if self._speed and step < self._speed[-1][1]:
            self._speed.clear()
        self._speed.append((now, step))
        while now - self._speed[0][0] > RECENT:
            self._speed.popleft()
        (then, before) = self._speed[0]
        return (step - before) / (now - then) if now > then else 0.0


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _newest(paths: Iterable[Path], *, by_name: bool = False) -> Path | None:
    """The newest of some files, by time or by name; files may vanish meanwhile."""

    def key(path: Path) -> tuple[int, str]:
        with contextlib.suppress(OSError):
            return 0 if by_name else path.stat().st_mtime_ns, path.name
        return -1, path.name

    return max(paths, key=key, default=None)


def _curves(rows: list[dict[str, Any]], offsets: Mapping[str, int]) -> dict[str, Curve]:
    """Every column of numbers over the steps of the run."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if NAME.fullmatch(name)]
    stride = -(-len(rows) // POINTS) if rows else 1
    kept = [row for i, row in enumerate(rows) if i % stride == 0 or i == len(rows) - 1]
    found: dict[str, Curve] = {}
    for name in [name for name in names if name not in ("stage", "step")][:COLUMNS]:
        points = [(offsets.get(row["stage"], 0) + row["step"], row[name]) for row in kept if name in row]
        values = [float(v) if isinstance(v, (int, float)) else math.nan for _, v in points]
        found[name] = Curve([step for step, _ in points], values)
    return found
