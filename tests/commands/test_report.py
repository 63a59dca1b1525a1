"""`dream3d report` and `dream3d compare` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dream3d.cli import main
from tests.report.conftest import make


@pytest.fixture(scope="module")
def chairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs."""
    out = tmp_path_factory.mktemp("pages") / "outputs"
    for scale in (7.5, 100.0):
        make(out, prompt="a red chair", scale=scale)
    return out


def test_the_report_of_the_latest(chairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "latest", "--out", str(chairs), "--json"]) == 0
    line, told = capsys.readouterr().out.splitlines()
    path = (chairs / "latest").resolve() / "report.html"
    assert json.loads(told) == {"reports": [str(path)]}
    assert line.startswith(f"{path} (") and path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_comparison_goes_where_it_is_told(chairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(path.parent) for path in sorted(chairs.glob("*/*@*/run.json"))]
    assert main(["compare", *runs, "--out", str(chairs), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    default = (chairs / "compare.html").read_bytes()
    assert main(["compare", *runs, "--page", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").read_bytes() == default


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["report", "nowhere"], 4, "error: no run at nowhere. Runs here: dream3d runs"),
        (["report"], 2, "error: report needs RUN. See: dream3d report --help"),
        (["compare", "one"], 2, "error: compare needs two or more runs (got 1). See: dream3d compare --help"),
        (["compare", "one", "two"], 4, "error: no run at one. Runs here: dream3d runs"),
    ],
)
def test_wrong_usage(words: list[str], code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    assert capsys.readouterr().err == f"{line}\n"
