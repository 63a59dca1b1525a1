"""Priors that see more than a text, of a few thousand random weights, in the files that published ones have."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tests.tiny_pipelines import PIPELINES, WIDTH, stable_diffusion, unet, vae

MVDREAM: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "num_head_channels": 64,
    "transformer_depth": 1,
    "context_dim": 1024,
    "use_checkpoint": False,
    "camera_dim": 16,
}
"""unet/config.json of the published MVDream (sd-v2-base.yaml of its code)."""
TINY = {
    **MVDREAM,
    "model_channels": 8,
    "attention_resolutions": [1],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_head_channels": 4,
    "context_dim": WIDTH,
}


class Attend(nn.Module):
    def __init__(self, width: int, context: int, head: int, ip_dim: int = 0) -> None:
        super().__init__()
        self.head, self.ip_dim = head, ip_dim
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = (nn.Linear(context, width, bias=False) for _ in range(2))
        self.to_out = nn.Sequential(nn.Linear(width, width))
        if ip_dim:
            self.to_k_ip, self.to_v_ip = (nn.Linear(context, width, bias=False) for _ in range(2))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        text = context[:, : context.shape[1] - self.ip_dim]
        out = self.look(x, self.to_k(text), self.to_v(text))
        if self.ip_dim:
            tokens = context[:, -self.ip_dim :]
            out = out + self.look(x, self.to_k_ip(tokens), self.to_v_ip(tokens))
        return self.to_out(out)

    def look(self, x: Tensor, *key_value: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (-1, self.head)).transpose(1, 2) for y in (self.to_q(x), *key_value))
        return ((q @ k.mT / self.head**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)


class Block(nn.Module):
    def __init__(self, width: int, context: int, head: int, ip_dim: int) -> None:
        super().__init__()
        self.attn1, self.attn2 = Attend(width, width, head), Attend(width, context, head, ip_dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.ff = nn.Module()
        gate = nn.Module()
        gate.proj = nn.Linear(width, 8 * width)
        self.ff.net = nn.ModuleList([gate, nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor, context: Tensor, frames: int) -> Tensor:
        joined = self.norm1(x).unflatten(0, (-1, frames)).flatten(1, 2)
        x = x + self.attn1(joined, joined).unflatten(1, (frames, -1)).flatten(0, 1)
        x = x + self.attn2(self.norm2(x), context)
        value, gate = self.ff.net[0].proj(self.norm3(x)).chunk(2, dim=-1)
        return x + self.ff.net[2](value * functional.gelu(gate))


class Transformer(nn.Module):
    def __init__(self, width: int, c: dict[str, Any]) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(32, c["model_channels"]), width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        block = Block(width, c["context_dim"], c["num_head_channels"], c.get("ip_dim", 0))
        self.transformer_blocks = nn.ModuleList([block])

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, frames: int) -> Tensor:
        h = self.proj_in(self.norm(x).flatten(2).mT)
        h = self.proj_out(self.transformer_blocks[0](h, context, frames))
        return x + h.mT.unflatten(2, x.shape[2:])


class Residual(nn.Module):
    def __init__(self, before: int, after: int, c: dict[str, Any]) -> None:
        super().__init__()
        groups = math.gcd(32, c["model_channels"])
        self.in_layers = nn.Sequential(nn.GroupNorm(groups, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * c["model_channels"], after))
        last = nn.Conv2d(after, after, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(groups, after), nn.SiLU(), nn.Identity(), last)
        self.skip_connection = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, frames: int) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Resize(nn.Module):
    def __init__(self, width: int, *, up: bool) -> None:
        super().__init__()
        conv = nn.Conv2d(width, width, 3, stride=1 if up else 2, padding=1)
        self.conv, self.op = (conv, None) if up else (None, conv)

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, frames: int) -> Tensor:
        return self.op(x) if self.op else cast(nn.Module, self.conv)(functional.interpolate(x, scale_factor=2.0))


class Steps(nn.Sequential):
    def forward(self, x: Tensor, *more: Any) -> Tensor:  # type: ignore[override]
        for step in self:
            x = step(x) if isinstance(step, nn.Conv2d) else step(x, *more)
        return x


class Perceiver(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q, self.to_kv = nn.Linear(width, 12 * 64, bias=False), nn.Linear(width, 2 * 12 * 64, bias=False)
        self.to_out = nn.Linear(12 * 64, width, bias=False)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        x, latents = self.norm1(x), self.norm2(latents)
        keys = self.to_kv(torch.cat([x, latents], dim=1)).chunk(2, dim=-1)
        q, k, v = (y.unflatten(-1, (12, 64)).transpose(1, 2) for y in (self.to_q(latents), *keys))
        return self.to_out(((q @ k.mT / 8).softmax(-1) @ v).transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    def __init__(self, features: int, width: int, tokens: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(1, tokens, width))
        self.proj_in, self.proj_out = nn.Linear(features, width), nn.Linear(width, width)
        self.norm_out = nn.LayerNorm(width)
        self.layers = nn.ModuleList()
        for _ in range(4):
            wide, narrow = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
            forward = nn.Sequential(nn.LayerNorm(width), wide, nn.GELU(), narrow)
            self.layers.append(nn.ModuleList([Perceiver(width), forward]))

    def forward(self, x: Tensor) -> Tensor:
        x, latents = self.proj_in(x), self.latents.expand(len(x), -1, -1)
        for attend, forward in cast(Any, self.layers):
            latents = latents + attend(x, latents)
            latents = latents + forward(latents)
        return self.norm_out(self.proj_out(latents))


class MultiViewUNetModel(nn.Module):
    """The published network's arithmetic and its tensors' names, in as few words as possible: the oracle."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = c = config
        width, layers, levels = c["model_channels"], c["num_res_blocks"], len(c["channel_mult"])

        def mlp(size: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(size, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))

        def steps(before: int, after: int, level: int) -> list[nn.Module]:
            attends = 2**level in c["attention_resolutions"]
            return [Residual(before, after, c), *([Transformer(after, c)] if attends else [])]

        self.time_embed, self.camera_embed = mlp(width), mlp(c["camera_dim"])
        if c.get("ip_dim"):
            self.image_embed = Resampler(c.get("picture_features", 1280), c["context_dim"], c["ip_dim"])
        self.input_blocks = nn.ModuleList([Steps(nn.Conv2d(c["in_channels"], width, 3, padding=1))])
        skips, now = [width], width
        for level, factor in enumerate(c["channel_mult"]):
            for _ in range(layers):
                self.input_blocks.append(Steps(*steps(now, factor * width, level)))
                now = factor * width
                skips.append(now)
            if level < levels - 1:
                self.input_blocks.append(Steps(Resize(now, up=False)))
                skips.append(now)
        self.middle_block = Steps(Residual(now, now, c), Transformer(now, c), Residual(now, now, c))
        self.output_blocks = nn.ModuleList()
        for level, factor in reversed(list(enumerate(c["channel_mult"]))):
            for i in range(layers + 1):
                up = [Resize(factor * width, up=True)] if level and i == layers else []
                self.output_blocks.append(Steps(*steps(now + skips.pop(), factor * width, level), *up))
                now = factor * width
        groups = math.gcd(32, width)
        self.out = nn.Sequential(nn.GroupNorm(groups, now), nn.SiLU(), nn.Conv2d(now, c["out_channels"], 3, padding=1))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        camera: Tensor | None,
        frames: int,
        ip: Any = None,
        last: Any = None,
    ) -> Tensor:
        half = self.config["model_channels"] // 2
        angle = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
        emb = self.time_embed(torch.cat([angle.cos(), angle.sin()], dim=-1))
        if camera is not None:
            emb = emb + self.camera_embed(camera)
        if ip is not None:
            x = x.clone()
            x[frames - 1 :: frames] = last
            context = torch.cat([context, self.image_embed(ip)], dim=1)
        h, skips = x, []
        for block in self.input_blocks:
            h = block(h, emb, context, frames)
            skips.append(h)
        h = self.middle_block(h, emb, context, frames)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb, context, frames)
        return self.out(h)

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"_class_name": "MultiViewUNetModel", **self.config}))
        save_file(self.state_dict(), folder / "diffusion_pytorch_model.safetensors")


