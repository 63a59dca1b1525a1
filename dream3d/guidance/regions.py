"""Region-wise score distillation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.checks import InputError, in_range
from dream3d.guidance.base import Guider, Noised, Objective, guided
from dream3d.guidance.guiders import CFG
from dream3d.priors.base import Condition, Prior
from dream3d.prompts import Prompt
from dream3d.representations.base import Representation
from dream3d.representations.gaussians import Gaussians
from dream3d.types import Cameras, Render

Point = tuple[float, float, float]
PREFIX = "region "


@final
class Region:
    """A box in the world with a prompt of its own.

    Args:
        text: what is in it.
        low: its lowest corner, metres.
        high: its highest corner.
    """

    def __init__(self, *, text: str, low: Point, high: Point) -> None:
        if not all(a < b for a, b in zip(low, high, strict=True)):
            raise InputError(f"Region '{text}': every number of low must be below that of high (got {low}, {high}).")
        self.prompt = Prompt(text)
        self.low = low
        self.high = high

    def depth(self, cameras: Cameras) -> Float[Tensor, "B H W"]:
        """Distance along each pixel's ray to the box, 0 inside; infinite where the ray misses it."""
        origins, directions = cameras.rays()
        low, high = (torch.tensor(corner).to(origins) for corner in (self.low, self.high))
        inverse = 1 / directions.where(directions.abs() > 1e-12, 1e-12)
        near, far = (low - origins) * inverse, (high - origins) * inverse
        enter, leave = near.minimum(far).amax(-1).clamp_min(0), near.maximum(far).amin(-1)
        return enter.where(enter < leave, torch.inf)


