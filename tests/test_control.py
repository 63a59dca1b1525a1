"""Requests to a run: written whole, for one process, and harmless where they are something else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import dream3d.control
from dream3d.checks import InputError, RunFolderError
from dream3d.control import FILE, LARGEST, REQUESTS, Requests, ask, forget, goes_on
from dream3d.runs import RunFolder


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream3d.control, "EVERY", 0.0)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path, "a red chair", "sds")
    made.update(status="running", pid=os.getpid())
    return made


@pytest.fixture
def busy(run: RunFolder) -> Iterator[RunFolder]:
    with run.locked():
        yield run


def test_what_is_asked_arrives(busy: RunFolder) -> None:
    requests = Requests(busy)
    assert requests.last() is None
    for request in REQUESTS:
        ask(busy, request)
        assert requests.last() == request == requests.last()
    assert json.loads((busy.path / FILE).read_text()) == {"request": "stop", "pid": os.getpid()}
    assert not list(busy.path.glob(".*.tmp"))
    forget(busy)
    forget(busy)
    assert Requests(busy).last() is None


def test_the_file_is_looked_at_now_and_then(busy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream3d.control, "EVERY", 1000.0)
    requests = Requests(busy)
    assert requests.last() is None
    ask(busy, "stop")
    assert requests.last() is None
    assert Requests(busy).last() == "stop"


def test_nobody_is_asked_where_nobody_is(run: RunFolder) -> None:
    assert not goes_on(run)
    with pytest.raises(RunFolderError, match=r"is not running \(it is cut off\). Go on with: dream3d resume"):
        ask(run, "stop")
    run.update(status="done")
    with run.locked(), pytest.raises(RunFolderError, match="it is done"):
        ask(run, "pause")
    assert not (run.path / FILE).exists()


def test_a_paused_run_goes_on(busy: RunFolder) -> None:
    busy.update(status="paused")
    assert goes_on(busy)


def test_unknown_requests_are_refused(busy: RunFolder) -> None:
    with pytest.raises(InputError, match="'halt' is not one of pause, go, stop"):
        ask(busy, "halt")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"stop",
        b'["stop"]',
        b'{"request": "stop"}',
        json.dumps({"request": "stop", "pid": os.getpid() + 1}).encode(),
        json.dumps({"request": "rm -rf", "pid": os.getpid()}).encode(),
        json.dumps({"request": ["stop"], "pid": os.getpid()}).encode(),
        json.dumps({"request": "stop", "pid": os.getpid(), "fill": "x" * LARGEST}).encode(),
        b"[" * LARGEST,
        b"\xff\xfe",
    ],
    ids=lambda content: content[:40].decode(errors="replace"),
)
def test_what_is_no_request_for_this_process_is_ignored(content: bytes, busy: RunFolder) -> None:
    (busy.path / FILE).write_bytes(content)
    requests = Requests(busy)
    assert requests.last() is None
    ask(busy, "pause")
    assert requests.last() == "pause"


def test_a_pipe_or_a_folder_in_its_place_does_not_hang_the_run(busy: RunFolder) -> None:
    os.mkfifo(busy.path / FILE)
    assert Requests(busy).last() is None
    (busy.path / FILE).unlink()
    (busy.path / FILE).mkdir()
    assert Requests(busy).last() is None
