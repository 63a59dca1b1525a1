"""Critics start as the prior, learn, keep it in their state, and leave the prior as it was."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dream3d.cameras import turntable
from dream3d.checks import InputError, RunError
from dream3d.priors import Condition, Critic, Denoising, FullCopy, Gaussian, LoRA, Mixture, Prior, Query, TrainablePrior
from dream3d.priors.base import Schedule
from dream3d.priors.critic import BLIND, POSE, POSE_SIZE, SEEN, pose_of
from dream3d.prompts import Prompt

BEAR = Prompt("a teddy bear", negative="blurry")
MEMBERS: list[Callable[..., Critic]] = [LoRA, FullCopy, TrainablePrior]


@pytest.fixture(params=["builtin", "stable_diffusion_v", "flux"])
def network_prior(request: pytest.FixtureRequest, all_priors: dict[str, Prior]) -> Prior:
    """A prior with a network, for this test alone: critics leave adapters and hooks in it."""
    return copy.deepcopy(all_priors[request.param])


@pytest.fixture(params=["builtin", "stable_diffusion_v"])
def unet_prior(request: pytest.FixtureRequest, all_priors: dict[str, Prior]) -> Prior:
    """One whose network has convolutions."""
    return copy.deepcopy(all_priors[request.param])


def asked(prior: Prior, critic: Critic | None = None, batch: int = 2) -> tuple[Tensor, Tensor, dict[str, Condition]]:
    batch *= prior.views
    generator = torch.Generator().manual_seed(0)
    cameras = turntable(batch, prior.image_size)
    conditions = prior.conditions(BEAR, cameras)
    with torch.no_grad():
        z = prior.encode(torch.rand(batch, 3, prior.image_size, prior.image_size, generator=generator))
    t = prior.schedule.snap(torch.full((batch,), 0.4))
    return z, t, critic.watch(conditions, cameras) if critic else conditions


def train(critic: Critic, prior: Prior, steps: int = 3, lr: float = 1e-2) -> list[float]:
    critic.attach(prior)
    z, _, conditions = asked(prior, critic)
    optimizer, losses = torch.optim.AdamW(critic.parameters(), lr=lr), []
    for step in range(steps):
        loss = critic.loss(prior, z, conditions, torch.Generator().manual_seed(step % 3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("make", MEMBERS)
def test_a_fresh_critic_is_the_prior_to_the_bit(make: Callable[..., Critic], any_prior: Prior) -> None:
    """Same prompt, same level: a residual of exactly 0, with the camera, without it, and for the prior itself."""
    prior, critic = copy.deepcopy(any_prior), make()
    z_t, t, conditions = asked(prior, critic)
    with torch.no_grad():
        before = prior.eps([Query(z_t, t, conditions["text"])])[0]
    if make is LoRA and isinstance(prior, (Gaussian, Mixture)):
        with pytest.raises(InputError, match="no attention and no linear layers. Use FullCopy"):
            critic.attach(prior)
        return
    critic.attach(prior)
    with torch.no_grad():
        after = prior.eps([Query(z_t, t, conditions["text"])])[0]
        seen, plain, blind = critic.eps([Query(z_t, t, conditions[n]) for n in (SEEN, "text", BLIND)])
        unseen = next(conditions[n] for n in ("no_camera", "plain", "text") if n in conditions)
        wanted = prior.eps([Query(z_t, t, c) for c in (conditions["text"], conditions["text"], unseen)])
    # The weights of a trainable prior want gradients from now on, and torch.matmul may round otherwise where they do.
    assert torch.equal(before, after) or make is TrainablePrior and torch.allclose(before, after, atol=1e-6)
    for answer, expected in zip((seen, plain, blind), wanted, strict=True):
        assert torch.equal(answer, expected)
    assert critic.asked == 3 * len(z_t) and critic.trained == 0


@pytest.mark.parametrize("make", MEMBERS[:2])
def test_a_trained_critic_leaves_the_prior_as_it_was(make: Callable[..., Critic], network_prior: Prior) -> None:
    prior, critic = network_prior, make()
    z_t, t, conditions = asked(prior, critic)
    query = Query(z_t, t, conditions["text"])
    with torch.no_grad():
        before = prior.eps([query])[0]
    critic.attach(prior)
    losses = train(critic, prior, steps=12)
    assert sum(losses[-3:]) < sum(losses[:3])
    with torch.no_grad():
        assert torch.equal(prior.eps([query])[0], before)
        assert not torch.allclose(critic.eps([query])[0], before, atol=1e-4)
    own = {id(p) for p in critic.parameters()}
    assert not any(p.requires_grad for p in prior.parameters() if id(p) not in own)


def test_a_trainable_prior_changes_the_prior(network_prior: Prior) -> None:
    critic = TrainablePrior()
    z_t, t, conditions = asked(network_prior, critic)
    query = Query(z_t, t, conditions["text"])
    with torch.no_grad():
        before = network_prior.eps([query])[0]
    train(critic, network_prior)
    with torch.no_grad():
        assert torch.equal(network_prior.eps([query])[0], critic.eps([query])[0])
        assert not torch.equal(network_prior.eps([query])[0], before)


@pytest.mark.parametrize("make", MEMBERS)
def test_every_parameter_learns_and_the_camera_comes_to_matter(
    make: Callable[..., Critic], network_prior: Prior
) -> None:
    critic = make()
    train(critic, network_prior, steps=4)
    assert all(p.grad is not None for p in critic.parameters())
    assert isinstance(critic.pose, torch.nn.Linear) and critic.pose.weight.abs().max() > 0
    z_t, t, conditions = asked(network_prior, critic)
    text = conditions["text"]
    with torch.no_grad():
        seen, unseen = critic.eps([Query(z_t, t, conditions[SEEN]), Query(z_t, t, text)])
    assert not torch.allclose(seen, unseen, atol=1e-6)


@pytest.mark.parametrize("make", MEMBERS)
def test_state_travels_through_a_file(make: Callable[..., Critic], network_prior: Prior) -> None:
    """Only what it learned, under names that do not depend on the run; LoRA's is a small part of the network."""
    there, first, second = copy.deepcopy(network_prior), make(), make()
    train(first, network_prior)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.attach(there)
    second.load_state_dict(torch.load(file, weights_only=True))
    z_t, t, conditions = asked(there, first)
    query = Query(z_t, t, conditions[SEEN])
    with torch.no_grad():
        assert torch.equal(first.eps([query])[0], second.eps([query])[0])
    network = there.backbone()
    assert network is not None
    size = sum(p.numel() for p in network.parameters())
    learned = sum(p.numel() for p in second.parameters())
    assert learned < 0.6 * size if make is LoRA else learned >= size
    assert all(name.startswith(("weights.", "pose.")) for name in first.state_dict())


