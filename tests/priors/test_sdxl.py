"""What only Stable Diffusion XL does: two encoders, a pooled text, sizes, an empty text of zeros."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dream3d.cameras import turntable
from dream3d.priors import SDXL, Opening
from dream3d.prompts import Prompt


@pytest.fixture(scope="module")
def prior(tiny_pipeline: Callable[..., Path]) -> SDXL:
    return SDXL(model=str(tiny_pipeline("StableDiffusionXLPipeline")))


def test_two_encoders_side_by_side(prior: SDXL) -> None:
    told = prior.conditions(Prompt("a bear"), turntable(3, 16))["text"].tensors
    assert told["embedding"].shape == (3, 77, 32) and told["pooled"].shape == (3, 16)


def test_the_empty_text_is_zeros_if_the_folder_says_so(prior: SDXL, tmp_path: Path) -> None:
    null = prior.conditions(Prompt("a bear", negative="blurry"), turntable(1, 16))
    assert not any(bool(tensor.any()) for tensor in null["null"].tensors.values())
    assert all(bool(tensor.any()) for tensor in null["negative"].tensors.values())
    folder = Path(shutil.copytree(prior.model, tmp_path / "copy"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"force_zeros_for_empty_prompt": False}))
    read = SDXL(model=str(folder)).conditions(Prompt("a bear"), turntable(1, 16))
    assert all(bool(tensor.any()) for tensor in read["null"].tensors.values())


def test_the_network_is_told_the_size(prior: SDXL, monkeypatch: pytest.MonkeyPatch) -> None:
    other = SDXL(model=prior.model, opening=Opening(image_size=32))
    for opened, size in ((prior, 16), (other, 32)):
        told: list[torch.Tensor] = []
        network = opened.backbone()
        handle = network.register_forward_hook(
            lambda module, args, settings, out, told=told: told.append(settings["added_cond_kwargs"]["time_ids"]),
            with_kwargs=True,
        )
        on = opened.conditions(Prompt("a bear"), turntable(2, 16))["text"]
        with torch.no_grad():
            opened.denoise(torch.randn(2, 4, size // 2, size // 2), torch.tensor([0.1, 0.9]), on)
        handle.remove()
        assert told[0].tolist() == [[size, size, 0, 0, size, size]] * 2


def test_an_autoencoder_that_bears_float16_may_use_it(prior: SDXL, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(prior.model, tmp_path / "copy"))
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(config | {"force_upcast": False}))
    half = SDXL(model=str(folder), opening=Opening(half=True))
    half.load()
    assert {p.dtype for p in half.parameters()} == {torch.float16}
