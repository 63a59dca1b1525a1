"""The examination of a trained prior: 64 prompts from 4 sides, put before the judge."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import turntable
from dream3d.checks import InputError
from dream3d.evaluation.judge import FRONT, Judge
from dream3d.evaluation.measures import angle_between, distances, is_janus, median, recall, share
from dream3d.evaluation.prompts import candidates, understood
from dream3d.prior_training.batches import GREY
from dream3d.prior_training.captions import COLORS, Subject, article, held_out
from dream3d.prior_training.pictures import RING, Pictures
from dream3d.prior_training.sample import sample
from dream3d.priors.base import Prior
from dream3d.prompts import Prompt
from dream3d.types import Cameras

VIEWS = RING
ELEVATION_DEG = 15.0
PLAIN = 0.5
"""Share of the prompts that are a name alone; of the rest half are colours seen in training and half held out."""
COARSE, CHUNK = 32, 8192
"""Pixels a side at which pictures are compared with the training's, and how many of those at once."""


@dataclass(frozen=True)
class Question:
    """One prompt of the exam."""

    prompt: str
    kind: str
    """plain, trained (a colour that was shown on that name) or held_out (one that never was)."""


@dataclass(frozen=True)
class Exam:
    """How it is held.

    Args:
        scales: of classifier-free guidance, each for all prompts.
        steps: of the sampler.
        seed: of the noise and of the choice of prompts.
        at_once: prompts that are drawn together.
        limit: clamp of the clean latents; None for latents without bounds.
        device: where the prior is.
    """

    scales: tuple[float, ...] = (1.0, 3.0, 5.0, 7.5)
    steps: int = 30
    seed: int = 0
    at_once: int = 8
    limit: float | None = 1.0
    device: str = "cpu"


def read_subjects(folder: Path) -> list[Subject]:
    """What a prior's `card.json` says that it knows.

    Raises:
        InputError: it does not say.
    """
    objects = json.loads((folder / "card.json").read_text(encoding="utf-8")).get("objects")
    if not objects:
        raise InputError(f"{folder / 'card.json'} lists no objects to ask for: export the prior again.")
    return [Subject(o["names"][0], tuple(o["names"]), 0, o["weight"], o["recoloured"]) for o in objects]


