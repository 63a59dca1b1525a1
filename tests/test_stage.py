"""One step, many steps, and the same steps again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from dream3d.backgrounds import Background, RandomFlat
from dream3d.cameras import OrbitCameras, turntable
from dream3d.checks import InputError, RunError
from dream3d.fitting import fit
from dream3d.guidance import CFG, SDS, Noised, Objective, UniformTime
from dream3d.priors import Builtin, Critic, FullCopy, Gaussian, LoRA, Prior, Query
from dream3d.prompts import Prompt
from dream3d.regularizers import Opaque, Sparsity
from dream3d.renderers import March
from dream3d.representations import Field, Representation
from dream3d.stage import Adam, Optimizing, Stage, StageModule

BEAR, CPU = Prompt("a teddy bear"), torch.device("cpu")


def field(start: Representation | None = None) -> Field:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Field(start, levels=4, log2_table=10, base=4, finest=32, hidden=16, occupancy=16, refresh=2)


def stage(**changes: Any) -> Stage:
    parts: dict[str, Any] = {
        "representation": field,
        "renderer": March(samples=24),
        "prior": Gaussian(),
        "objective": SDS(guider=CFG(scale=2.0)),
        "cameras": OrbitCameras(size=16),
        "steps": 6,
    }
    return Stage(**{**parts, **changes})


def module(seed: int = 0, **changes: Any) -> StageModule:
    return StageModule(stage(**changes), BEAR, field(), seed=seed)


def trained(seed: int = 0, **changes: Any) -> StageModule:
    made = module(seed, **changes)
    fit(made, CPU, [])
    return made


class StopAt(pl.Callback):
    """Ends the training after so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        trainer.should_stop = module.step_index >= self.step


def parameters(made: StageModule) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.representation.state_dict().items()}


