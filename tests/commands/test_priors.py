"""The table of priors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dream3d.cli import main
from dream3d.priors.known import KNOWN


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["priors", "--json"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    rows = {row["id"]: row for row in json.loads(last)}
    assert list(rows) == ["builtin", "builtin-mv", "builtin-latent", *KNOWN]
    assert rows["builtin"]["licence"] == "Apache-2.0"
    assert "removed by its owner in Nov 2025" in rows["stabilityai/stable-diffusion-2-1-base"]["here"]
    assert all(row["licence"] and row["here"] for row in rows.values())
    assert "gated" in rows["black-forest-labs/FLUX.1-dev"]["note"]


def test_pipelines_that_open_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["priors"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "StableDiffusionXLPipeline" in last and "IFPipeline" in last


def test_a_built_in_prior_that_is_not_here_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "builtin-mv").mkdir()
    (tmp_path / "builtin-mv" / "card.json").write_text("{}" * 500)
    monkeypatch.setattr("dream3d.commands.priors.WEIGHTS", tmp_path)
    assert main(["priors", "--json"]) == 0
    rows = {row["id"]: row["here"] for row in json.loads(capsys.readouterr().out.splitlines()[-1])}
    assert rows["builtin-mv"] == "in the package, 1.0 kB"
    assert rows["builtin-latent"] == "missing: reinstall dream3d"


def test_a_cached_model_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--CompVis--stable-diffusion-v1-4"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc")
    (model / "snapshots" / "abc").mkdir(parents=True)
    (model / "snapshots" / "abc" / "model_index.json").write_text("{}" * 1000)
    assert main(["priors"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("CompVis/"))
    assert "cached, 2.0 kB" in line
