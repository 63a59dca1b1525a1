from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dream3d.checks import InputError
from dream3d.prior_training.batches import Batches
from dream3d.prior_training.denoising import Autoencoding, Denoising, draw_levels
from dream3d.prior_training.members import LATENT_SHARES, MEMBERS, PIXEL_SHARES, architecture, gflop
from dream3d.prior_training.train import Length, Report, Settings, Trainer, run
from dream3d.priors.static_text import StaticText


def _settings(steps: int, **changes: Any) -> Settings:
    return replace(Settings(Length(steps=steps), batch=4, warmup=1), **changes)


def test_resumed_training_is_the_same_to_the_bit(
    rendered: Path, words: StaticText, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    def trainer() -> Trainer:
        return Trainer(Denoising(MEMBERS["builtin"], Batches(rendered, words), config=tiny_config), _settings(4))

    whole = trainer()
    losses = [whole.step() for _ in range(4)]
    first = trainer()
    assert [first.step() for _ in range(2)] == losses[:2]
    first.save(tmp_path / "state.pt")
    second, report = trainer(), Report(lambda _: None, seconds=1e9)
    run(second, tmp_path, report)
    assert report.losses == losses[2:]
    for mine, theirs in zip(second.ema.parameters(), whole.ema.parameters(), strict=True):
        assert torch.equal(mine, theirs)


# The packaged member in every run; the others are a minute each.
@pytest.mark.parametrize("name", [pytest.param(m, marks=[] if m == "builtin" else pytest.mark.slow) for m in MEMBERS])
def test_every_member_learns(
    name: str, rendered: Path, rendered_large: Path, words: StaticText, tiny_autoencoder: dict[str, Any]
) -> None:
    """The same batch again and again: its error falls to less than a half."""
    member = MEMBERS[name]
    config = architecture(member, words=16, channels=(16,) * len(member.channels))
    encode = None
    if name == "builtin-latent":
        vae: Any = Autoencoding.__new__(Autoencoding)
        vae.config = tiny_autoencoder
        torch.manual_seed(0)
        network: Any = vae.network()
        encode = lambda images: network.encode(2 * images - 1).latent_dist.mean  # noqa: E731
    folder = rendered if member.size == 64 else rendered_large
    batches = Batches(folder, words, size=member.size, grid=member.grid)
    trainer = Trainer(Denoising(member, batches, config=config, encode=encode), _settings(30, lr=5e-3))
    losses = []
    for _ in range(30):
        trainer.generator.manual_seed(0)
        losses.append(float(trainer.step()))
    assert losses[-1] < 0.5 * losses[0]


def test_a_group_needs_all_of_its_views(rendered: Path, words: StaticText, tiny_config: dict[str, Any]) -> None:
    task = Denoising(MEMBERS["builtin-mv"], Batches(rendered, words), config=tiny_config)
    with pytest.raises(InputError, match="multiple of 4 views, got 6"):
        task.loss(lambda *_: None, 6, torch.Generator())


def test_the_latents_scale_gives_variance_one(
    rendered_large: Path, words: StaticText, tiny_autoencoder: dict[str, Any], tmp_path: Path
) -> None:
    batches = Batches(rendered_large, words, size=128)
    trainer = Trainer(Autoencoding(batches, config=tiny_autoencoder), _settings(4, lr=1e-4))
    run(trainer, tmp_path, Report(lambda _: None, seconds=1e9))
    images = batches.pictures(32, torch.Generator().manual_seed(5)).images
    network: Any = trainer.ema
    with torch.no_grad():
        z = network.encode(2 * images - 1).latent_dist.mean * trainer.facts["scaling_factor"]
    assert float(z.std()) == pytest.approx(1, abs=0.15) and trainer.facts["psnr"] > 20


@pytest.mark.parametrize("shares", [PIXEL_SHARES, LATENT_SHARES])
def test_levels_follow_the_shares(shares: tuple[tuple[float, float, float], ...]) -> None:
    assert sum(share for _, _, share in shares) == pytest.approx(1)
    levels = draw_levels(20_000, torch.Generator().manual_seed(0), torch.tensor(shares))
    assert levels.min() == 0 and levels.max() == 999
    for low, high, expected in shares:
        inside = (levels >= 1000 * low) & (levels < 1000 * high)
        assert float(inside.float().mean()) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("name", list(MEMBERS))
def test_members_keep_to_their_budget(name: str) -> None:
    """At most 1.5 GFLOP a picture and 32 MB as float16."""
    from diffusers import UNet2DConditionModel

    config = architecture(MEMBERS[name])
    assert 0.9 < gflop(config, 128, MEMBERS[name].views) <= 1.5
    with torch.device("meta"):
        network = UNet2DConditionModel(**config)
    assert 2 * sum(p.numel() for p in network.parameters()) < 32e6


def test_cost_counts_multiply_adds_twice(tiny_config: dict[str, Any]) -> None:
    """The first convolution alone is 2 * 9 * 54 * 16 * 16 * 16 operations."""
    assert 2 * 9 * 54 * 16 * 16 * 16 / 1e9 < gflop(tiny_config, 16) < 0.1
