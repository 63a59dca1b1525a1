"""Boxes, what they cover in a picture, and prompts for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dream3d.cameras import turntable
from dream3d.checks import InputError
from dream3d.guidance import CFG, SDS, Noised, Region, RegionSDS
from dream3d.guidance.regions import part_masks
from dream3d.layouts import Part
from dream3d.priors import Condition, Gaussian
from dream3d.prompts import Prompt
from dream3d.renderers import Focus, Splat
from dream3d.representations import Gaussians
from dream3d.types import Cameras, Render

WORLD = {"low": (-9.0, -9.0, -9.0), "high": (9.0, 9.0, 9.0)}
LEFT = Region(text="an owl", low=(0.01, -9.0, -9.0), high=(9.0, 9.0, 9.0))
RIGHT = Region(text="a bear", low=(-9.0, -9.0, -9.0), high=(-0.01, 9.0, 9.0))


def test_depth_of_a_box() -> None:
    """Seen from the front: its face half a metre nearer than the origin, and rays beside it miss."""
    camera = turntable(2, 33, elevation_deg=0)
    depth = Region(text="a box", low=(-0.25, -0.25, -0.5), high=(0.25, 0.25, 0.5)).depth(camera)
    assert float(depth[0, 16, 16]) == pytest.approx(float(camera.distance[0]) - 0.5, abs=1e-4)
    assert depth.shape == (2, 33, 33) and bool(depth[0, 0, 0].isinf())
    assert 0 < float(depth.isfinite().float().mean()) < 0.5
    assert bool((Region(text="all", **WORLD).depth(camera) == 0).all()), "a camera inside its box"


def test_masks_are_a_partition_and_the_nearest_box_wins() -> None:
    camera = turntable(2, 32, elevation_deg=0)
    near, far = (Region(text="x", low=(-0.5, -0.5, z), high=(0.5, 0.5, z + 0.2)) for z in (0.3, -0.5))
    masks = RegionSDS(regions={"near": near, "far": far}).masks(camera)
    assert masks.shape == (2, 3, 32, 32) and torch.equal(masks.sum(1), torch.ones(2, 32, 32))
    assert masks[0, 0, 16, 16] == 1 and masks[1, 1, 16, 16] == 1, "from behind the other is nearer"
    assert masks[0, 2, 0, 0] == 1
    sides = RegionSDS(regions={"left": LEFT, "right": RIGHT}).masks(camera)
    # The object's left is +X: on the right of a picture from the front, on the left of one from behind.
    assert sides[0, 0, :, 20:].mean() == 1 and sides[0, 1, :, :12].mean() == 1
    assert sides[1, 0, :, :12].mean() == 1


def at(objective: RegionSDS, prior: Gaussian) -> Noised:
    generator = torch.Generator().manual_seed(0)
    camera, t = turntable(2, 16), torch.tensor([0.3, 0.7])
    z, eps = (torch.randn(2, 3, 16, 16, generator=generator) for _ in range(2))
    conditions = objective.conditions(prior, Prompt("two animals"), camera)
    return Noised(z, prior.schedule.noised(z, eps, t), t, conditions, eps, prior.schedule)


def test_equal_prompts_are_sds_whatever_the_regions() -> None:
    """The sum over a partition: the released code's mean would be SDS / K."""
    prior, guider = Gaussian(), CFG(scale=7.5)
    for regions in ({}, {"all": Region(text="x", **WORLD)}, {"left": LEFT, "right": RIGHT}):
        objective = RegionSDS(regions=regions, guider=guider)
        x = at(objective, prior)
        torch.testing.assert_close(objective.residual(prior, x), SDS(guider=guider).residual(prior, x))


