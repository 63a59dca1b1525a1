"""Runs that are killed at random moments, without a chance to do anything about it, and resumed.

    python -m pytest -m slow -s tests/test_kill.py

prints the table: when each was killed, where the run was by then, and that its end has the bytes of an undisturbed run.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dream3d.checkpoints
from dream3d.checks import RunFolderError
from dream3d.runs import RunFolder, find
from tests.test_resume import GLB, SAME, two_stages

pytestmark = pytest.mark.slow

KILLS = 30
WAYS = ("at a time", "in the writing of a checkpoint", "at a renaming")


def forked(work: Callable[[], Any]) -> int:
    """Do something in a child process; torch is loaded here already, and has not begun threads."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(pid: int) -> int:
    """0, or minus the signal that ended it, or its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def go(out: Path) -> None:
    """What a user does after a power cut: resume, or begin where nothing was there yet."""
    try:
        run = find("latest", out)
    except RunFolderError:
        two_stages(out).run()
        return
    two_stages(out).resume(run)


def dying(out: Path, module: Any, name: str, at: int, *, after: bool = False) -> None:
    """Go on, and be killed at a call of a function."""
    plain, calls = getattr(module, name), 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = plain(*args, **kwargs)
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, deadly)
    go(out)


def killed(way: str, out: Path, seconds: float, draw: random.Random) -> str:
    """One attempt that is killed; where."""
    if way == "at a time":
        moment = draw.uniform(0, seconds)
        pid = forked(lambda: go(out))
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        what = f"after {moment:.2f} s"
    elif way == "at a renaming":
        at, after = draw.randrange(1, 60), draw.random() < 0.5
        pid, what = (
            forked(lambda: dying(out, os, "replace", at, after=after)),
            f"{'after' if after else 'before'} {at}.",
        )
    else:
        at = draw.randrange(1, 600)
        sink = dream3d.checkpoints._Sink
        pid, what = forked(lambda: dying(out, sink, "write", at)), f"at its piece {at}"
    assert ended(pid) in (-signal.SIGKILL, 0)  # 0: it was done before that
    return what


def position(out: Path) -> str:
    """How far a run came."""
    try:
        run = find("latest", out)
    except RunFolderError:
        return "nothing on disk"
    last = dream3d.checkpoints.stored(run.ckpts)
    where = last[-1].stem if last else "no checkpoint"
    return f"{where}{', asset' if (run.path / GLB).exists() else ''}, {run.state()['status']}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nothing disturbed, and how long it took."""
    out, began = tmp_path_factory.mktemp("whole"), time.monotonic()
    assert ended(forked(lambda: two_stages(out).run())) == 0
    return find("latest", out).path, time.monotonic() - began


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_and_resumed(number: int, whole: tuple[Path, float], tmp_path: Path) -> None:
    draw, way = random.Random(number), WAYS[number % len(WAYS)]
    where = []
    for _ in range(1 + number % 2):  # some also while they resume
        what = killed(way, tmp_path, whole[1], draw)
        where.append(f"{what} ({position(tmp_path)})")
    assert ended(forked(lambda: go(tmp_path))) == 0
    run = find("latest", tmp_path)
    different = [name for name in SAME if (run.path / name).read_bytes() != (whole[0] / name).read_bytes()]
    left = [p.name for p in run.path.rglob("*") if p.name.startswith(".") or p.suffix in (".tmp", ".part")]
    sys.stdout.write(f"| {number} | {way} | {'; '.join(where)} | {', '.join(different) or 'same bytes'} |\n")
    assert not different and not left and RunFolder(run.path).state()["status"] == "done"
