"""Exporting a finished run again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import trimesh

from dream3d.cli import main


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "a-red-owl" / finished.name, symlinks=True))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_other_settings_beside_the_first_asset(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "export" / "a-red-owl.glb").read_bytes()
    words = ["export", str(run), "--faces", "100", "--format", "glb,obj", "--size", "0.5", "--ground", "--json"]
    code, out, _ = said(capsys, *words)
    assert code == 0
    files = [Path(file) for file in json.loads(out.splitlines()[-1])["files"]]
    assert {"a-red-owl.glb", "a-red-owl.obj"} <= {file.name for file in files}
    assert {file.relative_to(run).parts[0] for file in files} == {"export-2"}
    mesh = trimesh.load(run / "export-2" / "a-red-owl.glb", force="mesh", process=False)
    assert len(mesh.faces) <= 110
    assert abs(max(mesh.extents) - 0.5) < 1e-4 and abs(mesh.bounds[0][1]) < 1e-4
    assert (run / "export" / "a-red-owl.glb").read_bytes() == before
    assert "exported again: export-2/a-red-owl.glb" in (run / "log.txt").read_text()


def test_what_it_said_and_warned_of_is_in_the_log(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dream3d.unwrapping.MOST_FACES", 10)
    assert said(capsys, "export", str(run), "--format", "usd,ply", "--texture-size", "64", "--occlusion")[0] == 0
    log, warned = (run / "log.txt").read_text(), json.loads((run / "run.json").read_text())["warnings"][-1]
    assert "UV atlas of" in log and f"warning: {warned}" in log
    assert warned.startswith("UV atlas: ") and "more than xatlas is given; using a box projection" in warned
    assert {"a-red-owl.usdz", "a-red-owl.ply"} <= {path.name for path in (run / "export-2").iterdir()}


def test_the_same_settings_give_the_same_bytes(run: Path) -> None:
    assert main(["export", str(run), "--quiet"]) == 0
    assert (run / "export-2" / "a-red-owl.glb").read_bytes() == (run / "export" / "a-red-owl.glb").read_bytes()


def test_overwrite_replaces(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "export" / "a-red-owl.glb").read_bytes()
    assert said(capsys, "export", str(run), "--faces", "100", "--overwrite")[0] == 0
    assert (run / "export" / "a-red-owl.glb").read_bytes() != before
    assert not (run / "export-2").exists()


def test_no_surface(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = said(capsys, "export", str(run), "--iso", "1000000")
    assert code == 1 and error.startswith("error: no surface at iso 1e+06: density never exceeds ")
    assert not (run / "export-2").exists()


def test_what_cannot_be_opened(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = said(capsys, "export", "outputs/nope")
    assert (code, error) == (4, "error: no run at outputs/nope. Runs here: dream3d runs\n")

    last = (run / "ckpts" / "last.ckpt").resolve()
    last.write_bytes(last.read_bytes()[:1000])
    code, _, error = said(capsys, "export", str(run))
    assert code == 4 and error.endswith(f" is whole: {last.name} is damaged (unexpected end).\n")
    assert len(error.splitlines()) == 1

    last.unlink()
    code, _, error = said(capsys, "export", str(run))
    assert code == 4 and "has no checkpoint" in error

    (run / "config.yaml").write_text("promt: an owl\n")
    code, _, error = said(capsys, "export", str(run))
    assert code == 4 and "config.yaml: unknown key promt (line 1). Did you mean prompt?" in error

    (run / "config.yaml").unlink()
    code, _, error = said(capsys, "export", str(run))
    assert code == 4 and "config.yaml is missing" in error


def test_formats_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "export", "latest", "--format", "glb,objj")[::2] == (
        2,
        "error: --format: 'objj' is not one of glb, obj, usd, png, ply, compressed-ply, splat, spz, splat-glb. "
        "Did you mean 'obj'?\n",
    )
    assert said(capsys, "export", "latest", "--splat-axes", "opencb")[::2] == (
        2,
        "error: --splat-axes: 'opencb' is not one of opengl, opencv. Did you mean 'opencv'?\n",
    )
