"""What all priors from a folder in diffusers' layout share: finding, checking and opening it, placing its networks on a
device, remembering texts.

A member names its `parts` and writes `_predict`; with `FromText` also `_embed`; with `Latent` its latents come from an
autoencoder. All three are made to be listed side by side: `class SDXL(Latent, FromText)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dream3d.checks import InputError, MissingError, one_of
from dream3d.priors.base import (
    PARAMETERISATIONS,
    Card,
    Condition,
    DiscreteSchedule,
    FlowSchedule,
    Parameterisation,
    Prior,
    Schedule,
    resized,
)
from dream3d.priors.hub import CURE, class_in, licence_of, local_folder, obtain, read_index, read_json, weights_variant
from dream3d.priors.known import KNOWN, OPENS
from dream3d.priors.opened import Opened, Opening, Part, Reader, dtype_of, open_networks, open_readers
from dream3d.prompts import Prompt
from dream3d.types import Cameras

REMEMBERED_TEXTS = 1024
"""Text embeddings kept; a generator trained on a corpus would otherwise collect them without end."""

_BETAS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)


class Pretrained(Prior, ABC):
    """A frozen pipeline, opened from a folder in diffusers' layout or an id on the hub. Weights are safetensors.

    Args:
        model: a folder, or an id on the hub such as "stable-diffusion-v1-5/stable-diffusion-v1-5".
        opening: half precision, size, memory.
    """

    title: ClassVar[str]
    """What people call the pipeline."""
    opens: ClassVar[str]
    """Which pipelines it opens, in words."""
    parts: Mapping[str, Part]
    readers: Mapping[str, Reader]
    skipped: frozenset[str] = frozenset()
    """Optional parts and readers that are not wanted."""
    core: ClassVar[str] = "unet"
    """The part that `denoise` asks."""
    usual_size: ClassVar[int] = 512
    """Pixels that are assumed until the folder has been seen."""
    patch: ClassVar[int] = 1
    """Latents a side that the network sees as one: `image_size` must hold whole ones."""

    def __init__(self, *, model: str, opening: Opening | None = None) -> None:
        super().__init__()
        if not model:
            raise InputError(f"{type(self).__name__}: model is empty; expected a folder or a hub id.")
        self.model = model
        self.opening = opening or Opening()
        # Follows `.to()` before there are weights to move.
        self.register_buffer("_place", torch.empty(0), persistent=False)
        self._networks: Opened | None = None
        self._prepared: tuple[torch.device, torch.dtype] | None = None
        self._texts: dict[str, dict[str, Tensor]] = {}
        self._folder: Path | None = None
        self._schedule: Schedule | None = None
        self._kind: Parameterisation = "epsilon"
        native = self._native_size(local_folder(model, self.opening.revision))
        self.image_size = self.opening.image_size or native or self.usual_size

    # What members write.

    @abstractmethod
    def _predict(self, z_t: Tensor, timestep: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """The network's own output. `z_t` comes in the network's dtype, `tensors` as `conditions` made them."""

    @abstractmethod
    def _factor(self, folder: Path) -> int:
        """Pixels a side of one latent, by the configs in the folder."""

    @abstractmethod
    def _channels(self, folder: Path) -> int:
        """Channels that the network must take, by the configs of the other parts."""

    def _refuse(self, folder: Path, index: Mapping[str, Any]) -> None:
        """A member's own check of a folder whose parts have the right classes; raises MissingError."""

    def _ready_made(self, networks: Opened) -> Opened:
        """What a member does to its networks once they are there."""
        return networks

    # What the outside sees.

    @property
    def schedule(self) -> Schedule:
        if self._schedule is None:
            config = read_json(self.model, self._find() / "scheduler" / "scheduler_config.json")
            if str(config.get("_class_name", "")).startswith("FlowMatch"):
                self._kind = "flow"
                self._schedule = FlowSchedule(scale=float(config.get("num_train_timesteps", 1000)))
                return self._schedule
            kind = config.get("prediction_type", "epsilon")
            one_of(f"prior '{self.model}': prediction_type", kind, PARAMETERISATIONS)
            self._kind = cast(Parameterisation, kind)

            from diffusers import DDPMScheduler

            # Only what defines the levels: every scheduler class of diffusers shares these keys and their defaults.
            levels = DDPMScheduler(**{k: config[k] for k in _BETAS if k in config}).alphas_cumprod
            self._schedule = DiscreteSchedule(levels)
        return self._schedule

    def card(self) -> Card:
        known = KNOWN.get(self.model)
        name = known.title if known else f"{self.title} ({Path(self.model).name})"
        licence = known.licence if known else licence_of(local_folder(self.model, self.opening.revision))
        if Path(self.model).expanduser().is_dir():
            source = "a local folder"  # not its path: the card travels inside the asset
        else:
            source = f"{self.model}@{self.opening.revision}" if self.opening.revision else self.model
        return Card(name, source, licence)

    def load(self) -> None:
        if self._networks is not None:
            return
        folder = self._find()
        _ = self.schedule
        networks = self._open(folder)
        if self.opening.image_size is None:
            self.image_size = self._native_size(folder) or self.usual_size
        multiple = self._factor(folder) * self.patch
        if self.image_size % multiple:
            raise InputError(
                f"prior '{self.model}': image_size must be a multiple of {multiple} (got {self.image_size})."
            )
        if self.opening.slices:
            network = getattr(networks, self.core)
            if not hasattr(network, "set_attention_slice"):
                raise InputError(f"{type(self).__name__}: slices is for U-Nets; leave it out for this network.")
            network.set_attention_slice("max")
        self._networks = self._ready_made(networks)
        self._ready()

    def backbone(self) -> nn.Module:
        return getattr(self._ready(), self.core)

    def denoise(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, "B"], condition: Condition
    ) -> Float[Tensor, "B C h w"]:
        networks, schedule = self._ready(), self.schedule
        dtype = dtype_of(getattr(networks, self.core))
        prediction = self._predict(z_t.to(dtype), schedule.timestep(t), condition.tensors)
        return schedule.to_eps(prediction.to(z_t.dtype), z_t, t, self._kind)

    # The folder.

    @final
    def _find(self) -> Path:
        if self._folder is None:
            self._folder = obtain(self.model, revision=self.opening.revision, files=self._patterns(), check=self._check)
        return self._folder

    @final
    def _patterns(self) -> list[str]:
        """Exactly what is needed: the repositories also hold checkpoints of several gigabytes in other formats."""
        dot = f".{self.opening.variant}" if self.opening.variant else ""
        ends = (f"{dot}.safetensors", f"{dot}-*.safetensors", f".safetensors.index{dot}.json")
        weights = [f"{name}/{part.stem}{end}" for name, part in self.parts.items() for end in ends]
        settings = [f"{name}/config.json" for name in self.parts]
        readers = [f"{name}/*" for name in self.readers]
        found = ["model_index.json", "README.md", "scheduler/*.json", *readers, *settings, *weights]
        return [pattern for pattern in found if pattern.partition("/")[0] not in self.skipped]

    @final
    def _check(self, folder: Path) -> None:
        """Refuse folders that are not such a pipeline, whole, by reading a few kilobytes."""
        index = read_index(self.model, folder)
        strangers = [k for k, v in index.items() if k.startswith("text_encoder") and k not in self.parts and v and v[1]]
        if strangers or not all(self._fits(index, name) for name in self.parts):
            found = index.get("_class_name", "pipeline without a name")
            other = OPENS.get(found, type(self).__name__)
            cure = f"Take {other} for it." if other != type(self).__name__ else CURE
            raise MissingError(f"prior '{self.model}' is a {found}; {type(self).__name__} opens {self.opens}. {cure}")
        latents = self._channels(folder)
        channels = read_json(self.model, folder / self.core / "config.json").get("in_channels", latents)
        if channels != latents:
            raise MissingError(
                f"prior '{self.model}' takes {channels} channels where its pictures have {latents} (inpainting, depth "
                f"or upscaling); expected a plain text-to-image network. {CURE}"
            )
        self._refuse(folder, index)
        parts, readers = self._wanted(index)
        for name in parts:
            read_json(self.model, folder / name / "config.json")
        read_json(self.model, folder / "scheduler" / "scheduler_config.json")
        for name, reader in readers.items():
            usual = "vocab.json" if reader.kind == "CLIPTokenizer" else "spiece.model"
            if not any((folder / name / file).is_file() for file in (usual, "tokenizer.json")):
                raise MissingError(f"prior '{self.model}': {name}/{usual} is missing. {CURE}")
        for name, part in parts.items():
            weights_variant(self.model, folder / name, part.stem, self.opening.variant)

    @final
    def _wanted(self, index: Mapping[str, Any]) -> tuple[dict[str, Part], dict[str, Reader]]:
        """The parts and readers that this folder has and that are to be opened."""
        here = {name for name in (*self.parts, *self.readers) if class_in(index, name) and name not in self.skipped}
        parts = {name: part for name, part in self.parts.items() if name in here or not part.optional}
        return parts, {name: r for name, r in self.readers.items() if name in here or not r.optional}

    @final
    def _fits(self, index: Mapping[str, Any], name: str) -> bool:
        part, found = self.parts[name], class_in(index, name)
        return found in part.classes or (part.optional and found is None)

    @final
    def _open(self, folder: Path) -> Opened:
        index = read_index(self.model, folder)
        parts, readers = self._wanted(index)
        networks = open_networks(self.model, folder, parts, self.opening.variant, self._dtype())
        tokenizers = open_readers(self.model, folder, readers, str(index.get("_class_name")))
        guests = [name for name in parts if self.opening.offload and name != self.core]
        return Opened({name: networks.get(name) for name in self.parts}, tokenizers, guests=guests, index=index)

    @final
    def _native_size(self, folder: Path | None) -> int | None:
        """Pixels that the network was trained on, by the configs in its folder; None when they cannot be read."""
        if folder is None:
            return None
        try:
            return int(read_json("", folder / self.core / "config.json")["sample_size"]) * self._factor(folder)
        except (MissingError, KeyError, TypeError, ValueError):
            return None

    # The device.

    @final
    def _dtype(self) -> torch.dtype:
        place = cast(Tensor, self._place)
        if self.opening.half is None:
            return torch.float16 if place.is_cuda else place.dtype
        if self.opening.half:
            return torch.float16
        return torch.float32 if place.dtype == torch.float16 else place.dtype

    @final
    def _ready(self) -> Opened:
        """The networks, on the device and in the dtype that `.to()` and `half` ask for."""
        if self._networks is None:
            self.load()
        networks = cast(Opened, self._networks)
        wanted = (cast(Tensor, self._place).device, self._dtype())
        if self._prepared != wanted:
            networks.place(*wanted, self.parts)
            self._texts.clear()
            self._prepared = wanted
        return networks