def random_network(config: dict[str, Any]) -> MultiViewUNetModel:
    network = MultiViewUNetModel(config)
    for name, weight in network.named_parameters():
        weight.data = torch.randn(weight.shape) * 0.2 + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return network.requires_grad_(False)


class CLIPCameraProjection(nn.Linear):
    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"embedding_dim": WIDTH, "additional_embeddings": 4}))
        tensors = {f"proj.{name}": tensor for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / "diffusion_pytorch_model.safetensors")


def clip_vision(*, projected: bool) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=32,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return (CLIPVisionModelWithProjection if projected else CLIPVisionModel)(config)


def mvdream(*, looks: bool = False) -> dict[str, Any]:
    parts = {**stable_diffusion(), "unet": random_network(TINY)}
    if looks:
        network = random_network({**TINY, "ip_dim": 3, "ip_weight": 1.0, "picture_features": WIDTH})
        parts |= {"unet": network, "image_encoder": clip_vision(projected=False)}
    return parts


def zero123(*, looks: bool = True) -> dict[str, Any]:
    return {
        "unet": unet(in_channels=8),
        "vae": vae(),
        "image_encoder": clip_vision(projected=True),
        "clip_camera_projection": CLIPCameraProjection(WIDTH + 4, WIDTH),
        "scheduler": stable_diffusion()["scheduler"],
    }


