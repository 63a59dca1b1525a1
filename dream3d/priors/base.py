"""What every diffusion prior is: a frozen network seen as a source of noise predictions.

Whatever a network was trained to output (noise, velocity, clean image, flow), the outside sees `eps`. Time is a
fraction `t` in [0, 1] of the schedule, so that samplers and objectives need not know its length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.checks import InputError
from dream3d.prompts import Prompt
from dream3d.types import Cameras, Render

Parameterisation = Literal["epsilon", "v_prediction", "sample", "flow"]
PARAMETERISATIONS = ("epsilon", "v_prediction", "sample", "flow")


class Schedule(ABC):
    """alpha(t) and sigma(t) of `z_t = alpha z + sigma eps`."""

    @abstractmethod
    def alpha(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B 1 1 1"]:
        """Signal level, shaped to multiply latents."""

    @abstractmethod
    def sigma(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B 1 1 1"]:
        """Noise level, shaped to multiply latents."""

    @abstractmethod
    def snap(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """The nearest time at which the network was trained."""

    @abstractmethod
    def timestep(self, t: Float[Tensor, "B"]) -> Tensor:
        """What the network wants to be told for `t`."""

    @final
    def noised(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """z_t = alpha z + sigma eps."""
        return self.alpha(t) * z + self.sigma(t) * eps

    @final
    def clean(self, z_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The clean latents that `eps` stands for: (z_t - sigma eps) / alpha."""
        return (z_t - self.sigma(t) * eps) / self.alpha(t)

    @final
    def to_eps(self, prediction: Tensor, z_t: Tensor, t: Tensor, kind: Parameterisation) -> Tensor:
        """Turn a network's output into predicted noise.

        v is `alpha eps - sigma z` (Salimans & Ho, arXiv:2202.00512, eq. 6 ff.); flow is `eps - z`
        (Liu et al., arXiv:2209.03003), both solved for eps with `z_t = alpha z + sigma eps` and without assuming
        alpha^2 + sigma^2 = 1.
        """
        alpha, sigma = self.alpha(t), self.sigma(t)
        if kind == "epsilon":
            return prediction
        if kind == "v_prediction":
            return (alpha * prediction + sigma * z_t) / (alpha**2 + sigma**2)
        if kind == "sample":
            return (z_t - alpha * prediction) / sigma
        if kind == "flow":
            return (z_t + alpha * prediction) / (alpha + sigma)
        raise InputError(f"parameterisation: '{kind}' is not one of {', '.join(PARAMETERISATIONS)}.")


