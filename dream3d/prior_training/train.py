"""The one training loop: optimiser, average, rate, clock and checkpoint, for every network of this package.

Resumable to the bit (with `steps`; with `minutes` the learning rate follows the clock) and seeded. One checkpoint file,
written atomically. Nothing in a step waits for a GPU's answer.
"""

from __future__ import annotations

import copy
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, final

import torch
from torch import Tensor, nn

from dream3d.checks import InputError, RunFolderError

BETAS, CLIP = (0.9, 0.99), 1.0
FLOOR = 0.02
"""Where the learning rate ends, as a share of its height."""
RISE = 0.05
HELD = 0.6
"""Share of a trapezoid's time at full height."""
SWIFT = 4.0


class Task(ABC):
    """What is trained, on what, and by which loss.

    Attributes:
        config: plain numbers and words that `network` is built from; kept in the checkpoint.
        swift: beginnings of the names of parameters that learn `SWIFT` times as fast as the others.
    """

    config: dict[str, Any]
    swift: tuple[str, ...] = ()

    @abstractmethod
    def network(self) -> nn.Module:
        """A fresh network; its random weights come from torch's global generator."""

    @abstractmethod
    def loss(self, net: Callable[..., Any], count: int, generator: torch.Generator) -> Tensor:
        """The loss of a new batch of `count` pictures, one number.

        Args:
            net: the network, or a compiled form of it.
            count: pictures.
            generator: of the task's device; all randomness.
        """

    def facts(self, net: nn.Module, generator: torch.Generator) -> dict[str, Any]:
        """What is measured once, on the average, when the training is over; goes into the card."""
        return {}


@dataclass(frozen=True)
class Length:
    """How long to train: by the clock or by steps; exactly one is given."""

    minutes: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise InputError("training length: give either minutes or steps.")

    def progress(self, seconds: float, step: int) -> float:
        """Share that is done, 0 to 1."""
        done = step / self.steps if self.steps is not None else seconds / (60 * (self.minutes or 1))
        return min(1.0, done)


@dataclass(frozen=True)
class Settings:
    """How to train.

    Args:
        length: of the whole training, resumed parts included.
        batch: pictures a step.
        lr: highest learning rate.
        rate: falls like half a cosine, or is held for 60 % of the time and then falls in a line.
        warmup: steps in which the rate rises; at most a twentieth of the time.
        decay: weight decay of AdamW.
        average: most that the moving average of the weights keeps in a step.
        bf16: bfloat16 arithmetic; pays on GPUs and on some CPUs (measure).
        compiled: with torch.compile; takes a minute to start.
        device: where to train.
        seed: of weights and data.
    """

    length: Length
    batch: int = 32
    lr: float = 1e-3
    rate: Literal["cosine", "trapezoid"] = "cosine"
    warmup: int = 300
    decay: float = 1e-3
    average: float = 0.999
    bf16: bool = False
    compiled: bool = False
    device: str = "cpu"
    seed: int = 0


