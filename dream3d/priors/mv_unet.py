"""The network of MVDream and ImageDream (`MultiViewUNetModel` in their diffusers folders) out of diffusers' own parts.

Their code is a copy of the latent diffusion U-Net (arXiv:2112.10752) with two additions, and both exist in diffusers:
the MLP of the camera's 16 numbers is a class embedding, ImageDream's second cross-attention is an IP-Adapter's (plus).
What is left is names. Nothing of a checkpoint's folder is executed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.checks import MissingError
from dream3d.priors.builtin_mv import VIEWS, share_views
from dream3d.priors.hub import read_json
from dream3d.priors.opened import Openable, filled
from dream3d.priors.picture import resampler_names

CAMERA_NUMBERS = 16
RESAMPLER_HEADS, RESAMPLER_DEPTH, PICTURE_FEATURES = 12, 4, 1280
"""Fixed in ImageDream's code, not in its configuration."""
_ALWAYS = {
    "dims": 2,
    "num_classes": None,
    "n_embed": None,
    "adm_in_channels": None,
    "num_attention_blocks": None,
    "conv_resample": True,
    "resblock_updown": False,
    "use_scale_shift_norm": False,
    "camera_dim": CAMERA_NUMBERS,
}
"""Options of the original class that no released network uses."""
_WHOLE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "camera_embed.0": "class_embedding.camera.linear_1",
    "camera_embed.2": "class_embedding.camera.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_PICTURE = "encoder_hid_proj.image_projection_layers.0."


class SeenCamera(nn.Module):
    """The camera's embedding, or nothing in rows whose last number is 0: not the same as a camera of zeros."""

    def __init__(self, camera: Any) -> None:
        super().__init__()
        self.camera = camera

    def forward(self, given: Float[Tensor, "B 17"]) -> Float[Tensor, "B d"]:
        return given[:, CAMERA_NUMBERS:] * self.camera(given[:, :CAMERA_NUMBERS])


class ViewsTime(nn.Module):
    """The time embedding of groups with a picture at their end, made of the views' alone: what critics add to it is one
    row for each view that is asked about."""

    def __init__(self, time: Any) -> None:
        super().__init__()
        self.time = time

    def forward(self, angles: Float[Tensor, "B c"], more: Tensor | None = None) -> Float[Tensor, "B d"]:
        views = angles.unflatten(0, (-1, VIEWS + 1))[:, :VIEWS].flatten(0, 1)
        embedded = self.time(views, more).unflatten(0, (-1, VIEWS))
        return torch.cat([embedded, embedded.mean(1, keepdim=True)], dim=1).flatten(0, 1)


