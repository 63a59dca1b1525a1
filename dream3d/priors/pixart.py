"""PixArt-alpha and PixArt-Sigma, from any diffusers folder or hub id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from dream3d.priors.opened import T5, VAE, Part, Reader
from dream3d.priors.pretrained import FromText, Latent


@final
class PixArt(Latent, FromText):
    """Diffusion transformers under a T5 text encoder (alpha, arXiv:2310.00426; Sigma, arXiv:2403.04692), frozen.

    Where the network was trained on many shapes (alpha at 1024) it is told resolution and aspect ratio: `image_size`
    and 1. It also predicts its variance, which nothing here needs. Texts are made lower case, as in its training;
    padding is hidden from the network. Between two views it sees every word of either.
    """

    title = "PixArt"
    opens = "PixArt-alpha and PixArt-Sigma"
    parts = {
        "transformer": Part(("PixArtTransformer2DModel", "Transformer2DModel")),  # alpha's folders hold the older name
        "vae": VAE,
        "text_encoder": T5,
    }
    readers = {"tokenizer": Reader("T5Tokenizer", {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300})}
    core = "transformer"
    usual_size = 1024
    patch = 2

    def _embed(self, text: str) -> dict[str, Tensor]:
        networks, text = self._ready(), text.lower().strip()
        return {"embedding": networks.embed(text, masked=True), "mask": networks.tokens(text)[1][0].bool()}

    def _predict(self, z_t: Tensor, timestep: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        transformer, added = self._ready().transformer, {"resolution": None, "aspect_ratio": None}
        if transformer.use_additional_conditions:
            one = torch.ones(len(z_t), 1, device=z_t.device)
            added = {"resolution": self.image_size * one.expand(-1, 2), "aspect_ratio": one}
        out = transformer(
            z_t,
            encoder_hidden_states=tensors["embedding"].to(z_t.dtype),
            encoder_attention_mask=tensors["mask"],
            timestep=timestep,
            added_cond_kwargs=added,
        )
        return out.sample[:, : z_t.shape[1]]
