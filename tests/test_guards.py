"""What a run watches for."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from dream3d.checks import RunError
from dream3d.fitting import fit
from dream3d.guards import Collapse, free_memory, in_words, least_memory, memory_line
from dream3d.prompts import Prompt
from dream3d.runs import RunFolder
from dream3d.stage import StageModule
from tests.tiny_runs import small_field, stage


class Opacity(pl.Callback):
    """Says of every step that its pictures have this opacity."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, StageModule)
        module.last["opacity"] = torch.tensor(self.values[min(int(batch) // 10, len(self.values) - 1)])


def watched(folder: Path, steps: int, *values: float) -> tuple[list[str], RunFolder]:
    run, told = RunFolder.create(folder, "owl", "sds"), []
    module = StageModule(stage(steps=steps, batch=1), Prompt("owl"), small_field(), seed=0)
    fit(module, torch.device("cpu"), [Opacity(*values), Collapse(run, "nerf", told.append)])
    return told, run


def test_a_vanishing_object_is_said_once(tmp_path: Path) -> None:
    told, run = watched(tmp_path, 60, 0.2, 0.009)
    assert len(told) == 1 and told[0].startswith("warning: opacity fell under 1% by step 40 of stage nerf: ")
    assert [f"warning: {line}" for line in run.state()["warnings"]] == told
    assert told[0] in (run.path / "log.txt").read_text()


def test_a_moment_of_emptiness_is_not(tmp_path: Path) -> None:
    told, run = watched(tmp_path, 50, 0.0, 0.0, 0.02, 0.0, 0.0)
    assert told == [] and not run.has_state()


def test_memory_is_counted() -> None:
    part = torch.nn.Linear(9, 10)  # 100 numbers
    made = stage()
    whole, more = least_memory(made, part)
    made.prior.register_parameter("weights", torch.nn.Parameter(torch.zeros(1000), requires_grad=False))
    assert least_memory(made, part) == (whole + 4000, more) and more == 3 * 400 and whole >= 400 + more


def test_what_cannot_fit_is_said_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    free = free_memory(torch.device("cpu"))
    assert free is None or free > 1e7
    monkeypatch.setattr("dream3d.guards.free_memory", lambda device: 100)
    with pytest.raises(RunError, match=r"^out of memory before the first step: stage nerf needs 0\.0 GB and more"):
        memory_line("nerf", stage(), small_field(), torch.device("cpu"))
    monkeypatch.setattr("dream3d.guards.free_memory", lambda device: None)
    assert memory_line("nerf", stage(), small_field(), torch.device("cpu")).startswith("memory: 0.00 GB for weights")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space"), "disk full: no room in {run}. Free some, then: dream3d resume {run}"),
        (
            PermissionError(errno.EACCES, "denied", "{run}/log.txt"),
            "cannot write {run}/log.txt: Permission denied. Allow it, then: dream3d resume {run}",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nmore"),
            "out of memory: DefaultCPUAllocator: can't allocate memory: you tried. Go on with less: "
            "dream3d resume {run} --export.texture_size=512 --export.resolution=64",
        ),
        (KeyboardInterrupt(), "interrupted; go on with: dream3d resume {run}"),
    ],
    ids=["full", "read-only", "memory", "Ctrl-C"],
)
def test_failures_in_words(error: BaseException, line: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    if isinstance(error, PermissionError):
        error = PermissionError(error.errno, error.strerror, str(error.filename).format(run=tmp_path))
    assert str(in_words(error, run, None)) == line.format(run=tmp_path)


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EACCES, "denied", "/elsewhere"), RunError("y")])
def test_other_failures_stay(error: BaseException, tmp_path: Path) -> None:
    assert in_words(error, RunFolder(tmp_path), None) is error
