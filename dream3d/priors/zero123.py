"""Zero123: what an object in a picture looks like from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.checks import MissingError, in_range
from dream3d.priors.base import Condition
from dream3d.priors.hub import CURE, class_in
from dream3d.priors.opened import UNET, Openable, Opening, Part, dtype_of, filled
from dream3d.priors.picture import read_for, read_picture
from dream3d.priors.pretrained import Latent
from dream3d.prompts import Prompt
from dream3d.types import Cameras

PROJECTIONS = ("clip_camera_projection", "cc_projection")


class CLIPCameraProjection(Openable, nn.Linear):
    """The linear map from a picture's CLIP embedding and four numbers of the camera to one token.

    Two conversions of the published weights exist; they name folder, class and tensors differently.
    """

    config: Any = None
    """What `Part` reads of diffusers' classes."""

    @classmethod
    def _made(cls, folder: Path, tensors: dict[str, Tensor]) -> tuple[CLIPCameraProjection, dict[str, list[str]]]:
        found = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
        wide = found.get("weight", torch.empty(1, 1))
        projection = CLIPCameraProjection(wide.shape[1], wide.shape[0], device="meta")
        return projection, filled(projection, found, folder=folder)


CCProjection = CLIPCameraProjection


@final
class Zero123(Latent):
    """Views of one object, given a picture of it and the way from the picture's camera to the wanted one
    (arXiv:2303.11328): Zero123, Zero123-XL and Stable Zero123 in diffusers' layout. Frozen.

    Conditions: "text" is the picture and the camera, "null" neither (zeros in the place of both). It reads no texts:
    the prompt names the asset, and "negative" is "null" whatever it says.

    Args:
        model: a folder, or an id on the hub such as "ashawkey/zero123-xl-diffusers".
        image: path of a picture of the object, transparent or flat (best white) behind it, which fills most of it.
        elevation_deg: where the picture was taken from, above the horizon.
        azimuth_deg: likewise; 0 shows the object's front.
        distance: likewise, metres from the origin; None takes every camera to be as far away as the picture's. The
            network knew objects in a cube of side 1, 1.5 to 2.2 away, under 49 degrees of view.
        stable: the fourth number is Stable Zero123's, the picture's angle from the zenith, instead of the difference
            in distance; None goes by "stable" in the model's name.
        opening: half precision, size, memory.
    """

    title = "Zero123"
    opens = "Zero123, Zero123-XL and Stable Zero123"
    parts = {
        "unet": UNET,
        "vae": Part(("AutoencoderKL",)),
        "image_encoder": Part(("CLIPVisionModelWithProjection",), "transformers"),
        "clip_camera_projection": Part(("CLIPCameraProjection",), __name__, optional=True),
        "cc_projection": Part(("CCProjection",), __name__, optional=True),
    }
    readers = {}
    usual_size = 256
    channels_a_latent = 2
    reads_negative = False

    def __init__(
        self,
        *,
        model: str,
        image: str,
        elevation_deg: float = 0.0,
        azimuth_deg: float = 0.0,
        distance: float | None = None,
        stable: bool | None = None,
        opening: Opening | None = None,
    ) -> None:
        super().__init__(model=model, opening=opening)
        in_range("Zero123: elevation_deg", elevation_deg, -90, 90)
        if distance is not None:
            in_range("Zero123: distance", distance, 0)
        self.image = image
        self.elevation_deg = elevation_deg
        self.azimuth_deg = azimuth_deg
        self.distance = distance
        self.stable = "stable" in model.lower() if stable is None else stable
        self._picture: tuple[Any, Tensor, Tensor] | None = None

    def pose(self, cameras: Cameras) -> Float[Tensor, "B 4"]:
        """The way to the cameras as the network is told it: the difference of the angles from the zenith, sine and
        cosine of the difference of azimuths, and the difference of distances (or what `stable` says)."""
        polar = math.radians(self.elevation_deg) - cameras.elevation
        around = cameras.azimuth - math.radians(self.azimuth_deg)
        further = torch.zeros_like(polar) if self.distance is None else cameras.distance - self.distance
        last = torch.full_like(polar, math.radians(90 - self.elevation_deg)) if self.stable else further
        return torch.stack([polar, around.sin(), around.cos(), last], dim=-1)

    def conditions(self, prompt: Prompt, cameras: Cameras) -> dict[str, Condition]:
        networks = self._ready()
        name = next(name for name in PROJECTIONS if getattr(networks, name) is not None)
        feature, latents = self._seen()
        pose = self.pose(cameras).to(feature)
        with torch.no_grad():
            token = networks.call(name, "__call__", torch.cat([feature.expand(len(pose), -1), pose], dim=-1))[:, None]
        picture = latents.expand(len(pose), -1, -1, -1)
        null = Condition({"token": torch.zeros_like(token), "picture": torch.zeros_like(picture)})
        return {"text": Condition({"token": token, "picture": picture}), "null": null, "negative": null}

    def _predict(self, z_t: Tensor, timestep: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        both = torch.cat([z_t, tensors["picture"].to(z_t)], dim=1)
        return self._ready().unet(both, timestep, encoder_hidden_states=tensors["token"].to(z_t.dtype)).sample

    def _refuse(self, folder: Path, index: Mapping[str, Any]) -> None:
        if not any(class_in(index, name) for name in PROJECTIONS):
            raise MissingError(
                f"prior '{self.model}' has no {' and no '.join(PROJECTIONS)}: it is told no camera. {CURE}"
            )
        read_picture(self.image)  # what is wrong with it shall be said now

    @torch.no_grad()
    def _seen(self) -> tuple[Float[Tensor, "1 d"], Float[Tensor, "1 C h w"]]:
        """Embedding and latents of the picture, read once for a device and dtype; latents without their scale."""
        networks = self._ready()
        if self._picture is None or self._picture[0] != self._prepared:
            pixels, small = read_for(networks, self.image)
            feature = networks.call("image_encoder", "__call__", small).image_embeds
            latents = self.encode(pixels) / networks.vae.config.scaling_factor
            self._picture = self._prepared, feature.to(dtype_of(networks.unet)), latents
        return self._picture[1], self._picture[2]
