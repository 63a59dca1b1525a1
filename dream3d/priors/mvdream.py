"""MVDream and ImageDream: four views of one object, drawn together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.checks import InputError, groups_of
from dream3d.priors.base import Condition
from dream3d.priors.builtin_mv import VIEWS
from dream3d.priors.hub import read_json
from dream3d.priors.opened import CLIP, Opening, Part, Reader, dtype_of
from dream3d.priors.picture import read_for, read_picture
from dream3d.priors.pretrained import FromText, Latent
from dream3d.prompts import Prompt
from dream3d.types import Cameras


def camera_numbers(cameras: Cameras) -> Float[Tensor, "B 16"]:
    """Camera-to-world matrices as MVDream was told them: row by row, the position scaled to distance 1.

    Its world is Blender's (z up) with the object's front towards +X, its camera axes are OpenGL's: our (x, y, z) is its
    (z, x, y). Source: `camera_utils.py` of the published code, whose first view is at azimuth 90 (t2i.py), and the
    order in which LGM (arXiv:2402.05054) takes its pictures. Field of view and distance are not told.
    """
    c2w = cameras.c2w[:, [2, 0, 1, 3]].clone()
    c2w[:, :3, 3] = torch.nn.functional.normalize(c2w[:, :3, 3], dim=-1)
    return c2w.flatten(1)


@final
class MVDream(Latent, FromText):
    """Stable Diffusion 2.1 that draws four views a quarter of a turn apart, told their cameras (arXiv:2308.16512), and,
    with a picture of the front, ImageDream (arXiv:2312.02201). Frozen.

    Opens the published weights in diffusers' layout ("ashawkey/mvdream-sd2.1-diffusers",
    "ashawkey/imagedream-ipmv-diffusers") without executing the code that comes with them.

    Conditions: "text" is the prompt and the camera (no view words: the camera says it, as published), "null" and
    "negative" the empty and the negative prompt with the camera, "no_camera" the prompt alone (which the network was
    trained on with single pictures). With a picture, "text" and "no_camera" have it beside the prompt, "null" and
    "negative" zeros in its place, and "visual" is "text".

    The training captions of 3D data ended in ", 3d asset": a prompt that does is nearer to them. Pictures are 256 wide
    over a flat background; groups share elevation, distance and field of view.

    Args:
        model: a folder, or an id on the hub such as "ashawkey/mvdream-sd2.1-diffusers".
        image: path of a picture of the object's front, transparent or flat behind it; for ImageDream, which needs it.
        opening: half precision, size, memory.
    """

    title = "MVDream"
    opens = "MVDream and ImageDream"
    parts = {
        "unet": Part(("MultiViewUNetModel",), "dream3d.priors.mv_unet"),
        "vae": Part(("AutoencoderKL",)),
        "text_encoder": CLIP,
        "image_encoder": Part(("CLIPVisionModel",), "transformers", optional=True),
    }
    readers = {"tokenizer": Reader()}
    usual_size = 256
    views = VIEWS

    def __init__(
        self,
        *,
        model: str,
        image: str | None = None,
        opening: Opening | None = None,
    ) -> None:
        super().__init__(model=model, opening=opening)
        self.image = image
        self._picture: tuple[Any, Tensor, Tensor] | None = None

    def _refuse(self, folder: Path, index: Mapping[str, Any]) -> None:
        looks = bool(read_json(self.model, folder / "unet" / "config.json").get("ip_dim", 0))
        if looks and self.image is None:
            raise InputError(f"prior '{self.model}' is ImageDream, which needs a picture: give image, or take MVDream.")
        if self.image is not None and not looks:
            raise InputError(f"prior '{self.model}' looks at no picture: leave image out, or take ImageDream.")
        if self.image is not None:
            read_picture(self.image)  # what is wrong with it shall be said now

    def _embed(self, text: str) -> dict[str, Tensor]:
        return {"embedding": self._ready().embed(text)}

    def _told(self, conditions: dict[str, Condition], prompt: Prompt, cameras: Cameras) -> dict[str, Condition]:
        numbers = camera_numbers(cameras)
        seen = torch.cat([numbers, torch.ones_like(numbers[:, :1])], dim=1)
        shown = torch.ones_like(seen[:, :1])

        def on(name: str, camera: Tensor, picture: Tensor) -> Condition:
            told = {"camera": camera} if self.image is None else {"camera": camera, "picture": picture}
            return Condition({**conditions[name].tensors, **told})

        made = {
            "text": on("plain", seen, shown),
            "null": on("null", seen, 0 * shown),
            "negative": on("negative", seen, 0 * shown),
            "no_camera": on("plain", 0 * seen, shown),
        }
        return made if self.image is None else {**made, "visual": made["text"]}

    def _predict(self, z_t: Tensor, timestep: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        groups = groups_of(len(z_t), self.views)
        unet = self._ready().unet
        embedding, camera = tensors["embedding"].to(z_t.dtype), tensors["camera"].to(z_t.dtype)
        if self.image is None:
            return unet(z_t, timestep, embedding, class_labels=camera).sample
        features, latents = self._seen()
        shown = tensors["picture"][:: self.views].to(z_t.dtype)  # of a group, which shares it
        features = (shown.view(-1, 1, 1, 1) * features).repeat_interleave(self.views + 1, dim=0)
        # Latents of another size (a grid of views in each picture) see it at that size.
        fifth = shown.view(-1, 1, 1, 1) * torch.nn.functional.interpolate(latents, z_t.shape[-2:])

        def joined(each: Tensor, last: Tensor) -> Tensor:
            each = each.unflatten(0, (groups, self.views))
            return torch.cat([each, last.unsqueeze(1).to(each)], dim=1).flatten(0, 1)

        # The picture is a fifth view without noise, whose camera is all zeros (with the camera's 1).
        there = torch.nn.functional.pad(camera[:: self.views, -1:], (camera.shape[1] - 1, 0))
        out = unet(
            joined(z_t, fifth),
            joined(timestep, timestep[:: self.views]),
            joined(embedding, embedding[:: self.views]),
            class_labels=joined(camera, there),
            added_cond_kwargs={"image_embeds": [features]},
        ).sample
        return out.unflatten(0, (groups, self.views + 1))[:, : self.views].flatten(0, 1)

    @torch.no_grad()
    def _seen(self) -> tuple[Float[Tensor, "1 1 n d"], Float[Tensor, "1 C h w"]]:
        """Features and latents of the picture, read once for a device and dtype."""
        networks = self._ready()
        if self._picture is None or self._picture[0] != self._prepared:
            pixels, small = read_for(networks, self.image or "")
            hidden = networks.call("image_encoder", "__call__", small, output_hidden_states=True).hidden_states[-2]
            self._picture = self._prepared, hidden[:, None], self.encode(pixels)
        dtype = dtype_of(networks.unet)
        return self._picture[1].to(dtype), self._picture[2].to(dtype)
