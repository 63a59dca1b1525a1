"""Run folders: names, state, and finding runs again."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

import dream3d.runs
from dream3d.checks import InputError, RunFolderError
from dream3d.runs import RunFolder, find, list_runs, slug, write_atomically


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a teddy bear", "a-teddy-bear"),
        ("  Käse & Crème, 3/4!  ", "kase-creme-3-4"),
        ("../../etc/passwd", "etc-passwd"),
        ("日本語", "prompt"),
        ("x" * 4000, "x" * 60),
        ("a" * 59 + " b", "a" * 59),
    ],
)
def test_slug(prompt: str, name: str) -> None:
    assert slug(prompt) == name and len(name) <= 60


def test_create_makes_the_layout(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "a ceramic owl", "sds")
    assert run.path.parent == tmp_path / "a-ceramic-owl"
    assert re.fullmatch(r"sds@\d{8}-\d{6}", run.path.name)
    for folder in ("ckpts", "save/progress", "save/final", "export"):
        assert (run.path / folder).is_dir()
    link = tmp_path / "latest"
    # Relative, so that the folder of all runs can be moved.
    assert link.is_symlink() and not link.readlink().is_absolute() and link.resolve() == run.path.resolve()


def test_create_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream3d.runs.time, "strftime", lambda *_: "20261121-045800")
    names = []
    for _ in range(3):
        run = RunFolder.create(tmp_path, "owl", "sds")
        assert not any(path.is_file() for path in run.path.rglob("*"))
        (run.path / "run.json").write_text("{}")
        names.append(run.path.name)
    assert names == ["sds@20261121-045800", "sds@20261121-045800-2", "sds@20261121-045800-3"]
    assert (tmp_path / "latest").resolve().name == names[-1]


@pytest.mark.parametrize("tag", ["", "a/b", "a b", "../x", "ä"])
def test_tag_is_a_plain_name(tmp_path: Path, tag: str) -> None:
    with pytest.raises(InputError, match="^tag: expected letters"):
        RunFolder.create(tmp_path, "owl", tag)
    assert list(tmp_path.iterdir()) == []


def test_state_is_updated_in_one_step(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "owl", "sds")
    run.update(status="running", prompt="Käse " * 1000)
    run.update(status="done", seconds=1.5)
    assert run.state() == {"status": "done", "prompt": "Käse " * 1000, "seconds": 1.5}
    assert json.loads((run.path / "run.json").read_text(encoding="utf-8")) == run.state()
    assert sorted(p.name for p in run.path.iterdir() if p.is_file()) == ["run.json"]  # no temporary file stays


def test_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    write_atomically(path, "old")

    def full_disk(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_failed_renaming_leaves_the_old_content_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, b"old")

    def broken(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert os.listdir(tmp_path) == ["a.txt"] and path.read_bytes() == b"old"


def test_damaged_state_is_named(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "owl", "sds")
    (run.path / "run.json").write_text('{"status": "runn')
    with pytest.raises(RunFolderError, match=r"run\.json is missing or damaged"):
        run.state()


def test_log_appends(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "owl", "sds")
    run.log("one")
    run.log("zwei ä")
    lines = (run.path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines] == ["one", "zwei ä"]


def test_find(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "owl", "sds")
    with pytest.raises(RunFolderError):  # no run.json yet
        find("latest", tmp_path)
    run.update(status="done")
    assert find("latest", tmp_path).path == find(str(run.path), tmp_path).path == run.path.resolve()
    (older := run.path.with_name("vsd@20200101-000000")).mkdir()
    (older / "run.json").write_text("{}")
    assert find(str(run.path.parent)).path == run.path.resolve()  # the newest of a prompt


def test_find_nothing() -> None:
    with pytest.raises(RunFolderError) as caught:
        find("outputs/nope")
    assert str(caught.value) == "no run at outputs/nope. Runs here: dream3d runs" and caught.value.exit_code == 4


def test_last_checkpoint(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "owl", "sds")
    with pytest.raises(RunFolderError, match="has no checkpoint yet"):
        run.last_checkpoint()
    (run.ckpts / "step000003.ckpt").write_bytes(b"x")
    (run.ckpts / "last.ckpt").symlink_to("step000003.ckpt")
    assert run.last_checkpoint() == (run.ckpts / "step000003.ckpt").resolve()


def test_list_runs_is_in_order_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_runs(tmp_path) == []
    for stamp, prompt in (("20261121-100000", "zebra"), ("20261121-090000", "owl"), ("20261121-110000", "ant")):
        monkeypatch.setattr(dream3d.runs.time, "strftime", lambda *_, stamp=stamp: stamp)
        RunFolder.create(tmp_path, prompt, "sds").update(prompt=prompt)
    (RunFolder.create(tmp_path, "broken", "sds").path / "run.json").write_text("{")
    assert [state["prompt"] for _, state in list_runs(tmp_path)] == ["owl", "zebra", "ant"]
