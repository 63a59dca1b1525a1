"""DeepFloyd IF, the first stage of its cascade, from any diffusers folder or hub id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import final

from jaxtyping import Float
from torch import Tensor

from dream3d.priors.base import resized
from dream3d.priors.opened import T5, UNET, Reader
from dream3d.priors.pretrained import FromText


@final
class DeepFloyd(FromText):
    """Diffusion of 64 x 64 pixels under a T5 text encoder, frozen; its design is Imagen's
    (arXiv:2205.11487).

    There is no autoencoder: latents are the pixels in [-1, 1], so that a step costs no encode and gradients are sharp.
    The network also predicts its variance (arXiv:2102.09672), which nothing here needs. Texts are made lower case, as
    in its training.
    """

    title = "DeepFloyd IF"
    opens = "the first stage of DeepFloyd IF"
    parts = {"unet": UNET, "text_encoder": T5}
    readers = {"tokenizer": Reader("T5Tokenizer", 77)}
    usual_size = 64

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        self._ready()  # it knows the size
        return resized(images, self.image_size) * 2 - 1

    def decode(self, z: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        return z / 2 + 0.5

    def _embed(self, text: str) -> dict[str, Tensor]:
        return {"embedding": self._ready().embed(text.lower().strip(), masked=True)}

    def _predict(self, z_t: Tensor, timestep: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        embedding = tensors["embedding"].to(z_t.dtype)
        return self._ready().unet(z_t, timestep, encoder_hidden_states=embedding).sample[:, :3]

    def _factor(self, folder: Path) -> int:
        return 1

    def _channels(self, folder: Path) -> int:
        return 3
