"""What guidance does to a rendering, looked at every so often: why a run goes wrong is seen here first."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.checks import Dream3DError
from dream3d.guidance.base import Guider, Noised
from dream3d.media import row, write_picture
from dream3d.runs import write_atomically
from dream3d.stage import StageModule, seed_of

TILES = ("rendering", "noised", "clean by the text alone", "clean as guided", "gradient")
SHOWN = 2
"""Views of the batch that are looked at, or one group of a multi-view prior."""
NEVER = -1
"""The step of the microscope's random numbers: none of the run's."""


@dataclass(frozen=True)
class Sight:
    """One look.

    Attributes:
        tiles: pictures in [0, 1] by the names of `TILES`.
        t: noise level of each view.
        norms: mean length of each term, in units of noise per number: 1 is as long as the noise that was added.
        cosines: mean cosine of pairs of terms, "a · b".
    """

    tiles: dict[str, Float[Tensor, "V 3 H W"]]
    t: Float[Tensor, "V"]
    norms: dict[str, float]
    cosines: dict[str, float]


@torch.no_grad()
def examine(module: StageModule, *, shown: int = SHOWN) -> Sight:
    """Repeat the step's forward half on cameras and noise that stay the same through the run.

    The terms are those into which the literature splits score distillation (CSD, arXiv:2310.19415; NFSD,
    arXiv:2310.17590): "residual" is what the objective makes of everything, "text" is eps(text) - eps(null) and
    "denoising" is eps(null) - eps; the last is absent where noise comes from an inversion. Draws from a generator of
    its own and gives the prior its count back: the run does not notice.

    Args:
        module: in training; nothing of it changes.
        shown: views to look at; a whole number of the stage's groups, at least one, is taken.
    """
    stage, prior, step = module.stage, module.prior, module.step_index
    counts = [(source, source.asked) for source in (prior, *module.critics)]
    device = module.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        generator = torch.Generator().manual_seed(seed_of(module.seed, module.number, NEVER))
        cameras = stage.cameras(stage.batch, stage.views, step, generator).to(device)
        background = stage.background(stage.batch, stage.views, generator).to(device)
        normals = prior.needs_normals
        render = stage.renderer(module.representation, cameras, generator=generator, normals=normals)
        images = render.over(background)
        z = prior.encode(images)
        t = prior.schedule.snap(stage.time(stage.batch, stage.views, step, generator).to(z))
        conditions = module.objective.conditions(prior, module.prompt, cameras)
        scene = (cameras, module.representation, render)
        conditions = prior.hinted(module.objective.regarding(conditions, prior, module.prompt, *scene), render, cameras)
        for critic in module.critics:
            conditions = critic.watch(conditions, cameras)
        x = stage.noise(prior, z, t, conditions, generator, step)
        residual = module.objective.residual(prior, x)
        weight = stage.weight(x.alpha, x.sigma)
        of = _spread(stage.batch, stage.views, shown)
        sight = _sight(module, x.rows(of), images[of], residual[of], (weight * residual)[of])
    for source, asked in counts:
        source.asked = asked
    return sight


def _spread(batch: int, views: int, shown: int) -> list[int]:
    """Items of whole groups, evenly over the batch: with stratified cameras they look from opposite sides."""
    groups = batch // views
    wanted = min(groups, math.ceil(shown / views))
    return [i * groups // wanted * views + view for i in range(wanted) for view in range(views)]


def _sight(module: StageModule, x: Noised, images: Tensor, residual: Tensor, g: Tensor) -> Sight:
    prior = module.prior
    found = getattr(module.objective, "guider", None)
    guider = found if isinstance(found, Guider) and set(found.asks) <= set(x.conditions) else None
    names = dict.fromkeys(["text", "null", *(guider.asks if guider else ())])
    answers = dict(zip(names, prior.eps(x.ask(*names)), strict=True))
    # Without a guider the objective's own residual says where it takes the noise to be.
    as_guided = guider(x, *[answers[name] for name in guider.asks]) if guider else residual + x.noise(x.z)
    terms = {"residual": residual, "text": answers["text"] - answers["null"]}
    if x.added is not None:
        terms["denoising"] = answers["null"] - x.added
    flat = {name: term.flatten(1).float() for name, term in terms.items()}
    pairs = [(a, b) for i, a in enumerate(flat) for b in list(flat)[i + 1 :]]
    level = (x.alpha**2 + x.sigma**2).sqrt()
    size = images.shape[-2:]
    pictures = (
        images,
        *(_sized(prior.decode(z), size) for z in (x.z_t / level, x.clean(answers["text"]), x.clean(as_guided))),
        heat(_sized(g.norm(dim=1, keepdim=True), size)),
    )
    return Sight(
        {name: picture.clamp(0, 1) for name, picture in zip(TILES, pictures, strict=True)},
        x.t,
        {name: float(term.square().mean(1).sqrt().mean()) for name, term in flat.items()},
        {f"{a} · {b}": float(torch.cosine_similarity(flat[a], flat[b]).mean()) for a, b in pairs},
    )


def heat(values: Float[Tensor, "V 1 H W"]) -> Float[Tensor, "V 3 H W"]:
    """Black over red and yellow to white, each picture scaled to its own largest value."""
    share = 3 * values / values.flatten(1).amax(1).clamp_min(1e-20).view(-1, 1, 1, 1)
    return torch.cat([share, share - 1, share - 2], dim=1).clamp(0, 1)


def _sized(images: Tensor, size: torch.Size) -> Tensor:
    return torch.nn.functional.interpolate(images.float(), tuple(size))


@final
class Microscope(pl.Callback):
    """`examine` every so many steps: stepNNNNNN.jpg (a row a view, a column a name of `TILES`) and stepNNNNNN.json.

    What goes wrong here is written into the JSON as its "reason"; a picture is not worth a run.

    Args:
        folder: where they go; made when the first is written.
        every: steps between them; 0 for none.
        stage: its name, stored along.
        offset: added to the step in the file's name: steps of the stages before.
        size: pixels on a side of a tile, at most.
    """

    def __init__(self, folder: Path, *, every: int, stage: str, offset: int = 0, size: int = 128) -> None:
        self.folder = folder
        self.every = every
        self.stage = stage
        self.offset = offset
        self.size = size

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StageModule)
        if self.every and module.step_index == 0:
            self._look(module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, StageModule)
        if self.every and (module.step_index % self.every == 0 or module.step_index == module.stage.steps):
            self._look(module)

    def _look(self, module: StageModule) -> None:
        step = self.offset + module.step_index
        told: dict[str, Any] = {"stage": self.stage, "step": step}
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            sight = examine(module)
        except (Dream3DError, RuntimeError) as error:
            told["reason"] = str(error).partition("\n")[0]
        else:
            told |= {"tiles": list(sight.tiles), "t": [round(t, 4) for t in sight.t.tolist()]}
            told |= {"norms": _rounded(sight.norms), "cosines": _rounded(sight.cosines)}
            write_picture(self.folder / f"step{step:06d}.jpg", self._sheet(sight))
        write_atomically(self.folder / f"step{step:06d}.json", json.dumps(told, ensure_ascii=False) + "\n")

    def _sheet(self, sight: Sight) -> np.ndarray:
        tiles = torch.stack(list(sight.tiles.values()), dim=1).nan_to_num()
        side = min(self.size, max(tiles.shape[-2:]))
        views = [_sized(view, torch.Size((side, side))) for view in tiles]
        return np.concatenate([row(view) for view in views])


def _rounded(numbers: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: what is not finite is null."""
    return {name: round(value, 6) if math.isfinite(value) else None for name, value in numbers.items()}
