"""The commands around the viewer, and those that ask a run for something from another terminal."""

from __future__ import annotations

import argparse
import json
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dream3d.cli import main
from dream3d.commands.view import viewing
from dream3d.control import FILE
from dream3d.runs import RunFolder
from tests.tiny_runs import pipeline


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "outputs", "a red chair", "sds")
    made.update(status="running", pid=os.getpid(), prompt="a red chair")
    return made


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["view"], 2, "view needs RUN_OR_FILE"),
        (["view", "outputs/nope"], 4, "no run at outputs/nope. Runs here: dream3d runs"),
        (["view", "nope.glb"], 2, "no file at nope.glb."),
        (["view", "nope.glb", "--port", "65536"], 2, "--port must be 0–65535 (got 65536)."),
        (["generate", "a bear", "--host", "0.0.0.0"], 2, "--host and --port say where the page of --view is; add"),
        (["resume", "outputs/nope", "--port", "0"], 2, "--host and --port say where the page of --view is; add"),
        (["pause", "outputs/nope"], 4, "no run at outputs/nope."),
        (["stop", "outputs/nope"], 4, "no run at outputs/nope."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line(
    words: list[str],
    code: int,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == code
    said = capsys.readouterr().err
    assert said.startswith(f"error: {line}") and said.count("\n") == 1


def test_without_viser_the_extra_is_named(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "viser", None)
    assert main(["view", str(run.path)]) == 3
    assert "pip install 'dream3d[viewer]'" in capsys.readouterr().err


@pytest.mark.parametrize("request_", ["pause", "stop"])
def test_a_run_is_asked_from_another_terminal(
    request_: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with run.locked():
        assert main([request_, str(run.path)]) == 0
    assert json.loads((run.path / FILE).read_text()) == {"request": request_, "pid": os.getpid()}
    assert "dream3d resume" in capsys.readouterr().out
    assert main([request_, str(run.path)]) == 4
    assert "is not running (it is cut off)" in capsys.readouterr().err


def test_resume_lets_a_paused_run_go_on(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    run.update(status="paused")
    with run.locked():
        assert main(["resume", str(run.path)]) == 0
    assert json.loads((run.path / FILE).read_text())["request"] == "go"
    assert "goes on, where it was started" in capsys.readouterr().out


def test_a_paused_run_is_not_removed_and_a_dead_one_was_cut_off(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run.update(status="paused")
    assert main(["runs", "rm", str(run.path)]) == 4 and "is running" in capsys.readouterr().err
    run.update(pid=2**22 + 1)  # beyond what a system gives out
    assert main(["runs", "list", "--out", str(run.path.parents[1])]) == 0
    assert capsys.readouterr().out.startswith("cut off")


def test_the_page_is_there_while_the_pipeline_works(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("viser", reason="the viewer is an extra: pip install 'dream3d[viewer]'")
    from dream3d.viewer.live import Live

    made = pipeline(tmp_path)
    with viewing(argparse.Namespace(view=False), made):
        assert made.watch is None
    with viewing(argparse.Namespace(view=True, host=None, port=0), made):
        address = capsys.readouterr().out.split()[-1]
        there = urlsplit(address).hostname, urlsplit(address).port
        socket.create_connection(there, timeout=10).close()
        assert made.watch is not None and isinstance(made.watch(run, "nerf"), Live)
    assert made.watch is None
    with pytest.raises(OSError):
        socket.create_connection(there, timeout=10)
    assert capsys.readouterr().out == ""  # viser has nothing to say on our output
