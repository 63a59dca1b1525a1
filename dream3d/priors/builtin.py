"""The prior that ships with the package: a small text- and camera-conditioned diffusion model of 64 x 64 pictures.

Also what its relatives share (`builtin_mv.py`, `builtin_latent.py`): the camera's features, the words, the folder.
Trained by `dream3d.prior_training`; what it knows, and does not, is in `docs/builtin_prior.md`. The weights are in
diffusers' layout, so `UNet2DConditionModel.from_pretrained(folder / "unet")` opens them as well.
"""

from __future__ import annotations

import json
import math
from abc import ABC
from functools import cached_property
from pathlib import Path
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.checks import MissingError
from dream3d.priors.base import PARAMETERISATIONS, Card, Condition, DiscreteSchedule, Parameterisation, Prior, resized
from dream3d.priors.static_text import StaticText
from dream3d.prompts import Prompt
from dream3d.types import Cameras

WEIGHTS = Path(__file__).parent / "weights"
PACKAGED = WEIGHTS / "builtin"
PATCH = 4
"""Pixels a side that become channels at the door: 3 x 64 x 64 -> 48 x 16 x 16."""
TOKENS = 12
CAMERA_FEATURES = 14
GRID, RAY_CHANNELS = 16, 6
ZOOM_MIDDLE, ZOOM_SCALE = math.log(1.2), 8.0
FOV_MIDDLE, FOV_SCALE = math.radians(42.5), 4.0
TURNS = 8
"""How many of the camera features change as one walks round the object: x and z of the direction, the harmonics."""
POOLED_GAIN, CAMERA_GAIN, PAIR_GAIN = 6.0, 2.0, 3.0
"""They give text, camera and their products about the same length (6) in the class embedding: none starts unheard."""


def camera_features(cameras: Cameras) -> Float[Tensor, "B 14"]:
    """What the network is told of a camera that looks at the origin; smooth everywhere, the poles included.

    The unit direction from the origin to the camera, the azimuth's harmonics 2 to 4 (times cos(elevation)^k: powers of
    z + ix), Legendre polynomials 2 and 3 of the height, log relative size (distance * tan(fov / 2)), field of view,
    and a flag. All zeros means "no camera given". Roll and aim are not told: every training camera is upright and
    looks at the origin.
    """
    direction = nn.functional.normalize(cameras.position, dim=-1)
    x, y, z = direction.unbind(-1)
    around = torch.complex(z, x)
    harmonics = [part for k in (2, 3, 4) for part in ((around**k).real, (around**k).imag)]
    zoom = cameras.distance * torch.tan(0.5 * cameras.fov_y)
    size = (zoom.clamp_min(1e-6).log() - ZOOM_MIDDLE) * ZOOM_SCALE
    fov = (cameras.fov_y - FOV_MIDDLE) * FOV_SCALE
    rest = [1.5 * y**2 - 0.5, 2.5 * y**3 - 1.5 * y, size, fov, torch.ones_like(y)]
    return torch.cat([direction, torch.stack(harmonics + rest, dim=-1)], dim=-1)


def label_size(words: int) -> int:
    """Length of a condition's labels when a text has `words` numbers: text, camera, and their products."""
    return words + CAMERA_FEATURES + words * TURNS


def ray_map(cameras: Cameras, grid: int = GRID) -> Float[Tensor, "B 6 {grid} {grid}"]:
    """Where each of `grid` x `grid` patches looks, in the world: the point of its ray on the plane through the origin
    that faces the camera (3 channels), and the direction from the origin to the camera (3 channels).

    A convolution alone hardly learns to turn an object: with these, "left of the object" and "in front of it" are
    linear in the input (compare the ray maps of multi-view models, e.g. CAT3D, arXiv:2405.10314, section 3.1).
    """
    zoom = cameras.distance * torch.tan(0.5 * cameras.fov_y)
    x = (torch.arange(grid, device=zoom.device, dtype=zoom.dtype) + 0.5) * (2 / grid) - 1
    right, up = cameras.c2w[:, :3, 0], cameras.c2w[:, :3, 1]
    across = right[:, :, None, None] * x[None, None, None, :] - up[:, :, None, None] * x[None, None, :, None]
    direction = nn.functional.normalize(cameras.position, dim=-1)
    return torch.cat([zoom[:, None, None, None] * across, direction[:, :, None, None].expand_as(across)], dim=1)


def condition(
    tokens: Float[Tensor, "B n d"],
    pooled: Float[Tensor, "B d"],
    features: Float[Tensor, "B 14"],
    rays: Float[Tensor, "B 6 g g"],
) -> Condition:
    """What the network sees of texts (`StaticText.embed`) and cameras (`camera_features`, `ray_map`); zeros mean "not
    given".

    The labels end with the products of text and azimuth. Averaged over all objects, the azimuth changes nothing: what
    it does depends on the object, and a network that has to find a product by itself from a sum of the two inputs
    ignores the azimuth for hundreds of thousands of pictures (measured: docs/builtin_prior.md).
    """
    words = tokens * math.sqrt(tokens.shape[-1])
    turning = torch.cat([features[:, :1], features[:, 2 : 1 + TURNS]], dim=1)
    pairs = (pooled[:, :, None] * turning[:, None]).flatten(1)
    labels = torch.cat([POOLED_GAIN * pooled, CAMERA_GAIN * features, PAIR_GAIN * pairs], dim=-1)
    return Condition({"tokens": words, "labels": labels, "rays": rays})


