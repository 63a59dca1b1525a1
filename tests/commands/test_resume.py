"""Going on with runs from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dream3d.cli import main


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_limited_run_goes_on(small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*small[:-1], str(tmp_path)]
    code, out, _ = said(capsys, "generate", "a red owl", "--max-minutes", "0", *words)
    run = (tmp_path / "latest").resolve()
    assert code == 0 and f"go on with: dream3d resume {run}" in out.splitlines()[-1]
    assert json.loads((run / "run.json").read_text())["status"] == "stopped"
    resume = ["resume", "latest", "--out", str(tmp_path), "--json"]
    code, out, _ = said(capsys, *resume, "--max-minutes", "9", "--steps", "3")
    told, state = json.loads(out.splitlines()[-1]), json.loads((run / "run.json").read_text())
    assert code == 0 and told["run"] == str(run) and any(file.endswith("a-red-owl.glb") for file in told["files"])
    assert "going on after step 1 of stage nerf" in out and state["status"] == "done" and state["steps"] == {"nerf": 3}
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["max_minutes"] == 9 and settings["stages"]["nerf"]["steps"] == 3 and settings["device"] == "cpu"
    code, out, _ = said(capsys, *resume)
    assert code == 0 and f"{run} is done; --steps goes on for longer" in out


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["outputs/nope"], 4, "no run at outputs/nope. Runs here: dream3d runs"),
        ([], 2, "resume needs RUN. See: dream3d resume --help"),
        (["latest", "--steps", "0"], 2, "--steps must be 1 or more (got 0)."),
        (["latest", "--max-minutes", "-1"], 2, "--max-minutes must be 0 or more (got -1)."),
    ],
    ids=["nothing", "which", "steps", "minutes"],
)
def test_what_is_wrong_is_one_line(words: list[str], code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "resume", *words) == (code, "", f"error: {line}\n")
