from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dream3d.cameras import turntable
from dream3d.prior_training.__main__ import main
from dream3d.prior_training.batches import Batches
from dream3d.prior_training.denoising import Autoencoding, Denoising
from dream3d.prior_training.members import MEMBERS, architecture
from dream3d.prior_training.sample import sample, sheet, write_sheet
from dream3d.prior_training.train import Length, Settings, Task, Trainer
from dream3d.priors import Builtin, BuiltinLatent, BuiltinMV
from dream3d.priors.builtin import PACKAGED, label_size
from dream3d.priors.static_text import StaticText
from dream3d.prompts import Prompt


def _trained(task: Task, folder: Path) -> Trainer:
    trainer = Trainer(task, Settings(Length(steps=1), batch=4))
    trainer.step()
    trainer.finish()
    trainer.save(folder / "state.pt")
    return trainer


def _export(member: str, rendered: Path, words: StaticText, folder: Path, out: str, *more: str) -> None:
    words.save(folder / "text")
    arguments = ["--state", str(folder / "state.pt"), "--data", str(rendered), "--text", str(folder / "text")]
    assert main(["export", "--member", member, *arguments, "--out", str(folder / out), *more]) == 0


def _builtin(rendered: Path, words: StaticText, config: dict[str, Any], folder: Path, member: str = "builtin") -> Path:
    _trained(Denoising(MEMBERS[member], Batches(rendered, words), config=config), folder)
    for _ in range(2):  # the second replaces the first
        _export(member.removeprefix("builtin-"), rendered, words, folder, member)
    return folder / member


def test_round_trip_is_exact_in_half_precision(
    rendered: Path, words: StaticText, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    folder = _builtin(rendered, words, tiny_config, tmp_path)
    prior = Builtin(folder=str(folder))
    prior.load()
    assert prior.unet is not None
    read = prior.unet.state_dict()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for name, value in state["ema"].items():
        assert torch.equal(read[name], value.half().float()), name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["builtin", "state.pt", "text"]
    card = json.loads((folder / "card.json").read_text())
    assert card["samples_seen"] == 4 and [o["names"][0] for o in card["objects"]] == ["sphere", "cube", "cone"]
    assert prior.card().name == "builtin"
    held = json.loads((folder / "heldout.json").read_text())
    assert held and all(pair.split()[1] in ("sphere", "cube", "cone") for pair in held)


def test_diffusers_opens_the_network(
    rendered: Path, words: StaticText, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    from diffusers import DDPMScheduler, UNet2DConditionModel

    folder = _builtin(rendered, words, tiny_config, tmp_path)
    network = UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True)
    assert network.config["in_channels"] == 54
    assert DDPMScheduler.from_pretrained(folder / "scheduler").config["prediction_type"] == "sample"


def test_views_are_drawn_together(
    rendered: Path, words: StaticText, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    folder = _builtin(rendered, words, tiny_config, tmp_path, "builtin-mv")
    prior = BuiltinMV(folder=str(folder))
    assert prior.card().name == "builtin-mv"
    pictures = sheet(prior, ["a cube"], steps=1)
    assert pictures.shape == (3, 64, 256)


def test_the_packaged_words_are_not_written_again(rendered: Path, tiny_config: dict[str, Any], tmp_path: Path) -> None:
    packaged = StaticText.load(PACKAGED / "text")
    config = {**tiny_config, "cross_attention_dim": packaged.size}
    config["projection_class_embeddings_input_dim"] = label_size(packaged.size)
    _trained(Denoising(MEMBERS["builtin-mv"], Batches(rendered, packaged), config=config), tmp_path)
    paths = ["--state", str(tmp_path / "state.pt"), "--data", str(rendered), "--out", str(tmp_path / "mv")]
    assert main(["export", "--member", "mv", *paths]) == 0
    prior = BuiltinMV(folder=str(tmp_path / "mv"))
    assert not (tmp_path / "mv" / "text").exists()
    assert torch.equal(prior.text.vectors, packaged.vectors)
    assert sheet(prior, ["a cube"], steps=1).shape == (3, 64, 256)


def test_the_member_of_latents_takes_its_autoencoder_along(
    rendered_large: Path, words: StaticText, tiny_autoencoder: dict[str, Any], tmp_path: Path
) -> None:
    member = MEMBERS["builtin-latent"]
    batches = Batches(rendered_large, words, size=128, grid=member.grid)
    vae = _trained(Autoencoding(batches, config=tiny_autoencoder), tmp_path)
    _export("vae", rendered_large, words, tmp_path, "vae")
    network: Any = vae.ema
    config = architecture(member, words=16, channels=(16,) * 4)
    _trained(Denoising(member, batches, config=config, encode=lambda x: network.encode(x).latent_dist.mean), tmp_path)
    _export("latent", rendered_large, words, tmp_path, "latent", "--vae", str(tmp_path / "vae"))
    prior = BuiltinLatent(folder=str(tmp_path / "latent"))
    prior.load()
    images = batches.pictures(32, torch.Generator().manual_seed(1)).images
    assert float(prior.encode(images).std()) == pytest.approx(1, abs=0.15)
    assert sheet(prior, ["a cube"], views=2, steps=1, limit=None).shape == (3, 128, 256)


def test_latents_without_an_autoencoder_name_the_cure(
    rendered_large: Path, words: StaticText, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words.save(tmp_path / "text")
    paths = ["--data", str(rendered_large), "--text", str(tmp_path / "text"), "--vae", str(tmp_path / "vae")]
    assert main(["train", "--member", "latent", "--steps", "1", *paths, "--out", str(tmp_path)]) == 3
    error = capsys.readouterr().err
    assert "train and export --member vae first" in error and error.count("\n") == 1


def _draw(prior: Builtin, prompts: Prompt | Sequence[Prompt], seed: int, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return sample(prior, prompts, turntable(2, 64), steps=2, scale=scale, generator=generator)


def test_samples_and_sheet(rendered: Path, words: StaticText, tiny_config: dict[str, Any], tmp_path: Path) -> None:
    prior = Builtin(folder=str(_builtin(rendered, words, tiny_config, tmp_path)))
    first = _draw(prior, Prompt("a cube"), 0)
    assert first.shape == (2, 3, 64, 64) and 0 <= first.min() and first.max() <= 1
    assert torch.equal(first, _draw(prior, Prompt("a cube"), 0))
    assert not torch.equal(first, _draw(prior, Prompt("a cube"), 1))
    both = _draw(prior, [Prompt("a cube"), Prompt("a cube")], 0)
    assert torch.allclose(both[:2], first, atol=1e-4), "prompts that are drawn together do not mix"
    assert not torch.allclose(both[2:], first, atol=0.1), "and each has its own noise"
    prompts = ["a cube", "a cone", "a ball"]
    pictures = sheet(prior, prompts, views=2, steps=1)
    assert pictures.shape == (3, 3 * 64, 2 * 64)
    write_sheet(pictures, str(tmp_path / "sheet.png"), prompts)
    assert (tmp_path / "sheet.png").stat().st_size > 1000
