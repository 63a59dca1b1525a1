"""A stage of a run: what is optimised by what (Stage), and the one LightningModule that does it (StageModule)."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, final

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dream3d.backgrounds import Background, RandomFlat
from dream3d.cameras import CameraSampler, OrbitCameras
from dream3d.checks import InputError, RunError, in_range, one_of
from dream3d.guidance.base import Noised, Noiser, Objective
from dream3d.guidance.noise import FreshNoise
from dream3d.guidance.posts import Post
from dream3d.guidance.time import WEIGHTS, TimeSampler, UniformTime, WeightName
from dream3d.priors.base import Prior
from dream3d.prompts import Prompt
from dream3d.regularizers import Regularizer
from dream3d.renderers.base import Renderer
from dream3d.representations.base import Representation

BAD_STEPS = 3
"""Non-finite steps in a row after which a run stops."""
CRITIC_BETAS = (0.9, 0.99)
"""Of the critics' AdamW (arXiv:1711.05101), as threestudio trains VSD's."""


class Optimizing(ABC):
    """Makes the optimiser of a stage and says how its learning rate changes."""

    @abstractmethod
    def __call__(self, groups: list[dict]) -> torch.optim.Optimizer:
        """An optimiser over `Representation.parameter_groups()`; each of its groups keeps its full rate as "rate"."""

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """What the learning rates are multiplied with at this step."""


@final
class Adam(Optimizing):
    """Adam (arXiv:1412.6980) with warm-up and cosine decay.

    Args:
        lr: learning rate; a group's `lr_scale` multiplies it.
        betas: decay of the running means; 0.99 follows the changing noise of score distillation better than 0.999.
        eps: small, because hash-table gradients are (Instant-NGP, arXiv:2201.05989, uses 1e-15).
        warmup: steps over which the rate rises from 0.
        final: share of the rate that is left at the last step.
    """

    def __init__(
        self,
        *,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-15,
        warmup: int = 20,
        final: float = 0.1,
    ) -> None:
        in_range("Adam: lr", lr, 0)
        in_range("Adam: final", final, 0, 1)
        self.lr = lr
        self.betas = betas
        self.eps = eps
        self.warmup = warmup
        self.final = final

    def __call__(self, groups: list[dict]) -> torch.optim.Optimizer:
        rated = [{**group, "lr": self.lr * group["lr_scale"], "rate": self.lr * group["lr_scale"]} for group in groups]
        return torch.optim.Adam(rated, betas=self.betas, eps=self.eps, foreach=True)

    def factor(self, step: int, steps: int) -> float:
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        return rise * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


@final
class Stage:
    """One stage of a recipe.

    Args:
        representation: makes the 3D thing from the stage before (None in the first).
        renderer: draws it.
        prior: the diffusion model.
        objective: which residual pushes the rendering.
        cameras: where the views of a step are from.
        time: noise levels.
        noise: how latents are noised; None takes what belongs to the objective.
        weight: name of w(t); None takes what belongs to the objective.
        background: what stands behind the object.
        regularizers: losses beside the objective, by name.
        optimizer: how parameters move.
        batch: views a step; a multiple of the prior's `views`.
        steps: optimiser steps.
        clip: largest norm of the gradient on a rendered picture's latents, None for no limit.
        post: what else is done to that gradient, before `clip`.
    """

    def __init__(
        self,
        *,
        representation: Callable[[Representation | None], Representation],
        renderer: Renderer,
        prior: Prior,
        objective: Objective,
        cameras: CameraSampler | None = None,
        time: TimeSampler | None = None,
        noise: Noiser | None = None,
        weight: WeightName | None = None,
        background: Background | None = None,
        regularizers: dict[str, Regularizer] | None = None,
        optimizer: Optimizing | None = None,
        batch: int = 4,
        steps: int = 1000,
        clip: float | None = None,
        post: Post | None = None,
    ) -> None:
        in_range("steps", steps, 1)
        in_range("batch", batch, 1)
        views = math.lcm(prior.views, objective.views)
        if batch % views:
            whose = "prior's" if views == prior.views else "objective's"
            raise InputError(f"batch must be a multiple of the {whose} {views} views (got {batch}).")
        self.representation = representation
        self.renderer = renderer
        self.prior = prior
        self.objective = objective
        self.cameras = cameras or OrbitCameras()
        self.time = time or UniformTime()
        self.noise = noise or objective.noise or FreshNoise()
        self.weight = WEIGHTS[one_of("weight", weight or objective.weight, WEIGHTS)]
        self.background = background or RandomFlat()
        self.regularizers = dict(regularizers or {})
        self.optimizer = optimizer or Adam()
        self.views = views
        self.batch = batch
        self.steps = steps
        self.clip = clip
        self.post = post


def seed_of(*numbers: int) -> int:
    """32 well-mixed bits out of several numbers. torch's CPU generator ignores all bits above the lowest 32."""
    digest = hashlib.blake2b(" ".join(map(str, numbers)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


@final
class StageModule(pl.LightningModule):
    """Trains one stage. Random numbers are a function of (seed, number, step): resuming continues to the bit.

    Args:
        stage: what to train.
        prompt: what to make.
        representation: the 3D thing, already built.
        seed: of the run.
        number: of the stage within the run; stages of one run draw different numbers.
        start: first step, when a checkpoint is continued.

    Attributes:
        last: what happened in the last step, by name (tensors, detached).
        settled: whether this is the state after `step_index` steps; within a step it is not, and no checkpoint.
    """

    def __init__(
        self,
        stage: Stage,
        prompt: Prompt,
        representation: Representation,
        *,
        seed: int,
        number: int = 0,
        start: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # a critic has a step of its own; non-finite ones are left out
        self.stage = stage
        self.prompt = prompt
        self.representation = representation
        self.prior = stage.prior
        self.objective = stage.objective
        self.seed = seed
        self.number = number
        self.step_index = start
        self.settled = True
        self.optimizer = stage.optimizer(representation.parameter_groups())
        self.critics = stage.objective.critics()
        self.critic_optimizer = self._attach()
        self.last: dict[str, Tensor] = {}
        self._generator = torch.Generator()
        self._noised: Noised | None = None
        self._bad_steps = {"representation": 0, "critic": 0}
        self._normals = stage.prior.needs_normals or any(r.needs_normals for r in stage.regularizers.values())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer

    def _attach(self) -> torch.optim.Optimizer | None:
        """Critics with their first weights, a function of the seed, and what trains them; None where there are none."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, self.number))
            for critic in self.critics:
                critic.attach(self.prior)
        groups = [{"params": list(critic.parameters()), "lr": critic.lr} for critic in self.critics]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, betas=CRITIC_BETAS, foreach=True) if groups else None

    def train_dataloader(self) -> DataLoader:
        steps = range(self.step_index, self.stage.steps)
        return DataLoader(steps, batch_size=None)  # pyright: ignore[reportArgumentType] any sequence will do

    def loss(self, step: int) -> Tensor:
        """One step's loss, from cameras to the number whose gradient is wanted (design: "One step")."""
        stage, views, generator = self.stage, self.stage.views, self._generator
        generator.manual_seed(seed_of(self.seed, self.number, step))
        cameras = stage.cameras(stage.batch, views, step, generator).to(self.device)
        background = stage.background(stage.batch, views, generator).to(self.device)
        self.representation.before_step(step)
        stage.renderer.before_step(step, views)
        render = stage.renderer(self.representation, cameras, generator=generator, normals=self._normals)
        images = render.over(background)
        z = self.prior.encode(images)
        with torch.no_grad():
            t = self.prior.schedule.snap(stage.time(stage.batch, views, step, generator).to(z))
            conditions = self.objective.conditions(self.prior, self.prompt, cameras)
            scene = (cameras, self.representation, render)
            conditions = self.objective.regarding(conditions, self.prior, self.prompt, *scene)
            conditions = self.prior.hinted(conditions, render, cameras)
            for critic in self.critics:
                conditions = critic.watch(conditions, cameras)
            x = stage.noise(self.prior, z.detach(), t, conditions, generator, step)
            weight = stage.weight(x.alpha, x.sigma)
            residual = self.objective.residual(self.prior, x)
            on_pixels = self.objective.pixel_residual(self.prior, x, images.detach(), residual)
            g = weight * residual
            if stage.post is not None:
                g = stage.post(g)
            if stage.clip is not None:
                norm = g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
                g = g * (stage.clip / norm.clamp_min(1e-12)).clamp_max(1.0)
        self._noised = x
        penalties = {name: r(self.representation, render, step) for name, r in stage.regularizers.items()}
        loss = (z * g).sum() / stage.batch + sum(penalties.values())
        if on_pixels is not None:
            loss = loss + (images * weight * on_pixels).sum() / stage.batch
        self.last = {
            # The surrogate's value means nothing; half the squared norm is what its gradient descends.
            "loss": 0.5 * g.square().sum() / stage.batch,
            "opacity": render.alpha.detach().mean(),
            "t": t.mean(),
            **{name: value.detach() for name, value in penalties.items()},
        }
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> None:
        step = int(batch)
        factor = self.stage.optimizer.factor(step, self.stage.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        loss = self.loss(step)
        self.manual_backward(loss)
        self.settled = False
        # Lightning's wrapper counts the step; the optimiser inside is ours.
        self.last["grad_norm"] = self._move("representation", self.representation, loss, self.optimizers().step, step)
        self.optimizer.zero_grad(set_to_none=True)
        self.representation.after_step(step, self.optimizer, self._generator)
        if self.critic_optimizer is not None:
            self._train_critics(self.critic_optimizer, step)
        self.step_index = step + 1
        self.settled = True

    def _train_critics(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """One step of every critic, on the same renderings with noise of its own."""
        assert self._noised is not None
        loss = self.objective.critic_loss(self.prior, self._noised, self._generator)
        self._noised = None
        if loss is None:  # it trains at some steps only
            return
        self.manual_backward(loss)
        self.last["critic_loss"] = loss.detach()
        self.last["critic_grad_norm"] = self._move("critic", self.objective, loss, optimizer.step, step)
        optimizer.zero_grad(set_to_none=True)

    def _move(self, who: str, owner: nn.Module, loss: Tensor, take: Callable[[], Any], step: int) -> Tensor:
        """Take the optimiser's step unless something is not finite; the norm of the gradient.

        Raises:
            RunError: `BAD_STEPS` in a row were left out.
        """
        grads = {name: p.grad for name, p in owner.named_parameters() if p.grad is not None}
        norm = torch.nn.utils.get_total_norm(grads.values(), foreach=True) if grads else torch.zeros(())
        if bool(torch.isfinite(loss.detach()) & torch.isfinite(norm)):
            self._bad_steps[who] = 0
            take()
            return norm
        self._bad_steps[who] += 1
        if self._bad_steps[who] < BAD_STEPS:
            return norm
        worst = [name for name, grad in grads.items() if not bool(torch.isfinite(grad).all())]
        raise RunError(
            f"the gradient of {', '.join(worst) or 'the loss'} was not finite for {BAD_STEPS} steps up to step {step}. "
            "The last good checkpoint is kept; lower the learning rate or the guidance scale."
        )

    def checkpoint(self) -> dict[str, Any]:
        """All that continuing needs: tensors and plain values only, loadable with `weights_only`."""
        return {
            "step": self.step_index,
            "representation": self.representation.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict() if self.critic_optimizer else {},
        }

    def is_finite(self) -> bool:
        """Whether every parameter is: what is not does not deserve a checkpoint."""
        trained = [self.representation, self.objective]
        return all(bool(p.detach().isfinite().all()) for part in trained for p in part.parameters())

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from `checkpoint()`."""
        self.representation.load_state_dict(saved["representation"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.objective.load_state_dict(saved["objective"])
        if self.critic_optimizer is not None:
            self.critic_optimizer.load_state_dict(saved["critic_optimizer"])
        self.step_index = int(saved["step"])
