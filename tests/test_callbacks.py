"""What happens between steps, seen from the files and lines it leaves."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

import dream3d.callbacks
from dream3d.callbacks import (
    Checkpoints,
    Interrupt,
    LiveLine,
    Metrics,
    Previews,
    Seeds,
    TimeLimit,
    rewind,
)
from dream3d.cameras import OrbitCameras
from dream3d.checks import RunError
from dream3d.fitting import fit, own_generators, terminable
from dream3d.guidance import CFG, SDS
from dream3d.media import read_pictures
from dream3d.priors import Gaussian
from dream3d.prompts import Prompt
from dream3d.regularizers import Sparsity
from dream3d.renderers import March
from dream3d.representations import Field
from dream3d.runs import RunFolder
from dream3d.stage import Stage, StageModule


def small_field(start: Any = None) -> Field:
    return Field(start, levels=2, log2_table=8, base=4, finest=8, hidden=8, occupancy=8)


def module(steps: int) -> StageModule:
    stage = Stage(
        representation=small_field,
        renderer=March(samples=8),
        prior=Gaussian(image_size=8),
        objective=SDS(guider=CFG(scale=1.0)),
        cameras=OrbitCameras(size=8),
        regularizers={"sparsity": Sparsity()},
        batch=1,
        steps=steps,
    )
    return StageModule(stage, Prompt("a teddy bear"), small_field(), seed=0)


def train(steps: int, *callbacks: pl.Callback) -> StageModule:
    made = module(steps)
    fit(made, torch.device("cpu"), list(callbacks))
    return made


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(5, LiveLine("stage 1/2 coarse", preview_every=3))
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 1  # thirty seconds have not gone by: only the line at the end
    number = r"[\d.e+-]+"
    assert re.fullmatch(
        rf"stage 1/2 coarse · step 5/5 · {number} it/s · ETA 00:00 · loss {number} · opacity [01]\.\d\d · "
        rf"{number} GB · next preview in 1",
        out[0],
    )
    monkeypatch.setattr(dream3d.callbacks, "PLAIN_EVERY", 0.0)
    train(5, LiveLine("stage 1/1 only", preview_every=0))
    out = capsys.readouterr().out.splitlines()
    assert [re.search(r"step (\d)/5", line)[1] for line in out] == ["1", "2", "3", "4", "5", "5"]  # type: ignore[index]
    assert "preview" not in out[0] and "\033" not in "".join(out)


def test_time_left_is_in_minutes_or_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    made, line = train(2), LiveLine("t", preview_every=0)
    made.stage.steps, made.step_index, line._began = 7202, 2, 0.0
    for seconds, eta in ((0.2, "12:00"), (2.0, "2:00:00")):
        monkeypatch.setattr(dream3d.callbacks.time, "monotonic", lambda seconds=seconds: seconds)
        assert f"ETA {eta} " in line.line(made)


def test_quiet_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    train(3, LiveLine("t", preview_every=0, quiet=True))
    assert capfd.readouterr() == ("", "")


def test_previews_are_four_views_side_by_side(tmp_path: Path) -> None:
    made = train(5, Previews(tmp_path, every=2, offset=100, size=16))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"step{step:06d}.jpg" for step in (100, 102, 104, 105)]
    (picture,) = read_pictures([tmp_path / "step000105.jpg"])
    assert picture.shape == (16, 64, 3) and made.step_index == 5
    assert picture[0, 0].min() > 250  # white behind


def test_previews_do_not_change_the_result(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = train(4).representation.state_dict()
    torch.manual_seed(0)
    watched = train(4, Previews(tmp_path, every=1, size=8)).representation.state_dict()
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def test_metrics_in_both_formats(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "owl", "sds")
    train(25, Metrics(run, "coarse"))
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 25] and {line["stage"] for line in lines} == {"coarse"}
    assert {"loss", "opacity", "t", "grad_norm", "sparsity"} <= lines[0].keys()
    with (run.path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [line["loss"] for line in lines]


def test_checkpoints_are_thinned_and_last_points_to_the_newest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, every=2, stage="coarse", offset=10, ends={19})
    made = train(9, checkpoints)
    end = checkpoints.save(made)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["last.ckpt", "step000016.ckpt", "step000018.ckpt", "step000019.ckpt"]
    assert end is not None and (tmp_path / "last.ckpt").readlink() == Path("step000019.ckpt") == Path(end.name)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["stage"] == "coarse" and saved["step"] == 9
    table = made.representation.state_dict()["encoding.table"]
    assert torch.equal(saved["representation"]["encoding.table"], table)


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints, made = Checkpoints(tmp_path, every=1, stage="coarse"), train(2)
    checkpoints.save(made)
    made.step_index = 3

    def half(value: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(made)
    monkeypatch.undo()
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["step"] == 2
    assert not (tmp_path / "step000003.ckpt").exists()


def test_what_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    checkpoints, made = Checkpoints(tmp_path, every=1, stage="coarse"), train(2)
    checkpoints.save(made)
    with torch.no_grad():
        made.representation.get_parameter("encoding.table")[3, 0] = float("inf")
    made.step_index = 3
    assert checkpoints.save(made) is None
    assert (tmp_path / "last.ckpt").readlink() == Path("step000002.ckpt")
    with pytest.raises(
        RunError, match=r"^encoding\.table is not finite after step 3\. The last good checkpoint is kept"
    ):
        checkpoints.require_finite(made)


def test_the_middle_of_a_step_is_not_saved(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, every=9, stage="coarse")

    class Stop(Exception):
        pass

    class Midway(pl.Callback):
        seen: StageModule

        def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            assert isinstance(module, StageModule)
            self.seen = module

            def stop(*_: Any) -> None:
                if module.step_index == 2:
                    raise Stop

            module.representation.after_step = stop  # type: ignore[method-assign]

    midway = Midway()
    with pytest.raises(Stop):
        train(5, midway)
    assert midway.seen.step_index == 2 and not midway.seen.settled
    assert checkpoints.save(midway.seen) is None and list(tmp_path.iterdir()) == []


class PressAt(pl.Callback):
    """Ctrl-C in the middle of the step after these."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, *_: Any) -> None:
        for _press in range(self.steps.count(int(batch))):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_first_ctrl_c_finishes_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    before, interrupt = signal.getsignal(signal.SIGINT), Interrupt()
    made = train(50, interrupt, PressAt(3))
    assert interrupt.asked and made.step_index == 4
    assert "Ctrl-C again stops at once" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_is_like_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)

    class Terminate(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, *_: Any) -> None:
            if int(batch) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    interrupt = Interrupt()
    assert train(50, interrupt, Terminate()).step_index == 3 and interrupt.asked
    assert signal.getsignal(signal.SIGTERM) is before
    with terminable(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_time_limit_ends_the_training() -> None:
    late, never = TimeLimit(0.0), TimeLimit(None)
    assert train(50, late).step_index == 1 and late.asked
    assert train(3, never).step_index == 3 and not never.asked


def test_the_global_generators_follow_the_step() -> None:
    drawn: dict[int, tuple[float, float, float]] = {}

    class Draw(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, *_: Any) -> None:
            drawn[int(batch)] = (torch.rand(()).item(), random.random(), np.random.rand())

    with own_generators():
        train(3, Seeds(), Draw())
        first = dict(drawn)
        torch.rand(5)
        train(3, Seeds(), Draw())
    assert drawn == first and len({value for values in first.values() for value in values}) == 9


def test_rewinding_metrics(tmp_path: Path) -> None:
    run, short = RunFolder.create(tmp_path, "owl", "sds"), RunFolder.create(tmp_path, "fox", "sds")
    train(30, Metrics(run, "a"), Metrics(run, "b"))
    train(20, Metrics(short, "a"))
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "b", "st')
    rewind(run, {"a": 20})
    for name in ("metrics.jsonl", "metrics.csv"):
        ours, theirs = ((each.path / name).read_text().splitlines() for each in (run, short))
        assert len(ours) == len(theirs) and ours[0].split('"loss"')[0] == theirs[0].split('"loss"')[0]
    rewind(run, {})
    assert (run.path / "metrics.jsonl").read_text() == (run.path / "metrics.csv").read_text() == ""


def test_without_ctrl_c_nothing_is_asked() -> None:
    before, interrupt = signal.getsignal(signal.SIGINT), Interrupt()
    assert train(3, interrupt).step_index == 3 and not interrupt.asked
    assert signal.getsignal(signal.SIGINT) is before
