"""What only DeepFloyd IF does: pixels instead of latents, and texts in lower case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dream3d.cameras import turntable
from dream3d.priors import DeepFloyd
from dream3d.prompts import Prompt


@pytest.fixture(scope="module")
def prior(tiny_pipeline: Callable[..., Path]) -> DeepFloyd:
    return DeepFloyd(model=str(tiny_pipeline("IFPipeline")))


def test_latents_are_pixels(prior: DeepFloyd) -> None:
    images = torch.rand(2, 3, 8, 8)
    z = prior.encode(images)
    assert prior.image_size == 8 and torch.equal(z, 2 * images - 1)
    assert torch.allclose(prior.decode(z), images, atol=1e-6)
    assert prior.encode(torch.rand(1, 3, 20, 30)).shape == (1, 3, 8, 8)


def test_variance_is_no_noise(prior: DeepFloyd) -> None:
    """Six channels come out; the first three are the noise."""
    on, z_t = prior.conditions(Prompt("a bear"), turntable(1, 8))["text"], torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        out = prior.backbone()(z_t, 500, encoder_hidden_states=on.tensors["embedding"]).sample
        eps = prior.denoise(z_t, torch.tensor([0.5]), on)
    assert out.shape == (1, 6, 8, 8) and torch.equal(eps, out[:, :3])


def test_letters_are_small(prior: DeepFloyd) -> None:
    views = turntable(4, 8)
    shouted, said = (prior.conditions(Prompt(text), views)["plain"] for text in (" A BEAR ", "a bear"))
    assert torch.equal(shouted.tensors["embedding"], said.tensors["embedding"])
    assert said.tensors["embedding"].shape == (4, 77, 16)


def test_a_cut_prompt_is_said(prior: DeepFloyd) -> None:
    with pytest.warns(UserWarning, match="text encoder reads 77"):
        prior.conditions(Prompt("bear " * 40), turntable(1, 8))
