"""Objectives, guiders and noisers: what they are and how one step joins them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dream3d.checks import InputError
from dream3d.priors.base import Condition, Prior, Query, Schedule
from dream3d.priors.critic import Critic
from dream3d.prompts import Prompt
from dream3d.representations.base import Representation
from dream3d.types import Cameras, Render

CURES = {
    "negative": "give the prompt a negative text, or leave 'null' instead",
    "no_camera": "take a prior that sees the camera (Builtin, MVDream), or guide with the text alone (CFG)",
    "visual": "take a prior with an image prompt (IPAdapter)",
}
"""What to do where a prior lacks a condition."""


@dataclass(frozen=True)
class Noised:
    """Clean latents `z`, the level `t` they are at, and what the prior may be asked there.

    `z_t` and `t` travel together: questions are made by `ask`, for this level, and another level is another `Noised`
    (`at` with the same noise, `ddim` along a prediction).

    Attributes:
        added: the noise that was added, or None when `z_t` came from an inversion: then no such noise exists.
        schedule: the prior's.
        generator: the step's (CPU), for objectives and guiders that draw numbers; None is torch's own.
        step: optimiser step, for what anneals.
        came: the point before, and the noise predicted there, when `ddim` led here.
        drawn: numbers that the step has drawn so far; shared with the points made from this one.
    """

    z: Float[Tensor, "B C h w"]
    z_t: Float[Tensor, "B C h w"]
    t: Float[Tensor, "B"]
    conditions: Mapping[str, Condition]
    added: Float[Tensor, "B C h w"] | None
    schedule: Schedule
    generator: torch.Generator | None = None
    step: int = 0
    came: tuple[Noised, Tensor] | None = None
    drawn: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def eps(self) -> Float[Tensor, "B C h w"]:
        if self.added is None:
            raise InputError("this objective needs the noise that was added: set noise to FreshNoise.")
        return self.added

    @property
    def before(self) -> tuple[Noised, Tensor]:
        """Where the last step of an inversion began, and the noise that was predicted there."""
        if self.came is None:
            raise InputError("this objective compares two levels of an inversion: set noise to Inversion.")
        return self.came

    @property
    def alpha(self) -> Float[Tensor, "B 1 1 1"]:
        return self.schedule.alpha(self.t).to(self.z)

    @property
    def sigma(self) -> Float[Tensor, "B 1 1 1"]:
        return self.schedule.sigma(self.t).to(self.z)

    def chance(self, what: str, views: int = 1) -> Float[Tensor, "B"]:
        """Numbers in [0, 1), one for each `views` items, drawn once a step: who asks again for `what` gets the same."""
        if what not in self.drawn:
            self.drawn[what] = torch.rand(len(self.z), generator=self.generator).to(self.z)
        return self.drawn[what][::views].repeat_interleave(views)

    def named(self, name: str) -> Condition:
        """A condition by its name."""
        if name not in self.conditions:
            cure = CURES.get(name, "name one of these in the guider")
            raise InputError(f"the prior offers {', '.join(self.conditions)}; '{name}' is asked for: {cure}.")
        return self.conditions[name]

    def ask(self, *names: str) -> list[Query]:
        """One query a name, all at this level."""
        return [Query(self.z_t, self.t, self.named(name)) for name in names]

    def at(
        self,
        t: Float[Tensor, "B"] | None = None,
        *,
        z: Float[Tensor, "B C h w"] | None = None,
        eps: Float[Tensor, "B C h w"] | None = None,
    ) -> Noised:
        """The same with another level, other latents or other noise."""
        t, z, eps = self.t if t is None else t, self.z if z is None else z, self.eps if eps is None else eps
        return replace(self, z=z, z_t=self.schedule.noised(z, eps, t), t=t, added=eps, came=None)

    def given(self, **conditions: Condition) -> Noised:
        """The same point with other conditions under these names: guiders ask by name."""
        return replace(self, conditions={**self.conditions, **conditions})

    def rows(self, which: Int[Tensor, "b"] | list[int]) -> Noised:
        """Some items of the batch, as a point of their own."""
        conditions = {
            name: Condition({key: value[which] for key, value in condition.tensors.items()})
            for name, condition in self.conditions.items()
        }
        added = None if self.added is None else self.added[which]
        kept = {"z": self.z[which], "z_t": self.z_t[which], "t": self.t[which]}
        return replace(self, **kept, conditions=conditions, added=added, came=None, drawn={})

    def ddim(self, eps: Float[Tensor, "B C h w"], t: Float[Tensor, "B"]) -> Noised:
        """Along the predicted noise to another level, up or down (DDIM, arXiv:2010.02502, eq. 12 without its noise)."""
        moved = torch.where((t == self.t).view(-1, 1, 1, 1), self.z_t, self.schedule.noised(self.clean(eps), eps, t))
        return replace(self, z_t=moved, t=t, added=None, came=(replace(self, came=None), eps))

    def clean(self, eps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The clean latents that a prediction stands for."""
        return self.schedule.clean(self.z_t, eps, self.t)

    def noise(self, clean: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The prediction that stands for these clean latents; undoes `clean`."""
        return (self.z_t - self.alpha * clean) / self.sigma

    def pull(self, clean: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The residual, in units of noise, that moves z towards `clean`: alpha / sigma (z - clean).

        For added noise `pull(clean(e)) == e - eps`. With weight sigma_over_alpha its loss is half the squared distance.
        """
        return self.alpha / self.sigma * (self.z - clean)

    def error(self, clean: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 1 1 1"]:
        """Mean absolute distance of each item from z to `clean`; a constant for gradients."""
        return (self.z - clean).detach().abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-8)


class Noiser(ABC):
    """Takes clean latents to a level of the schedule."""

    @final
    def __call__(
        self,
        prior: Prior,
        z: Float[Tensor, "B C h w"],
        t: Float[Tensor, "B"],
        conditions: Mapping[str, Condition],
        generator: torch.Generator,
        step: int = 0,
    ) -> Noised:
        """Take `z` (detached) to exactly `t`; all randomness comes from `generator` (CPU)."""
        z, schedule = z.detach(), prior.schedule
        return self.take(prior, Noised(z, schedule.alpha(t).to(z) * z, t, conditions, None, schedule, generator, step))

    @abstractmethod
    def take(self, prior: Prior, x: Noised) -> Noised:
        """The same with noise; as it comes, `x` is at its level without any: z_t = alpha z."""


class Guider(ABC):
    """Makes one prediction out of several."""

    @property
    @abstractmethod
    def asks(self) -> tuple[str, ...]:
        """Names of the conditions it needs, in the order of its call; leaves out those that have no weight."""

    @abstractmethod
    def __call__(self, x: Noised, *eps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Combine the predictions for `asks`, made at `x`."""


def guided(source: Prior | Critic, *asked: tuple[Guider, Noised]) -> list[Tensor]:
    """What each guider makes of the answers at its point: all questions in one network call, none of them twice."""
    groups = [x.ask(*guider.asks) for guider, x in asked]
    # The same tensors are the same question: points made with `given` share theirs.
    keys = [[(id(q.z_t), id(q.t), id(q.on)) for q in group] for group in groups]
    unique = {key: q for ks, group in zip(keys, groups, strict=True) for key, q in zip(ks, group, strict=True)}
    answers = dict(zip(unique, source.eps(list(unique.values())), strict=True))
    return [guider(x, *[answers[key] for key in ks]) for (guider, x), ks in zip(asked, keys, strict=True)]


def combined(prior: Prior, x: Noised, weights: Mapping[str, float | Tensor]) -> Tensor:
    """Weighted sum of predictions, by the names of their conditions; those without weight are not asked for."""
    kept = {name: w for name, w in weights.items() if bool(torch.as_tensor(w).any())}
    if not kept:
        raise InputError(f"at least one weight of {', '.join(weights)} must differ from 0.")
    answers = prior.eps(x.ask(*kept))
    return torch.stack([w * eps for w, eps in zip(kept.values(), answers, strict=True)]).sum(0)


class Objective(nn.Module, ABC):
    """Which residual pushes the rendering. The gradient with respect to z is `w(t) * residual`.

    Attributes:
        noise: the noiser that belongs to it, taken where a stage names none; None is fresh noise.
        weight: name of the w(t) that belongs to it, likewise.
        views: consecutive pictures that it looks at together; they share one t.
    """

    noise: Noiser | None = None
    weight: str = "sigma2"
    views: int = 1

    @abstractmethod
    def residual(self, prior: Prior, x: Noised) -> Float[Tensor, "B C h w"]:
        """Prediction minus reference, so that descent moves z towards the prediction. Called without grad."""

    def conditions(self, prior: Prior, prompt: Prompt, cameras: Cameras) -> dict[str, Condition]:
        """What the prior may be asked with; an objective with texts of its own adds them under other names."""
        return prior.conditions(prompt, cameras)

    def regarding(
        self,
        made: Mapping[str, Condition],
        prior: Prior,
        prompt: Prompt,
        cameras: Cameras,
        representation: Representation,
        render: Render,
    ) -> Mapping[str, Condition]:
        """`conditions`, told what was drawn from these cameras; for objectives that look at it.

        Raises:
            InputError: pictures show parts alone (`Focus`), of which this objective knows nothing.
        """
        if "subject" in render.aux:
            raise InputError(f"{type(self).__name__} knows no prompts of parts: take RegionSDS, or leave Focus.")
        return made

    def pixel_residual(
        self, prior: Prior, x: Noised, images: Float[Tensor, "B 3 H W"], residual: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B 3 H W"] | None:
        """A second residual, on the rendered pictures themselves, weighted by the same w(t); None without one.

        Args:
            images: the pictures that z was encoded from, in [0, 1], detached.
            residual: what `residual` returned for this `x`.
        """
        return None

    def critic_loss(self, prior: Prior, x: Noised, generator: torch.Generator) -> Tensor | None:
        """Loss of the networks that the objective trains beside the representation, None where it has none.

        Called once a step, after the representation's own; `generator` is the step's (CPU). Every `Critic` among the
        objective's modules is attached to the prior before the first step and is optimised by this loss.
        """
        losses = [critic.loss(prior, x.z, x.conditions, generator) for critic in self.critics()]
        return torch.stack(losses).sum() if losses else None

    @final
    def critics(self) -> list[Critic]:
        """The networks it trains: its submodules of that kind."""
        return [module for module in self.modules() if isinstance(module, Critic)]
