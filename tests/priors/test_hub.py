"""Every way in which the hub may answer, without a hub."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from dream3d.checks import MissingError
from dream3d.priors.hub import obtain, opener


def ask(check=lambda folder: None) -> Path:
    return obtain("owner/name", revision=None, files=["model_index.json"], check=check)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment allows the hub, and the hub answers the probe with a status that does not matter."""
    monkeypatch.delenv("HF_HUB_OFFLINE")

    def answer(request: urllib.request.Request, timeout: float) -> None:
        raise urllib.error.HTTPError(request.full_url, 403, "no", {}, None)  # type: ignore[arg-type]

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    return monkeypatch


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def download(*args: object, **kwargs: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


def raised(kind: type[Exception]) -> Exception:
    """An error of the client without the HTTP response it is made from, whose class changes between versions."""
    return kind.__new__(kind, "x")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (raised(errors.GatedRepoError), "needs you to accept its terms .* hf auth login$"),
        (raised(errors.RepositoryNotFoundError), "not found: the hub has no such id"),
        (raised(errors.RevisionNotFoundError), "has no revision"),
        (OSError("no space left on device"), r"download failed \(no space left on device\)"),
        (errors.LocalEntryNotFoundError("connection\nlost"), r"download failed \(connection\)"),
    ],
)
def test_every_refusal_is_one_line(online: pytest.MonkeyPatch, error: Exception, line: str) -> None:
    refuse(online, error)
    with pytest.raises(MissingError, match=line) as caught:
        ask()
    assert "\n" not in str(caught.value) and caught.value.exit_code == 3


def test_a_silent_hub_is_named_at_once(online: pytest.MonkeyPatch) -> None:
    online.setattr(urllib.request, "urlopen", urllib_urlopen)
    online.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    start = time.perf_counter()
    with pytest.raises(MissingError, match=r"http://127.0.0.1:9 does not answer \(.*refused\)"):
        ask()
    assert time.perf_counter() - start < 2


urllib_urlopen = urllib.request.urlopen


def test_a_download_is_checked_and_returned(online: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = {}

    def download(model: str, **settings: object) -> str:
        asked.update(settings, model=model)
        return str(tmp_path)

    online.setattr(huggingface_hub, "snapshot_download", download)
    checked: list[Path] = []
    assert ask(checked.append) == tmp_path == checked[0]
    assert asked == {"model": "owner/name", "revision": None, "allow_patterns": ["model_index.json"]}


def test_an_incomplete_cache_is_completed_online(online: pytest.MonkeyPatch, tmp_path: Path) -> None:
    online.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("c0ffee")

    def check(folder: Path) -> None:
        if not (folder / "model_index.json").exists():
            raise MissingError("incomplete")

    def download(model: str, **settings: object) -> str:
        (snapshot / "model_index.json").write_text("{}")
        return str(snapshot)

    online.setattr(huggingface_hub, "snapshot_download", download)
    assert ask(check) == snapshot


def test_offline_set_after_import_is_respected(online: pytest.MonkeyPatch) -> None:
    online.setenv("HF_HUB_OFFLINE", "yes")
    refuse(online, AssertionError("the hub was asked"))
    with pytest.raises(MissingError, match="HF_HUB_OFFLINE=1 and it is not in the cache"):
        ask()


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    checkpoint = tmp_path / "v1-5.safetensors"
    checkpoint.touch()
    with pytest.raises(MissingError, match="is a file; expected the folder"):
        obtain(str(checkpoint), revision=None, files=[], check=lambda folder: None)


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [("StableDiffusionPipeline", "StableDiffusion"), ("FluxPipeline", "Flux"), ("IFPipeline", "DeepFloyd")],
)
def test_a_folder_says_what_opens_it(tiny_pipeline, pipeline: str, name: str) -> None:
    assert opener(str(tiny_pipeline(pipeline))) == name


def test_an_id_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache, then among the known ones; else it is taken for a Stable Diffusion, whose error says what it is."""
    assert opener("stabilityai/stable-diffusion-xl-base-1.0") == "SDXL"
    assert opener("owner/name") == opener(str(tmp_path)) == opener("nowhere") == "StableDiffusion"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("c0ffee")
    (snapshot / "model_index.json").write_text('{"_class_name": "PixArtSigmaPipeline"}')
    assert opener("owner/name") == "PixArt"
    (snapshot / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    assert opener("owner/name") == "StableDiffusion"