def same(one: StageModule, two: StageModule) -> bool:
    first, second = parameters(one), parameters(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Constant(Objective):
    """A residual that is known."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def residual(self, prior: Prior, x: Noised) -> Tensor:
        assert not torch.is_grad_enabled() and not x.z.requires_grad
        return torch.full_like(x.z, self.value)


class Sometimes(Objective):
    """Not a number in some of its calls."""

    def __init__(self, *bad: int) -> None:
        super().__init__()
        self.bad = bad
        self.calls = 0

    def residual(self, prior: Prior, x: Noised) -> Tensor:
        self.calls += 1
        return torch.full_like(x.z, float("nan") if self.calls - 1 in self.bad else 0.1)


def test_gradient_is_weight_times_residual() -> None:
    """d loss / d z is w(t) * residual / B, exactly: here sigma^2 * 0.3 / 4 at every pixel of z."""
    prior, seen = Gaussian(), []
    encode = prior.encode

    def watched(images: Tensor) -> Tensor:
        seen.append(encode(images))
        seen[0].retain_grad()
        return seen[0]

    prior.encode = watched  # type: ignore[method-assign]
    made = module(prior=prior, objective=Constant(0.3), time=UniformTime(low=0.5, high=0.5))
    made.loss(0).backward()
    sigma = prior.schedule.sigma(torch.tensor([0.5])).item()
    gradient = seen[0].grad
    assert gradient is not None and gradient.shape == (4, 3, 16, 16)
    torch.testing.assert_close(gradient, torch.full_like(gradient, sigma**2 * 0.3 / 4))
    assert made.last["loss"].item() == pytest.approx(0.5 * (sigma**2 * 0.3) ** 2 * 3 * 16 * 16)


def test_clip_limits_the_push_on_each_picture() -> None:
    free, held = module(objective=Constant(0.3)), module(objective=Constant(0.3), clip=1e-3)
    for made in (free, held):
        made.loss(0).backward()
    norms = [m.representation.get_parameter("encoding.table").grad.norm().item() for m in (free, held)]
    assert 0 < norms[1] < norms[0]
    assert held.last["loss"].item() == pytest.approx(0.5 * 1e-3**2, rel=1e-3)


def test_descent_reaches_the_prior_s_mean() -> None:
    """With the exact score of pictures that are all one colour, what is rendered turns that colour."""
    prior, objective = Gaussian(mean=(0.9, 0.1, 0.2)), SDS(guider=CFG(scale=1.0))
    made = trained(steps=60, prior=prior, objective=objective, optimizer=Adam(lr=0.05))
    with torch.no_grad():
        render = made.stage.renderer(made.representation, turntable(4, 16))
    middle = render.rgb[:, 6:10, 6:10].mean((0, 1, 2)) / render.alpha[:, 6:10, 6:10].mean()
    assert middle[0] > 0.7 and middle[1] < 0.35 and middle[2] < 0.4


def test_same_seed_same_bytes_other_seed_other_object() -> None:
    assert same(trained(0), trained(0))
    assert not same(trained(0), trained(1))


def test_result_does_not_depend_on_the_global_generator() -> None:
    one = trained()
    torch.manual_seed(123)
    torch.rand(5)
    assert same(one, trained())


def test_resuming_continues_to_the_bit() -> None:
    """Six steps are three, a checkpoint through a file, another process's objects, and three more."""
    whole, first = trained(), module()
    fit(first, CPU, [StopAt(3)])
    assert first.step_index == 3 and not same(whole, first)
    file = io.BytesIO()
    torch.save(first.checkpoint(), file)
    file.seek(0)
    elsewhere = Field(levels=4, log2_table=10, base=4, finest=32, hidden=16, occupancy=16, refresh=2)
    second = StageModule(stage(), BEAR, elsewhere, seed=0)
    second.restore(torch.load(file, weights_only=True))
    assert second.step_index == 3 and same(first, second)
    fit(second, CPU, [])
    assert second.step_index == 6 and same(whole, second)
    for one, two in zip(whole.optimizer.state.values(), second.optimizer.state.values(), strict=True):
        assert torch.equal(one["exp_avg"], two["exp_avg"]) and torch.equal(one["exp_avg_sq"], two["exp_avg_sq"])


def test_a_step_that_is_not_finite_is_left_out() -> None:
    made = module(objective=Sometimes(2, 3), steps=2)
    fit(made, CPU, [])
    before = parameters(made)["encoding.table"]
    made.stage.steps = 4
    fit(made, CPU, [])
    assert made.step_index == 4 and torch.equal(before, parameters(made)["encoding.table"])
    assert not made.last["grad_norm"].isfinite()


def test_three_of_them_in_a_row_stop_the_run() -> None:
    made = module(objective=Sometimes(1, 2, 4, 5, 6), steps=10)
    with pytest.raises(RunError, match=r"gradient of .*encoding\.table.* was not finite for 3 steps up to step 6"):
        fit(made, CPU, [])
    assert all(value.isfinite().all() for value in parameters(made).values())


def test_regularizers_are_added_and_reported() -> None:
    made = module(objective=Constant(0.0), regularizers={"thin": Sparsity(weight=2.0), "hard": Opaque(weight=0.5)})
    loss = made.loss(0)
    assert loss.item() == pytest.approx((made.last["thin"] + made.last["hard"]).item(), rel=1e-5)
    loss.backward()
    assert made.representation.get_parameter("encoding.table").grad.abs().max() > 0
    assert {"loss", "opacity", "t", "thin", "hard"} <= set(made.last)


def test_the_prior_stays_frozen() -> None:
    """Prior's networks neither train nor change, whatever the trainer around them switches."""
    prior = Gaussian()
    prior.net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout()).eval().requires_grad_(False)
    before = prior.net[0].weight.clone()
    made = trained(prior=prior)
    assert not any(part.training for part in prior.net.modules())
    assert torch.equal(before, prior.net[0].weight) and "net.0.weight" not in made.checkpoint()["representation"]


class Against(Objective):
    """Pushes from what the critic predicts to what the prior does: the smallest variational objective."""

    def __init__(self, critic: Critic | None = None) -> None:
        super().__init__()
        self.critic = critic or FullCopy(lr=0.01)

    def residual(self, prior: Prior, x: Noised) -> Tensor:
        assert not torch.is_grad_enabled() and {"critic", "critic_blind"} <= set(x.conditions)
        (towards,) = prior.eps(x.ask("text"))
        (away,) = self.critic.eps([Query(x.z_t, x.t, self.critic.on(x.conditions))])
        return towards - away


def against(seed: int = 0, prior: Prior | None = None, critic: Critic | None = None, **changes: Any) -> StageModule:
    return module(seed, objective=Against(critic), prior=prior or Gaussian(), **changes)


def test_a_fresh_critic_cancels_the_prior() -> None:
    made = against()
    made.loss(0)
    assert made.last["loss"].item() == 0.0
    fit(made, CPU, [])
    assert made.last["loss"].item() > 0 and {"critic_loss", "critic_grad_norm"} <= set(made.last)
    assert made.critics[0].trained == 6 * 4 and made.critics[0].asked == 7 * 4


def test_critics_are_optimised_once_a_step_after_the_representation() -> None:
    calls: list[str] = []
    made = against(steps=2)
    made.optimizer.register_step_post_hook(lambda *_: calls.append("representation"))
    assert made.critic_optimizer is not None
    made.critic_optimizer.register_step_post_hook(lambda *_: calls.append("critic"))
    fit(made, CPU, [])
    assert calls == ["representation", "critic"] * 2
    assert [group["lr"] for group in made.critic_optimizer.param_groups] == [0.01]


