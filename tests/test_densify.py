"""Densification: who multiplies and who goes, that pictures stay, and that running means and checkpoints follow."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dream3d.cameras import OrbitCameras, turntable
from dream3d.checks import InputError
from dream3d.densify import MCMC, Budgeted, Classic, due, grow, relocate, shared_out
from dream3d.fitting import fit
from dream3d.guidance import CFG, SDS
from dream3d.priors import Gaussian
from dream3d.prompts import Prompt
from dream3d.renderers import Splat
from dream3d.representations import Gaussians
from dream3d.representations.gaussians import PARAMETERS, Densification
from dream3d.stage import Adam, Stage, StageModule
from dream3d.types import Splats
from tests.representations.test_gaussians import splats, trained
from tests.test_stage import CPU, StopAt

EARLY: dict[str, Any] = {"begin": 1, "every": 2}
MEMBERS: dict[str, Callable[[], Densification]] = {
    "Classic": lambda: Classic(threshold=0.0, most=90, reset_every=3, **EARLY),
    "AbsGS": lambda: Classic(threshold=1e-3, absolute=True, revised=False, **EARLY),
    "MCMC": lambda: MCMC(most=70, growth=0.2, **EARLY),
    "Budgeted": lambda: Budgeted(most=48, growth=0.3, **EARLY),
}


@pytest.fixture(params=MEMBERS)
def densify(request: pytest.FixtureRequest) -> Densification:
    return MEMBERS[request.param]()


def apart(count: int = 8, *, scale: float = 0.1, opacity: float = 0.5) -> Gaussians:
    """Round Gaussians side by side that hardly overlap, seen from the front."""
    means = torch.zeros(count, 3)
    means[:, 0] = torch.linspace(-0.6, 0.6, count)
    upright = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
    scales = torch.full((count, 3), scale)
    sh = torch.rand(count, 1, 3, generator=seeded(1))
    return Gaussians(Splats(means, upright, scales, torch.full((count,), opacity), sh))


def flags(count: int, *which: int) -> Tensor:
    found = torch.zeros(count, dtype=torch.bool)
    found[list(which)] = True
    return found


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def picture(made: Gaussians, size: int = 64) -> Tensor:
    return Splat()(made, turntable(1, size)).rgb


def untrained(made: Gaussians) -> torch.optim.Optimizer:
    return Adam(lr=0.01)(made.parameter_groups())


def test_family_is_complete(family_members: Callable[[type, str], list[type]]) -> None:
    assert {cls.__name__ for cls in family_members(Densification, "dream3d")} == set(MEMBERS) - {"AbsGS"}


def test_due() -> None:
    assert [step for step in range(20) if due(step, 5, 15, 4)] == [8, 12]
    assert [step for step in range(10) if due(step, 0, None, 3)] == [2, 5, 8]


# ---- pictures stay


def test_a_shared_out_gaussian_has_the_same_middle_and_integral() -> None:
    """Numerically, along a line: n copies composited are one, for every n and opacity."""
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    for copies in (1, 2, 3, 10, 51):
        for o in (0.01, 0.3, 0.9, 0.995):
            opacity = torch.tensor([o], dtype=torch.float64)
            each, shrink = shared_out(opacity, torch.tensor([copies]))
            assert 1 - (1 - each.item()) ** copies == pytest.approx(o, rel=1e-9)
            together = 1 - (1 - each * torch.exp(-0.5 * (x / shrink) ** 2)) ** copies
            one = opacity * torch.exp(-0.5 * x**2)
            assert together.sum().item() == pytest.approx(one.sum().item(), rel=1e-6), (copies, o)


def test_relocation_keeps_the_picture() -> None:
    """Eight that can be seen, two dead ones; all ten, and five more, end at living ones."""
    made = apart(8)
    both = made.to_splats()
    dead = apart(2, opacity=0.001).to_splats()
    made = Gaussians(Splats(*(torch.cat([getattr(a, n) for a in (both, dead)]) for n in vars(both))))
    before, optimizer = picture(made), trained_state(made)
    relocate(made, made.opacities < 0.005, 5, optimizer, seeded())
    assert len(made) == 15 and bool((made.opacities > 0.005).all())
    after = picture(made)
    assert float((after - before).abs().max()) < 0.04 and float((after - before).abs().mean()) < 2e-3
    assert after.sum().item() == pytest.approx(before.sum().item(), rel=0.03)


def trained_state(made: Gaussians) -> torch.optim.Optimizer:
    """An optimiser whose running means are numbers from 1 on, and parameters that did not move."""
    optimizer = untrained(made)
    for parameter in made.parameters():
        count = torch.arange(1.0, parameter.numel() + 1).view_as(parameter)
        optimizer.state[parameter] = {"step": torch.tensor(1.0), "exp_avg": count, "exp_avg_sq": count + 0.5}
    return optimizer


def test_clones_keep_the_picture_where_they_are_revised() -> None:
    before = picture(apart())
    changes = []
    for revised in (True, False):
        made = apart()
        grow(made, flags(8, *range(8)), flags(8, 1, 4), untrained(made), seeded(), size=0.2, revised=revised)
        assert len(made) == 10
        changes.append(float((picture(made) - before).abs().max()))
    assert changes[0] < 0.05 < 0.1 < changes[1]


def test_a_split_keeps_the_picture_on_average() -> None:
    """Its halves are samples: over many of them, the picture has the same middle and most of its light. The light of a
    faint one would be 2 / 1.6^2 = 0.78 of it, the peak 0.56 since the halves' places add to the width."""
    before, mean = picture(apart(1), 32), torch.zeros(1, 32, 32, 3)
    for seed in range(100):
        made = apart(1)
        grow(made, flags(1, 0), flags(1, 0), untrained(made), seeded(seed), size=0.05, revised=True)
        assert len(made) == 2
        torch.testing.assert_close(made.scales, torch.full((2, 3), 0.1 / 1.6))
        mean += picture(made, 32) / 100
    assert float((mean - before).abs().max()) < 0.44 * float(before.max())
    assert 0.75 < float(mean.sum() / before.sum()) < 0.95
    columns = torch.arange(32.0)
    centre = [float((p.sum((0, 1, 3)) * columns).sum() / p.sum()) for p in (before, mean)]
    assert centre[0] == pytest.approx(centre[1], abs=0.4)


