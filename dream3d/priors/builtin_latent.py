"""The built-in prior of latents: 128 x 128 pictures through a small autoencoder, 4 channels on 32 x 32."""

from __future__ import annotations

from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from dream3d.priors.base import resized
from dream3d.priors.builtin import Packaged


@final
class BuiltinLatent(Packaged):
    """One picture of 128 x 128 at a time, denoised as 4 x 32 x 32 latents (latent diffusion, arXiv:2112.10752)."""

    name = "builtin-latent"
    views = 1
    image_size = 128

    def __init__(self, *, folder: str | None = None) -> None:
        super().__init__(folder=folder)
        self.vae: Any = None

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 4 32 32"]:
        """Pictures in [0, 1] to the mean of their latents, scaled to variance 1; other sizes are resized (antialiased).
        Gradient flows."""
        vae = self._autoencoder()
        latents = vae.encode(2 * resized(images, self.image_size) - 1).latent_dist.mean
        return latents * vae.config.scaling_factor

    def decode(self, z: Float[Tensor, "B 4 h w"]) -> Float[Tensor, "B 3 H W"]:
        vae = self._autoencoder()
        return 0.5 + 0.5 * vae.decode(z / vae.config.scaling_factor).sample

    def load(self) -> None:
        super().load()
        self._autoencoder()

    def _autoencoder(self) -> Any:
        if self.vae is None:
            self.vae = self._read("vae", "AutoencoderKL")
        return self.vae
