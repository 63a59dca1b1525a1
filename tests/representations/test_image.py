"""Pictures as a representation: the parameters are the colours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dream3d.cameras import FixedCameras, turntable
from dream3d.checks import InputError, RunError
from dream3d.fitting import fit
from dream3d.guidance import CFG, SDS
from dream3d.priors import Gaussian
from dream3d.prompts import Prompt
from dream3d.renderers import Plane
from dream3d.representations import Field, Image
from dream3d.stage import Adam, Stage, StageModule


def test_pictures_are_the_parameters() -> None:
    torch.manual_seed(0)
    image = Image(particles=3, size=8, spread=0.1)
    assert image.pictures.shape == (3, 3, 8, 8) and image.particles == 3
    assert image.pictures.mean().item() == pytest.approx(0.5, abs=0.02)
    assert image.pictures.std().item() == pytest.approx(0.1, rel=0.1)
    assert not torch.equal(image.pictures[0], image.pictures[1])
    image.pictures[1, 2, 3, 4].backward()
    grad = image.get_parameter("pixels").grad
    assert grad is not None and grad.sum() == grad[1, 2, 3, 4] == 1
    assert torch.equal(Image(size=4, spread=0.0).pictures, torch.full((1, 3, 4, 4), 0.5))


def test_it_starts_from_the_stage_before() -> None:
    before = Image(particles=2, size=8)
    with torch.no_grad():
        before.pixels.copy_(torch.linspace(0, 1, 8).expand(2, 3, 8, 8))
    after = Image(before, particles=2, size=16)
    assert after.pictures.shape == (2, 3, 16, 16) and after.pixels.is_leaf
    smaller = torch.nn.functional.avg_pool2d(after.pictures, 2)
    torch.testing.assert_close(smaller[..., 1:-1], before.pictures[..., 1:-1])
    assert torch.equal(Image(before, particles=2, size=8).pictures, before.pictures)
    for start in (Field(levels=2, log2_table=8, base=4, finest=8, hidden=16, occupancy=8), Image(particles=3)):
        with pytest.raises(InputError, match="from nothing or from 2 pictures"):
            Image(start, particles=2)


def test_there_is_no_surface() -> None:
    for ask in (Image().to_mesh, Image().surface):
        with pytest.raises(RunError, match=r"an image has no surface; export it as pictures: formats \[png\]"):
            ask()


@pytest.mark.parametrize("settings", [{"particles": 0}, {"size": 0}, {"spread": -1.0}])
def test_settings_are_checked(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"Image: {next(iter(settings))}"):
        Image(**settings)


def test_a_stage_paints_it() -> None:
    """No special case anywhere: with the exact score of one colour, every particle turns that colour."""
    stage = Stage(
        representation=Image,
        renderer=Plane(),
        prior=Gaussian(mean=(0.9, 0.1, 0.2), std=0.02),
        objective=SDS(guider=CFG(scale=1.0)),
        cameras=FixedCameras(size=16),
        optimizer=Adam(lr=0.05),
        batch=4,
        steps=80,
    )
    made = StageModule(stage, Prompt("anything"), Image(particles=2, size=16), seed=0)
    fit(made, torch.device("cpu"), [])
    pictures = made.representation.get_parameter("pixels").detach()
    wanted = torch.tensor([0.9, 0.1, 0.2])
    assert (pictures.mean((2, 3)) - wanted).abs().max() < 0.03 and pictures.std((2, 3)).max() < 0.05
    cameras = replace(turntable(4, 16), height=12, width=20)
    assert stage.renderer(made.representation, cameras).rgb.shape == (4, 12, 20, 3)
