"""The table of known ids and the look into the cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dream3d.priors
from dream3d.priors.known import KNOWN, OPENS, cache_folder, cached, offline


def test_rows_are_complete() -> None:
    for model, row in KNOWN.items():
        assert model == row.model and model.count("/") == 1
        assert row.title and row.licence and row.resolution in (64, 256, 512, 768, 1024)
        assert (row.state == "removed") == bool(row.removed) == bool(row.instead)
        if row.instead in KNOWN:
            assert KNOWN[row.instead].state == "ready"
            assert (KNOWN[row.instead].title, KNOWN[row.instead].resolution) == (row.title, row.resolution)


def test_what_opens_them_is_a_prior() -> None:
    for name in (*OPENS.values(), *(row.opens for row in KNOWN.values() if row.state != "later")):
        assert issubclass(getattr(dream3d.priors, name), dream3d.priors.Prior)
        assert name in OPENS.values()


def test_table_is_frozen() -> None:
    with pytest.raises(TypeError):
        KNOWN["a/b"] = next(iter(KNOWN.values()))  # type: ignore[index]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/b"}, "/b"),
        ({"HF_HOME": "/c"}, "/c/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
        ({"HOME": "/e"}, "/e/.cache/huggingface/hub"),
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/c"}, "/a"),
    ],
)
def test_cache_folder_is_where_the_hub_client_looks(monkeypatch, variables: dict[str, str], expected: str) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)
    # The client reads its environment at import, so a fresh process is asked.
    code = "from huggingface_hub.constants import HF_HUB_CACHE as c; print(c)"
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Path(theirs.stdout.strip()) == Path(expected)


def test_cached_reads_references_and_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert cached("owner/name") is None
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--owner--name" / "refs").mkdir()
    assert cached("owner/name") is None
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("c0ffee\n")
    assert cached("owner/name") == cached("owner/name", "c0ffee") == snapshot
    assert cached("owner/name", "fp16") is None
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("")
    assert cached("owner/name") is None


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_offline_reads_the_environment(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    assert offline() is expected