def test_no_critic_leaves_no_trace() -> None:
    made = trained(steps=1)
    assert made.critic_optimizer is None and made.checkpoint()["critic_optimizer"] == {}
    assert not made.checkpoint()["objective"] and "critic_loss" not in made.last


@pytest.mark.parametrize("critic", [FullCopy, LoRA])
def test_resuming_with_a_critic_continues_to_the_bit(critic: type[Critic], tiny_builtin: Path) -> None:
    def make() -> StageModule:
        return against(prior=Builtin(folder=str(tiny_builtin)), critic=critic(lr=0.003), batch=2, steps=4)  # type: ignore[call-arg]

    whole, first, second = make(), make(), make()
    fit(whole, CPU, [])
    fit(first, CPU, [StopAt(2)])
    file = io.BytesIO()
    torch.save(first.checkpoint(), file)
    file.seek(0)
    second.restore(torch.load(file, weights_only=True))
    fit(second, CPU, [])
    assert second.step_index == 4 and same(whole, second)
    states = [made.objective.state_dict() for made in (whole, first, second)]
    assert all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert whole.critic_optimizer is not None and second.critic_optimizer is not None
    moments = [made.critic_optimizer.state_dict()["state"] for made in (whole, second)]
    assert all(
        torch.equal(one["exp_avg"], two["exp_avg"]) for one, two in zip(*(m.values() for m in moments), strict=True)
    )


def test_critic_s_weights_are_a_function_of_the_seed(tiny_builtin: Path) -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        return against(seed, Builtin(folder=str(tiny_builtin)), LoRA()).objective.state_dict()

    one = weights(3)
    torch.rand(7)
    two, three = weights(3), weights(4)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], three[name]) for name in one)


class Broken(Against):
    """Its critic's loss is not a number in some steps."""

    def __init__(self, *bad: int) -> None:
        super().__init__()
        self.bad = bad
        self.calls = 0

    def critic_loss(self, prior: Prior, x: Noised, generator: torch.Generator) -> Tensor | None:
        self.calls += 1
        loss = super().critic_loss(prior, x, generator)
        assert loss is not None
        return loss * float("nan") if self.calls - 1 in self.bad else loss


def test_a_critic_s_step_that_is_not_finite_is_left_out() -> None:
    made = module(objective=Broken(1, 2), steps=4)
    fit(made, CPU, [])
    assert made.step_index == 4 and made.is_finite()
    assert made.critic_optimizer is not None
    assert {int(s["step"]) for s in made.critic_optimizer.state.values()} == {2}
    with pytest.raises(RunError, match=r"critic\.weights.* was not finite for 3 steps up to step 3"):
        fit(module(objective=Broken(1, 2, 3), steps=9), CPU, [])


def test_batch_is_a_multiple_of_the_prior_s_views() -> None:
    prior = Gaussian()
    prior.views = 4
    with pytest.raises(InputError, match=r"multiple of the prior's 4 views \(got 6\)"):
        stage(prior=prior, batch=6)


@pytest.mark.parametrize("changes", [{"steps": 0}, {"batch": 0}, {"weight": "nonsense"}])
def test_bad_values_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        stage(**changes)


def test_adam_warms_up_and_decays() -> None:
    optimizing: Optimizing = Adam(lr=0.1, warmup=10, final=0.2)
    factors = [optimizing.factor(step, 100) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == factors[9]
    assert all(a > b for a, b in zip(factors[9:], factors[10:], strict=False))
    assert factors[100] == pytest.approx(0.2)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr_scale": scale} for scale in (1.0, 0.2)]
    assert [group["lr"] for group in optimizing(groups).param_groups] == [0.1, pytest.approx(0.02)]


def test_learning_rates_follow_the_factor() -> None:
    made = trained(optimizer=Adam(lr=0.1, warmup=1, final=0.5), steps=3)
    wanted = 0.1 * made.stage.optimizer.factor(2, 3)
    assert [group["lr"] for group in made.optimizer.param_groups] == [wanted, pytest.approx(0.2 * wanted)]


def test_backgrounds_are_shared_by_a_group_of_views() -> None:
    background: Background = RandomFlat(chance=0.5, grey=0.25)
    colours = background(4000, 4, torch.Generator().manual_seed(0))
    groups = colours.view(1000, 4, 3)
    assert colours.shape == (4000, 3) and torch.equal(groups, groups[:, :1].expand_as(groups))
    grey = (groups[:, 0] == 0.25).all(-1)
    assert grey.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert groups[:, 0][~grey].std() > 0.25 and 0 <= groups.min() and groups.max() <= 1
    fixed = RandomFlat(chance=0.0, grey=1.0)(3, 1, torch.Generator())
    assert torch.equal(fixed, torch.ones(3, 3))
