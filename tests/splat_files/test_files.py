import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dream3d.checks import InputError
from dream3d.splat_files import read_splats, write_splats
from dream3d.splat_files.files import ENDINGS

READ_BACK = [ending for ending in ENDINGS if ending != ".glb"]


@pytest.mark.parametrize("ending", READ_BACK)
def test_the_content_and_not_the_name_decides(make, tmp_path, ending):
    splats = make(30, 1)
    write_splats(splats, tmp_path / f"a{ending}")
    read = read_splats(tmp_path / f"a{ending}")
    assert len(read) == 30 and read.means.dtype == torch.float32
    torch.testing.assert_close(read.means.mean(0), splats.means.mean(0), rtol=0, atol=1e-3)
    if ending != ".splat":
        (tmp_path / f"a{ending}").rename(tmp_path / "b.data")
        assert torch.equal(read_splats(tmp_path / "b.data").means, read.means)


@pytest.mark.parametrize("ending", ENDINGS)
def test_half_precision_and_views_are_written_too(make, tmp_path, ending):
    """What training holds: parameters with gradients, transposed views, float64."""
    splats = make(40, 2)
    kept = type(splats)(
        splats.means.T.contiguous().T.requires_grad_(),
        splats.quaternions.double(),
        splats.scales.T.contiguous().T,
        splats.opacities,
        splats.sh.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    )
    write_splats(splats, tmp_path / f"a{ending}")
    write_splats(kept, tmp_path / f"b{ending}")
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_same_splats_same_bytes_in_another_process(make, tmp_path):
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2]); from dream3d.splat_files import *\n"
        "splats = read_splats(pathlib.Path(sys.argv[1]) / 'seed.ply')\n"
        f"for ending in {ENDINGS!r}: write_splats(splats, pathlib.Path(sys.argv[1]) / 'b' / f'x{{ending}}')"
    )
    write_splats(make(100), tmp_path / "seed.ply")
    splats = read_splats(tmp_path / "seed.ply")
    for ending in ENDINGS:
        write_splats(splats, tmp_path / "a" / f"x{ending}")
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    root = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", code, str(tmp_path), root], check=True, env=environment)
    digests = [
        {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / side).iterdir()} for side in "ab"
    ]
    assert digests[0] == digests[1] and len(digests[0]) == len(ENDINGS)


def test_a_failed_write_leaves_the_old_file_and_no_rest(make, tmp_path, monkeypatch):
    write_splats(make(3, 0), tmp_path / "a.ply")
    old = (tmp_path / "a.ply").read_bytes()

    def broken(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_splats(make(4, 0), tmp_path / "a.ply")
    assert os.listdir(tmp_path) == ["a.ply"] and (tmp_path / "a.ply").read_bytes() == old


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_not_written(make, tmp_path, ending):
    with pytest.raises(InputError, match=f"^a{ending}: expected at least one Gaussian, got none".replace(".", r"\.")):
        write_splats(make(0), tmp_path / f"a{ending}")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_or_written(make, tmp_path):
    (tmp_path / "a.glb").write_bytes(b"glTF" + bytes(100))
    for path, message in (
        (tmp_path / "none.ply", r"none\.ply: cannot be read \(No such file or directory\)\.$"),
        (tmp_path, r"cannot be read \(Is a directory\)\.$"),
        (tmp_path / "a.glb", r"^a\.glb: expected a splat file \(\.ply, \.spz or \.splat\), got something else\.$"),
    ):
        with pytest.raises(InputError, match=message):
            read_splats(path)
    with pytest.raises(InputError, match=r"^a\.obj: expected a name that ends in one of \.compressed\.ply, \.ply"):
        write_splats(make(1), tmp_path / "a.obj")
    with pytest.raises(InputError, match="^axes: 'opengk' is not one of opengl, opencv"):
        write_splats(make(1), tmp_path / "a.ply", axes="opengk")
    with pytest.raises(InputError, match="^axes: 'up' is not one of opengl, opencv"):
        read_splats(tmp_path / "a.glb", axes="up")
