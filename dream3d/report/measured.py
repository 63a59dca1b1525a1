"""What is not in a run's folder but follows from it: view prompts, holes, and how the matcher saw the previews."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dream3d.cameras import turntable
from dream3d.checks import Dream3DError
from dream3d.evaluation.judge import Judge
from dream3d.evaluation.prompts import candidates, understood
from dream3d.evaluation.surfaces import read_surface
from dream3d.prompts import Prompt
from dream3d.report.gather import SIDES, Gathered

CUTOFF = 0.95
"""Share of a view's text from which it is given alone."""


def view_prompts(text: str) -> dict[str, str]:
    """What the prior is told at each of the four sides."""
    if not text.strip():
        return {}
    told = Prompt(text).views(turntable(len(SIDES), 16))
    found = {}
    for side, weights in zip(SIDES, told.weights.tolist(), strict=True):
        parts = sorted(zip(weights, told.texts, strict=True), reverse=True)
        share = [f"{weight:.0%} {words}" for weight, words in parts if weight > 1 - CUTOFF]
        found[side] = parts[0][1] if parts[0][0] > CUTOFF else ", ".join(share)
    return found


class Edges(NamedTuple):
    """Facts about a surface once vertices at the same place count as one."""

    holes: int
    """Loops of edges that have one face only."""
    crowded: int
    """Edges of three or more faces."""


def edges(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> Edges:
    """Count the holes of a triangle soup: V 3 positions, F 3 indices."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, merged = np.unique(np.asarray(vertices, np.float32), axis=0, return_inverse=True)
    corners = merged.reshape(-1)[faces]
    sound = (corners != np.roll(corners, 1, axis=1)).all(axis=1)
    corners = corners[sound]
    pairs = np.sort(np.stack([corners, np.roll(corners, -1, axis=1)], axis=-1).reshape(-1, 2), axis=1)
    unique, count = np.unique(pairs, axis=0, return_counts=True)
    rim = unique[count == 1]
    if not len(rim):
        return Edges(0, int((count > 2).sum()))
    points, ends = np.unique(rim, return_inverse=True)
    ends = ends.reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(points),) * 2)
    return Edges(int(connected_components(graph, directed=False)[0]), int((count > 2).sum()))


def edges_of(found: Gathered) -> Edges | None:
    """Of the run's asset; None without a readable one."""
    if found.asset_path is None:
        return None
    try:
        surface = read_surface(found.asset_path)
    except Dream3DError:
        return None
    return edges(surface.vertices, surface.faces)


def matcher_curve(found: Gathered, judge: Judge) -> dict[int, tuple[float, float]]:
    """Step -> mean cosine of the preview's views with the prompt, and share of views for which it is the best name.

    Previews stand on white, which the judge has seen little of: compare steps and runs rather than absolute values.
    """
    from PIL import Image

    text = str(found.state.get("prompt", ""))
    if not text.strip() or not found.progress:
        return {}
    wanted, names = understood(text, judge), list(judge.names)
    texts, index = candidates(text, wanted, names), names.index(wanted.name)
    curve = {}
    for step, uri in found.progress:
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
        views = torch.stack(list(pixels.split(pixels.shape[1], dim=2)[: len(SIDES)]))
        similarity = judge.similarity(views, texts)
        best = (similarity.argmax(1) == index).float().mean()
        curve[step] = (round(float(similarity[:, index].mean()), 4), round(float(best), 4))
    return curve
