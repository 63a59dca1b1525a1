"""Reading run folders: what is missing, damaged or too large is left out."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from dream3d.checks import RunFolderError
from dream3d.media import write_picture
from dream3d.report import gather as module
from dream3d.report.gather import chosen, gather, picture, read_curves, step_of
from dream3d.runs import RunFolder


def test_a_repeated_step_counts_once_and_stages_follow_one_another(run: RunFolder) -> None:
    curves = read_curves(run.path / "metrics.csv")
    assert curves.stage == ["coarse", "coarse", "fine"] and curves.step == [10, 20, 30]
    assert curves.series["loss"] == [4.5, None, 1.5]


def test_long_curves_are_thinned_evenly(run: RunFolder) -> None:
    lines = ["stage,step,loss", *(f"nerf,{i},{i * 0.5}" for i in range(1, 5001))]
    (run.path / "metrics.csv").write_text("\n".join(lines))
    curves = read_curves(run.path / "metrics.csv")
    assert len(curves.step) == module.POINTS and curves.step[0] == 1 and curves.step[-1] == 5000
    assert curves.series["loss"] == [0.5 * step for step in curves.step]
    assert {b - a for a, b in zip(curves.step, curves.step[1:], strict=False)} <= {3, 4}


def test_first_and_last_are_always_chosen() -> None:
    assert chosen([1, 2, 3], 3) == [1, 2, 3] and chosen(range(100), 4) == [0, 33, 66, 99]
    assert step_of(module.Path("step000120.jpg")) == 120 and step_of(module.Path("stepx.jpg")) == 0


def test_large_pictures_become_small_ones(run: RunFolder) -> None:
    path = run.final / "front.png"
    own = base64.b64decode(picture(path).partition(",")[2])
    assert own == path.read_bytes()
    write_picture(path, np.zeros((600, 1200, 3), np.uint8))
    uri = picture(path)
    assert uri.startswith("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        assert image.size == (512, 256)


def test_what_is_not_a_picture_is_left_out(run: RunFolder) -> None:
    (run.final / "front.png").write_bytes(b"<svg onload=alert(1)>")
    (run.export / "textures" / "orm.png").write_bytes(b"")
    (run.export / "check.json").write_text("[1, 2")
    (run.path / "evaluation.json").write_text("[]")
    run.config.write_text("a: [")
    found = gather(run)
    assert set(found.views) == {"left", "back", "right"} and set(found.maps) == {"basecolor"}
    assert found.checks == {} and found.judged == {} and found.stages == {}
    assert found.left_out and found.left_out[0].startswith("config.yaml: not YAML")


def test_what_is_too_large_is_said(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 100)
    found = gather(run)
    assert found.asset == "" and found.turntable == ""
    assert [line.partition(" ")[0] for line in found.left_out] == ["turntable.mp4", "chair.glb"]


def test_priors_of_older_runs_are_in_the_asset(run: RunFolder) -> None:
    run.update(priors=None)
    assert gather(run).priors == []
    run.update(priors=[{"name": "x", "licence": "y", "more": 1}])
    assert gather(run).priors == [{"name": "x", "licence": "y"}]


def test_a_validators_report_is_found(run: RunFolder) -> None:
    report = {"issues": {"numErrors": 0, "numWarnings": 1, "messages": []}}
    (run.export / "chair.validator.json").write_text(json.dumps(report))
    assert gather(run).validator == report


def test_no_state_is_an_error(run: RunFolder) -> None:
    (run.path / "run.json").write_text("{")
    with pytest.raises(RunFolderError, match="missing or damaged"):
        gather(run)