def questions(subjects: Sequence[Subject], count: int, seed: int = 0) -> list[Question]:
    """Prompts about what the prior was shown most, in fixed shares of kinds; fewer where there is not enough."""
    known = sorted((s for s in subjects if "," not in s.captions[0]), key=lambda s: -s.weight)[:count]
    plain = [Question(article(s.captions[0]), "plain") for s in known]
    pairs = [(color, s.captions[0]) for s in known if s.recolor for color in COLORS]
    random.Random(seed).shuffle(pairs)
    colored: dict[str, list[Question]] = {"trained": [], "held_out": []}
    for color, noun in pairs:
        kind = "held_out" if held_out(color, noun) else "trained"
        colored[kind].append(Question(article(f"{color} {noun}"), kind))
    each = min(int(count * (1 - PLAIN)) // 2, *(len(some) for some in colored.values()))
    return plain[: count - 2 * each] + colored["trained"][:each] + colored["held_out"][:each]


def hold(
    prior: Prior,
    judge: Judge,
    asked: Sequence[Question],
    how: Exam,
    *,
    training: Pictures | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Draw every prompt at every scale and judge the pictures.

    Args:
        prior: the candidate.
        judge: who judges; its own figures are part of the result.
        asked: of `questions`.
        how: scales, steps, seed.
        training: what the prior learnt from, to measure how near its pictures come to it; None leaves that out.
        say: receives progress lines.

    Returns:
        "scales": for each scale the figures of `figures`; "best": the scale with the highest R@1; "memory": of
        `memory`, at the best scale; "judge": its own figures; "prompts".
    """
    cameras = turntable(VIEWS, prior.image_size, elevation_deg=ELEVATION_DEG)
    drawn, found = {}, {}
    for scale in how.scales:
        drawn[scale] = torch.cat(list(_draw(prior, asked, cameras, scale, how)))
        found[scale] = figures(drawn[scale], asked, cameras.azimuth, judge)
        say(f"scale {scale:g}: R@1 {found[scale]['top1']:.2f}")
    best = max(how.scales, key=lambda scale: found[scale]["top1"] or 0.0)
    own = {**judge.card.get("matcher", {}), **judge.card.get("views", {})}
    return {
        "prior": prior.card().name, "views": VIEWS, "steps": how.steps, "seed": how.seed, "best": best,
        "scales": {f"{scale:g}": values for scale, values in found.items()},
        "judge": {name: value for name, value in own.items() if name.startswith("own_")},
        "memory": None if training is None else memory(drawn[best], training, how.device),
        "prompts": [question.prompt for question in asked],
    }  # fmt: skip


def _draw(prior: Prior, asked: Sequence[Question], cameras: Cameras, scale: float, how: Exam) -> Iterator[Tensor]:
    on, generator = cameras.to(how.device), torch.Generator().manual_seed(how.seed)
    for start in range(0, len(asked), how.at_once):
        prompts = [Prompt(question.prompt) for question in asked[start : start + how.at_once]]
        made = sample(prior, prompts, on, steps=how.steps, scale=scale, generator=generator, limit=how.limit)
        yield made.cpu()


def figures(
    images: Float[Tensor, "QV 3 H W"], asked: Sequence[Question], azimuth: Float[Tensor, "V"], judge: Judge
) -> dict[str, float | None]:
    """The judge's figures over the pictures of all prompts, `V` views each.

    Returns:
        top1, top5 and similarity of all; view_error_deg (median) and janus over names with a front; color_trained and
        color_held_out, share of right colours. None where nothing applies.
    """
    views, names = len(azimuth), list(judge.names)
    similar, right, errors, janus = [], [], [], []
    colors: dict[str, list[Tensor]] = {"trained": [], "held_out": [], "plain": []}
    for index, question in enumerate(asked):
        own = images[index * views : (index + 1) * views]
        wanted = understood(question.prompt, judge)
        similar.append(judge.similarity(own, candidates(question.prompt, wanted, names)))
        right.append(torch.full((views,), names.index(wanted.name)))
        if wanted.name in judge.turning:
            seen = judge.azimuth(own)
            errors.append(angle_between(seen, azimuth))
            janus.append(is_janus(seen.abs() <= FRONT, azimuth))
        if wanted.color:
            colors[question.kind].append(judge.color(own) == judge.colors.index(wanted.color))
    similarity, target = torch.cat(similar), torch.cat(right)
    found = {
        "top1": recall(similarity, target, 1),
        "top5": recall(similarity, target, min(5, len(names))),
        "similarity": float(similarity.gather(1, target[:, None]).double().mean()),
        "view_error_deg": median(torch.cat(errors)) if errors else math.nan,
        "janus": share(janus),
        **{f"color_{k}": share(torch.cat(v)) if v else math.nan for k, v in colors.items() if k != "plain"},
    }
    return {name: None if math.isnan(value) else value for name, value in found.items()}


@torch.no_grad()
def memory(images: Float[Tensor, "B 3 H W"], training: Pictures, device: str = "cpu") -> dict[str, float]:
    """How near samples come to the training pictures, and how near unseen views of the same objects come to them.

    Returns:
        "sample": median distance (root mean square of colours, at 32 x 32) to the nearest training picture; "unseen":
        the same for a held-out view of each subject; "copies": share of samples nearer than a tenth of "unseen".
    """
    seen, unseen = training.resident(device, COARSE).split()
    others = unseen.rgba[:: unseen.views].float().div(255).permute(0, 3, 1, 2)
    fresh = others[:, :3] + (1 - others[:, 3:]) * GREY
    shrink = torch.nn.functional.adaptive_avg_pool2d  # as `resident` averages
    near = [_to_nearest(shrink(some.to(device), COARSE), seen.rgba) for some in (images, fresh)]
    base = median(near[1])
    return {"sample": median(near[0]), "unseen": base, "copies": share(near[0] < 0.1 * base)}


def _to_nearest(images: Tensor, known: Tensor) -> Float[Tensor, "B"]:
    parts = (part.float().div(255).permute(0, 3, 1, 2) for part in known.split(CHUNK))
    return torch.stack([distances(images, rgba)[0] for rgba in parts]).amin(0).cpu()