# ---- running means move along


def test_running_means_follow_growth() -> None:
    """0 goes, 1 is cloned, 2 is split, 3 stays: rows 1 3 | 1 | 2 2, the last three new."""
    made = Gaussians(splats(4))
    with torch.no_grad():
        made.log_scales[1] = math.log(0.01)
        made.log_scales[2] = math.log(0.1)
    optimizer = trained(made)
    before = {name: optimizer.state[getattr(made, name)]["exp_avg"].clone() for name in PARAMETERS}
    means = made.means.detach().clone()
    grow(made, flags(4, 1, 2, 3), flags(4, 1, 2), optimizer, seeded(), size=0.05, revised=True)
    assert torch.equal(made.means[:3], means[[1, 3, 1]]) and not torch.equal(made.means[3], made.means[4])
    for name in PARAMETERS:
        moments = optimizer.state[getattr(made, name)]["exp_avg"]
        assert torch.equal(moments[:2], before[name][[1, 3]]) and not moments[2:].any()


def test_running_means_follow_relocation() -> None:
    """0 is dead and moves to the only one that can be chosen, with whom it begins anew; the third goes on."""
    made = apart(3)
    with torch.no_grad():
        made.logits.copy_(torch.tensor([-9.0, 5.0, -5.0]))  # 2 lives, but hardly ever has company
    optimizer = trained_state(made)
    third = {name: optimizer.state[getattr(made, name)]["exp_avg"][2].clone() for name in PARAMETERS}
    place = made.means[1].clone()
    relocate(made, flags(3, 0), 0, optimizer, seeded())
    assert torch.equal(made.means[0], place) and torch.equal(made.means[1], place)
    for name in PARAMETERS:
        moments = optimizer.state[getattr(made, name)]["exp_avg"]
        assert not moments[:2].any() and torch.equal(moments[2], third[name])


# ---- each one's rules


def test_classic_clones_the_small_splits_the_large_and_removes_the_rest() -> None:
    made = apart(6)
    with torch.no_grad():
        made.log_scales[:3] = math.log(0.01)
        made.log_scales[5] = math.log(0.9)
        made.logits[2] = -9.0
    made.views += 2
    made.pull.copy_(2 * torch.tensor([1.0, 0.1, 9.0, 1.0, 0.1, 9.0]))
    Classic(threshold=0.5, size=0.05, **EARLY).after_step(made, 2, untrained(made), seeded())
    x = torch.linspace(-0.6, 0.6, 6)
    assert len(made) == 6 and torch.allclose(made.means[:4, 0], x[[0, 1, 4, 0]])  # 2 faint, 5 large, 3 split
    assert not made.pull.any() and not made.views.any()


def test_classic_takes_the_hardest_when_there_is_room_for_few() -> None:
    made = apart(6, scale=0.01)
    made.views += 1
    made.pull.copy_(torch.tensor([1.0, 5.0, 2.0, 4.0, 3.0, 0.0]))
    Classic(threshold=0.5, most=8, **EARLY).after_step(made, 2, untrained(made), seeded())
    assert len(made) == 8 and torch.equal(made.means[6:], made.means[[1, 3]])


def test_classic_resets_opacities_and_their_running_means() -> None:
    made = apart(4)
    optimizer = trained_state(made)
    Classic(faint=0.01, begin=100, reset_every=3).after_step(made, 2, optimizer, seeded())
    torch.testing.assert_close(made.opacities.detach(), torch.full((4,), 0.02))
    assert not optimizer.state[made.logits]["exp_avg"].any() and optimizer.state[made.means]["exp_avg"].all()