class FromText(Pretrained, ABC):
    """Pipelines that are told a text.

    Conditions: "text" is the view-dependent prompt (texts interpolated as embeddings), "plain" the prompt without view
    words, "null" the empty text, "negative" the negative prompt.
    """

    @abstractmethod
    def _embed(self, text: str) -> dict[str, Tensor]:
        """What the network is told for one text: named tensors without a batch axis. Masks are boolean."""

    def conditions(self, prompt: Prompt, cameras: Cameras) -> dict[str, Condition]:
        views = prompt.views(cameras)
        rows = self._rows([*views.texts, prompt.text, "", prompt.negative])
        made = {"text": Condition({name: _mixed(views.weights, r[: len(views.texts)]) for name, r in rows.items()})}
        for i, name in enumerate(("plain", "null", "negative"), start=len(views.texts)):
            made[name] = Condition({k: r[i].expand(len(cameras), *r[i].shape) for k, r in rows.items()})
        return self._told(made, prompt, cameras)

    def _told(self, conditions: dict[str, Condition], prompt: Prompt, cameras: Cameras) -> dict[str, Condition]:
        """What else a member tells its network: the camera, a picture."""
        return conditions

    @final
    def _rows(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings of texts, stacked; each text is embedded once."""
        networks = self._ready()
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if len(self._texts) + len(new) > REMEMBERED_TEXTS:
            self._texts.clear()
            new = list(dict.fromkeys(texts))
        networks.say_cut(new)
        for text in new:  # one by one: the same bits whatever was asked together
            self._texts[text] = self._embed(text)
        found = [self._texts[text] for text in texts]
        return {name: torch.stack([row[name] for row in found]) for name in found[0]}


class Latent(Pretrained, ABC):
    """Pipelines whose latents come from an autoencoder, the part "vae".

    Pictures enter as the *mean* of the autoencoder's posterior, not as a sample: its spread is small beside the
    diffusion noise, and the gradient stays a function of the seed alone.
    """

    channels_a_latent: ClassVar[int] = 1
    """Channels of the network's input for each channel of the latents."""

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        self._ready()
        images = resized(images, self.image_size)
        if self.opening.low_memory:
            z = torch.cat([cast(Tensor, checkpoint(self._encoded, i, use_reentrant=False)) for i in images.split(1)])
        else:
            z = self._encoded(images)
        return z.to(images.dtype)

    def decode(self, z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        networks = self._ready()
        vae = networks.vae
        latents = z.to(dtype_of(vae)) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        return (networks.call("vae", "decode", latents).sample / 2 + 0.5).to(z.dtype)

    @final
    def _encoded(self, images: Tensor) -> Tensor:
        networks = self._ready()
        vae = networks.vae
        mean = networks.call("vae", "encode", images.to(dtype_of(vae)) * 2 - 1).latent_dist.mean
        return (mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor

    @final
    def _factor(self, folder: Path) -> int:
        return 2 ** (len(read_json(self.model, folder / "vae" / "config.json")["block_out_channels"]) - 1)

    @final
    def _channels(self, folder: Path) -> int:
        config = read_json(self.model, folder / "vae" / "config.json")
        return config.get("latent_channels", 4) * self.channels_a_latent


def _mixed(weights: Float[Tensor, "B n"], rows: Tensor) -> Tensor:
    """Rows mixed by weights; a mask lets through what any of its rows does."""
    if rows.dtype == torch.bool:
        return torch.einsum("bn,n...->b...", (weights > 0).float(), rows.float()) > 0
    return torch.einsum("bn,n...->b...", weights.to(rows), rows)