class Packaged(Prior, ABC):
    """What the priors of `dream3d.prior_training` share: a folder of weights, words and cameras in, `denoise`.

    Args:
        folder: where the weights are; None takes the packaged ones.
    """

    name: str
    """Of the folder in `weights/`, and of the member that the training script makes."""

    def __init__(self, *, folder: str | None = None) -> None:
        super().__init__()
        self.folder = WEIGHTS / self.name if folder is None else Path(folder)
        # Follows `.to()` before there are weights to move.
        self.register_buffer("_place", torch.empty(0), persistent=False)
        self.unet: nn.Module | None = None

    @cached_property
    def schedule(self) -> DiscreteSchedule:
        """The noise schedule the network was trained with."""
        config = self._scheduler
        from diffusers import DDPMScheduler

        return DiscreteSchedule(DDPMScheduler.from_config(config).alphas_cumprod)

    def card(self) -> Card:
        facts = self._json("card.json")
        return Card(facts["name"], facts["source"], facts["licence"])

    def load(self) -> None:
        """Load the weights now (float32, channels last).

        Raises:
            MissingError: the weights are missing or damaged, in one line with the cure.
        """
        self._network()

    def backbone(self) -> nn.Module:
        return self._network()

    def conditions(self, prompt: Prompt, cameras: Cameras) -> dict[str, Condition]:
        """What every prior has, and "camera": the camera without a text. "null" is neither text nor camera."""
        features = camera_features(cameras)
        count = len(cameras)
        embedded = self.text.embed([prompt.text, prompt.negative, ""], TOKENS)
        tokens, pooled = embedded.tokens.to(features), embedded.pooled.to(features)
        rays = ray_map(cameras, self._unet_config["sample_size"])

        def on(row: int, seen: bool) -> Condition:
            words, pool = tokens[row].expand(count, -1, -1), pooled[row].expand(count, -1)
            return condition(words, pool, features * seen, rays * seen)

        return {
            "text": on(0, True),
            "null": on(2, False),
            "negative": on(1, True) if prompt.negative.strip() else on(2, False),
            "no_camera": on(0, False),
            "camera": on(2, True),
        }

    def denoise(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, "B"], condition: Condition
    ) -> Float[Tensor, "B C h w"]:
        network = self._network()
        z_in = torch.cat([z_t, condition.tensors["rays"]], dim=1)
        out = network(
            z_in.contiguous(memory_format=torch.channels_last),
            self.schedule.timestep(t),
            condition.tensors["tokens"],
            class_labels=condition.tensors["labels"],
            return_dict=False,
        )[0]
        return self.schedule.to_eps(out, z_t, t, self._kind)

    @cached_property
    def text(self) -> StaticText:
        """The words' table: the folder's own, or the packaged one where `card.json` says so."""
        shared = self._json("card.json").get("words") == PACKAGED.name
        return StaticText.load((PACKAGED if shared else self.folder) / "text")

    @cached_property
    def _scheduler(self) -> dict[str, Any]:
        return self._json("scheduler/scheduler_config.json")

    @property
    def _kind(self) -> Parameterisation:
        kind = self._scheduler.get("prediction_type", "epsilon")
        if kind not in PARAMETERISATIONS:
            raise self._unusable(f"scheduler_config.json: prediction_type '{kind}'")
        return kind

    @cached_property
    def _unet_config(self) -> dict[str, Any]:
        return self._json("unet/config.json")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._unusable(f"{name}: {type(error).__name__}") from error

    def _network(self) -> nn.Module:
        if self.unet is None:
            self.unet = self._prepare(self._read("unet", "UNet2DConditionModel"))
        return self.unet

    def _prepare(self, unet: nn.Module) -> nn.Module:
        """What a member does to its network once it is there."""
        return unet

    def _read(self, part: str, kind: str) -> Any:
        """A frozen network of diffusers from one folder of ours, on this prior's device."""
        try:
            network = read_network(self.folder / part, kind)
        except ValueError as error:
            raise self._unusable(str(error)) from error
        return network.to(cast(Tensor, self._place).device)

    def _unusable(self, why: str) -> MissingError:
        return MissingError(
            f"the built-in prior's folder {self.folder} is missing files or damaged ({why}). "
            f"Reinstall dream3d, or train one: python -m dream3d.prior_training train --member {self.name}"
        )


def read_network(folder: Path, kind: str) -> Any:
    """A frozen network from a folder in diffusers' layout (float32, channels last).

    Raises:
        ValueError: a file is missing or damaged: which, and how.
    """
    import diffusers
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        file = folder / "diffusion_pytorch_model.safetensors"
        network = getattr(diffusers, kind).from_config(config)
        network.load_state_dict(load_file(file))
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder.name}/{file.name}: {type(error).__name__}") from error
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def to_patches(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 48 h w"]:
    """Pictures in [0, 1] to patches of 4 x 4 pixels in [-1, 1], as channels."""
    return nn.functional.pixel_unshuffle(2 * images - 1, PATCH)


class Pixels:
    """The door of members whose latents are the picture itself."""

    image_size = 64

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 48 16 16"]:
        """Pictures in [0, 1] to [-1, 1] patches; other sizes are resized (antialiased). Gradient flows."""
        return to_patches(resized(images, self.image_size))

    def decode(self, z: Float[Tensor, "B 48 h w"]) -> Float[Tensor, "B 3 H W"]:
        return 0.5 + 0.5 * nn.functional.pixel_shuffle(z, PATCH)


@final
class Builtin(Pixels, Packaged):
    """The packaged prior, or another that was trained by the same script: one picture of 64 x 64 at a time."""

    name = "builtin"
    views = 1