def test_each_region_follows_its_own_prompt() -> None:
    """And the order in which they are named means nothing."""
    prior, guider = Gaussian(), CFG(scale=1)
    objective = RegionSDS(regions={"left": LEFT, "right": RIGHT}, guider=guider)
    x = at(objective, prior)
    made = {}
    for name, mean in (("left", 0.9), ("right", 0.1)):
        made[name] = Condition({"mean": torch.full((2, 3, 1, 1), mean), "std": torch.full((2, 1, 1, 1), 0.1)})
    x = x.given(**{f"region {name}": c for name, c in made.items()})
    got = objective.residual(prior, x)
    masks = x.named("masks").tensors["masks"]
    for i, name in enumerate(made):
        alone = SDS(guider=guider).residual(prior, x.given(text=made[name]))
        torch.testing.assert_close(got * masks[:, [i]], alone * masks[:, [i]])
    other = RegionSDS(regions={"right": RIGHT, "left": LEFT}, guider=guider)
    swapped = x.given(masks=Condition({"masks": masks[:, [1, 0, 2]]}))
    torch.testing.assert_close(other.residual(prior, swapped), got)


def test_prompts_are_asked_in_one_call_with_one_null(table: Any, point: Callable[..., Noised]) -> None:
    prior = table()
    objective = RegionSDS(regions={"left": LEFT, "right": RIGHT})
    x = point(prior)
    x = x.given(
        **{"region left": x.named("negative"), "region right": x.named("visual")},
        masks=Condition({"masks": torch.rand(2, 3, 9, 9, dtype=torch.float64)}),
    )
    objective.residual(prior, x)
    assert prior.calls == [2 * 4]


PARTS = {
    "left": Part(text="an owl", center=(0.5, 0.0, 0.0), size=(0.6, 0.6, 0.6), rotation_deg=(0.0, 90.0, 0.0)),
    "right": Part(text="a bear", center=(-0.5, 0.0, 0.0), size=(0.6, 0.6, 0.6), shape="sphere"),
}


def scene() -> Gaussians:
    torch.manual_seed(0)
    return Gaussians(count=600, opacity=0.6, parts=PARTS)


def test_masks_of_parts() -> None:
    """Most wins, background too; growing takes from the background alone, and what is nearer wins there."""
    parts = torch.zeros(1, 1, 9, 2)
    parts[0, 0, 1:3, 0], parts[0, 0, 6, 1], parts[0, 0, 7, 1] = 0.7, 0.6, 0.4
    still = part_masks(parts, 0)
    assert still[0, :, 0].argmax(0).tolist() == [2, 0, 0, 2, 2, 2, 1, 2, 2]
    column = parts.transpose(1, 2).expand(1, 9, 3, 2)
    grown = part_masks(column, 2 / 9)
    assert grown.shape == (1, 3, 9, 3) and torch.equal(grown.sum(1), torch.ones(1, 9, 3))
    assert grown[0, :, :, 1].argmax(0).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    torch.testing.assert_close(part_masks(parts.flip(-1), 0)[:, [1, 0, 2]], still)


class Telling(Gaussian):
    """Remembers what it was asked for: text, and the azimuth from which."""

    def conditions(self, prompt: Prompt, cameras: Cameras) -> dict[str, Condition]:
        self.told = [*getattr(self, "told", []), (prompt, cameras)]
        word = torch.full((len(cameras), 1), float(len(prompt.text)))
        made = super().conditions(prompt, cameras)
        return {name: Condition({**c.tensors, "word": word}) for name, c in made.items()}


def regarded(objective: RegionSDS, prior: Gaussian, whole: float) -> tuple[dict[str, Condition], Render, Cameras]:
    cameras, prompt = turntable(4, 32, elevation_deg=0), Prompt("two animals", "fog")
    made = scene()
    with torch.no_grad():
        render = Focus(renderer=Splat(), whole=whole)(made, cameras, generator=torch.Generator().manual_seed(1))
    conditions = objective.conditions(prior, prompt, cameras)
    return dict(objective.regarding(conditions, prior, prompt, cameras, made, render)), render, cameras


