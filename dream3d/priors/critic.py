"""Networks that objectives train beside the representation: they learn the noise of the *renderings*.

A critic estimates the score of what is rendered, as a prior does of what it was trained on; variational objectives push
along the difference of the two (VSD, arXiv:2305.16213). It starts as the prior itself, to the bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from dream3d.checks import InputError, RunError, in_range
from dream3d.priors.base import Condition, Prior, Query
from dream3d.types import Cameras

SEEN, BLIND = "critic", "critic_blind"
"""Names of the conditions that `Critic.watch` adds."""
POSE = "critic_pose"
"""Name of the tensor in them that the prior itself does not know."""
POSE_SIZE = 15


def pose_of(cameras: Cameras) -> Float[Tensor, "B 15"]:
    """What a critic is told of a camera: axes (9), direction from the origin (3), log distance, log tan(fov / 2), and a
    one. All zeros means "no camera given"."""
    axes = cameras.c2w[:, :3, :3].flatten(1)
    direction = nn.functional.normalize(cameras.position, dim=-1)
    distance = cameras.distance.clamp_min(1e-6).log()
    zoom = torch.tan(0.5 * cameras.fov_y).log()
    return torch.cat([axes, direction, torch.stack([distance, zoom, torch.ones_like(zoom)], dim=-1)], dim=-1)


@final
class Denoising:
    """How a critic's batch is noised, and what it is not shown.

    Args:
        low: smallest time drawn.
        high: largest; a critic learns all levels whatever the objective's own time does (threestudio draws [0, 1)).
        camera_dropout: share of samples, each drawn for itself, whose camera is hidden. Needed by objectives that ask
            the critic without a camera (ESD, arXiv:2401.00909); threestudio drops 0.1 of the *batches*.
        text_dropout: share whose text is hidden, for objectives that guide the critic (SwiftBrush, arXiv:2312.05239,
            0.1).
        snr_cap: gamma of min-SNR weighting (arXiv:2303.09556): the loss counts min(SNR, gamma) / SNR. Networks that
            predict the clean picture turn its error at low noise into a huge error of the noise. None counts all
            levels alike, as the published codes do.
    """

    def __init__(
        self,
        *,
        low: float = 0.02,
        high: float = 0.98,
        camera_dropout: float = 0.1,
        text_dropout: float = 0.0,
        snr_cap: float | None = 5.0,
    ) -> None:
        in_range("Denoising: low", low, 0, high)
        in_range("Denoising: high", high, low, 1)
        in_range("Denoising: camera_dropout", camera_dropout, 0, 1)
        in_range("Denoising: text_dropout", text_dropout, 0, 1)
        if snr_cap is not None:
            in_range("Denoising: snr_cap", snr_cap, 0)
        self.low = low
        self.high = high
        self.camera_dropout = camera_dropout
        self.text_dropout = text_dropout
        self.snr_cap = snr_cap


class Critic(nn.Module, ABC):
    """A source of noise predictions that trains. All it learns is in its `state_dict`.

    Attributes:
        lr: learning rate of its AdamW, constant.
        asked: predictions made for objectives so far, one a latent and condition, as `Prior.asked`.
        trained: predictions made for its own loss.
    """

    lr: float = 1e-4
    asked: int = 0
    trained: int = 0

    @abstractmethod
    def attach(self, prior: Prior) -> None:
        """Make the trainable parameters from the prior. Called once before the optimiser exists, with the prior where
        it will stay (device, dtype); further calls with the same prior do nothing.

        Raises:
            InputError: the prior has nothing to train; the message names the cure.
        """

    @abstractmethod
    def eps(self, queries: Sequence[Query]) -> list[Tensor]:
        """Its own predictions, all in ONE network call; `Prior.eps` otherwise.

        Raises:
            RunError: `attach` was not called.
        """

    @abstractmethod
    def loss(
        self,
        prior: Prior,
        z: Float[Tensor, "B C h w"],
        conditions: Mapping[str, Condition],
        generator: torch.Generator,
    ) -> Tensor:
        """Denoising loss on renderings `z` (no gradient flows into them), with its own times and noise.

        Args:
            prior: the one it is attached to.
            z: clean latents; `prior.views` consecutive ones share a time.
            conditions: of the same batch, best after `watch`.
            generator: all randomness (CPU).
        """

    @final
    def watch(self, conditions: Mapping[str, Condition], cameras: Cameras) -> dict[str, Condition]:
        """The prior's conditions and two more for the critic: "critic" (text and camera) and "critic_blind" (no
        camera). The text is the prior's own, so that a fresh critic answers as the prior does."""
        text = conditions["text"]
        blind = next(conditions[name] for name in ("no_camera", "plain", "text") if name in conditions)
        pose = pose_of(cameras)
        return {
            **conditions,
            SEEN: Condition({**text.tensors, POSE: pose}),
            BLIND: Condition({**blind.tensors, POSE: torch.zeros_like(pose)}),
        }

    @final
    def on(self, conditions: Mapping[str, Condition], *, camera: bool = True) -> Condition:
        """What to ask the critic with: text with or without the camera. Without `watch`, the prior's own conditions."""
        names = (SEEN, "text") if camera else (BLIND, "no_camera", "plain", "text")
        return next(conditions[name] for name in names if name in conditions)