def test_two_critics_share_a_prior(network_prior: Prior) -> None:
    """A LoRA, another LoRA and a copy, attached one after the other: none hears of the others."""
    prior, critics = network_prior, [FullCopy(), LoRA(), LoRA(rank=2)]
    z_t, t, conditions = asked(prior)
    query = Query(z_t, t, conditions["text"])
    with torch.no_grad():
        before = prior.eps([query])[0]
    for critic in critics:
        critic.attach(prior)
    answers = []
    for critic in critics:
        train(critic, prior)
        assert all(p.requires_grad for p in critic.parameters())
        with torch.no_grad():
            assert torch.equal(prior.eps([query])[0], before)
            answers.append(critic.eps([query])[0])
    with torch.no_grad():
        for critic, answer in zip(critics, answers, strict=True):
            assert torch.equal(critic.eps([query])[0], answer) and not torch.equal(answer, before)


def test_convolutions_are_adapted_on_demand(unet_prior: Prior) -> None:
    critics = [LoRA(layers=layers) for layers in ("attention", "linear", "all")]
    z_t, t, conditions = asked(unet_prior)
    query = Query(z_t, t, conditions["text"])
    with torch.no_grad():
        before = unet_prior.eps([query])[0]
    counts = []
    for critic in critics:
        critic.attach(unet_prior)
        counts.append(sum(p.numel() for p in critic.weights.values()))
        with torch.no_grad():
            assert torch.equal(critic.eps([query])[0], before)
    assert counts[0] < counts[1] < counts[2]
    assert not any("conv" in name for name in critics[1].weights) and any("conv" in name for name in critics[2].weights)
    losses = train(critics[2], unet_prior, steps=6)
    assert sum(losses[-3:]) < sum(losses[:3])


def test_attaching_twice_and_elsewhere(network_prior: Prior) -> None:
    critic = LoRA()
    with pytest.raises(RunError, match="attach"):
        critic.eps([])
    critic.attach(network_prior)
    names = [name for name, _ in critic.named_parameters()]
    critic.attach(network_prior)
    assert [name for name, _ in critic.named_parameters()] == names
    with pytest.raises(InputError, match="belongs to one prior"):
        critic.attach(Gaussian())


