"""The networks and tokenizers of a folder in diffusers' layout: which there are, how they open, where they live."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from dream3d.checks import MissingError, in_range
from dream3d.priors.hub import CURE, first_line, read_json, weights_variant


@final
class Opening:
    """How a pipeline is found, opened and held.

    Args:
        revision: branch, tag or commit on the hub.
        variant: file variant, such as "fp16"; None takes plain files, or fp16 ones where only these are there.
        half: compute in half precision; None means on CUDA only. Latents and gradients keep the caller's dtype.
        image_size: height and width that pictures are resized to; None is what the network was trained on.
        low_memory: encode one picture at a time and recompute its activations in the backward pass: slower by one
            encode a step, and the peak no longer grows with the batch.
        offload: encoders and autoencoder stay on the CPU and visit the device when they are used: slower by the time
            that copying them takes.
        slices: attention of a U-Net one head at a time: less memory where no fused attention is at hand. Transformers
            refuse it.
    """

    def __init__(
        self,
        *,
        revision: str | None = None,
        variant: str | None = None,
        half: bool | None = None,
        image_size: int | None = None,
        low_memory: bool = False,
        offload: bool = False,
        slices: bool = False,
    ) -> None:
        if image_size is not None:
            in_range("image_size", image_size, 8, 4096)
        self.revision = revision
        self.variant = variant
        self.half = half
        self.image_size = image_size
        self.low_memory = low_memory
        self.offload = offload
        self.slices = slices


@dataclass(frozen=True)
class Part:
    """One network of a pipeline, in the subfolder of its name.

    Attributes:
        classes: what model_index.json may call it; the first is the class that opens it.
        library: module that holds this class, which has a `from_pretrained`.
        half: its dtype where half precision is asked for.
        upcast: stay in float32 then, if its own config says `force_upcast`.
        optional: a folder may come without it; it is None then.
    """

    classes: tuple[str, ...]
    library: str = "diffusers"
    half: torch.dtype = torch.float16
    upcast: bool = False
    optional: bool = False

    @property
    def stem(self) -> str:
        """Of the weights' file."""
        return "model" if self.library == "transformers" else "diffusion_pytorch_model"

    def dtype(self, asked: torch.dtype, config: Any = None) -> torch.dtype:
        """What the network computes in where the prior is asked for `asked`; without a config, what to open it in."""
        if asked not in (torch.float16, torch.bfloat16):
            return asked
        return torch.float32 if self.upcast and (config is None or config.force_upcast) else self.half


@dataclass(frozen=True)
class Reader:
    """One tokenizer of a pipeline, in the subfolder of its name.

    Attributes:
        kind: class in transformers.
        length: tokens that it pads and cuts to; one number, or one for each pipeline class; None is its own.
        optional: a folder may come without it.
    """

    kind: str = "CLIPTokenizer"
    length: int | Mapping[str, int] | None = None
    optional: bool = False


UNET = Part(("UNet2DConditionModel",))
VAE = Part(("AutoencoderKL",), upcast=True)
CLIP = Part(("CLIPTextModel",), "transformers")
CLIP_PROJECTED = Part(("CLIPTextModelWithProjection",), "transformers")
T5 = Part(("T5EncoderModel",), "transformers", half=torch.bfloat16)  # its activations leave float16's range