class Adapted(Critic, ABC):
    """Critics that are the prior's own network with other weights.

    The camera enters through a linear map, zero at first, that is added to the network's time embedding
    (TimestepEmbedding of diffusers, which all its U-Nets and transformers have). A network without one is not told the
    camera.

    The weights are kept in `weights` under their names in the network, with "/" for ".".
    """

    def __init__(self, *, lr: float, denoising: Denoising | None) -> None:
        super().__init__()
        in_range(f"{type(self).__name__}: lr", lr, 0)
        self.lr = lr
        self.denoising = denoising or Denoising()
        self.weights = nn.ParameterDict()
        self.pose: nn.Linear | None = None
        # In tuples: a frozen network is no part of this module, its state or its optimiser.
        self._prior: tuple[Prior, ...] = ()
        self._network: tuple[nn.Module, ...] = ()
        self._poses: Tensor | None = None

    @abstractmethod
    def _make(self, network: nn.Module) -> Mapping[str, nn.Parameter]:
        """The trainable weights by name; may change the network as long as its own answers stay the same."""

    @abstractmethod
    def _denoise(self, prior: Prior, network: nn.Module, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """`prior.denoise` with these weights in its network, and afterwards the prior as it was."""

    @final
    def attach(self, prior: Prior) -> None:
        if self._prior:
            if self._prior[0] is not prior:
                raise InputError("a critic belongs to one prior; make another critic for another prior.")
            return
        network = prior.backbone()
        if network is None:
            raise InputError(
                f"{type(self).__name__}: {prior.card().name} has no network to train. "
                "Use an objective without a critic (SDS, ASD), or another prior."
            )
        weights = self._make(network)
        for name, weight in weights.items():
            # A half-precision weight would lose small steps of the optimiser.
            if weight.dtype in (torch.float16, torch.bfloat16):
                weight.data = weight.data.float()
            self.weights[name.replace(".", "/")] = weight.requires_grad_(True)
        self._prior, self._network = (prior,), (network,)
        embedding = next((m for m in network.modules() if type(m).__name__ == "TimestepEmbedding"), None)
        if embedding is not None:
            last = next(m for m in reversed(list(embedding.modules())) if hasattr(m, "out_features"))
            like = next(iter(weights.values()))
            self.pose = nn.Linear(POSE_SIZE, cast(int, last.out_features), bias=False).to(like)
            nn.init.zeros_(self.pose.weight)
            embedding.register_forward_hook(self._add_pose)

    @final
    def eps(self, queries: Sequence[Query]) -> list[Tensor]:
        answers = self._predict(queries)
        self.asked += sum(len(q.z_t) for q in queries)
        return answers

    @final
    def loss(
        self,
        prior: Prior,
        z: Float[Tensor, "B C h w"],
        conditions: Mapping[str, Condition],
        generator: torch.Generator,
    ) -> Tensor:
        self.attach(prior)
        how, schedule, views = self.denoising, prior.schedule, prior.views
        z, groups = z.detach(), len(z) // views
        draws = torch.rand(3, groups, generator=generator).repeat_interleave(views, dim=1).to(z)
        t = schedule.snap(how.low + (how.high - how.low) * draws[0])
        noise = torch.randn(z.shape, generator=generator).to(z)
        condition = _mixed(self.on(conditions), self.on(conditions, camera=False), draws[1] < how.camera_dropout)
        if how.text_dropout:
            condition = _mixed(condition, conditions["null"], draws[2] < how.text_dropout)
        (eps,) = self._predict([Query(schedule.noised(z, noise, t), t, condition)])
        self.trained += len(z)
        weight: Tensor | float = 1.0
        if how.snr_cap is not None:
            weight = (how.snr_cap * (schedule.sigma(t) / schedule.alpha(t)) ** 2).clamp_max(1.0)
        return (weight * (eps - noise) ** 2).mean()

    def _predict(self, queries: Sequence[Query]) -> list[Tensor]:
        if not self._prior:
            raise RunError("a critic was asked before it was attached; call attach(prior) first.")
        z_t, t = torch.cat([q.z_t for q in queries]), torch.cat([q.t for q in queries])
        known = [Condition({k: v for k, v in q.on.tensors.items() if k != POSE}) for q in queries]
        poses = [q.on.tensors.get(POSE, z_t.new_zeros(len(q.z_t), POSE_SIZE)) for q in queries]
        self._poses = torch.cat(poses)
        try:
            eps = self._denoise(self._prior[0], self._network[0], z_t, t, Condition.cat(known))
        finally:
            self._poses = None
        return list(eps.split([len(q.z_t) for q in queries]))

    def _add_pose(self, module: nn.Module, given: Any, embedding: Tensor) -> Tensor | None:
        if self._poses is None or self.pose is None:
            return None  # it is the prior that is asked
        return embedding + self.pose(self._poses.to(self.pose.weight)).to(embedding)


def _mixed(one: Condition, other: Condition, pick: Tensor) -> Condition:
    """`other` where `pick` is true, else `one`. A pose that only one of them has is hidden in the other's rows."""
    mixed = {}
    for name, tensor in one.tensors.items():
        instead = other.tensors.get(name, torch.zeros_like(tensor))
        mixed[name] = torch.where(pick.view(-1, *[1] * (tensor.ndim - 1)), instead, tensor)
    return Condition(mixed)


@final
class FullCopy(Adapted):
    """A second set of all weights (DreamCraft3D, arXiv:2310.16818; DMD2, arXiv:2405.14867): the most that a critic can
    learn, at the memory of another network and its optimiser.

    Args:
        lr: learning rate; 1e-5 in DreamCraft3D and DMD2.
        denoising: how its batch is noised.
    """

    def __init__(self, *, lr: float = 1e-5, denoising: Denoising | None = None) -> None:
        super().__init__(lr=lr, denoising=denoising)

    def _make(self, network: nn.Module) -> Mapping[str, nn.Parameter]:
        frozen = {name: weight for name, weight in network.named_parameters() if "lora_" not in name}
        # By identity: adapters that another critic adds later change the names.
        self._copies = {id(weight): name.replace(".", "/") for name, weight in frozen.items()}
        return {name: nn.Parameter(weight.detach().clone()) for name, weight in frozen.items()}

    def _denoise(self, prior: Prior, network: nn.Module, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        names = {name: self._copies.get(id(weight)) for name, weight in network.named_parameters()}
        own = {f"network.{name}": self.weights[copy] for name, copy in names.items() if copy is not None}
        if not torch.is_grad_enabled():
            # Even then torch.matmul may round otherwise where a weight wants a gradient: a fresh copy would not be the
            # prior to the bit.
            own = {name: weight.detach() for name, weight in own.items()}
        return cast(Tensor, functional_call(_Denoise(prior, network), own, (z_t, t, condition)))


class _Denoise(nn.Module):
    """`prior.denoise` as a module over the prior's network, whose weights a functional call may replace."""

    def __init__(self, prior: Prior, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._denoise = prior.denoise

    def forward(self, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self._denoise(z_t, t, condition)


@final
class TrainablePrior(Adapted):
    """The prior's own weights, trained in place: the prior changes with them, for good, and no memory goes into a
    second set. What personalisation does (DreamBooth, arXiv:2208.12242); as the teacher of bootstrapped score
    distillation (DreamCraft3D, arXiv:2310.16818) it is trained on renderings that were denoised again.

    As a variational critic it is useless: it equals the prior for ever.

    Args:
        lr: learning rate; 1e-5 in DreamCraft3D.
        denoising: how its batch is noised.
    """

    def __init__(self, *, lr: float = 1e-5, denoising: Denoising | None = None) -> None:
        super().__init__(lr=lr, denoising=denoising)

    def _make(self, network: nn.Module) -> Mapping[str, nn.Parameter]:
        return dict(network.named_parameters())

    def _denoise(self, prior: Prior, network: nn.Module, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return prior.denoise(z_t, t, condition)
