"""IP-Adapter: a picture beside the text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.checks import InputError, MissingError, in_range
from dream3d.priors.around import Around, settle, told
from dream3d.priors.base import Condition, Prior
from dream3d.priors.hub import CURE, first_line, read_json, weights_variant
from dream3d.priors.opened import Opened, Part, open_networks
from dream3d.priors.picture import read_for, resampler_names
from dream3d.types import Cameras

TOKENS = 4
"""Of the plain adapter, which makes them by one linear map."""
HEAD = 64
ENCODER = Part(("CLIPVisionModelWithProjection",), "transformers")


class Decoupled:
    """Attention processor of diffusers: attention to the text, plus attention to the picture's tokens (section 3.2.2).

    Rows whose tokens are zeros get the text's alone: without a bias, their keys and values are zeros too.

    Args:
        second: diffusers' processor with the keys and values of pictures.
        tokens: B n d, of the picture.
    """

    def __init__(self, second: nn.Module, tokens: Tensor) -> None:
        # In a tuple: it belongs to the prior, not to the network.
        self.second = (second,)
        self.tokens = tokens

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "B n c"],
        encoder_hidden_states: Float[Tensor, "B L d"] | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        tokens = [self.tokens.to(hidden_states)]
        return self.second[0](attn, hidden_states, (encoder_hidden_states, tokens), attention_mask)


@final
class IPAdapter(Around):
    """A Stable Diffusion that is shown a picture beside the text (arXiv:2308.06721): the subject, or the style.

    Conditions are those of `of`, without the picture, and "visual": the prompt with the picture. Objectives with a
    visual prompt (VPCSM) ask for it by that name, CFG with `towards: visual`. (The published pipeline's unconditional
    prediction is shown an empty picture's tokens; here "null" is `of`'s own.)

    Opens the published files: plain adapters ("ip-adapter_sd15.safetensors") and those with a resampler
    ("ip-adapter-plus_sd15.safetensors"), with CLIP's image encoder in the folder `image_encoder` beside them.

    Args:
        of: the Stable Diffusion that is shown the picture, or another prior around it.
        model: folder with the adapter's file and `image_encoder`, itself or in its `models`, or an id on the hub such
            as "h94/IP-Adapter".
        image: path of the picture; what is transparent becomes white.
        file: name of the adapter's file.
        strength: factor of what the picture adds; 0 is `of` to the bit.
        revision: branch, tag or commit on the hub.
    """

    title = "IP-Adapter"

    def __init__(
        self,
        *,
        of: Prior,
        model: str,
        image: str,
        file: str = "ip-adapter_sd15.safetensors",
        strength: float = 1.0,
        revision: str | None = None,
    ) -> None:
        super().__init__(of=of, model=model, own="picture", revision=revision)
        in_range("IPAdapter: strength", strength, 0, 10)
        if not image:
            raise InputError("IPAdapter: image is empty; expected the path of a picture.")
        self.image = image
        self.file = file
        self.strength = strength
        wanted = (file, "image_encoder/config.json", "image_encoder/model.safetensors")
        self.files = ("README.md", *wanted, *(f"models/{name}" for name in wanted))
        self.seconds = nn.ModuleList()
        self.register_buffer("tokens", torch.zeros(1, 1, 1), persistent=False)

    def _told(self, conditions: dict[str, Condition], cameras: Cameras) -> dict[str, Condition]:
        rows = self.tokens.to(cameras.c2w).expand(len(cameras), -1, -1)
        text = Condition({**conditions["text"].tensors, self.own: rows})
        return {**told(conditions, self.own, torch.zeros_like(rows)), "visual": text}

    def _home(self, folder: Path) -> Path:
        return folder if (folder / self.file).is_file() else folder / "models"

    def _check(self, folder: Path) -> None:
        home = self._home(folder)
        if not (home / self.file).is_file():
            raise MissingError(f"IP-Adapter '{self.model}': {self.file} is missing. Give its name as file.")
        read_json(self.model, home / "image_encoder" / "config.json")
        weights_variant(self.model, home / "image_encoder", ENCODER.stem, None)

    def _open(self, folder: Path, network: Any) -> None:
        from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        home = self._home(folder)
        try:
            tensors = load_file(home / self.file)
        except (OSError, SafetensorError) as error:
            raise MissingError(f"IP-Adapter '{self.model}': {self.file} is damaged ({first_line(error)}).") from error
        tokens = self._look(
            home, {k.removeprefix("image_proj."): t for k, t in tensors.items() if k.startswith("image_")}
        )
        context = network.config.cross_attention_dim
        for index, attention in enumerate(_cross(network)):
            second = IPAdapterAttnProcessor2_0(attention.inner_dim, context, (tokens.shape[1],), self.strength)
            # The published files count self-attentions too: 1, 3, 5 ...
            found = {f"to_{x}_ip.0.weight": tensors.get(f"ip_adapter.{2 * index + 1}.to_{x}_ip.weight") for x in "kv"}
            if {k: None if t is None else t.shape for k, t in found.items()} != _shapes(second):
                raise InputError(
                    f"IP-Adapter '{self.file}' was made for another network than {self.of.card().name}. "
                    "Take the file that was trained with this Stable Diffusion (sd15, sdxl)."
                )
            second.load_state_dict(found)
            self.seconds.append(second)
        self.tokens = tokens

    @torch.no_grad()
    def _look(self, home: Path, tensors: dict[str, Tensor]) -> Float[Tensor, "1 n d"]:
        """The picture's tokens. Encoder and projection are needed once and not kept."""
        from diffusers.models.embeddings import ImageProjection, IPAdapterPlusImageProjection

        encoder = open_networks(self.model, home, {"image_encoder": ENCODER}, None, torch.float32)
        networks = Opened(encoder, {}, index={})
        _, small = read_for(networks, self.image)
        seen = networks.call("image_encoder", "__call__", small, output_hidden_states=True)
        if "latents" in tensors:
            heads, width = tensors["layers.0.0.to_q.weight"].shape[0] // HEAD, tensors["latents"].shape[2]
            projection: nn.Module = IPAdapterPlusImageProjection(
                embed_dims=tensors["proj_in.weight"].shape[1],
                output_dims=tensors["proj_out.weight"].shape[0],
                hidden_dims=width,
                depth=1 + max(int(k.split(".")[1]) for k in tensors if k.startswith("layers.")),
                heads=heads,
                num_queries=tensors["latents"].shape[1],
            )
            projection.load_state_dict({k: t.float() for k, t in resampler_names(tensors).items()})
            return projection(seen.hidden_states[-2])
        if "proj.weight" not in tensors:
            raise MissingError(
                f"IP-Adapter '{self.file}' is of a kind that is not known: take a plain or plus one. {CURE}"
            )
        wide, features = tensors["proj.weight"].shape
        projection = ImageProjection(features, wide // TOKENS, TOKENS)
        projection.load_state_dict({k.replace("proj.", "image_embeds."): t.float() for k, t in tensors.items()})
        return projection(seen.image_embeds)

    @contextmanager
    def _attached(self, network: Any, own: Tensor) -> Iterator[None]:
        if not self.strength:
            yield
            return
        settle(self.seconds, next(network.parameters()))
        attentions = _cross(network)
        before = [attention.processor for attention in attentions]
        try:
            for attention, second in zip(attentions, self.seconds, strict=True):
                attention.set_processor(Decoupled(second, own))
            yield
        finally:
            for attention, processor in zip(attentions, before, strict=True):
                attention.set_processor(processor)


def _cross(network: Any) -> list[Any]:
    """The cross-attentions, in the order in which diffusers lists processors."""
    names = [name.removesuffix(".processor") for name in network.attn_processors]
    return [network.get_submodule(name) for name in names if name.endswith("attn2")]


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
