"""What a run is, told in its first lines, in its folder and in its asset."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from dream3d import __version__
from dream3d.kernels.ops import backend
from dream3d.priors.base import Card
from dream3d.prompts import Prompt
from dream3d.runs import RunFolder, write_atomically
from dream3d.stage import Stage


def cards(stages: Iterable[Stage]) -> list[Card]:
    """Of the priors, each once."""
    return list({stage.prior.card().name: stage.prior.card() for stage in stages}.values())


def extras(prompt: Prompt, seed: int, stages: Iterable[Stage]) -> dict[str, Any]:
    """What is written into the asset: no path, no user, no time, so that the same run gives the same bytes."""
    stages = list(stages)
    return {
        "prompt": prompt.text,
        "negative": prompt.negative,
        "seed": seed,
        "priors": [{"name": c.name, "licence": c.licence} for c in cards(stages)],
        "objectives": [type(s.objective).__name__ for s in stages],
        "steps": sum(s.steps for s in stages),
    }


def describe(
    run: RunFolder,
    stages: Mapping[str, Stage],
    told: Mapping[str, Any],
    device: torch.device,
    *,
    resumed: Mapping[str, Any] | None,
    say: Callable[[str], None],
) -> float:
    """The first lines of a run, and the files that say what it is; the seconds that it took until now.

    Args:
        run: whose command.txt is written once and whose run.json every time.
        stages: by name.
        told: what `extras` says.
        device: that it runs on.
        resumed: the checkpoint that it goes on from; None at the beginning.
        say: receives the lines.
    """
    where = f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else "cpu"
    kernels = backend(device)
    say(f"dream3d {__version__} · device {where} · kernels {kernels}")
    for card in cards(stages.values()):
        say(f"prior {card.name} ({card.source}, {card.licence})")
    say(f"run {run.path}")
    before = run.state() if run.has_state() else {}
    if resumed is not None:
        say(f"going on after step {resumed['step']} of stage {resumed['stage']}")
        run.log(f"resumed after step {resumed['step']} of stage {resumed['stage']}")
    if not before:
        write_atomically(run.path / "command.txt", shlex.join(["dream3d", *sys.argv[1:]]) + "\n")
    run.update(
        status="running",
        prompt=told["prompt"],
        negative=told["negative"],
        seed=told["seed"],
        pid=os.getpid(),
        started=before.get("started", time.strftime("%Y-%m-%dT%H:%M:%S")),
        reason=None,
        resumed=before.get("resumed", 0) + 1 if before else None,
        device=where,
        kernels=kernels,
        versions={"dream3d": __version__, "torch": torch.__version__, "python": platform.python_version()},
        steps={name: stage.steps for name, stage in stages.items()},
        priors=told["priors"],
    )
    return float(before.get("seconds", 0.0))


def minutes(seconds: float) -> str:
    """A length of time in words."""
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.1f} s"
