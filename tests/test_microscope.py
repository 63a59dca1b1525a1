"""What the microscope measures, and that a run does not notice it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from dream3d.callbacks import Metrics
from dream3d.cameras import OrbitCameras
from dream3d.checks import RunError
from dream3d.config import load
from dream3d.fitting import fit
from dream3d.guidance import CFG, CSD, SDS, Inversion, Objective
from dream3d.media import read_pictures
from dream3d.microscope import TILES, Microscope, _spread, examine, heat
from dream3d.priors import Gaussian
from dream3d.prompts import Prompt
from dream3d.recipes import recipes
from dream3d.renderers import March
from dream3d.representations import Field
from dream3d.runs import RunFolder
from dream3d.stage import Stage, StageModule
from tests.test_recipes import cheap


def small_field(start: Any = None) -> Field:
    return Field(start, levels=2, log2_table=8, base=4, finest=8, hidden=8, occupancy=8)


def module(objective: Objective, *, steps: int = 3, batch: int = 3, **changes: Any) -> StageModule:
    stage = Stage(
        representation=small_field,
        renderer=March(samples=8),
        prior=Gaussian(image_size=8),
        objective=objective,
        cameras=OrbitCameras(size=8),
        batch=batch,
        steps=steps,
        **changes,
    )
    return StageModule(stage, Prompt("a teddy bear"), small_field(), seed=0)


def train(made: StageModule, *callbacks: pl.Callback) -> StageModule:
    fit(made, torch.device("cpu"), list(callbacks))
    return made


def test_sds_is_the_sum_of_its_terms() -> None:
    """residual = scale * text + denoising, so norms and cosines obey the law of cosines (one view: means are exact)."""
    sight = examine(module(SDS(guider=CFG(scale=3.0)), batch=1))
    assert set(sight.norms) == {"residual", "text", "denoising"}
    text, denoising = 3 * sight.norms["text"], sight.norms["denoising"]
    squared = text**2 + denoising**2 + 2 * text * denoising * sight.cosines["text · denoising"]
    assert sight.norms["residual"] ** 2 == pytest.approx(squared, rel=1e-4)


def test_csd_follows_the_text_alone() -> None:
    sight = examine(module(CSD(), batch=2))
    assert sight.cosines["residual · text"] == pytest.approx(1, abs=1e-4)


def test_an_inversion_has_no_denoising_term() -> None:
    sight = examine(module(CSD(), noise=Inversion()))
    assert set(sight.norms) == {"residual", "text"} and set(sight.cosines) == {"residual · text"}


def test_two_views_are_shown_and_guidance_moves_the_clean_picture() -> None:
    sight = examine(module(SDS(guider=CFG(scale=20.0))))
    assert tuple(sight.tiles) == TILES and {p.shape for p in sight.tiles.values()} == {(2, 3, 8, 8)}
    assert all(0 <= float(p.min()) and float(p.max()) <= 1 for p in sight.tiles.values())
    assert not torch.equal(sight.tiles[TILES[2]], sight.tiles[TILES[3]])
    plain = examine(module(SDS(guider=CFG(scale=1.0))))
    assert torch.allclose(plain.tiles[TILES[2]], plain.tiles[TILES[3]])


def test_looks_are_alike_as_long_as_nothing_has_moved() -> None:
    made = module(SDS())
    first = examine(made)
    torch.rand(7)
    second = examine(made)
    assert first.norms == second.norms and torch.equal(first.t, second.t)


@pytest.mark.parametrize(
    ("batch", "views", "expected"),
    [(1, 1, [0]), (4, 1, [0, 2]), (3, 1, [0, 1]), (4, 4, [0, 1, 2, 3]), (8, 4, [0, 1, 2, 3]), (8, 2, [0, 1])],
)
def test_whole_groups_from_opposite_sides(batch: int, views: int, expected: list[int]) -> None:
    assert _spread(batch, views, 2) == expected


def test_heat_grows_with_the_values() -> None:
    values = torch.tensor([[[[0.0, 0.3, 0.6, 0.9]]], [[[0.0, 0.0, 0.0, 0.0]]]])
    shown = heat(values)
    assert torch.allclose(shown.sum(1)[0, 0], torch.tensor([0.0, 1.0, 2.0, 3.0]), atol=1e-5)
    assert not shown[1].any()


def test_a_run_does_not_notice(tmp_path: Path) -> None:
    def run(name: str, *more: pl.Callback) -> tuple[StageModule, bytes, torch.Tensor]:
        torch.manual_seed(0)
        folder = RunFolder.create(tmp_path / name, "owl", "sds")
        made = train(module(SDS()), Metrics(folder, "nerf"), *more)
        return made, (folder.path / "metrics.csv").read_bytes(), torch.rand(3)

    plain, numbers, after = run("plain")
    seen, same, later = run("seen", Microscope(tmp_path / "looks", every=1, stage="nerf"))
    assert numbers == same and plain.prior.asked == seen.prior.asked
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), seen.parameters(), strict=True))
    assert torch.equal(after, later)


def test_pictures_and_numbers_are_written(tmp_path: Path) -> None:
    train(module(SDS(), steps=5), Microscope(tmp_path / "looks", every=2, stage="nerf", offset=100, size=16))
    names = sorted(path.name for path in (tmp_path / "looks").iterdir())
    assert names == sorted(f"step{step:06d}.{end}" for step in (100, 102, 104, 105) for end in ("jpg", "json"))
    record = json.loads((tmp_path / "looks" / "step000104.json").read_text())
    assert record["step"] == 104 and record["stage"] == "nerf" and record["tiles"] == list(TILES)
    assert len(record["t"]) == 2 and all(0 < t < 1 for t in record["t"])
    (picture,) = read_pictures([tmp_path / "looks" / "step000104.jpg"])
    assert picture.shape == (2 * 8, 5 * 8, 3)


class Fails(Objective):
    def residual(self, prior: Any, x: Any) -> torch.Tensor:
        raise RunError("it does not work.")


def test_a_look_that_fails_says_why_and_stops_nothing(tmp_path: Path) -> None:
    Microscope(tmp_path, every=1, stage="nerf")._look(module(Fails()))
    assert json.loads((tmp_path / "step000000.json").read_text()) == {
        "stage": "nerf",
        "step": 0,
        "reason": "it does not work.",
    }
    assert not (tmp_path / "step000000.jpg").exists()


@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_can_be_looked_at(recipe: str, tiny_builtin: Path, tiny_builtin_latent: Path) -> None:
    folders = {"Builtin": tiny_builtin, "BuiltinMV": tiny_builtin, "BuiltinLatent": tiny_builtin_latent}
    made, _ = load(recipe, ["device=cpu", "prompt=a red chair", *cheap(recipe, folders)])
    representation = None
    for stage in made.stages.values():
        representation = stage.representation(representation)
        module = StageModule(stage, made.prompt, representation, seed=0)
        sight = examine(module)
        assert all(bool(picture.isfinite().all()) for picture in sight.tiles.values())
        assert all(0 <= norm < 1e6 for norm in sight.norms.values())
        assert all(-1.001 <= cosine <= 1.001 for cosine in sight.cosines.values())
        assert stage.prior.asked == 0