@final
class DiscreteSchedule(Schedule):
    """A table of cumulative products as diffusers' schedulers hold it; level i is t = i / T.

    Args:
        alphas_cumprod: abar_i, falling from near 1 to near 0.
    """

    def __init__(self, alphas_cumprod: Float[Tensor, "T"]) -> None:
        if alphas_cumprod.ndim != 1 or not bool(((alphas_cumprod >= 0) & (alphas_cumprod <= 1)).all()):
            raise InputError("alphas_cumprod: expected one axis with values in [0, 1].")
        self.steps = len(alphas_cumprod)
        # The table is kept in double: sigma near t = 0 would otherwise lose half its digits.
        self.alphas_cumprod = alphas_cumprod.double().cpu()
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def _lookup(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key = (t.device, t.dtype)
        if key not in self._tables:
            tables = (self.alphas_cumprod.sqrt(), (1 - self.alphas_cumprod).sqrt())
            self._tables[key] = (tables[0].to(*key), tables[1].to(*key))
        return *self._tables[key], self.timestep(t)

    def alpha(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B 1 1 1"]:
        alpha, _, level = self._lookup(t)
        return alpha[level].view(-1, 1, 1, 1)

    def sigma(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B 1 1 1"]:
        _, sigma, level = self._lookup(t)
        return sigma[level].view(-1, 1, 1, 1)

    def snap(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        return self.timestep(t).to(t.dtype) / self.steps

    def timestep(self, t: Float[Tensor, "B"]) -> Tensor:
        return (t * self.steps).round().long().clamp(0, self.steps - 1)


@final
class FlowSchedule(Schedule):
    """Rectified flow: alpha = 1 - t, sigma = t, any t in (0, 1).

    Args:
        scale: what the network's time input is multiplied with (diffusers' flow models expect 1000).
    """

    def __init__(self, *, scale: float = 1000.0) -> None:
        self.scale = scale

    def alpha(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B 1 1 1"]:
        return (1 - t).view(-1, 1, 1, 1)

    def sigma(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B 1 1 1"]:
        return t.view(-1, 1, 1, 1)

    def snap(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        return t

    def timestep(self, t: Float[Tensor, "B"]) -> Tensor:
        return t * self.scale


@dataclass(frozen=True)
class Condition:
    """What a prediction is conditioned on: named tensors with the batch as first axis.

    The names belong to the prior; all conditions that one prior makes carry the same names, so they can be batched.
    """

    tensors: Mapping[str, Tensor]

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        return Condition({k: torch.cat([c.tensors[k] for c in conditions]) for k in conditions[0].tensors})


@dataclass(frozen=True)
class Query:
    """One question to a prior: the noise in `z_t` at time `t`, given `on`."""

    z_t: Float[Tensor, "B C h w"]
    t: Float[Tensor, "B"]
    on: Condition


@dataclass(frozen=True)
class Card:
    """What to tell a user about a prior before step 0, and to write into the asset."""

    name: str
    source: str
    licence: str


class Prior(nn.Module, ABC):
    """A frozen diffusion network. Constructors are cheap: weights load on first use.

    Attributes:
        views: consecutive images that share one prompt and one t; a batch is a multiple of it.
        image_size: height and width of the pictures the network knows, pixels.
        asked: predictions made so far, one a latent and condition: what a step costs.
        needs_normals: `hinted` wants a rendering with normals.
        reads_negative: a negative prompt means something to it.
    """

    views: int = 1
    image_size: int = 64
    asked: int = 0
    needs_normals: bool = False
    reads_negative: bool = True

    @final
    def train(self, mode: bool = True) -> Prior:
        """A frozen network stays in evaluation mode, whatever the trainer around it switches."""
        return super().train(False)

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """The noise schedule the network was trained with."""

    @abstractmethod
    def card(self) -> Card:
        """Name, where the weights came from, licence."""

    @abstractmethod
    def load(self) -> None:
        """Load the weights now (they load on first use otherwise).

        Raises:
            MissingError: the weights are not there, in one line with the cure.
        """

    def backbone(self) -> nn.Module | None:
        """The network behind `denoise`, loaded, where critics put their weights; None where a formula answers."""
        return None

    @abstractmethod
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Pictures in [0, 1], any size (resized to `image_size`), to latents. Gradient flows."""

    @abstractmethod
    def decode(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Latents to pictures in [0, 1] (not clamped)."""

    @abstractmethod
    def conditions(self, prompt: Prompt, cameras: Cameras) -> dict[str, Condition]:
        """The named conditions for these cameras: at least "text" (the prompt), "null" (nothing) and "negative"
        (the negative prompt; equals "null" when that is empty). Priors that see the camera add "no_camera"."""

    def hinted(self, conditions: Mapping[str, Condition], render: Render, cameras: Cameras) -> dict[str, Condition]:
        """The conditions, told what is being drawn, for priors that look at it; no gradient flows through hints.

        Args:
            conditions: as `conditions` made them, under whatever names.
            render: of the same batch.
            cameras: it was drawn from.
        """
        return dict(conditions)

    @abstractmethod
    def denoise(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, "B"], condition: Condition
    ) -> Float[Tensor, "B C h w"]:
        """The predicted noise in `z_t`, whatever the network itself outputs."""

    @final
    def eps(self, queries: Sequence[Query]) -> list[Tensor]:
        """Answer every query in ONE network call; forwards are what a step costs."""
        z_t = torch.cat([q.z_t for q in queries])
        t = torch.cat([q.t for q in queries])
        self.asked += len(z_t)
        eps = self.denoise(z_t, t, Condition.cat([q.on for q in queries]))
        return list(eps.split([len(q.z_t) for q in queries]))


def resized(images: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C {size} {size}"]:
    """Pictures of another size, smoothed where they shrink. Gradient flows."""
    if images.shape[-2:] == (size, size):
        return images
    return nn.functional.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
