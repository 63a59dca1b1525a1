from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dream3d.evaluation.judge import Matcher, TrainedJudge
from dream3d.prior_training.__main__ import main
from dream3d.prior_training.batches import Batches
from dream3d.prior_training.captions import Subject
from dream3d.prior_training.judging import (
    PRACTISED,
    Judging,
    Matching,
    Viewing,
    _shifted,
    for_judges,
    short_names,
    synonyms,
    worsened,
)
from dream3d.prior_training.pictures import read_pictures
from dream3d.prior_training.train import Length, Settings, Trainer
from dream3d.priors.static_text import StaticText

WIDTHS = (8, 16, 16)


@pytest.fixture(scope="module")
def make(rendered: Path, words: StaticText) -> Callable[[type[Judging]], Judging]:
    seen, unseen = read_pictures(rendered).split()
    return lambda kind: kind(Batches(seen, words), Batches(unseen, words), widths=WIDTHS)


def test_worse_pictures_are_still_pictures() -> None:
    images = torch.rand(64, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    first, second = (worsened(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == images.shape
    assert 0 <= first.min() and first.max() <= 1 and (first - images).abs().mean() > 0.05


def test_shifting_moves_whole_pixels() -> None:
    images = torch.arange(16.0).view(1, 1, 4, 4)
    moved = _shifted(images, torch.tensor([[1, -1]]))
    assert torch.equal(moved[0, 0, :3, 1:], images[0, 0, 1:, :3])
    assert torch.equal(moved[0, 0, :, 0], moved[0, 0, :, 1]), "the border is repeated"


def test_names_and_synonyms() -> None:
    subjects = [
        Subject("Sofa", ("sofa", "couch", "settee")),
        Subject("Sofa", ("sofa, living room",), which=1),
        Subject("Couch", ("black couch", "sofa", "leather sofa", "black couch, office")),
    ]
    assert short_names(subjects) == (["sofa", "black couch"], [0, 0, 1])
    assert synonyms(subjects) == {"couch": "sofa", "settee": "sofa", "leather sofa": "black couch"}


@pytest.mark.parametrize("kind", [Matching, Viewing])
def test_a_judge_learns(kind: type[Judging], make: Callable[[type[Judging]], Judging]) -> None:
    trainer = Trainer(make(kind), Settings(Length(steps=100), batch=32, lr=8e-3, warmup=1))
    losses = []
    for _ in range(100):
        trainer.generator.manual_seed(trainer.step_count % 2)
        losses.append(float(trainer.step()))
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_twins_are_not_held_against_each_other(make: Callable[[type[Judging]], Judging]) -> None:
    """A network that knows the names perfectly has no loss left, however often a name comes twice in a batch."""
    task = make(Matching)
    assert isinstance(task, Matching)
    generator = torch.Generator().manual_seed(0)
    drawn = task.batches.pictures(32, generator)
    name = task.name_of[drawn.subject]
    kind = name * 13 + drawn.paint
    assert len(kind.unique()) < 32

    def perfect(images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        every = torch.arange(len(task.names))
        return 100.0 * torch.cat([kind[:, None] == kind[None, :], name[:, None] == every[None, :]], 1).float()

    assert float(task.loss(perfect, 32, torch.Generator().manual_seed(0))) < 1e-4


def test_what_is_shown_more_is_not_named_more(rendered: Path, words: StaticText) -> None:
    """A network that tells nothing apart is at its best when it prefers no name, however often each is shown."""
    pictures = read_pictures(rendered)
    often = tuple(replace(s, weight=6.0 if i == 0 else 1.0) for i, s in enumerate(pictures.subjects))
    batches = Batches(replace(pictures, subjects=often), words)
    task = Matching(batches, batches, widths=WIDTHS)
    share, prefers = task.log_shown.exp(), torch.zeros(len(task.names), requires_grad=True)
    assert share.tolist() == pytest.approx([6 / 8, 1 / 8, 1 / 8])
    log_chance = (prefers + task.log_shown).log_softmax(0)
    (gradient,) = torch.autograd.grad(-(share * log_chance).sum(), prefers)
    assert torch.allclose(gradient, torch.zeros(3), atol=1e-6)


def test_hand_written_captions_are_practised() -> None:
    said = for_judges([Subject("A", ("chair", "seat")), Subject("B", ("chair, office",)), Subject("C", ("anvil",))])
    assert [s.weight for s in said] == [PRACTISED, 1.0, PRACTISED]


def test_a_viewer_begins_with_a_matchers_trunk(rendered: Path, words: StaticText, tmp_path: Path) -> None:
    matcher = Matcher(words=words.size)
    torch.save({"ema": matcher.state_dict()}, tmp_path / "matcher.pt")
    words.save(tmp_path / "text")
    paths = {
        "--data": rendered,
        "--text": tmp_path / "text",
        "--trunk": tmp_path / "matcher.pt",
        "--out": tmp_path / "v",
    }
    given = [word for pair in paths.items() for word in map(str, pair)]
    assert main(["train", "--member", "views", *given, "--steps", "1", "--batch", "4", "--lr", "1e-9"]) == 0
    trained = torch.load(tmp_path / "v" / "state.pt", weights_only=True)["net"]
    for name, value in matcher.trunk.state_dict().items():
        assert torch.allclose(trained[f"trunk.{name}"], value, atol=1e-6), name


def test_exported_judges_stand_side_by_side(
    make: Callable[[type[Judging]], Judging], rendered: Path, words: StaticText, tmp_path: Path
) -> None:
    for member, kind in (("matcher", Matching), ("views", Viewing)):
        trainer = Trainer(make(kind), Settings(Length(steps=1), batch=8))
        trainer.step()
        trainer.finish()
        trainer.save(tmp_path / "state.pt")
        paths = ["--state", tmp_path / "state.pt", "--data", rendered, "--out", tmp_path / "judge"]
        assert main(["export", "--member", member, *map(str, paths)]) == 0
    words.save(tmp_path / "text")
    judge = TrainedJudge(folder=tmp_path / "judge", words=tmp_path / "text")
    judge.load()
    assert judge.names == ("sphere", "cube", "cone") and judge.synonyms == {"ball": "sphere"}
    assert len(judge.colors) == 12 and judge.turning <= set(judge.names)
    images = torch.rand(2, 3, 100, 100, generator=torch.Generator().manual_seed(0))
    similarity = judge.similarity(images, ["a cube", "a cone", "a ball"])
    assert similarity.shape == (2, 3) and bool((similarity.abs() <= 1 + 1e-5).all())
    assert judge.azimuth(images).abs().max() <= math.pi and judge.color(images).max() < 12
    assert judge.nearest_name("red cube") == "cube"
    card = json.loads((tmp_path / "judge" / "card.json").read_text())
    assert 0 <= card["matcher"]["own_top1"] <= card["matcher"]["own_top5"] <= 1
    assert 0 <= card["views"]["own_color"] <= 1 and card["views"]["samples_seen"] == 8
    sizes = [(tmp_path / "judge" / f"{part}.safetensors").stat().st_size for part in ("matcher", "views")]
    assert max(sizes) < 4e6 and "NaN" not in (tmp_path / "judge" / "card.json").read_text()