class Opened(nn.Module):
    """The networks and tokenizers of one folder, as attributes by their names there.

    Guests are networks that stay on the CPU; the rest follows `place`. Networks are called by `call`, which lends a
    guest copies of its weights on the device: they live as long as the call, or its graph.
    """

    # The hub's libraries type their classes loosely.
    unet: Any
    vae: Any
    transformer: Any
    text_encoder: Any
    text_encoder_2: Any
    text_encoder_3: Any
    tokenizer: Any
    tokenizer_2: Any
    tokenizer_3: Any

    def __init__(
        self,
        networks: Mapping[str, Any],
        readers: Mapping[str, Any],
        *,
        guests: Sequence[str] = (),
        index: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.index = index
        self.readers = tuple(readers)
        self.guests = frozenset(name for name in guests if networks.get(name) is not None)
        self.device = torch.device("cpu")
        for name, network in networks.items():
            if network is not None:
                network.eval().requires_grad_(False)
            # A registered module would follow the prior to its device.
            (object.__setattr__ if name in self.guests else setattr)(self, name, network)
        for name, reader in readers.items():
            setattr(self, name, reader)

    def place(self, device: torch.device, dtype: torch.dtype, parts: Mapping[str, Part]) -> None:
        """Move every network to the dtype that its part has for `dtype`, and all but guests to the device."""
        self.device = device
        for name, part in parts.items():
            network = getattr(self, name)
            if network is None:
                continue
            # Not the libraries' own `to`, which warns of float32 parts even where there are none.
            nn.Module.to(network, None if name in self.guests else device, part.dtype(dtype, network.config))
            if device.type == "cuda" and name not in self.guests:
                network.to(memory_format=torch.channels_last)

    def call(self, name: str, method: str, *args: Any, **settings: Any) -> Any:
        """`network.method(...)`, wherever the network lives."""
        network = getattr(self, name)
        if name not in self.guests:
            return getattr(network, method)(*args, **settings)
        own = (*network.named_parameters(), *network.named_buffers())
        lent = {f"network.{key}": value.to(self.device) for key, value in own}
        return functional_call(_Method(network, method), lent, args, settings)

    def tokens(self, text: str, tokenizer: str = "tokenizer") -> tuple[Tensor, Tensor]:
        """Ids and mask of one text, 1 x L each, padded or cut to what the tokenizer reads."""
        read, length = getattr(self, tokenizer), getattr(self, tokenizer).model_max_length
        made = read(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return made.input_ids.to(self.device), made.attention_mask.to(self.device)

    @torch.no_grad()
    def clip(
        self, text: str, encoder: str = "text_encoder", tokenizer: str = "tokenizer"
    ) -> tuple[Float[Tensor, "L D"], Float[Tensor, "P"]]:
        """What later pipelines take of CLIP for one text: its last layer but one, and the whole text in one vector
        (projected where the encoder has a projection)."""
        out = self.call(encoder, "__call__", self.tokens(text, tokenizer)[0], output_hidden_states=True)
        pooled = out.text_embeds if "text_embeds" in out else out.pooler_output
        return out.hidden_states[-2][0], pooled[0]

    @torch.no_grad()
    def embed(
        self, text: str, encoder: str = "text_encoder", tokenizer: str = "tokenizer", *, masked: bool = False
    ) -> Float[Tensor, "L D"]:
        """An encoder's last layer for one text; `masked` hides the padding from it (as its config may ask for)."""
        ids, mask = self.tokens(text, tokenizer)
        masked = masked or getattr(getattr(self, encoder).config, "use_attention_mask", False)
        return self.call(encoder, "__call__", ids, attention_mask=mask if masked else None)[0][0]

    def say_cut(self, texts: Sequence[str]) -> None:
        """Warn once about the longest of the texts that no encoder can read to its end."""
        readers = [getattr(self, name) for name in self.readers]
        reader = max(readers, key=lambda r: r.model_max_length, default=None)
        if reader is None:
            return
        length = reader.model_max_length
        counts = {text: len(reader(text, verbose=False).input_ids) for text in texts}
        longest = max(counts, key=counts.__getitem__, default="")
        if counts.get(longest, 0) > length:
            warnings.warn(
                f"the prompt has {counts[longest]} tokens and the text encoder reads {length}: what follows is cut, "
                "the view words at the end first, so front and back will look alike. Shorten it: "
                f"'{longest[:60]}...'",
                stacklevel=5,
            )


class _Method(nn.Module):
    """One method of a network as a module over it, whose weights a functional call may replace."""

    def __init__(self, network: nn.Module, method: str) -> None:
        super().__init__()
        self.network = network
        self._method = method

    def forward(self, *args: Any, **settings: Any) -> Any:
        return getattr(self.network, self._method)(*args, **settings)


def open_networks(
    model: str, folder: Path, parts: Mapping[str, Part], variant: str | None, dtype: torch.dtype
) -> dict[str, Any]:
    """Read networks from the subfolders of their names; the rest of the folder is not looked at.

    Args:
        model: what the user calls it, for errors.
        parts: by name.
        variant: of the files, such as "fp16"; None takes what is there.
        dtype: that the prior is asked for; parts know what it means for them.

    Raises:
        MissingError: missing, damaged or unfitting weights, in one line.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging

    has_bar, level = logging.is_progress_bar_enabled(), diffusers_logging.get_verbosity()
    logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()  # old configs hold keys that today's classes ignore, and say so
    try:
        return {name: _open(model, folder / name, part, variant, part.dtype(dtype)) for name, part in parts.items()}
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise MissingError(f"prior '{model}' could not be opened: {first_line(error)}. {CURE}") from error
    finally:
        diffusers_logging.set_verbosity(level)
        if has_bar:
            logging.enable_progress_bar()


def _open(model: str, folder: Path, part: Part, variant: str | None, dtype: torch.dtype) -> Any:
    found = weights_variant(model, folder, part.stem, variant)
    settings: dict[str, Any] = {"variant": found, "use_safetensors": True, "local_files_only": True}
    if part.library == "transformers":
        settings["dtype"] = dtype
    else:
        settings["torch_dtype"] = dtype
        settings["low_cpu_mem_usage"] = importlib.util.find_spec("accelerate") is not None
    cls = getattr(importlib.import_module(part.library), part.classes[0])
    network, info = cls.from_pretrained(folder, output_loading_info=True, **settings)
    missing = sorted(info["missing_keys"])
    if missing:
        raise MissingError(
            f"prior '{model}': {folder.name} lacks {len(missing)} tensors ({missing[0]} ...). Fetch it again."
        )
    return network


class Openable(ABC):
    """A network that no library has, opened as the classes of diffusers open theirs: `Part` may name its subclasses."""

    @classmethod
    @abstractmethod
    def _made(cls, folder: Path, tensors: dict[str, Tensor]) -> tuple[nn.Module, dict[str, list[str]]]:
        """The network of a folder with its weights in it, and what `filled` says of them."""

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        *,
        variant: str | None,
        torch_dtype: torch.dtype,
        use_safetensors: bool,
        local_files_only: bool,
        low_cpu_mem_usage: bool,
        output_loading_info: bool,
    ) -> tuple[nn.Module, dict[str, list[str]]]:
        """The network and what it lacks, `missing_keys` and `unexpected_keys`. Weights are safetensors, whatever is
        asked; the settings are those that diffusers' classes know.

        Raises:
            MissingError: the folder's configuration is not that of such a network.
            ValueError: the file holds other tensors.
        """
        tensors = read_tensors(folder, "diffusion_pytorch_model", variant)
        return cls._made(folder, {name: tensor.to(torch_dtype) for name, tensor in tensors.items()})


def filled(network: nn.Module, tensors: Mapping[str, Tensor], *, folder: Path) -> dict[str, list[str]]:
    """Let a network on the meta device have tensors for its own, unless some are missing; says which.

    Raises:
        ValueError: it has no place for some.
    """
    wanted = set(network.state_dict())
    missing, unexpected = sorted(wanted - set(tensors)), sorted(set(tensors) - wanted)
    if unexpected:
        raise ValueError(f"{folder.name} holds tensors that its config.json does not name: {unexpected[0]}")
    if not missing:
        network.load_state_dict(tensors, strict=True, assign=True)
    return {"missing_keys": missing, "unexpected_keys": unexpected}


def read_tensors(folder: Path, stem: str, variant: str | None) -> dict[str, Tensor]:
    """The safetensors weights of one network, in one file or in shards.

    Args:
        folder: of the network, such as `.../unet`.
        stem: of the file's name.
        variant: as `weights_variant` found it.
    """
    from safetensors.torch import load_file

    dot = f".{variant}" if variant else ""
    single = folder / f"{stem}{dot}.safetensors"
    if single.is_file():
        return load_file(single)
    shards = set(read_json(folder.parent.name, folder / f"{stem}.safetensors.index{dot}.json")["weight_map"].values())
    return {name: t for shard in sorted(shards) for name, t in load_file(folder / shard).items()}


def open_readers(model: str, folder: Path, readers: Mapping[str, Reader], pipeline: str) -> dict[str, Any]:
    """Read tokenizers, each told how many tokens to read.

    Args:
        pipeline: class in model_index.json, which some lengths depend on.

    Raises:
        MissingError: missing or damaged files, in one line.
    """
    import transformers

    opened = {}
    try:
        for name, reader in readers.items():
            if not any((folder / name / file).is_file() for file in ("tokenizer.json", "vocab.json")):
                _require_sentencepiece(model, name)
            opened[name] = getattr(transformers, reader.kind).from_pretrained(folder / name, local_files_only=True)
            length = reader.length.get(pipeline) if isinstance(reader.length, Mapping) else reader.length
            if length is not None:
                opened[name].model_max_length = length
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise MissingError(f"prior '{model}' could not be opened: {first_line(error)}. {CURE}") from error
    return opened


def _require_sentencepiece(model: str, name: str) -> None:
    lacking = [package for package in ("sentencepiece", "google.protobuf") if not _installed(package)]
    if lacking:
        raise MissingError(
            f"prior '{model}': {name}/tokenizer.json is missing, and spiece.model needs two packages: "
            "pip install sentencepiece protobuf"
        )


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False


def dtype_of(network: nn.Module) -> torch.dtype:
    """Of a network's weights."""
    return next(network.parameters()).dtype