cast(dict[str, Any], PIPELINES).update({"MVDreamPipeline": mvdream, "Zero123Pipeline": zero123})


def write_picture(path: Path) -> Path:
    """A disc on nothing, 20 x 16."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:20, :16]
    inside = (x - 8) ** 2 + (y - 10) ** 2 < 36
    Image.fromarray(np.stack([x * 15, y * 12, 0 * x + 200, inside * 255], axis=-1).astype(np.uint8)).save(path)
    return path


def write_controlnet(folder: Path, stable_diffusion: Path) -> Path:
    """A ControlNet for that Stable Diffusion whose last layers are not zeros any more."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = UNet2DConditionModel.from_pretrained(stable_diffusion / "unet")
        config = ControlNetModel.from_unet(network).config  # whose hints are eight times as wide as the latents
        side = ControlNetModel.from_config({**config, "conditioning_embedding_out_channels": (4, 8)})
        for weight in side.parameters():
            weight.data += 0.3 * torch.randn(weight.shape)
    side.save_pretrained(folder)
    return folder


def write_ip_adapter(folder: Path, stable_diffusion: Path, *, plus: bool = False) -> Path:
    """An IP-Adapter for that Stable Diffusion, with its image encoder."""
    from diffusers import UNet2DConditionModel

    network = cast(Any, UNet2DConditionModel.from_pretrained(stable_diffusion / "unet"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        clip_vision(projected=True).save_pretrained(folder / "image_encoder")
        if plus:
            made = {f"image_proj.{name}": t for name, t in Resampler(WIDTH, WIDTH, 3).state_dict().items()}
            made["image_proj.latents"] = torch.randn(1, 3, WIDTH)
        else:
            shapes = {"proj.weight": (4 * WIDTH, WIDTH), "proj.bias": (4 * WIDTH,), "norm.weight": (WIDTH,)}
            made = {f"image_proj.{name}": torch.randn(shape) for name, shape in shapes.items()}
            made["image_proj.norm.bias"] = torch.randn(WIDTH)
        for index, name in enumerate(network.attn_processors):
            if "attn2" in name:
                width = network.get_submodule(name.removesuffix(".processor")).inner_dim
                made |= {f"ip_adapter.{index}.to_{x}_ip.weight": torch.randn(width, WIDTH) for x in "kv"}
    save_file(made, folder / f"ip-adapter{'-plus' if plus else ''}_sd15.safetensors")
    return folder
