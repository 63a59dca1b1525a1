"""What only the flow transformers do: T5 that may be missing, packed latents, distilled guidance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dream3d.cameras import turntable
from dream3d.checks import InputError
from dream3d.priors import SD3, Condition, FlowSchedule, Flux, Opening
from dream3d.priors.flow import packed, positions, unpacked
from dream3d.prompts import Prompt

BEAR = Prompt("a bear", negative="blurry")
Tiny = Callable[..., Path]


def told(prior: SD3 | Flux) -> dict[str, Condition]:
    return prior.conditions(BEAR, turntable(2, 16))


def answer(prior: SD3 | Flux) -> Tensor:
    z_t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return prior.denoise(z_t, torch.tensor([0.2, 0.8]), told(prior)["text"])


def test_schedule_is_a_straight_line(tiny_pipeline: Tiny) -> None:
    schedule = SD3(model=str(tiny_pipeline("StableDiffusion3Pipeline"))).schedule
    t = torch.tensor([0.0, 0.3, 1.0])
    assert isinstance(schedule, FlowSchedule)
    assert torch.equal(schedule.alpha(t) + schedule.sigma(t), torch.ones(3, 1, 1, 1))


def test_clip_and_t5_stand_one_after_the_other(tiny_pipeline: Tiny) -> None:
    prior = SD3(model=str(tiny_pipeline("StableDiffusion3Pipeline")), text_tokens=16)
    tensors = told(prior)["text"].tensors
    assert tensors["embedding"].shape == (2, 77 + 16, 40) and tensors["pooled"].shape == (2, 32)
    assert not bool(tensors["embedding"][:, :77, 32:].any()), "CLIP's are padded to the width of T5's"
    assert bool(tensors["embedding"][:, 77:].any())


def test_t5_may_be_missing_or_left_out(tiny_pipeline: Tiny) -> None:
    """The same answers, whether the folder lacks it or the user does not want it; nothing of it is fetched then."""
    whole = str(tiny_pipeline("StableDiffusion3Pipeline"))
    without = SD3(model=whole, t5=False, text_tokens=16)
    lacking = SD3(model=str(tiny_pipeline("StableDiffusion3Pipeline", with_t5=False)), text_tokens=16)
    for prior in (without, lacking):
        tokens = told(prior)["text"].tensors["embedding"]
        assert tokens.shape == (2, 77 + 16, 40) and not bool(tokens[:, 77:].any())
        assert prior._networks is not None and prior._networks.text_encoder_3 is None
    assert torch.equal(answer(without), answer(lacking))
    assert not torch.equal(answer(without), answer(SD3(model=whole, text_tokens=16)))
    assert not any("_3/" in pattern for pattern in without._patterns())
    assert any("text_encoder_3/" in pattern for pattern in lacking._patterns())


def test_packing_is_the_pipelines() -> None:
    from diffusers import FluxPipeline

    z = torch.randn(2, 4, 6, 8)
    assert torch.equal(packed(z), FluxPipeline._pack_latents(z, 2, 4, 6, 8))
    assert torch.equal(unpacked(packed(z), 3, 4), z)
    assert torch.equal(positions(3, 4), FluxPipeline._prepare_latent_image_ids(1, 3, 4, "cpu", torch.float32))


def test_guidance_reaches_the_network(tiny_pipeline: Tiny) -> None:
    folder = str(tiny_pipeline("FluxPipeline"))
    low, high, again = (
        Flux(model=folder, opening=Opening(image_size=16), text_tokens=16, guidance=g) for g in (1.0, 7.0, 7.0)
    )
    assert torch.equal(answer(high), answer(again)) and not torch.allclose(answer(low), answer(high), atol=1e-6)


def test_without_guidance_fewer_words_are_read(tiny_pipeline: Tiny) -> None:
    folder = str(tiny_pipeline("FluxPipeline", guided=False))
    low, high = (Flux(model=folder, opening=Opening(image_size=16), guidance=g) for g in (1.0, 7.0))
    assert told(low)["text"].tensors["embedding"].shape == (2, 256, 16)
    assert torch.equal(answer(low), answer(high))
    assert Flux(model=folder).image_size == 1024


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="Flux: guidance must be 0–100 .got -1"):
        Flux(model="a/b", guidance=-1)
    for cls in (SD3, Flux):
        with pytest.raises(InputError, match="text_tokens must be 1–512 .got 600"):
            cls(model="a/b", text_tokens=600)
