"""Stable Diffusion 1.x and 2.x, from any diffusers folder or hub id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from dream3d.priors.opened import CLIP, UNET, Part, Reader
from dream3d.priors.pretrained import FromText, Latent


@final
class StableDiffusion(Latent, FromText):
    """Latent diffusion with a CLIP text encoder (arXiv:2112.10752), frozen.

    Opens pipelines of one U-Net, one AutoencoderKL and one CLIPTextModel whose scheduler says "epsilon",
    "v_prediction" or "sample", with or without zero terminal SNR (arXiv:2305.08891). It does not see the camera.
    """

    title = "Stable Diffusion"
    opens = "Stable Diffusion 1.x and 2.x"
    # Its autoencoder works in float16, whatever the default of `force_upcast` that old configs do not spell out.
    parts = {"unet": UNET, "vae": Part(("AutoencoderKL",)), "text_encoder": CLIP}
    readers = {"tokenizer": Reader()}

    def _embed(self, text: str) -> dict[str, Tensor]:
        return {"embedding": self._ready().embed(text)}

    def _predict(self, z_t: Tensor, timestep: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        embedding = tensors["embedding"].to(z_t.dtype)
        return self._ready().unet(z_t, timestep, encoder_hidden_states=embedding).sample