class Watched(Prior):
    """Notes what it is asked; its network is one number."""

    views = 2

    def __init__(self) -> None:
        super().__init__()
        self.inner = Gaussian()
        self.line = torch.nn.Sequential(torch.nn.Linear(1, 1))
        self.queries: list[tuple[Tensor, Tensor, Condition]] = []

    @property
    def schedule(self) -> Schedule:
        return self.inner.schedule

    def card(self) -> Any:
        return self.inner.card()

    def load(self) -> None: ...

    def backbone(self) -> torch.nn.Module:
        return self.line

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, z: Tensor) -> Tensor:
        return z

    def conditions(self, prompt: Prompt, cameras: Any) -> dict[str, Condition]:
        count = len(cameras)
        return {
            name: Condition({"which": torch.full((count,), float(i))})
            for i, name in enumerate(["text", "null", "negative", "no_camera"])
        }

    def denoise(self, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.queries.append((z_t, t, condition))
        return z_t * self.line[0].weight.squeeze()


def test_the_batch_of_a_critic() -> None:
    """Times are shared by the views of a group and fresh at each step; the camera is hidden per sample; poses never
    reach the prior."""
    prior = Watched()
    critic = LoRA(denoising=Denoising(low=0.2, high=0.6, camera_dropout=0.3, text_dropout=0.25, snr_cap=None))
    cameras = turntable(4000, 8)
    conditions = critic.watch(prior.conditions(BEAR, cameras), cameras)
    assert conditions[SEEN].tensors[POSE].shape == (4000, POSE_SIZE) and not conditions[BLIND].tensors[POSE].any()
    z = torch.zeros(4000, 1, 1, 1)
    loss = critic.loss(prior, z, conditions, torch.Generator().manual_seed(0))
    z_t, t, condition = prior.queries[0]
    assert set(condition.tensors) == {"which"}
    which, groups = condition.tensors["which"].view(-1, 2), t.view(-1, 2)
    assert torch.equal(which[:, 0], which[:, 1]) and torch.equal(groups[:, 0], groups[:, 1])
    shares = [(which[:, 0] == i).float().mean().item() for i in range(4)]
    assert shares == pytest.approx([0.75 * 0.7, 0.25, 0.0, 0.75 * 0.3], abs=0.03)
    assert 0.2 <= t.min() < 0.21 and 0.59 < t.max() <= 0.6
    noise = z_t / prior.schedule.sigma(t)
    assert noise.std().item() == pytest.approx(1.0, abs=0.05) and noise[::2].ne(noise[1::2]).all()
    weight = prior.line[0].base_layer.weight.squeeze()  # LoRA wrapped it
    assert loss.item() == pytest.approx((weight * z_t - noise).square().mean().item(), rel=1e-5)
    critic.loss(prior, z, conditions, torch.Generator().manual_seed(1))
    assert not torch.equal(prior.queries[1][1], t)
    assert critic.trained == 8000 and critic.asked == 0 and prior.asked == 0


def test_no_gradient_reaches_the_renderings(network_prior: Prior) -> None:
    critic = LoRA()
    z, _, conditions = asked(network_prior, critic)
    z.requires_grad_()
    critic.loss(network_prior, z, conditions, torch.Generator().manual_seed(0)).backward()
    assert z.grad is None


def test_min_snr_weights_low_noise_down() -> None:
    prior, cameras = Gaussian(), turntable(64, 8)
    conditions = prior.conditions(BEAR, cameras)
    z = torch.zeros(64, 3, 16, 16)
    losses = []
    for cap in (None, 5.0):
        how = Denoising(low=0.02, high=0.02, snr_cap=cap)
        losses.append(FullCopy(denoising=how).loss(prior, z, conditions, torch.Generator().manual_seed(0)).item())
    t = prior.schedule.snap(torch.tensor([0.02]))
    ratio = (5.0 * (prior.schedule.sigma(t) / prior.schedule.alpha(t)) ** 2).item()
    assert ratio < 0.2 and losses[1] == pytest.approx(ratio * losses[0], rel=1e-5)


def test_a_copy_of_a_gaussian_learns_the_renderings() -> None:
    """Its best answer is the score of N(mean, std^2) of what is rendered; the prior's is another's."""
    torch.manual_seed(0)
    prior, critic = Gaussian(mean=(0.8, 0.3, 0.2), std=0.3), FullCopy(lr=0.02)
    conditions = prior.conditions(BEAR, turntable(16, 8))
    critic.attach(prior)
    optimizer = torch.optim.Adam(critic.parameters(), lr=critic.lr)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        z = 0.5 + 0.1 * torch.randn(16, 3, 16, 16, generator=generator)
        loss = critic.loss(prior, z, conditions, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moments = dict(critic.weights.items())
    mean = torch.tensor([0.8, 0.3, 0.2]) + moments["shift"].flatten()
    assert torch.allclose(mean, torch.full((3,), 0.5), atol=0.03)
    assert 0.3 * moments["log_scale"].exp().item() == pytest.approx(0.1, rel=0.25)


def test_pose_tells_cameras_apart_and_is_smooth_in_them() -> None:
    cameras = turntable(8, 16)
    poses = pose_of(cameras)
    assert poses.shape == (8, POSE_SIZE) and bool((torch.cdist(poses, poses) + torch.eye(8) > 0.5).all())
    assert bool((poses[:, -1] == 1).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": -0.1}, "low"),
        ({"low": 0.5, "high": 0.4}, "low"),
        ({"high": 1.5}, "high"),
        ({"camera_dropout": 2.0}, "camera"),
    ],
)
def test_settings_are_checked(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=f"Denoising: {message}"):
        Denoising(**settings)
    with pytest.raises(InputError, match="LoRA: rank"):
        LoRA(rank=0)
