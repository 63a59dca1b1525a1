"""The door: what is wrong is said in one line, with the right exit code, before anything heavy loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dream3d import __version__
from dream3d.checks import MissingError, RunError, RunFolderError
from dream3d.cli import COMMANDS, main
from dream3d.commands import base
from dream3d.commands.generate import METHODS

HEAVY = ("torch", "diffusers", "transformers", "pytorch_lightning", "numpy", "trimesh", "jsonargparse", "skimage")

PROBE = """
import json, sys, time
begin = time.perf_counter()
from dream3d.cli import main
code = main({words!r})
seconds = time.perf_counter() - begin
heavy = [name for name in {heavy!r} if name in sys.modules]
sys.stderr.write("\\n" + json.dumps([code, seconds, heavy]))
"""


def light(words: list[str], folder: Path) -> tuple[int, float, list[str], str]:
    """Run a command line in a fresh interpreter: exit code, seconds, heavy modules that it loaded, output."""
    probe = PROBE.format(words=words, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", probe], cwd=folder, capture_output=True, text=True, check=True)
    code, seconds, heavy = json.loads(done.stderr.splitlines()[-1])
    return code, seconds, heavy, done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["generat", "x"], 2),
        (["generate", ""], 2),
        (["generate", "x", "--guidance", "sdz"], 2),
        (["generate", "x", "--steps", "0"], 2),
        (["generate", "--help"], 0),
        (["runs", "list"], 0),
        (["export", "outputs/nope"], 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nothing_heavy_is_imported(words: list[str], expected: int, tmp_path: Path) -> None:
    code, seconds, heavy, _ = light(words, tmp_path)
    assert code == expected
    assert heavy == []
    assert seconds < 0.5
    assert list(tmp_path.iterdir()) == []


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code and the whole of standard error."""
    code = main(words)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["generat", "x"], "no command 'generat'. Did you mean 'generate'? See: dream3d --help"),
        (["zzz"], "no command 'zzz'. See: dream3d --help"),
        (["--quiet", "runs"], "no flag '--quiet' here: the command comes first. See: dream3d --help"),
        (["generate", ""], "the prompt is empty."),
        (["generate", "  "], "the prompt is empty."),
        (["generate"], 'generate needs a prompt: dream3d generate "a teddy bear"'),
        (
            ["generate", "x", "--guidance", "sdz"],
            f"--guidance: 'sdz' is not one of {', '.join(METHODS)}. Did you mean 'sds'?",
        ),
        (
            ["generate", "x", "--quality", "drat"],
            "--quality: 'drat' is not one of standard, draft. Did you mean 'draft'?",
        ),
        (["generate", "x", "--steps", "0"], "--steps must be 1 or more (got 0)."),
        (["generate", "x", "--steps", "many"], "--steps must be a whole number (got 'many')."),
        (["generate", "x", "--texture-size", "1000000"], "--texture-size must be 64–8192 (got 1000000)."),
        (["generate", "x", "--size", "-1"], "--size must be 0.001–1000 (got -1)."),
        (["generate", "x", "--iso", "0"], "--iso must be more than 0, or auto (got 0)."),
        (
            ["generate", "x", "--step", "3"],
            "generate has no flag '--step'. Did you mean '--steps'? See: dream3d generate --help",
        ),
        (
            ["generate", "a", "teddy", "bear"],
            "unexpected 'teddy'. Put a text of several words into quotes. See: dream3d generate --help",
        ),
        (["generate", "x", "--seed"], "--seed: expected one argument. See: dream3d generate --help"),
        (
            ["generate", "x", "--device", "gpu"],
            "--device: 'gpu' is not one of auto, cpu, cuda, cuda:0. Did you mean 'cuda'?",
        ),
        (["generate", "x", "--stages.coarse.steps"], "--stages.coarse.steps needs a value."),
        (["generate", "x", "--set", "3"], "--set needs KEY=VALUE, such as stages.coarse.steps=300 (got '3')."),
        (
            ["generate", "x", "--config", "nope.yaml"],
            "--config: no file nope.yaml. Recipes by name: dream3d config list",
        ),
        (["export"], "export needs RUN. See: dream3d export --help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, *words) == (2, f"error: {line}\n")


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for name, about in COMMANDS.items():
        assert name in overview and about in overview
        assert main([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: dream3d {name}")
        assert "--json" in text and "--verbose" in text and "example: dream3d" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dream3d {__version__}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(RunError("r"), 1), (MissingError("r"), 3), (RunFolderError("r"), 4), (KeyboardInterrupt(), 130)],
)
def test_exit_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(args: object) -> int:
        raise error

    monkeypatch.setattr("dream3d.commands.runs.run", broken)
    assert main(["runs"]) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["interrupted." if code == 130 else "error: r"]


def test_an_unforeseen_error_is_one_line_and_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(args: object) -> int:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr("dream3d.commands.runs.run", broken)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert main(["runs"]) == 1
    log = tmp_path / ".cache" / "dream3d" / "last-error.txt"
    line = f"error: ZeroDivisionError: first second (a fault in dream3d; details: {log})\n"
    assert capsys.readouterr().err == line
    assert "Traceback" in log.read_text()
    assert main(["runs", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    assert said(capsys, "generate", "x", "--device", "cuda") == (
        3,
        f"error: --device cuda: this torch ({torch.__version__}) has no CUDA. "
        "Use --device cpu, or install a CUDA build of torch; details: dream3d doctor\n",
    )


def test_dotted_flags_become_overrides() -> None:
    parser = base.Parser("x", "about")
    parser.add_argument("prompt")
    parser.add_argument("--set", type=base.assignment, action="append")
    words = ["--stages.coarse.steps", "300", "an owl", "--export.faces=5", "--set", "seed=3"]
    args = parser.parse(words)
    assert args.prompt == "an owl"
    assert args.overrides == ["seed=3", "stages.coarse.steps=300", "export.faces=5"]


def test_a_prompt_after_two_dashes_may_look_like_a_flag() -> None:
    assert base.split_dotted(["--a.b", "1", "--", "--c.d"]) == (["--", "--c.d"], ["a.b=1"])


def test_table_and_sizes() -> None:
    assert base.table([("a", "bb", "c"), ("aaa", "b", "")]) == ["a    bb  c", "aaa  b"]
    assert [base.size_of(n) for n in (12, 1234, 56_700_000, 3.4e13)] == ["12 B", "1.2 kB", "56.7 MB", "34.0 TB"]
