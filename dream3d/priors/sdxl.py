"""Stable Diffusion XL, from any diffusers folder or hub id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from dream3d.priors.opened import CLIP, CLIP_PROJECTED, UNET, VAE, Reader
from dream3d.priors.pretrained import FromText, Latent


@final
class SDXL(Latent, FromText):
    """Latent diffusion with two CLIP text encoders (arXiv:2307.01952), frozen; pictures of 1024 x 1024.

    The network is told sizes (its section 2.2): a picture that had `image_size` from the start and was not cropped. The
    empty text is all zeros where model_index.json says `force_zeros_for_empty_prompt`, as the published one does. In
    half precision its autoencoder computes in float32, unless its config says that it need not.
    """

    title = "Stable Diffusion XL"
    opens = "Stable Diffusion XL (base)"
    parts = {"unet": UNET, "vae": VAE, "text_encoder": CLIP, "text_encoder_2": CLIP_PROJECTED}
    readers = {"tokenizer": Reader(), "tokenizer_2": Reader()}
    usual_size = 1024

    def _embed(self, text: str) -> dict[str, Tensor]:
        networks = self._ready()
        (first, _), (second, pooled) = networks.clip(text), networks.clip(text, "text_encoder_2", "tokenizer_2")
        told = {"embedding": torch.cat([first, second], dim=-1), "pooled": pooled}
        if not text and networks.index.get("force_zeros_for_empty_prompt", True):
            return {name: torch.zeros_like(tensor) for name, tensor in told.items()}
        return told

    def _predict(self, z_t: Tensor, timestep: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        size = self.image_size
        sizes = torch.tensor([size, size, 0, 0, size, size], device=z_t.device, dtype=torch.float32)
        added = {"text_embeds": tensors["pooled"].to(z_t.dtype), "time_ids": sizes.expand(len(z_t), -1)}
        embedding = tensors["embedding"].to(z_t.dtype)
        unet = self._ready().unet
        return unet(z_t, timestep, encoder_hidden_states=embedding, added_cond_kwargs=added).sample
