"""A prior whose score is known exactly: for tests, for teaching, and for closed forms."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.checks import in_range
from dream3d.priors.base import Card, Condition, DiscreteSchedule, Prior, Schedule, resized
from dream3d.prompts import Prompt
from dream3d.types import Cameras

Colour = tuple[float, float, float]


@final
class Gaussian(Prior):
    """Pictures are drawn from N(mean, std^2 I): every pixel one colour, give or take `std`. Latents are the pictures.

    With z ~ N(m, s^2), z_t = alpha z + sigma eps has the score -(z_t - alpha m) / (alpha^2 s^2 + sigma^2), hence

        eps(z_t) = sigma (z_t - alpha m) / (alpha^2 s^2 + sigma^2).

    It reads no prompt and sees no camera: "text" is N(mean, std^2), "null" a wider N(null_mean, null_std^2), and
    "negative" N(negative_mean, std^2) where the prompt has a negative text. A `Condition` made by hand may carry any
    "mean" [B 3 h w] (or broadcastable) and "std" [B 1 1 1].

    Its "network" is a shift of all means and a factor on all spreads, neutral as it stands: a `FullCopy` critic of it
    learns the Gaussian that is nearest to the renderings.

    Args:
        mean: colour of "text", in [0, 1].
        std: its spread.
        null_mean: colour of "null".
        null_std: its spread.
        negative_mean: colour of "negative".
        image_size: height and width of the latents, pixels.
        schedule: noise schedule; None is Stable Diffusion's (scaled linear betas, 1000 levels), in double.
    """

    def __init__(
        self,
        *,
        mean: Colour = (0.8, 0.3, 0.2),
        std: float = 0.1,
        null_mean: Colour = (0.5, 0.5, 0.5),
        null_std: float = 0.3,
        negative_mean: Colour = (0.2, 0.3, 0.8),
        image_size: int = 16,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        in_range("Gaussian: std", std, 0)
        in_range("Gaussian: null_std", null_std, 0)
        in_range("Gaussian: image_size", image_size, 1, 4096)
        self.image_size = image_size
        self._schedule = schedule or scaled_linear()
        self.moments = Moments()
        self._colours = {"text": (mean, std), "null": (null_mean, null_std), "negative": (negative_mean, std)}

    @property
    def schedule(self) -> Schedule:
        return self._schedule

    def card(self) -> Card:
        return Card("Gaussian", "a formula, no network", "Apache-2.0")

    def load(self) -> None:
        """Nothing to load."""

    def backbone(self) -> Moments:
        return self.moments

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        return resized(images, self.image_size)

    def decode(self, z: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        return z

    def conditions(self, prompt: Prompt, cameras: Cameras) -> dict[str, Condition]:
        names = {"text": "text", "null": "null", "negative": "negative" if prompt.negative else "null"}
        like = {"device": cameras.c2w.device, "dtype": cameras.c2w.dtype}
        made = {}
        for name, source in names.items():
            colour, std = self._colours[source]
            mean = torch.tensor(colour, **like).view(1, 3, 1, 1).repeat(len(cameras), 1, 1, 1)
            made[name] = Condition({"mean": mean, "std": torch.full((len(cameras), 1, 1, 1), std, **like)})
        return made

    def denoise(
        self, z_t: Float[Tensor, "B 3 h w"], t: Float[Tensor, "B"], condition: Condition
    ) -> Float[Tensor, "B 3 h w"]:
        alpha, sigma = self.schedule.alpha(t).to(z_t), self.schedule.sigma(t).to(z_t)
        mean, std = self.moments(condition.tensors["mean"].to(z_t), condition.tensors["std"].to(z_t))
        return sigma * (z_t - alpha * mean) / (alpha**2 * std**2 + sigma**2)


class Moments(nn.Module):
    """mean + shift and std * exp(log_scale): the parameters of a formula that a critic may train."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3, 1, 1), requires_grad=False)
        self.log_scale = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        return mean + self.shift.to(mean), std * self.log_scale.exp().to(std)


def scaled_linear(start: float = 0.00085, end: float = 0.012, steps: int = 1000) -> DiscreteSchedule:
    """The schedule of latent diffusion (arXiv:2112.10752): betas linear in their square roots; in double."""
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    return DiscreteSchedule((1 - betas).cumprod(0))
