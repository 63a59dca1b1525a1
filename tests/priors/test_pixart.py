"""What only PixArt does: a mask over the words, shapes, two generations."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dream3d.cameras import orbit, turntable
from dream3d.priors import Opening, PixArt
from dream3d.prompts import Prompt

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def prior(tiny_pipeline: Tiny) -> PixArt:
    return PixArt(model=str(tiny_pipeline("PixArtAlphaPipeline")), opening=Opening(image_size=16))


def test_padding_is_hidden_from_the_network(prior: PixArt) -> None:
    on = prior.conditions(Prompt("a bear"), turntable(2, 16))
    assert on["null"].tensors["mask"].sum(1).tolist() == [1, 1], "the end of the text"
    assert on["plain"].tensors["mask"].sum(1).tolist() == [len("_a_bear") + 1] * 2
    z_t, t = torch.randn(2, 4, 8, 8), torch.tensor([0.3, 0.6])
    changed = on["plain"].tensors["embedding"].clone()
    changed[:, 20:] = 7.0
    other = type(on["plain"])({**on["plain"].tensors, "embedding": changed})
    with torch.no_grad():
        assert torch.equal(prior.denoise(z_t, t, on["plain"]), prior.denoise(z_t, t, other))


def test_between_views_every_word_is_seen(prior: PixArt) -> None:
    angles = torch.tensor([0.0, math.pi / 4, math.pi / 2])
    one = torch.ones(3)
    mask = prior.conditions(Prompt("a bear"), orbit(angles, 0 * one, 2 * one, one, 16, 16))["text"].tensors["mask"]
    assert mask.dtype == torch.bool
    assert torch.equal(mask[1], mask[0] | mask[2]) and int(mask[0].sum()) > int(mask[2].sum())


def test_shapes_are_told_where_they_were_learned(prior: PixArt, tiny_pipeline: Tiny) -> None:
    sigma = PixArt(model=str(tiny_pipeline("PixArtSigmaPipeline", shapes=False)), opening=Opening(image_size=16))
    for opened, told in ((prior, True), (sigma, False)):
        calls: list[dict] = []
        handle = opened.backbone().register_forward_hook(
            lambda module, args, settings, out, calls=calls: calls.append(settings["added_cond_kwargs"]),
            with_kwargs=True,
        )
        on = opened.conditions(Prompt("a bear"), turntable(1, 16))["text"]
        with torch.no_grad():
            eps = opened.denoise(torch.randn(1, 4, 8, 8), torch.tensor([0.5]), on)
        handle.remove()
        assert eps.shape == (1, 4, 8, 8)
        wanted = ([[16.0, 16.0]], [[1.0]]) if told else (None, None)
        found = tuple(v.tolist() if v is not None else None for v in calls[0].values())
        assert found == wanted


def test_each_generation_reads_as_many_words_as_it_was_trained_on(prior: PixArt, tiny_pipeline: Tiny) -> None:
    sigma = PixArt(model=str(tiny_pipeline("PixArtSigmaPipeline", shapes=False)), opening=Opening(image_size=16))
    lengths = [p.conditions(Prompt("a"), turntable(1, 16))["null"].tensors["mask"].shape[1] for p in (prior, sigma)]
    assert lengths == [120, 300]
    assert sigma.image_size == 16 and PixArt(model=sigma.model).image_size == 256


def test_folders_of_2023_open(prior: PixArt, tmp_path: Path) -> None:
    """They name the transformer's class as it was called then, with settings that it no longer has."""
    folder = Path(shutil.copytree(prior.model, tmp_path / "copy"))
    old = {"_class_name": "Transformer2DModel", "num_vector_embeds": None, "only_cross_attention": False}
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps(config | old))
    index = json.loads((folder / "model_index.json").read_text())
    index["transformer"] = ["diffusers", "Transformer2DModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    opened, z_t = PixArt(model=str(folder), opening=Opening(image_size=16)), torch.randn(1, 4, 8, 8)
    on = prior.conditions(Prompt("a bear"), turntable(1, 16))["text"]
    with torch.no_grad():
        answers = [p.denoise(z_t, torch.tensor([0.5]), on) for p in (opened, prior)]
    assert torch.equal(*answers)
