"""Files that hold a run's state: the same content is the same bytes, and damage is seen."""

from __future__ import annotations

import io
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from dream3d.checkpoints import KEEP, newest, read, stored, thin, write
from dream3d.checks import RunFolderError
from dream3d.runs import RunFolder


def content(step: int = 3) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    table = torch.rand(40, 2, generator=generator)
    state = {0: {"step": torch.tensor(float(step)), "exp_avg": table * 0.1}}
    groups = [{"lr": 0.01, "betas": (0.9, 0.99), "params": [0]}]
    optimizer = {"state": state, "param_groups": groups}
    return {"stage": "nerf", "step": step, "representation": {"table": table}, "optimizer": optimizer}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "step000003.ckpt", content())
    saved = read(tmp_path / "step000003.ckpt")
    assert saved["stage"] == "nerf" and saved["step"] == 3
    assert torch.equal(saved["representation"]["table"], content()["representation"]["table"])
    assert saved["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.99)
    assert [path.name for path in tmp_path.iterdir()] == ["step000003.ckpt"]  # no temporary file stays


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    one, two, three = (tmp_path / f"step00000{n}.ckpt" for n in (1, 2, 3))
    write(one, content())
    write(two, read(one))  # whose texts and tuples are other objects
    write(three, content(4))
    assert one.read_bytes() == two.read_bytes() != three.read_bytes()


def test_every_cut_and_nearly_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "step000003.ckpt"
    write(path, content())
    good = path.read_bytes()
    draw = random.Random(0)
    for _ in range(30):
        path.write_bytes(good[: draw.randrange(len(good))])
        with pytest.raises(RunFolderError, match=r"step000003\.ckpt is damaged \("):
            read(path)
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        whole = [(entry.header_offset + 30 + len(entry.filename), entry.file_size) for entry in archive.infolist()]
    assert sum(size for _, size in whole) > len(good) // 8
    wanted = read_bytes(good, tmp_path)
    for _ in range(60):
        flipped = bytearray(good)
        flipped[draw.randrange(len(good))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            assert same(read(path), wanted)  # in what pads the file
        except RunFolderError as error:
            assert "step000003.ckpt is" in str(error)


def read_bytes(data: bytes, folder: Path) -> dict[str, Any]:
    path = folder / "step000099.ckpt"
    path.write_bytes(data)
    return read(path)


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "step000001.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    with pytest.raises(RunFolderError, match="larger inside than outside"):
        read(path)


@pytest.mark.parametrize("value", [[1, 2], {"stage": "nerf"}, {**content(), "step": "3"}])
def test_something_else_is_not_a_checkpoint(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "step000001.ckpt"
    torch.save(value, path)
    with pytest.raises(RunFolderError, match="is not a checkpoint of a run"):
        read(path)


class Full:
    """A disk on which there is room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return len(data)


@pytest.mark.parametrize("room", [0, 100, 1000])
def test_a_full_disk_leaves_the_checkpoint_before(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step000003.ckpt"
    write(path, content())
    before, save, full = path.read_bytes(), torch.save, Full(room)
    import dream3d.checkpoints

    plain = dream3d.checkpoints._Sink.__init__
    monkeypatch.setattr(dream3d.checkpoints._Sink, "__init__", lambda self, file: plain(self, full))  # type: ignore[arg-type]
    with pytest.raises(OSError, match="No space left"):
        write(path, content(4))
    assert torch.save is save and path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_newest_whole_one(tmp_path: Path) -> None:
    run, told = RunFolder.create(tmp_path, "owl", "sds"), []
    with pytest.raises(RunFolderError, match="has no checkpoint yet"):
        newest(run, told.append)
    for step in (2, 10, 1_000_000):
        write(run.ckpts / f"step{step:06d}.ckpt", content(step))
    assert newest(run, told.append)[1]["step"] == 1_000_000 and not told
    os.truncate(run.ckpts / "step1000000.ckpt", 500)
    path, saved = newest(run, told.append)
    assert path.name == "step000010.ckpt" and saved["step"] == 10
    assert told == ["step1000000.ckpt is damaged (unexpected end); step000010.ckpt is used instead."]
    for path in stored(run.ckpts):
        path.write_bytes(b"")
    with pytest.raises(RunFolderError, match=r"no checkpoint of .* is whole: step1000000\.ckpt .* step000002\.ckpt"):
        newest(run, told.append)


def test_thinning_spares_the_newest_and_the_ends(tmp_path: Path) -> None:
    for step in (100, 200, 300, 400, 500):
        (tmp_path / f"step{step:06d}.ckpt").touch()
    (tmp_path / "step000050.ckpt.bak").touch()
    thin(tmp_path, ends={100})
    assert KEEP == 2 and [path.name for path in stored(tmp_path)] == [
        "step000100.ckpt",
        "step000400.ckpt",
        "step000500.ckpt",
    ]
