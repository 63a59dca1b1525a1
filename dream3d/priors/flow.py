"""Rectified-flow transformers (arXiv:2209.03003): Stable Diffusion 3 and FLUX, from any diffusers folder or hub id.

In half precision they compute in bfloat16: their activations leave float16's range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.checks import in_range
from dream3d.priors.opened import CLIP, CLIP_PROJECTED, T5, VAE, Opened, Opening, Part, Reader
from dream3d.priors.pretrained import FromText, Latent

T5_OPTIONAL = Part(T5.classes, T5.library, T5.half, optional=True)
FEWER = 256
"""Text tokens that the step-distilled FLUX was trained on."""


@final
class SD3(Latent, FromText):
    """Stable Diffusion 3 and 3.5 (arXiv:2403.03206), frozen: two CLIP encoders, and T5 if wanted; 1024 x 1024.

    Args:
        model: a folder, or an id on the hub.
        opening: half precision, size, memory.
        t5: use the T5 encoder, if the folder has one; without it (9 GB less) texts are followed less closely, and T5's
            tokens are zeros, as they often were in the network's training.
        text_tokens: that T5 pads and cuts to.
    """

    title = "Stable Diffusion 3"
    opens = "Stable Diffusion 3 and 3.5"
    parts = {
        "transformer": Part(("SD3Transformer2DModel",), half=torch.bfloat16),
        "vae": VAE,
        "text_encoder": CLIP_PROJECTED,
        "text_encoder_2": CLIP_PROJECTED,
        "text_encoder_3": T5_OPTIONAL,
    }
    core = "transformer"
    usual_size = 1024
    patch = 2

    def __init__(
        self,
        *,
        model: str,
        opening: Opening | None = None,
        t5: bool = True,
        text_tokens: int = 256,
    ) -> None:
        super().__init__(model=model, opening=opening)
        in_range("SD3: text_tokens", text_tokens, 1, 512)
        self.t5 = t5
        self.text_tokens = text_tokens
        self.skipped = frozenset() if t5 else frozenset(("text_encoder_3", "tokenizer_3"))
        last = Reader("T5Tokenizer", text_tokens, optional=True)
        self.readers = {"tokenizer": Reader(), "tokenizer_2": Reader(), "tokenizer_3": last}

    def _embed(self, text: str) -> dict[str, Tensor]:
        networks = self._ready()
        (first, one), (second, two) = networks.clip(text), networks.clip(text, "text_encoder_2", "tokenizer_2")
        clips, wide = torch.cat([first, second], dim=-1), networks.transformer.config.joint_attention_dim
        if networks.text_encoder_3 is None:
            t5 = clips.new_zeros(self.text_tokens, wide)
        else:
            t5 = networks.embed(text, "text_encoder_3", "tokenizer_3")
        padded = functional.pad(clips, (0, wide - clips.shape[-1]))
        return {"embedding": torch.cat([padded, t5]), "pooled": torch.cat([one, two])}

    def _predict(self, z_t: Tensor, timestep: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        embedding, pooled = (tensors[name].to(z_t.dtype) for name in ("embedding", "pooled"))
        transformer: Any = self._ready().transformer
        out = transformer(z_t, timestep=timestep, encoder_hidden_states=embedding, pooled_projections=pooled)
        return out.sample


@final
class Flux(Latent, FromText):
    """FLUX.1, by the authors of SD3 (no paper), frozen: T5 reads the words, CLIP the whole text; 1024 x 1024.

    [dev] is guidance-distilled (arXiv:2210.03142): told `guidance`, one call answers what classifier-free guidance at
    this scale would. So `CFG(scale=1)`, which asks once, already is guided by `guidance`. A CFG above 1 is guidance on
    top of that, away from an answer to the empty text that is guided as well: distillation with it works worse than
    with SD3 (reported for RFDS, arXiv:2406.03293); set `guidance` to 1 before trying. [schnell] takes no guidance.

    Args:
        model: a folder, or an id on the hub.
        opening: half precision, size, memory.
        guidance: what a guidance-distilled network is told.
        text_tokens: that T5 pads and cuts to; [schnell] takes 256 at most. They are as many tokens of the network: at
            512 x 512, where pictures have 1024, fewer save time.
    """

    title = "FLUX"
    opens = "FLUX.1 (dev and schnell)"
    parts = {
        "transformer": Part(("FluxTransformer2DModel",), half=torch.bfloat16),
        "vae": VAE,
        "text_encoder": CLIP,
        "text_encoder_2": T5,
    }
    core = "transformer"
    usual_size = 1024
    patch = 2
    channels_a_latent = 4

    def __init__(
        self,
        *,
        model: str,
        opening: Opening | None = None,
        guidance: float = 3.5,
        text_tokens: int = 512,
    ) -> None:
        super().__init__(model=model, opening=opening)
        in_range("Flux: guidance", guidance, 0, 100)
        in_range("Flux: text_tokens", text_tokens, 1, 512)
        self.guidance = guidance
        self.text_tokens = text_tokens
        self.readers = {"tokenizer": Reader(), "tokenizer_2": Reader("T5Tokenizer", text_tokens)}

    def _ready_made(self, networks: Opened) -> Opened:
        if not networks.transformer.config.guidance_embeds:
            networks.tokenizer_2.model_max_length = min(self.text_tokens, FEWER)
        return networks

    def _embed(self, text: str) -> dict[str, Tensor]:
        networks = self._ready()
        return {"embedding": networks.embed(text, "text_encoder_2", "tokenizer_2"), "pooled": networks.clip(text)[1]}

    def _predict(self, z_t: Tensor, timestep: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        transformer: Any = self._ready().transformer
        embedding, pooled = (tensors[name].to(z_t.dtype) for name in ("embedding", "pooled"))
        guided, size = transformer.config.guidance_embeds, (z_t.shape[-2] // 2, z_t.shape[-1] // 2)
        out = transformer(
            hidden_states=packed(z_t),
            timestep=timestep / 1000,  # the network multiplies by it
            guidance=torch.full((len(z_t),), self.guidance, device=z_t.device) if guided else None,
            encoder_hidden_states=embedding,
            pooled_projections=pooled,
            txt_ids=z_t.new_zeros(embedding.shape[1], 3),
            img_ids=positions(*size).to(z_t),
        )
        return unpacked(out.sample, *size)


def packed(z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B h*w/4 4*C"]:
    """Squares of 2 x 2 latents as one token each, row by row."""
    return functional.pixel_unshuffle(z, 2).flatten(2).transpose(1, 2)


def unpacked(tokens: Float[Tensor, "B n D"], rows: int, columns: int) -> Float[Tensor, "B D//4 2*{rows} 2*{columns}"]:
    """The inverse of `packed`, from `rows` x `columns` squares."""
    return functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (rows, columns)), 2)


def positions(rows: int, columns: int) -> Float[Tensor, "{rows}*{columns} 3"]:
    """Of each square: 0 (which tells pictures apart where there are several), row, column."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1).float()