def test_regions_are_the_parts_and_each_is_seen_from_its_own_front() -> None:
    prior = Telling()
    found, render, cameras = regarded(RegionSDS(grow=0), prior, 1.0)
    masks = found["masks"].tensors["masks"]
    assert masks.shape == (4, 3, 32, 32) and torch.equal(masks, part_masks(render.aux["parts"], 0))
    assert masks[0, 0, :, 17:].any() and not masks[0, 0, :, :15].any(), "+X is on the right from the front"
    (_, _), (owl, owls), (bear, bears) = prior.told
    assert (owl.text, owl.negative, bear.text) == ("an owl", "fog", "a bear")
    # The owl faces +X: the camera there, the second, is in front of it, a little to the side in the first.
    assert float(owls.azimuth[1]) == pytest.approx(0, abs=1e-4)
    assert float(bears.azimuth[2].abs()) == pytest.approx(math.pi, abs=0.5)
    assert torch.equal(found["region left"].tensors["word"], torch.full((4, 1), 6.0))
    assert torch.equal(found["text"].tensors["word"], torch.full((4, 1), 11.0))


def test_a_part_alone_is_that_prompt_everywhere() -> None:
    prior = Telling()
    found, render, cameras = regarded(RegionSDS(), prior, 0.25)
    subject = render.aux["subject"]
    assert sorted(subject.tolist())[0] == -1 and {0, 1} <= set(subject.tolist())
    words = torch.tensor([6.0, 6.0, 11.0])[subject]  # "an owl", "a bear"; the last is the whole
    assert torch.equal(found["text"].tensors["word"][:, 0], words)
    assert torch.equal(found["negative"].tensors["word"][:, 0], words)
    masks = found["masks"].tensors["masks"]
    assert bool((masks[subject >= 0, -1] == 1).all())
    for number, (_, own) in enumerate(prior.told[1:]):
        torch.testing.assert_close(own.c2w[subject == number], cameras.c2w[subject == number])


def test_what_no_pixel_follows_is_not_asked(table: Any, point: Callable[..., Noised]) -> None:
    """One picture of the whole with both regions, one that follows a single prompt: 4 and 2 predictions, one call."""
    prior = table()
    x, masks = point(prior), torch.zeros(2, 3, 9, 9, dtype=torch.float64)
    masks[0, 0, :, :3] = masks[0, 1, :, 3:6] = masks[0, 2, :, 6:] = masks[1, 2] = 1
    x = x.given(
        **{"region left": x.named("negative"), "region right": x.named("visual")}, masks=Condition({"masks": masks})
    )
    objective, guider = RegionSDS(guider=CFG(scale=3.0)), CFG(scale=3.0)
    got = objective.residual(prior, x)
    assert prior.calls == [4 + 2]
    fitted = torch.nn.functional.interpolate(masks, x.z.shape[-2:], mode="area")
    names = ("negative", "visual", "text")
    each = [SDS(guider=guider).residual(prior, x.given(text=x.named(name))) for name in names]
    torch.testing.assert_close(got, sum(fitted[:, [i]] * part for i, part in enumerate(each)))


def test_parts_and_boxes_exclude_each_other() -> None:
    with pytest.raises(InputError, match="leave out its own"):
        regarded(RegionSDS(regions={"left": LEFT}), Gaussian(), 1.0)
    cameras = turntable(2, 16)
    render = Focus(renderer=Splat(), whole=0.0)(scene(), cameras, generator=torch.Generator())
    with pytest.raises(InputError, match="SDS knows no prompts of parts: take RegionSDS"):
        SDS().regarding({}, Gaussian(), Prompt("x"), cameras, scene(), render)


def test_a_box_needs_a_size() -> None:
    with pytest.raises(InputError, match="Region 'an owl': every number of low must be below that of high"):
        Region(text="an owl", low=(0.0, 0.0, 0.0), high=(1.0, 0.0, 1.0))
