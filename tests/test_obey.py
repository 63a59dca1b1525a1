"""Runs that are asked to pause, to go on, to stop: they do, and end in the bytes of a run that nobody asked."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dream3d.control
from dream3d.control import FILE, ask
from dream3d.pipeline import Interrupted, Pipeline
from dream3d.runs import RunFolder, find
from tests.tiny_runs import Raises, pipeline, small_export, stage

GLB = "export/a-teddy-bear.glb"
SAME = (GLB, "ckpts/step000004.ckpt", "metrics.jsonl", "save/final/views.png", "save/progress.mp4")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(dream3d.control, "EVERY", 0.0)
    yield
    signal.signal(signal.SIGINT, before)


def asked(out: Path, what: Callable[[RunFolder], Any], **changes: Any) -> Pipeline:
    """Four steps; in the second something happens."""
    objective = Raises(2, lambda: what(find("latest", out)))
    return pipeline(out, stages={"nerf": stage(objective=objective)}, export=small_export(), **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which nothing was asked."""
    return asked(tmp_path_factory.mktemp("outputs"), lambda run: None).run()


def until(run: RunFolder, status: str, act: Callable[[], Any]) -> threading.Thread:
    """Does something once run.json says so."""

    def wait() -> None:
        for _ in range(2000):
            if run.state().get("status") == status:
                return act()
            time.sleep(0.005)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_paused_run_waits_says_so_and_goes_on(tmp_path: Path, whole: Path) -> None:
    seen: list[Any] = []

    def pause(run: RunFolder) -> None:
        def look_and_go() -> None:
            seen.append({path.name for path in run.ckpts.glob("step*")})
            ask(run, "go")

        ask(run, "pause")
        threads.append(until(run, "paused", look_and_go))

    threads: list[threading.Thread] = []
    run = asked(tmp_path, pause).run()
    threads[0].join()
    assert seen == [{"step000002.ckpt"}]  # saved before it waited
    state, log = RunFolder(run).state(), (run / "log.txt").read_text()
    assert state["status"] == "done" and "paused after step 2" in log and "paused for " in log
    for name in SAME:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_that_is_asked_to_stop_exports_and_can_be_resumed(tmp_path: Path, whole: Path) -> None:
    run = asked(tmp_path, lambda run: ask(run, "stop")).run()
    state = RunFolder(run).state()
    assert state["status"] == "stopped" and state["reason"] == "stopped as asked at step 2 of stage nerf"
    assert (run / GLB).is_file() and (run / "report.html").is_file() and (run / FILE).exists()
    # The request is still there, and for this very process; it was for what is over.
    asked(tmp_path, lambda run: None).resume(RunFolder(run))
    assert RunFolder(run).state()["status"] == "done" and not (run / FILE).exists()
    for name in SAME:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_stop_ends_a_pause(tmp_path: Path) -> None:
    def pause(run: RunFolder) -> None:
        ask(run, "pause")
        until(run, "paused", lambda: ask(run, "stop"))

    run = asked(tmp_path, pause).run()
    assert RunFolder(run).state()["reason"] == "stopped as asked at step 2 of stage nerf"


def test_ctrl_c_ends_a_pause(tmp_path: Path) -> None:
    def pause(run: RunFolder) -> None:
        ask(run, "pause")
        until(run, "paused", lambda: os.kill(os.getpid(), signal.SIGINT))

    with pytest.raises(Interrupted, match="interrupted at step 2; the asset so far"):
        asked(tmp_path, pause).run()
    assert find("latest", tmp_path).state()["status"] == "interrupted"


def test_the_time_limit_ends_a_pause(tmp_path: Path) -> None:
    run = asked(tmp_path, lambda run: ask(run, "pause"), max_minutes=3 / 60).run()
    assert RunFolder(run).state()["reason"].startswith("0.05 minutes are over at step 2")


def test_requests_for_another_process_change_nothing(tmp_path: Path, whole: Path) -> None:
    def stale(run: RunFolder) -> None:
        (run.path / FILE).write_text(json.dumps({"request": "stop", "pid": os.getpid() + 1}))

    run = asked(tmp_path, stale).run()
    assert RunFolder(run).state()["status"] == "done"
    assert (run / GLB).read_bytes() == (whole / GLB).read_bytes()
