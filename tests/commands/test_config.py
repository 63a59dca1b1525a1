"""Showing and checking recipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dream3d.cli import main
from dream3d.recipes import recipes


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_show_keeps_the_comments_and_validates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = said(capsys, "config", "show")
    assert code == 0 and "# what to make" in text
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert said(capsys, "config", "validate", str(file)) == (0, f"{file} is a valid configuration\n", "")


def test_full_has_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = said(capsys, "config", "show", "default", "--full", "--stages.nerf.batch", "8", "--set", "seed=5")
    tree = yaml.safe_load(text)
    assert code == 0 and tree["seed"] == 5 and tree["stages"]["nerf"]["batch"] == 8
    assert tree["stages"]["nerf"]["objective"]["init_args"]["guider"]["init_args"]["towards"] == "text"


def test_list_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = said(capsys, "config", "list", "--json")
    *lines, last = text.splitlines()
    about = json.loads(last)
    assert code == 0 and [line.split()[0] for line in lines] == list(about) == recipes()
    assert about["luciddreamer"].startswith("ISM (") and lines[0].endswith(about["apg"])


def test_show_is_as_written_and_full_is_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\nextends: default " in said(capsys, "config", "show", "luciddreamer")[1]
    tree = yaml.safe_load(said(capsys, "config", "show", "luciddreamer", "--full")[1])
    assert "extends" not in tree and tree["stages"]["nerf"]["representation"]["class_path"] == "Field"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prompt: x\nsede: 1\n", "bad.yaml: unknown key sede (line 2). Did you mean seed?"),
        ("prompt: [\n", "bad.yaml: not YAML (line 2)"),
        ("- 1\n", "bad.yaml: expected keys such as prompt and stages, got list."),
    ],
)
def test_what_is_wrong_is_one_line(text: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    code, _, error = said(capsys, "config", "validate", str(file))
    assert code == 2 and error.startswith(f"error: {line}") and len(error.splitlines()) == 1


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "config", "validate")[::2] == (
        2,
        "error: config validate needs RECIPE, a YAML file. See: dream3d config --help\n",
    )
    assert said(capsys, "config", "show", "nope.yaml")[::2] == (2, "error: config: no file nope.yaml.\n")
    assert said(capsys, "config", "show", "defalt")[2].startswith("error: recipe: 'defalt' is not one of ")
