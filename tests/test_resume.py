"""Runs that are stopped at some moment and resumed: they end in the same bytes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import dream3d.callbacks
from dream3d.checks import RunError, RunFolderError
from dream3d.densify import Budgeted
from dream3d.export import Export
from dream3d.guidance import Objective
from dream3d.pipeline import Interrupted, Pipeline
from dream3d.regularizers import Distortion
from dream3d.renderers import Splat
from dream3d.representations import Gaussians
from dream3d.runs import RunFolder, find
from tests.tiny_runs import Raises, fail, pipeline, press, small_export, stage

GLB = "export/a-teddy-bear.glb"
SAME = (GLB, "ckpts/step000010.ckpt", "metrics.jsonl", "metrics.csv", "save/final/views.png", "save/progress.mp4")
"""Files that must not show that anything happened."""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever others have left
    yield
    signal.signal(signal.SIGINT, before)


def two_stages(out: Path, at: tuple[int, int] = (0, 0), what: Any = None, **changes: Any) -> Pipeline:
    """Field, then Gaussians; at a call of a stage something happens."""

    def splats(start: Any) -> Gaussians:
        return Gaussians(start, count=60)

    changes = {"export": small_export(), **changes}
    stages = {
        "coarse": stage(steps=6, objective=Raises(at[0], what)),
        "fine": stage(steps=4, objective=Raises(at[1], what), representation=splats, renderer=Splat()),
    }
    return pipeline(out, stages=stages, checkpoint_every=2, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    return two_stages(tmp_path_factory.mktemp("outputs")).run()


def assert_same(run: Path, whole: Path, *, asset: bool = True) -> None:
    for name in SAME if asset else SAME[1:]:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert RunFolder(run).state()["status"] == "done"


@pytest.mark.parametrize("at", [(1, 0), (4, 0), (6, 0), (0, 1), (0, 4)], ids=str)
def test_a_failed_run_goes_on(at: tuple[int, int], tmp_path: Path, whole: Path) -> None:
    with pytest.raises(RunError, match="the power went"):
        two_stages(tmp_path, at, fail(RunError("the power went")), export=None).run()
    run = find("latest", tmp_path)
    (run.ckpts / "step000004.tmp").write_bytes(b"half")
    (run.progress / ".tmp-step000004.jpg").write_bytes(b"half")
    assert two_stages(tmp_path, export=None).resume(run) == run.path
    assert_same(run.path, whole, asset=False)
    ours, theirs = ({str(p.relative_to(r)) for p in r.rglob("*")} for r in (run.path, whole))
    assert {name for name in ours ^ theirs if not name.startswith(("ckpts/step", "export/"))} == set()
    state = run.state()
    assert state["resumed"] == 1 and "reason" not in state
    if at != (1, 0):
        assert "resumed after step" in (run.path / "log.txt").read_text()


@pytest.mark.parametrize("part", ["_pictures", "_asset"])
def test_what_comes_after_training_goes_on(
    part: str, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        monkeypatch.context() as patch,
        pytest.raises(KeyboardInterrupt, match=r"interrupted; go on with: dream3d resume"),
    ):
        patch.setattr(Pipeline, part, lambda *_: press()())
        two_stages(tmp_path).run()
    run = find("latest", tmp_path)
    assert run.state()["status"] == "interrupted" and not (run.path / GLB).exists()
    again = two_stages(tmp_path, (1, 1), fail(AssertionError("trained again")))
    assert_same(again.resume(run), whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_has_an_asset_and_goes_on(number: int, tmp_path: Path, whole: Path) -> None:
    with pytest.raises(Interrupted, match="interrupted at step 3; .*Go on with: dream3d resume") as caught:
        two_stages(tmp_path, (3, 0), press(number=number)).run()
    assert caught.value.exit_code == 130
    run = find("latest", tmp_path)
    assert run.state()["status"] == "interrupted" and (run.path / GLB).is_file()
    assert_same(two_stages(tmp_path).resume(run), whole)


def test_a_time_limit_still_exports_and_can_be_lifted(tmp_path: Path, whole: Path) -> None:
    run = RunFolder(two_stages(tmp_path, max_minutes=0).run())
    state = run.state()
    assert state["status"] == "stopped" and state["reason"] == "0 minutes are over at step 1 of stage coarse"
    assert (run.path / GLB).is_file() and [p.name for p in run.ckpts.glob("step*")] == ["step000001.ckpt"]
    assert_same(two_stages(tmp_path).resume(run), whole)


def test_a_damaged_checkpoint_is_named_and_passed_over(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RunError):
        two_stages(tmp_path, (0, 4), fail(RunError("stop")), export=None).run()
    run = find("latest", tmp_path)
    assert [p.name for p in sorted(run.ckpts.glob("step*"))] == [f"step{n:06d}.ckpt" for n in (6, 8, 9)]
    data = bytearray((run.ckpts / "step000009.ckpt").read_bytes())
    data[len(data) // 2] ^= 16
    (run.ckpts / "step000009.ckpt").write_bytes(data)
    assert_same(two_stages(tmp_path, export=None).resume(run), whole, asset=False)
    line = "step000009.ckpt is damaged (wrong checksum); step000008.ckpt is used instead."
    assert line in [record.getMessage() for record in caplog.records]
    assert (run.ckpts / "step000009.damaged").read_bytes() == data


def test_the_last_two_and_the_ends_are_kept(whole: Path) -> None:
    assert sorted(p.name for p in (whole / "ckpts").glob("step*")) == [
        f"step{number:06d}.ckpt" for number in (4, 6, 8, 10)
    ]


@pytest.mark.parametrize("flat", [False, True])
def test_densification_goes_on_to_the_same_bytes(flat: bool, tmp_path: Path) -> None:
    """Stopped between two changes of the number, with statistics half gathered: the PLY does not show it."""

    def multiplying(out: Path, at: int = 0) -> Pipeline:
        def splats(start: Any) -> Gaussians:
            return Gaussians(start, count=40, flat=flat, densify=Budgeted(most=60, growth=0.5, begin=1, every=3))

        made = stage(
            steps=9, objective=Raises(at, fail(RunError("stop"))), representation=splats, renderer=Splat(),
            regularizers={"distortion": Distortion()} if flat else {},
        )  # fmt: skip
        return pipeline(out, stages={"a": made}, checkpoint_every=1, export=Export(formats=("ply",)), preview_every=0)

    whole = RunFolder(multiplying(tmp_path / "whole").run())
    (ply,) = whole.export.glob("*.ply")
    with pytest.raises(RunError, match="stop"):
        multiplying(tmp_path / "cut", 6).run()
    run = find("latest", tmp_path / "cut")
    saved = torch.load(run.last_checkpoint(), weights_only=True)
    assert saved["step"] == 5 and saved["representation"]["views"].any() and len(saved["representation"]["means"]) != 40
    multiplying(tmp_path / "cut").resume(run)
    assert (run.export / ply.name).read_bytes() == ply.read_bytes() and b"element vertex 40\n" not in ply.read_bytes()
    assert (run.ckpts / "step000009.ckpt").read_bytes() == (whole.ckpts / "step000009.ckpt").read_bytes()


def test_a_done_run_is_left_alone_and_may_go_on_for_longer(tmp_path: Path, whole: Path) -> None:
    run = RunFolder(pipeline(tmp_path, stages={"a": stage(steps=3)}, quiet=False).run())
    times = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    pipeline(tmp_path, stages={"a": stage(steps=3, objective=Raises(1, fail(AssertionError())))}).resume(run)
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())
    pipeline(tmp_path, stages={"a": stage(steps=5)}).resume(run)
    assert torch.load(run.last_checkpoint(), weights_only=True)["step"] == 5 and run.state()["steps"] == {"a": 5}


def test_one_process_at_a_time(tmp_path: Path) -> None:
    run = RunFolder(pipeline(tmp_path).run())
    with run.locked(), pytest.raises(RunFolderError, match=rf"is running \(pid {os.getpid()}\): stop it first"):
        pipeline(tmp_path).resume(run)


def test_a_checkpoint_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        pipeline(tmp_path, stages={"a": stage(objective=Raises(3, fail(RunError("stop"))))}).run()
    run = find("latest", tmp_path)
    with pytest.raises(RunFolderError, match="of stage 'a', which config.yaml does not have"):
        pipeline(tmp_path).resume(run)
    wider = stage(representation=lambda start: Gaussians(start, count=7), renderer=Splat())
    with pytest.raises(RunFolderError, match="does not fit config.yaml"):
        pipeline(tmp_path, stages={"a": wider}).resume(run)


def test_a_full_disk_is_one_line_and_goes_on(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch, pytest.raises(RunError) as caught:
        patch.setattr(dream3d.callbacks, "write", full)
        two_stages(tmp_path, export=None).run()
    run = find("latest", tmp_path)
    assert str(caught.value) == f"disk full: no room in {run.path}. Free some, then: dream3d resume {run.path}"
    assert run.state()["status"] == "failed" and run.state()["reason"] == str(caught.value)
    assert_same(two_stages(tmp_path, export=None).resume(run), whole, asset=False)


def test_numbers_from_the_global_generators_are_the_same_again(tmp_path: Path) -> None:
    class Noisy(Objective):
        def residual(self, prior: Any, x: Any) -> torch.Tensor:
            if x.step == self.stop:
                raise RunError("stop")
            return torch.randn_like(x.z)

        def __init__(self, stop: int) -> None:
            super().__init__()
            self.stop = stop

    before = torch.random.get_rng_state()
    run = RunFolder(pipeline(tmp_path / "one", stages={"a": stage(objective=Noisy(-1))}, export=None).run())
    with pytest.raises(RunError, match="stop"):
        pipeline(tmp_path / "two", stages={"a": stage(objective=Noisy(2))}).run()
    again = find("latest", tmp_path / "two")
    pipeline(tmp_path / "two", stages={"a": stage(objective=Noisy(-1))}).resume(again)
    assert run.last_checkpoint().read_bytes() == again.last_checkpoint().read_bytes()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_surface_after_a_limit_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no surface at iso"):
        pipeline(tmp_path, max_minutes=0, export=Export(iso=1e9, resolution=16)).run()
    assert len(list(find("latest", tmp_path).ckpts.glob("step*"))) == 1
