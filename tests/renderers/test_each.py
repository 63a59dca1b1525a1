"""Particles drawn by another renderer."""

from __future__ import annotations

import pytest
import torch

from dream3d.cameras import OrbitCameras, turntable
from dream3d.checks import InputError
from dream3d.fitting import fit
from dream3d.guidance import CFG, SDS
from dream3d.priors import Gaussian
from dream3d.prompts import Prompt
from dream3d.renderers import Each, March, Plane
from dream3d.representations import Field, Image, Particles, Representation
from dream3d.stage import Stage, StageModule


def field(start: Representation | None = None) -> Field:
    return Field(start, levels=2, log2_table=8, base=4, finest=8, hidden=16, occupancy=8)


def test_each_particle_is_seen_by_its_cameras() -> None:
    torch.manual_seed(0)
    particles, generator = Particles(of=field, count=2), torch.Generator()
    cameras = turntable(4, 12)
    both = Each(renderer=March(samples=24))(particles, cameras, generator=generator.manual_seed(0), normals=True)
    generator.manual_seed(0)
    for i, part in enumerate(particles):
        alone = March(samples=24)(part, cameras[2 * i : 2 * i + 2], generator=generator, normals=True)
        rows = slice(2 * i, 2 * i + 2)
        assert torch.equal(both.rgb[rows], alone.rgb) and torch.equal(both.alpha[rows], alone.alpha)
        assert both.depth is not None and alone.depth is not None and torch.equal(both.depth[rows], alone.depth)
        assert both.normal is not None and alone.normal is not None and torch.equal(both.normal[rows], alone.normal)
        assert torch.equal(both.aux["view"][rows], alone.aux["view"])


def test_pictures_show_the_first() -> None:
    particles = Particles(of=field, count=2)
    render = Each(renderer=March(samples=24))(particles, turntable(3, 12))
    assert torch.equal(render.rgb, March(samples=24)(particles[0], turntable(3, 12)).rgb) and render.normal is None


def test_a_stage_trains_all_even_with_a_small_batch() -> None:
    stage = Stage(
        representation=lambda start: Particles(start, of=field, count=3),
        renderer=Each(renderer=March(samples=16)),
        prior=Gaussian(),
        objective=SDS(guider=CFG(scale=2.0)),
        cameras=OrbitCameras(size=16),
        batch=2,
        steps=8,
    )
    torch.manual_seed(0)
    particles = Particles(of=field, count=3)
    before = [part.get_parameter("encoding.table").clone() for part in particles]
    made = StageModule(stage, Prompt("anything"), particles, seed=0)
    fit(made, torch.device("cpu"), [])
    after = [part.get_parameter("encoding.table") for part in particles]
    assert all(not torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_other_representations_are_refused() -> None:
    with pytest.raises(InputError, match="Each draws Particles, not a Image"):
        Each(renderer=Plane())(Image(), turntable(1, 8))
