"""`dream3d evaluate`: finished assets, drawn from all sides and put before the judge."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import turntable
from dream3d.checks import InputError
from dream3d.evaluation.draw import batches, shade, spread
from dream3d.evaluation.judge import FRONT, SIZE, Judge
from dream3d.evaluation.measures import angle_between, is_janus, median, recall, share
from dream3d.evaluation.prompts import candidates, understood
from dream3d.evaluation.surfaces import read_surface
from dream3d.runs import STATE, RunFolder

SUPERSAMPLE = 2
BACKGROUND = 0.8
"""Grey behind the asset, which neither white nor black things vanish in."""
BARE = 1.0
"""Share of ambient light: colours as they are in the file, which carries its shading baked."""


@dataclass(frozen=True)
class Asset:
    """A mesh file and what it is meant to show."""

    path: Path
    prompt: str


@dataclass(frozen=True)
class Verdict:
    """What the judge says of one asset. Shares are of its views.

    Attributes:
        asset: file.
        prompt: what it is meant to show.
        judged_as: the judge's name for that.
        exact: whether the prompt says that name.
        top1: R@1 over the judge's names.
        top5: R@5.
        similarity: mean cosine of views and prompt, -1 to 1.
        janus: more than one front; None for things without a front that the judge finds.
        view_error_deg: median difference between seen and judged azimuth; None likewise.
        color: share of views judged to have the prompt's colour; None without one.
        looks_like: the name that most views are judged to show.
    """

    asset: str
    prompt: str
    judged_as: str
    exact: bool
    top1: float
    top5: float
    similarity: float
    janus: bool | None
    view_error_deg: float | None
    color: float | None
    looks_like: str


def find_asset(text: str, prompt: str | None, run: RunFolder | None) -> Asset:
    """The asset that a user means.

    Args:
        text: a GLB, or a run (then `run` is given).
        prompt: overrides what the file says of itself.
        run: the run's folder.

    Raises:
        InputError: no such file, no asset in the run, or nobody says what it is meant to show.
    """
    path = Path(text)
    if run is not None:
        found = sorted(path for path in run.export.glob("*.glb") if not path.name.endswith(".splats.glb"))
        if not found:
            raise InputError(f"{run.path} has no asset (export/*.glb). Make one: dream3d export {text}")
        path = found[0]
        prompt = prompt or run.state().get("prompt")
    elif not path.is_file():
        raise InputError(f"no file or run at {text}: give a .glb, or a folder that holds {STATE}.")
    prompt = prompt or read_extras(path).get("prompt")
    if not prompt:
        raise InputError(f"{path} does not say what it shows. Add --prompt TEXT.")
    return Asset(path, prompt)


def read_extras(path: Path) -> dict[str, Any]:
    """The `extras` of a GLB's asset, where dream3d writes the prompt; empty for others."""
    try:
        data = path.read_bytes()
        if data[:4] != b"glTF":
            return {}
        (length,) = struct.unpack("<I", data[12:16])
        return dict(json.loads(data[20 : 20 + length])["asset"].get("extras") or {})
    except (OSError, ValueError, KeyError, struct.error):
        return {}


@torch.no_grad()
def pictures(
    path: Path, views: int, *, pixels: int = SIZE, elevation_deg: float = 15.0, device: str = "cpu"
) -> tuple[Float[Tensor, "V 3 {pixels} {pixels}"], Float[Tensor, "V"]]:
    """An asset from `views` sides, the front first, unlit over grey; and the azimuths, radians.

    The asset is centred and scaled into the sphere that the judge knows.
    """
    cameras = turntable(views, pixels, elevation_deg=elevation_deg).to(device)
    points = spread(read_surface(path), pixels * SUPERSAMPLE, device)
    light = torch.tensor([[0.0, 0.0, 1.0]], device=device).expand(views, 3)
    ambient = torch.full((views,), BARE, device=device)
    parts = []
    for some in batches(points, views):
        drawn = shade(points, cameras[some], light[some], ambient[some], supersample=SUPERSAMPLE)
        parts.append((drawn.rgb + (1 - drawn.alpha) * BACKGROUND).permute(0, 3, 1, 2))
    return torch.cat(parts).clamp(0, 1).cpu(), cameras.azimuth.cpu()


def judge_asset(asset: Asset, judge: Judge, *, views: int = 8, device: str = "cpu") -> Verdict:
    """Draw one asset and judge it."""
    images, azimuth = pictures(asset.path, views, device=device)
    return verdict(asset, images, azimuth, judge)


def verdict(asset: Asset, images: Float[Tensor, "V 3 H W"], azimuth: Float[Tensor, "V"], judge: Judge) -> Verdict:
    """Judge the pictures of one asset."""
    wanted, names = understood(asset.prompt, judge), list(judge.names)
    similarity = judge.similarity(images, candidates(asset.prompt, wanted, names))
    right = torch.full((len(images),), names.index(wanted.name))
    votes = similarity.argmax(1).bincount(minlength=len(names))
    janus = error = None
    if wanted.name in judge.turning:
        seen = judge.azimuth(images)
        janus = is_janus(seen.abs() <= FRONT, azimuth)
        error = median(angle_between(seen, azimuth))
    color = None
    if wanted.color:
        color = share(judge.color(images) == judge.colors.index(wanted.color))
    return Verdict(
        str(asset.path), asset.prompt, wanted.name, wanted.exact,
        recall(similarity, right, 1), recall(similarity, right, min(5, len(names))),
        float(similarity[:, right[0]].mean()), janus, error, color, names[int(votes.argmax())],
    )  # fmt: skip


def summary(verdicts: Sequence[Verdict], judge: Judge) -> dict[str, Any]:
    """Means over assets, each beside the judge's own figure on renders that it has not seen; None where nothing
    applies."""

    def mean(values: Sequence[float | bool | None]) -> float | None:
        known = [float(v) for v in values if v is not None]
        return sum(known) / len(known) if known else None

    own = {**judge.card.get("matcher", {}), **judge.card.get("views", {})}
    figures = {
        "top1": mean([v.top1 for v in verdicts]),
        "top5": mean([v.top5 for v in verdicts]),
        "similarity": mean([v.similarity for v in verdicts]),
        "janus": mean([v.janus for v in verdicts]),
        "view_error_deg": mean([v.view_error_deg for v in verdicts]),
        "color": mean([v.color for v in verdicts]),
    }
    judged = {name: own.get(f"own_{name}") for name in figures}
    return {"assets": [asdict(v) for v in verdicts], "mean": figures, "judge": judged}
