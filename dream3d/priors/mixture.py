"""A prior of several modes whose score is known exactly: for tests, for teaching, and for mode coverage."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.checks import InputError, in_range
from dream3d.priors.base import Card, Condition, Prior, Schedule, resized
from dream3d.priors.gaussian import scaled_linear
from dream3d.prompts import Prompt
from dream3d.types import Cameras

COLOURS = MappingProxyType({"red": (0.8, 0.2, 0.2), "green": (0.2, 0.7, 0.2), "blue": (0.2, 0.3, 0.8)})


@final
class Mixture(Prior):
    """Pictures are drawn from sum_k w_k N(mean_k, std_k^2 I): a picture is of one mode as a whole.

    With P_k = alpha^2 std_k^2 + sigma^2 and D numbers a picture,

        eps(z_t) = sum_k r_k sigma (z_t - alpha mean_k) / P_k,
        r_k ~ w_k P_k^(-D/2) exp(-|z_t - alpha mean_k|^2 / (2 P_k)),   sum_k r_k = 1,

    computed in double. Modes are classes: "text" is the modes whose names are words of the prompt, "negative" those in
    the negative prompt, "null" all of them, as is a text that names none. A `Condition` made by hand may carry any
    "log_weights" [B K], -inf for modes that are left out.

    Its "network" shifts, widens and reweights the modes, and is neutral as it stands: a `FullCopy` critic of it learns
    a mixture. Latents are the pictures; modes of one number instead of three are grey.

    Args:
        modes: mean colour of each, in [0, 1], by name; None is red, green and blue.
        std: their spread: one for all, or by name.
        weights: how frequent each is, by name; None is all alike.
        null: names of the modes that an empty text stands for; nothing is all.
        image_size: height and width of the latents, pixels.
        schedule: noise schedule; None is Stable Diffusion's (scaled linear betas, 1000 levels), in double.
    """

    def __init__(
        self,
        *,
        modes: dict[str, tuple[float, ...]] | None = None,
        std: float | dict[str, float] = 0.1,
        weights: dict[str, float] | None = None,
        null: str = "",
        image_size: int = 16,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        modes = dict(COLOURS) if modes is None else modes
        channels = {len(mean) for mean in modes.values()}
        if channels not in ({1}, {3}):
            raise InputError("Mixture: modes must be one or more, each with 3 numbers, or each with 1 (grey).")
        stds = std if isinstance(std, dict) else dict.fromkeys(modes, std)
        weights = dict.fromkeys(modes, 1.0) if weights is None else weights
        for what, values in (("std", stds), ("weights", weights)):
            if set(values) != set(modes):
                raise InputError(f"Mixture: {what} must name {', '.join(modes)} (got {', '.join(values) or 'none'}).")
            for name, value in values.items():
                in_range(f"Mixture: {what} of '{name}'", value, 1e-9)
        in_range("Mixture: image_size", image_size, 1, 4096)
        self.image_size = image_size
        self.names = tuple(modes)
        self.null = null
        self._schedule = schedule or scaled_linear()
        self._means = torch.tensor([modes[n] for n in modes], dtype=torch.float64)
        self._stds = torch.tensor([stds[n] for n in modes], dtype=torch.float64)
        self._log_weights = torch.tensor([weights[n] for n in modes], dtype=torch.float64).log()
        self.changes = Changes(*self._means.shape)

    @property
    def schedule(self) -> Schedule:
        return self._schedule

    def card(self) -> Card:
        return Card("Mixture", "a formula, no network", "Apache-2.0")

    def load(self) -> None:
        """Nothing to load."""

    def backbone(self) -> Changes:
        return self.changes

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        images = resized(images, self.image_size)
        return images if self._means.shape[1] == 3 else images.mean(1, keepdim=True)

    def decode(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 h w"]:
        return z.expand(-1, 3, -1, -1)

    def conditions(self, prompt: Prompt, cameras: Cameras) -> dict[str, Condition]:
        asked = {"text": prompt.text, "null": "", "negative": prompt.negative}
        return {name: self.condition(text, len(cameras), cameras.c2w.device) for name, text in asked.items()}

    def condition(self, text: str, batch: int, device: torch.device | str = "cpu") -> Condition:
        """The modes that a text names, or all."""
        named = next((n for n in map(self._named, (text, self.null)) if n.any()), self._named(""))
        kept = self._log_weights if not named.any() else self._log_weights.masked_fill(~named, -math.inf)
        return Condition({"log_weights": kept.expand(batch, -1).to(device)})

    def _named(self, text: str) -> Tensor:
        words = text.lower().split()
        return torch.tensor([name.lower() in words for name in self.names])

    def denoise(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, "B"], condition: Condition
    ) -> Float[Tensor, "B C h w"]:
        z = z_t.double()[:, None]
        alpha, sigma = (x.to(z)[..., None] for x in (self.schedule.alpha(t), self.schedule.sigma(t)))
        means, stds, log_weights = self.changes(
            self._means.to(z), self._stds.to(z), condition.tensors["log_weights"].to(z)
        )
        power = alpha**2 * stds.view(1, -1, 1, 1, 1) ** 2 + sigma**2
        off = z - alpha * means[None, :, :, None, None]
        size = z_t[0].numel()
        log_r = log_weights - 0.5 * (size * power.log() + off.square().sum((2, 3, 4), keepdim=True) / power).flatten(1)
        r = log_r.softmax(1)[:, :, None, None, None]
        return (r * sigma * off / power).sum(1).to(z_t)

    def log_density(self, z: Float[Tensor, "B C h w"], text: str = "") -> Float[Tensor, "B"]:
        """Log-probability of clean pictures, up to a constant; all modes, or those that a text names. In double."""
        off = z.double()[:, None] - self._means.to(z.device)[None, :, :, None, None]
        variance = self._stds.to(z.device) ** 2
        fit = off.square().sum((2, 3, 4)) / variance + z[0].numel() * variance.log()
        log_weights = cast(Tensor, self.condition(text, len(z), z.device).tensors["log_weights"])
        return (log_weights - 0.5 * fit).logsumexp(1)


class Changes(nn.Module):
    """What a critic may train of a mixture; as it stands it changes nothing."""

    def __init__(self, modes: int, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(modes, channels), requires_grad=False)
        self.log_scale = nn.Parameter(torch.zeros(modes), requires_grad=False)
        self.logits = nn.Parameter(torch.zeros(modes), requires_grad=False)

    def forward(self, means: Tensor, stds: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shift, log_scale, logits = (p.to(means) for p in (self.shift, self.log_scale, self.logits))
        return means + shift, stds * log_scale.exp(), log_weights + logits
