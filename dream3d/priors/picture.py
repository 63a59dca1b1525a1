"""Pictures that priors are shown beside or instead of a text: reading one, and what CLIP's image encoders want."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.checks import InputError
from dream3d.priors.opened import Opened, dtype_of

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_RESAMPLER = {
    "0.norm1": "ln0",
    "0.norm2": "ln1",
    "0.to_q": "attn.to_q",
    "0.to_out": "attn.to_out.0",
    "1.0": "ff.0",
    "1.1": "ff.1.net.0.proj",
    "1.3": "ff.1.net.2",
}


def read_picture(path: str) -> Float[Tensor, "1 3 S S"]:
    """A picture of an object in [0, 1], over white where it is transparent, made square without cutting anything.

    An opaque picture is padded with the colour of its top left pixel: what should be a flat background goes on.

    Raises:
        InputError: no such file, or not a picture.
    """
    from PIL import Image

    try:
        with Image.open(Path(path).expanduser()) as image:
            pixels = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    except (OSError, ValueError) as error:
        raise InputError(
            f"image '{path}' cannot be read; expected a PNG, JPEG or WebP picture of the object."
        ) from error
    color, alpha = pixels[..., :3], pixels[..., 3:]
    background = color[0, 0] if float(alpha.min()) == 1 else np.ones(3, np.float32)
    height, width = alpha.shape[:2]
    square = np.tile(background, (max(height, width),) * 2 + (1,))
    top, left = (square.shape[0] - height) // 2, (square.shape[1] - width) // 2
    square[top : top + height, left : left + width] = color * alpha + background * (1 - alpha)
    return torch.from_numpy(square).permute(2, 0, 1)[None].contiguous()


def clip_pixels(images: Float[Tensor, "B 3 H W"], size: int) -> Float[Tensor, "B 3 {size} {size}"]:
    """Pictures in [0, 1] as CLIP's image encoders were trained on (arXiv:2103.00020): bicubic, mean 0 and spread 1."""
    small = functional.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)
    small = small.clamp(0, 1)
    mean, std = (torch.tensor(v).to(small).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (small - mean) / std


def read_for(networks: Opened, path: str) -> tuple[Float[Tensor, "1 3 S S"], Float[Tensor, "1 3 s s"]]:
    """A picture on the networks' device, and the same as their "image_encoder" wants it."""
    encoder: Any = networks.image_encoder
    pixels = read_picture(path).to(networks.device)
    return pixels, clip_pixels(pixels, encoder.config.image_size).to(dtype_of(encoder))


def resampler_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A perceiver resampler's tensors, as the IP-Adapter code (arXiv:2308.06721) and ImageDream's name them, under the
    names of diffusers' `IPAdapterPlusImageProjection`."""
    made: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"(layers\.\d+)\.(.+)\.(weight|bias)", name)
        if not found:
            made[name] = tensor
        elif found[2] == "0.to_kv":  # diffusers keeps the two apart
            made |= {
                f"{found[1]}.attn.{k}.{found[3]}": t for k, t in zip(("to_k", "to_v"), tensor.chunk(2), strict=True)
            }
        else:
            made[f"{found[1]}.{_RESAMPLER.get(found[2], found[2])}.{found[3]}"] = tensor
    return made
