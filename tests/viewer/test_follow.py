"""What a folder tells of its run, whoever writes it."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import pytest

from dream3d.runs import RunFolder, write_atomically
from dream3d.viewer.follow import COLUMNS, POINTS, Curve, Follower, Snapshot


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "a red chair", "sds")


def add(run: RunFolder, *rows: object) -> None:
    with (run.path / "metrics.jsonl").open("a") as file:
        file.writelines(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


def begin(run: RunFolder, **changes: object) -> None:
    about = {"status": "running", "prompt": "a red chair", "steps": {"coarse": 100, "fine": 60}, "pid": os.getpid()}
    run.update(**{**about, **changes})


def test_nothing_yet(run: RunFolder) -> None:
    assert Follower(run).look() == Snapshot()
    assert Snapshot().done == 0 and not Snapshot().busy


def test_it_follows(run: RunFolder) -> None:
    begin(run)
    follower = Follower(run)
    with run.locked():
        assert (follower.look().status, follower.look().stage, follower.look().busy) == ("running", "coarse", True)
        add(run, {"stage": "coarse", "step": 10, "loss": 2.0}, {"stage": "coarse", "step": 20, "loss": None})
        seen = follower.look()
        assert seen.step == 20 and seen.steps == 160 and seen.done == 0.125
        assert seen.curves["loss"].steps == [10, 20] and math.isnan(seen.curves["loss"].values[1])
        add(run, {"stage": "fine", "step": 10, "loss": 1.0, "sparsity": 0.5}, '{"stage": "fine", "st')
        seen = follower.look()
        assert seen.step == 110 and seen.stage == "fine" and seen.rate > 0
        assert seen.curves["sparsity"] == Curve([110], [0.5]) and seen.curves["loss"].steps == [10, 20, 110]
        add(run, 'ep": 20, "loss": 0.5}\n')
        assert follower.look().step == 120
    assert follower.look().status == "cut off" and not follower.look().busy
    run.update(status="done", warnings=["it was dark"], reason="why not")
    seen = follower.look()
    assert seen.done == 1.0 and seen.words == ("why not", "it was dark") and seen.rate == 0


def test_a_run_that_was_taken_back_is_read_anew(run: RunFolder) -> None:
    begin(run)
    follower = Follower(run)
    add(run, *({"stage": "coarse", "step": n, "loss": n} for n in (10, 20, 30)))
    assert follower.look().step == 30
    write_atomically(run.path / "metrics.jsonl", '{"stage": "coarse", "step": 10, "loss": 7}\n')
    seen = follower.look()
    assert seen.curves["loss"] == Curve([10], [7.0]) and seen.step == 10
    (run.path / "metrics.jsonl").unlink()
    assert follower.look().curves == {}


def test_the_newest_of_everything(run: RunFolder) -> None:
    for step in (0, 20, 100):
        (run.progress / f"step{step:06d}.jpg").touch()
        (run.ckpts / f"step{step:06d}.ckpt").touch()
    (run.ckpts / "step000200.tmp").touch()
    for age, name in enumerate(("new.glb", "old.glb", "new.splats.glb")):
        (run.export / name).touch()
        os.utime(run.export / name, (time.time() - 60 * age,) * 2)
    seen = Follower(run).look()
    assert seen.preview == run.progress / "step000100.jpg" and seen.checkpoint == run.ckpts / "step000100.ckpt"
    assert seen.asset == run.export / "new.glb"


def test_long_curves_are_thinned_to_their_end(run: RunFolder) -> None:
    begin(run, steps={"coarse": 100_000})
    add(run, *({"stage": "coarse", "step": n, "loss": n} for n in range(1, 5001)))
    curve = Follower(run).look().curves["loss"]
    assert POINTS / 2 < len(curve.steps) <= POINTS and curve.steps[0] == 1 and curve.steps[-1] == 5000


def test_a_folder_of_strangers(run: RunFolder) -> None:
    begin(run, steps="many", warnings={"a": 1}, prompt=["<b>"])
    odd = {f"c{i}": 1 for i in range(40)}
    add(run, "[1, 2]\n", "{}\n", "\xff\x00\n", {"stage": [], "step": 1}, {"stage": "x", "step": "1"}, "[" * 5000 + "\n")
    add(run, {"stage": "x", "step": 5, "<script>": 1, "loss": "text", "list": [1], **odd})
    seen = Follower(run).look()
    assert seen.step == 5 and seen.steps == 0 and seen.done == 0.0
    assert len(seen.curves) == COLUMNS and "<script>" not in seen.curves and math.isnan(seen.curves["loss"].values[0])
    (run.path / "run.json").write_text("[]")
    assert Follower(run).look().status == "preparing"