@final
class Trainer:
    """Network, average, optimiser and the random numbers: everything that a checkpoint holds.

    Args:
        task: what is trained.
        how: settings.
    """

    def __init__(self, task: Task, how: Settings) -> None:
        torch.manual_seed(how.seed)
        self.task, self.how = task, how
        self.net = task.network().to(how.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.ema = copy.deepcopy(self.net).requires_grad_(False)
        self.forward = cast(Callable[..., Any], torch.compile(self.net) if how.compiled else self.net)
        fused = {"fused": True} if how.device.startswith("cuda") else {}
        groups = _groups(self.net, task.swift)
        self.optimizer = torch.optim.AdamW(groups, lr=how.lr, betas=BETAS, weight_decay=how.decay, **fused)
        self.generator = torch.Generator(how.device).manual_seed(how.seed)
        self.step_count, self.seen, self.seconds = 0, 0, 0.0
        self.facts: dict[str, Any] = {}
        self.before = {"samples": 0, "minutes": 0.0}

    def step(self) -> Tensor:
        """One optimiser step; returns the loss, still on the device."""
        started = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self.how.lr * self.rate() * group["pace"]
        with torch.autocast(self.how.device.split(":")[0], torch.bfloat16, enabled=self.how.bf16):
            loss = self.task.loss(self.forward, self.how.batch, self.generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step_count += 1
        self.seen += self.how.batch
        keep = min(self.how.average, (1 + self.step_count) / (10 + self.step_count))
        with torch.no_grad():  # else the average would drag every step's graph along
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.net.parameters()), 1 - keep)
            for mine, theirs in zip(self.ema.buffers(), self.net.buffers(), strict=True):
                mine.copy_(theirs)
        self.seconds += time.perf_counter() - started
        return loss.detach()

    def done(self) -> float:
        """Share of the training that is over, 0 to 1."""
        return self.how.length.progress(self.seconds, self.step_count)

    def rate(self) -> float:
        """The learning rate now, as a share of its height."""
        done = self.done()
        if self.how.rate == "cosine":
            share = 0.5 * (1 + math.cos(math.pi * done))
        else:
            share = min(1.0, (1 - done) / (1 - HELD))
        rise = max((self.step_count + 1) / self.how.warmup, done / RISE)
        return min(1.0, rise) * (FLOOR + (1 - FLOOR) * share)

    def finish(self) -> None:
        """Measure the average, once."""
        generator = torch.Generator(self.how.device).manual_seed(self.how.seed + 1)
        self.facts = self.task.facts(self.ema.eval(), generator)

    def save(self, path: Path) -> None:
        """Write the checkpoint atomically."""
        state = {
            "net": self.net.state_dict(), "ema": self.ema.state_dict(), "opt": self.optimizer.state_dict(),
            "n": self.step_count, "seen": self.seen, "minutes": self.seconds / 60, "cfg": self.task.config,
            "facts": self.facts, "generator": self.generator.get_state(), "before": self.before,
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def begin_from(self, path: Path) -> None:
        """Start with another training's average instead of random weights; optimiser, rate and clock are new.

        Raises:
            RunFolderError: it is damaged or of another architecture.
        """
        state = read_state(path)
        earlier = state.get("before", {"samples": 0, "minutes": 0.0})
        try:
            for net in (self.net, self.ema):
                net.load_state_dict(state["ema"])
            samples, minutes = state["seen"] + earlier["samples"], state["minutes"] + earlier["minutes"]
            self.before = {"samples": samples, "minutes": minutes}
        except (KeyError, RuntimeError) as error:
            raise _misfit(path, error) from error

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            RunFolderError: it is damaged or of another architecture.
        """
        state = read_state(path)
        try:
            self.net.load_state_dict(state["net"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["opt"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise _misfit(path, error) from error
        self.before = state.get("before", self.before)
        self.step_count, self.seen, self.seconds = state["n"], state["seen"], 60 * state["minutes"]
        try:
            self.generator.set_state(state["generator"])
        except (KeyError, RuntimeError):  # written on another kind of device
            self.generator.manual_seed(self.step_count)


def _misfit(path: Path, error: Exception) -> RunFolderError:
    return RunFolderError(f"checkpoint {path} does not fit this network ({type(error).__name__}).")


def _groups(net: nn.Module, swift: tuple[str, ...]) -> list[dict[str, Any]]:
    parts: dict[float, list[nn.Parameter]] = {1.0: [], SWIFT: []}
    for name, parameter in net.named_parameters():
        parts[SWIFT if name.startswith(swift) else 1.0].append(parameter)
    return [{"params": some, "pace": pace} for pace, some in parts.items() if some]


def read_state(path: Path) -> dict[str, Any]:
    """A checkpoint's content, tensors only.

    Raises:
        RunFolderError: missing or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RunFolderError(f"checkpoint {path} is missing or damaged ({type(error).__name__}).") from error


@dataclass
class Report:
    """Says how it goes once in a while, and has checkpoints written.

    Args:
        say: receives the lines.
        seconds: between lines.
        save_minutes: between checkpoints.
        peak: floating-point operations a second that the machine reaches on large products, for the share of it.
        cost: operations of one picture's forward.
    """

    say: Callable[[str], None]
    seconds: float = 5.0
    save_minutes: float = 8.0
    peak: float = 0.0
    cost: float = 0.0
    losses: list[Tensor] = field(default_factory=list)

    def line(self, trainer: Trainer, passed: float) -> str:
        """Progress since the last line, which was `passed` seconds ago; forgets the losses."""
        speed = len(self.losses) * trainer.how.batch / max(passed, 1e-9)
        loss = float(torch.stack(self.losses).mean())
        self.losses.clear()
        left = trainer.seconds / 60 * (1 / max(trainer.done(), 1e-9) - 1)
        # A backward pass costs two forwards.
        used = f"  {100 * 3 * self.cost * speed / self.peak:.0f} % of peak" if self.peak and self.cost else ""
        return (
            f"step {trainer.step_count}  samples {trainer.seen}  loss {loss:.4f}  {speed:.0f} samples/s{used}  "
            f"{left:.1f} min left"
        )


def run(trainer: Trainer, out: Path, report: Report, *, keep_going: Callable[[], bool] = lambda: True) -> None:
    """Train until the length is reached, with checkpoints in `out / "state.pt"`."""
    path = out / "state.pt"
    if path.exists():
        trainer.restore(path)
        report.say(f"resumed at step {trainer.step_count}, {trainer.seen} samples")
    saved = marked = time.perf_counter()
    while trainer.done() < 1 and keep_going():
        report.losses.append(trainer.step())
        now = time.perf_counter()
        if now - marked > report.seconds:
            report.say(report.line(trainer, now - marked))
            marked = time.perf_counter()
        if now - saved > 60 * report.save_minutes:
            trainer.save(path)
            saved = time.perf_counter()
    if trainer.done() >= 1:
        trainer.finish()
    trainer.save(path)


def measured_peak(device: str, bf16: bool) -> float:
    """Operations a second of a large matrix product here: what the report compares with."""
    kind = torch.bfloat16 if bf16 else torch.float32
    size, rounds = (8192, 10) if device.startswith("cuda") else (1024, 3)
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    c = torch.empty_like(a)
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    torch.mm(a, b, out=c).sum().item()
    started = time.perf_counter()
    for _ in range(rounds):
        torch.mm(a, b, out=c)
    wait()
    return 2 * size**3 * rounds / (time.perf_counter() - started)