def build(config: Mapping[str, Any], views: int, *, model: str = "") -> Any:
    """A `UNet2DConditionModel` that computes what `MultiViewUNetModel(**config)` does, `views` pictures a group.

    Its `class_labels` are the camera and a 1 (a 0 hides it); with `ip_dim` it also takes
    `added_cond_kwargs={"image_embeds": [features]}`, features B 1 n d of a picture.

    Args:
        config: of the unet folder, in the original's words.
        views: pictures that attend to one another, the one of the image prompt included.
        model: named in errors.

    Raises:
        MissingError: the configuration lacks a key or asks for what no released network has.
    """
    from diffusers import UNet2DConditionModel

    for key, value in _ALWAYS.items():
        if config.get(key, value) != value:
            raise MissingError(f"prior '{model}': unet/config.json has {key}: {config[key]}; expected {value}.")
    try:
        width, heads_of = config["model_channels"], config["num_head_channels"]
        channels = [width * factor for factor in config["channel_mult"]]
        attends = [2**i in config["attention_resolutions"] for i in range(len(channels))]
        unet = UNet2DConditionModel(
            sample_size=config.get("image_size"),
            in_channels=config["in_channels"],
            out_channels=config["out_channels"],
            block_out_channels=tuple(channels),
            layers_per_block=config["num_res_blocks"],
            down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
            transformer_layers_per_block=config.get("transformer_depth", 1),
            cross_attention_dim=config["context_dim"],
            attention_head_dim=tuple(c // heads_of for c in channels),
            use_linear_projection=True,
            norm_num_groups=math.gcd(32, width),
            class_embed_type="projection",
            projection_class_embeddings_input_dim=CAMERA_NUMBERS,
        )
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise MissingError(
            f"prior '{model}': unet/config.json is not MVDream's ({error!r} is missing or odd)."
        ) from error
    unet.class_embedding = SeenCamera(unet.class_embedding)
    share_views(unet, views)
    for name, module in unet.named_modules():
        if name.endswith("proj_in"):
            module.register_forward_pre_hook(_contiguous)
    if config.get("ip_dim", 0):
        _see_picture(unet, config)
    return unet


def _contiguous(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """torch multiplies a permuted input in another way where the weight may train: a fresh critic would not equal the
    prior to the bit."""
    return (given[0].contiguous(), *given[1:])


def _see_picture(unet: Any, config: Mapping[str, Any]) -> None:
    """ImageDream's additions: a resampler of the picture's features and a second cross-attention to its tokens."""
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
    from diffusers.models.embeddings import IPAdapterPlusImageProjection, MultiIPAdapterImageProjection

    context = config["context_dim"]
    resampler = IPAdapterPlusImageProjection(
        embed_dims=config.get("picture_features", PICTURE_FEATURES),
        output_dims=context,
        hidden_dims=context,
        depth=RESAMPLER_DEPTH,
        heads=RESAMPLER_HEADS,
        num_queries=config["ip_dim"],
    )
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            second = IPAdapterAttnProcessor2_0(
                module.inner_dim, context, (config["ip_dim"],), config.get("ip_weight", 1.0)
            )
            module.set_processor(second)
    unet.encoder_hid_proj = MultiIPAdapterImageProjection([resampler])
    unet.register_to_config(encoder_hid_dim_type="ip_image_proj")


def renamed(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The tensors of a `MultiViewUNetModel` under the names that `build` gives them.

    Args:
        tensors: by their names in the checkpoint.
        layers: residual blocks a level, `num_res_blocks`.
    """
    picture = {name.removeprefix("image_embed."): t for name, t in tensors.items() if name.startswith("image_embed.")}
    rest = {_name(name, layers): t for name, t in tensors.items() if not name.startswith("image_embed.")}
    return rest | {_PICTURE + name: t for name, t in resampler_names(picture).items()}


def _name(name: str, layers: int) -> str:
    path, _, kind = name.rpartition(".")
    if path in _WHOLE:
        return f"{_WHOLE[path]}.{kind}"
    found = re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)", name)
    if found:
        which, index, part, rest = found[1], int(found[2]) - (found[1] == "input"), int(found[3]), found[4]
        block, layer = divmod(index, layers + 1)
        side = "down" if which == "input" else "up"
        if rest.startswith(("op.", "conv.")):
            return f"{side}_blocks.{block}.{side}samplers.0.conv.{kind}"
        return f"{side}_blocks.{block}.{_layer(part, layer, rest)}"
    found = re.fullmatch(r"middle_block\.(\d)\.(.+)", name)
    if found:
        return f"mid_block.{_layer(int(found[1]) % 2, int(found[1]) // 2, found[2])}"
    return name


def _layer(attends: int, index: int, rest: str) -> str:
    if attends:
        return f"attentions.{index}." + re.sub(r"\.to_(k|v)_ip\.", r".processor.to_\1_ip.0.", rest)
    path, _, kind = rest.rpartition(".")
    return f"resnets.{index}.{_RESNET.get(path, path)}.{kind}"


class MultiViewUNetModel(Openable):
    """Opens the unet folder. Its name is the one in model_index.json."""

    @classmethod
    def _made(cls, folder: Path, tensors: dict[str, Tensor]) -> tuple[Any, dict[str, list[str]]]:
        config = read_json(folder.parent.name, folder / "config.json")
        with torch.device("meta"):
            unet = build(config, VIEWS + (config.get("ip_dim", 0) > 0), model=folder.parent.name)
        info = filled(unet, renamed(tensors, config["num_res_blocks"]), folder=folder)
        if config.get("ip_dim", 0):
            unet.time_embedding = ViewsTime(unet.time_embedding)
        return unet, info
