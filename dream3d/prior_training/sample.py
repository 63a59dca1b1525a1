"""Samples from any prior (DDIM with classifier-free guidance) and lays them out as a sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import turntable
from dream3d.priors.base import Condition, Prior, Query
from dream3d.prompts import Prompt
from dream3d.types import Cameras

LAST_TIME = 0.98
"""Sampling starts here: at t = 1 nothing of the signal is left and the clean image is 0 / 0."""


@torch.no_grad()
def sample(
    prior: Prior,
    prompt: Prompt | Sequence[Prompt],
    cameras: Cameras,
    *,
    steps: int = 30,
    scale: float = 3.0,
    generator: torch.Generator,
    limit: float | None = 1.0,
) -> Float[Tensor, "B 3 H W"]:
    """Pictures in [0, 1], one a camera, by DDIM (Song et al., arXiv:2010.02502, eq. 12 with eta = 0).

    Args:
        prior: any.
        prompt: what to draw; of several, all cameras of the first come first.
        cameras: from where; on the prior's device.
        steps: network calls.
        scale: of classifier-free guidance, 1 for none: eps_null + scale (eps_text - eps_null).
        generator: source of the noise (CPU).
        limit: clean latents are clamped to +- this; None for latents without bounds.
    """
    prompts = [prompt] if isinstance(prompt, Prompt) else list(prompt)
    each = [prior.conditions(p, cameras) for p in prompts]
    text, null = (Condition.cat([on[name] for on in each]) for name in ("text", "null"))
    device = cameras.c2w.device
    shape = prior.encode(torch.zeros(prior.views, 3, prior.image_size, prior.image_size, device=device)).shape[1:]
    z_t = torch.randn(len(prompts) * len(cameras), *shape, generator=generator).to(device)
    z = torch.zeros_like(z_t)
    times = torch.linspace(LAST_TIME, 0.0, steps + 1, device=device)
    for now, then in zip(times[:-1], times[1:], strict=True):
        t, s = now.expand(len(z_t)), then.expand(len(z_t))
        if scale == 1:
            eps = prior.denoise(z_t, t, text)
        else:
            said, unsaid = prior.eps([Query(z_t, t, text), Query(z_t, t, null)])
            eps = unsaid + scale * (said - unsaid)
        z = prior.schedule.clean(z_t, eps, t)
        if limit is not None:
            z = z.clamp(-limit, limit)
            eps = (z_t - prior.schedule.alpha(t) * z) / prior.schedule.sigma(t)
        z_t = prior.schedule.noised(z, eps, s)
    return prior.decode(z).clamp(0, 1)


def sheet(
    prior: Prior,
    prompts: Sequence[str],
    *,
    views: int = 4,
    steps: int = 30,
    scale: float = 3.0,
    elevation_deg: float = 15.0,
    seed: int = 0,
    limit: float | None = 1.0,
    device: str = "cpu",
) -> Float[Tensor, "3 H W"]:
    """One row a prompt, one column a view (azimuths around, the front first). Every row starts from the same noise."""
    cameras = turntable(views, prior.image_size, elevation_deg=elevation_deg).to(device)
    rows = []
    for prompt in prompts:
        generator = torch.Generator().manual_seed(seed)
        how = {"steps": steps, "scale": scale, "generator": generator, "limit": limit}
        rows.append(torch.cat(list(sample(prior, Prompt(prompt), cameras, **how).cpu()), dim=2))
    return torch.cat(rows, dim=1)


def write_sheet(pictures: Float[Tensor, "3 H W"], path: str, prompts: Sequence[str], *, columns: int = 2) -> None:
    """Write a sheet as PNG, twice as large, the prompts beside their rows, in `columns` columns."""
    from PIL import Image, ImageDraw

    height = pictures.shape[1] // len(prompts)
    lines = math.ceil(len(prompts) / columns)
    width, cell = 2 * pictures.shape[2], 2 * height + 14
    canvas = Image.new("RGB", (columns * (width + 8), lines * cell), "white")
    draw = ImageDraw.Draw(canvas)
    array = (pictures.permute(1, 2, 0) * 255).round().byte().numpy()
    for i, prompt in enumerate(prompts):
        row = Image.fromarray(array[i * height : (i + 1) * height]).resize((width, 2 * height))
        left, top = (i // lines) * (width + 8), (i % lines) * cell
        draw.text((left + 2, top + 1), prompt, fill="black")
        canvas.paste(row, (left, top + 13))
    canvas.save(path)