@final
class RegionSDS(Objective):
    """A prompt for each region of the picture (SemanticSDS, Yang et al., arXiv:2410.09009, eq. 6-9).

        residual = sum_k M_k guided eps(z_t; prompt_k) - eps,     sum_k M_k = 1, the main prompt where no region is

    Of Gaussians with `parts` the regions are the parts, where their codes say so: a pixel is of the part of which there
    is most, and of none where there is more background; then each region grows, but only over what is of none. A
    picture that shows a part alone (`Focus`) follows that part's prompt everywhere. View words, and whatever else the
    prior makes of a camera, are for the part's own front. Anything else has boxes, of which a pixel belongs to the
    nearest that its ray meets. All prompts share t, noise and the one "null" prediction; what no pixel of a picture
    follows is not asked.

    Published: SD 1.5, CFG 100 (shifted convention), w = sigma^2, codes of 3 numbers from CLIP's embeddings (here a
    channel a part, so that nothing need be decoded), 5 x 5 windows at 64 x 64. The released code takes the *mean* over
    prompts and masks the noise as well: the same fixed point at 1 / K of the speed, and nothing outside the masks.

    Args:
        regions: boxes by name; None is SDS, or the representation's parts.
        guider: for every prompt; None is CFG 101.
        grow: how far a part's region grows, share of the picture's side.
    """

    def __init__(
        self, *, regions: dict[str, Region] | None = None, guider: Guider | None = None, grow: float = 2 / 64
    ) -> None:
        super().__init__()
        in_range("RegionSDS: grow", grow, 0, 0.5)
        self.regions = dict(regions or {})
        self.guider = guider or CFG(scale=101.0)
        self.grow = grow

    def conditions(self, prior: Prior, prompt: Prompt, cameras: Cameras) -> dict[str, Condition]:
        made = prior.conditions(prompt, cameras)
        for name, region in self.regions.items():
            made[_named(name)] = prior.conditions(region.prompt, cameras)["text"]
        return {**made, "masks": Condition({"masks": self.masks(cameras)})}

    def regarding(
        self,
        made: Mapping[str, Condition],
        prior: Prior,
        prompt: Prompt,
        cameras: Cameras,
        representation: Representation,
        render: Render,
    ) -> Mapping[str, Condition]:
        """With the parts of Gaussians, and where they are.

        Raises:
            InputError: there are boxes as well.
        """
        if not isinstance(representation, Gaussians) or not representation.parts:
            return made
        if self.regions:
            raise InputError("RegionSDS: the parts of the Gaussians are the regions; leave out its own.")
        masks = part_masks(render.aux["parts"], self.grow)
        subject = render.aux.get("subject", torch.full((len(cameras),), -1, device=masks.device))
        found = dict(made)
        for number, (name, part) in enumerate(representation.parts.items()):
            own = part.to_own(cameras)
            # A picture of a part alone was taken in the part's frame already, and its prompt is the part's.
            alone = subject == number
            own = replace(own, c2w=torch.where(alone[:, None, None], cameras.c2w, own.c2w))
            told = prior.conditions(replace(prompt, text=part.text), own)
            found |= {key: _where(alone, there, found[key]) for key, there in told.items()}
            found[_named(name)] = told["text"]
        masks[subject >= 0] = functional.one_hot(torch.tensor(masks.shape[1] - 1))[:, None, None].to(masks)
        return {**found, "masks": Condition({"masks": masks})}

    def masks(self, cameras: Cameras) -> Float[Tensor, "B K H W"]:
        """Which pixels belong to each box, and last to none; they sum to 1."""
        flat = torch.full((len(cameras), cameras.height, cameras.width), torch.finfo(torch.float32).max)
        depths = [*[region.depth(cameras) for region in self.regions.values()], flat.to(cameras.c2w)]
        nearest = torch.stack(depths, dim=1).argmin(1)
        return functional.one_hot(nearest, len(depths)).permute(0, 3, 1, 2).to(cameras.c2w)

    def residual(self, prior: Prior, x: Noised) -> Float[Tensor, "B C h w"]:
        masks = functional.interpolate(x.named("masks").tensors["masks"].to(x.z), x.z.shape[-2:], mode="area")
        texts = [_named(name) for name in self.regions] or [name for name in x.conditions if name.startswith(PREFIX)]
        # Pictures that follow the same prompts are asked together; those of a group stay together.
        follows = masks.flatten(2).any(-1).view(-1, prior.views, masks.shape[1]).any(1)
        kinds, kind = follows.unique(dim=0, return_inverse=True)
        rows = [(kind.repeat_interleave(prior.views) == i).nonzero()[:, 0] for i in range(len(kinds))]
        asked: list[tuple[Guider, Noised]] = []
        for which, on in zip(rows, kinds.tolist(), strict=True):
            here = x.rows(which)
            points = [*[here.given(text=here.named(text)) for text in texts], here]
            asked += [(self.guider, point) for point, wanted in zip(points, on, strict=True) if wanted]
        answers = iter(guided(prior, *asked))
        mixed = torch.zeros_like(x.z)
        for which, on in zip(rows, kinds.tolist(), strict=True):
            for number in (n for n, wanted in enumerate(on) if wanted):
                mixed[which] += masks[which, number, None] * next(answers)
        return mixed - x.eps


def part_masks(parts: Float[Tensor, "B H W K"], grow: float) -> Float[Tensor, "B K+1 H W"]:
    """Which pixels belong to each part, and last to none; ones and zeros that sum to 1.

    Args:
        parts: how much of a pixel is each part's; what is missing to 1 is background.
        grow: how far parts grow over the background, share of the picture's height. Where two would, the one wins that
            has more pixels near.
    """
    most = torch.cat([parts, 1 - parts.sum(-1, keepdim=True)], dim=-1).argmax(-1)
    masks = functional.one_hot(most, parts.shape[-1] + 1).permute(0, 3, 1, 2).to(parts)
    margin = round(grow * parts.shape[1])
    near = functional.avg_pool2d(masks[:, :-1], 2 * margin + 1, stride=1, padding=margin)
    free = (masks[:, -1:] == 1) & (near.amax(1, keepdim=True) > 0)
    grown = functional.one_hot(near.argmax(1), parts.shape[-1] + 1).permute(0, 3, 1, 2).to(parts)
    return torch.where(free, grown, masks)


def _where(rows: Tensor, one: Condition, other: Condition) -> Condition:
    """A condition that is `one` in these rows."""
    shaped = {key: rows.view(-1, *(1 for _ in value.shape[1:])) for key, value in one.tensors.items()}
    return Condition({key: value.where(shaped[key], other.tensors[key]) for key, value in one.tensors.items()})


def _named(region: str) -> str:
    """The name of a region's condition."""
    return PREFIX + region