def test_mcmc_grows_to_its_limit_and_shakes_what_is_transparent() -> None:
    made = apart(20, scale=0.05)
    with torch.no_grad():
        made.logits[0] = -5.0  # 0.0067: alive, and awake
    before, optimizer = made.means.detach().clone(), untrained(made)
    strategy = MCMC(most=30, growth=0.3, noise=100.0, **EARLY)
    strategy.after_step(made, 1, optimizer, seeded())
    moved = (made.means.detach() - before).norm(dim=-1)
    assert float(moved[0]) > 1e-4 and float(moved[1:].max()) < 1e-9
    counts = []
    for step in range(2, 9):
        strategy.after_step(made, step, optimizer, seeded(step))
        counts.append(len(made))
    assert counts == [26, 26, 30, 30, 30, 30, 30]


def test_budgeted_keeps_what_the_pictures_are_made_of() -> None:
    made = apart(10, scale=0.01)
    made.share.copy_(torch.tensor([5.0, 1, 9, 8, 2, 7, 6, 3, 4, 10]))
    made.views += 1
    made.pull.copy_(torch.tensor([0.0, 99, 0, 3, 99, 0, 4, 0, 0, 0]))
    Budgeted(most=8, growth=0.2, **EARLY).after_step(made, 2, untrained(made), seeded())
    # Two new ones are wanted, so six stay; of these 3 and 6 are pulled at.
    x = torch.linspace(-0.6, 0.6, 10)
    torch.testing.assert_close(made.means[:, 0].detach(), x[[0, 2, 3, 5, 6, 9, 3, 6]])


def test_budgeted_removes_what_it_was_handed_above_the_budget() -> None:
    made = apart(10)
    with torch.no_grad():
        made.logits.copy_(torch.arange(10.0))
    Budgeted(most=4).after_step(made, 0, untrained(made), seeded())
    torch.testing.assert_close(made.logits.detach(), torch.arange(6.0, 10))


@pytest.mark.parametrize("wrong", [{"begin": -1}, {"every": 0}, {"begin": 9, "end": 8}, {"most": 0}])
@pytest.mark.parametrize("cls", [Classic, MCMC, Budgeted])
def test_bad_values_are_refused(cls: type, wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"{cls.__name__}: {list(wrong)[-1]}"):
        cls(**wrong)


# ---- in a stage


def module(densify: Densification, *, count: int = 40, steps: int = 8, flat: bool = False) -> StageModule:
    stage = Stage(
        representation=lambda start: Gaussians(start),
        renderer=Splat(),
        prior=Gaussian(),
        objective=SDS(guider=CFG(scale=2.0)),
        cameras=OrbitCameras(size=16),
        optimizer=Adam(lr=0.01, warmup=1),
        batch=2,
        steps=steps,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Gaussians(count=count, flat=flat, sh_degree=1, densify=densify)
    return StageModule(stage, Prompt("a teddy bear"), made, seed=0)


def gaussians_of(made: StageModule) -> Gaussians:
    assert isinstance(made.representation, Gaussians)
    return made.representation


def everything(made: StageModule) -> list[Tensor]:
    """Parameters, statistics and the optimiser's state, in order."""
    moments = [v for p in made.representation.parameters() for v in made.optimizer.state[p].values()]
    return [*made.representation.state_dict().values(), *moments]


def test_killed_and_resumed_in_the_middle_is_the_same_to_the_bit(densify: Densification) -> None:
    whole = module(densify)
    fit(whole, CPU, [])
    numbers = set()
    for stop in (2, 3, 5):
        first = module(densify)
        fit(first, CPU, [StopAt(stop)])
        numbers.add(len(gaussians_of(first)))
        file = io.BytesIO()
        torch.save(first.checkpoint(), file)
        file.seek(0)
        second = module(densify)
        second.restore(torch.load(file, weights_only=True))
        assert second.step_index == stop
        fit(second, CPU, [])
        one, two = everything(whole), everything(second)
        assert len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert len(numbers) > 1 and len(gaussians_of(whole)) != 40  # it was in the middle


def test_discs_stay_flat_and_multiply(densify: Densification) -> None:
    made = module(densify, flat=True)
    fit(made, CPU, [])
    discs = gaussians_of(made)
    assert len(discs) != 40 and discs.log_scales.shape == (len(discs), 2) and not discs.scales[:, 2].any()
    assert made.optimizer.state[discs.log_scales]["exp_avg"].shape == discs.log_scales.shape


def test_budget_is_never_exceeded() -> None:
    made = module(Budgeted(most=25, growth=0.5, begin=0, every=1), steps=12)

    class Watching(StopAt):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            counts.append(len(module.representation))

    counts: list[int] = []
    fit(made, CPU, [Watching(99)])
    assert len(counts) == 12 and counts[0] <= 25 and max(counts) == 25


def test_no_gaussians_stay_none(densify: Densification) -> None:
    made = module(densify, count=0, steps=4)
    fit(made, CPU, [])
    assert made.step_index == 4 and len(gaussians_of(made)) == 0


def test_a_step_that_is_not_finite_spoils_no_statistics() -> None:
    made = Gaussians(splats(6), densify=Classic(begin=0))
    optimizer = untrained(made)
    made.before_step(0)
    (Splat()(made, turntable(1, 16)).rgb * float("nan")).sum().backward()
    made.after_step(0, optimizer)
    assert bool(made.pull.isfinite().all()) and bool(made.share.isfinite().all())
