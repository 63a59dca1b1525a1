"""Pipelines of a few thousand random weights, of the classes and in the files that published ones have."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-!'"
WIDTH = 16
"""Of every text embedding."""


def told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a prior in one row, as its constructor takes them."""
    from dream3d.priors import Opening

    opening = {name: value for name, value in settings.items() if name in inspect.signature(Opening).parameters}
    return {**{k: v for k, v in settings.items() if k not in opening}, "opening": Opening(**opening)}


def write_clip_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer that spells: one token a letter, in the files that Stable Diffusion folders have."""
    folder.mkdir(parents=True)
    tokens = [*LETTERS, *(f"{c}</w>" for c in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = "<|endoftext|>"
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_t5_tokenizer(folder: Path) -> None:
    """A T5 tokenizer that spells."""
    from transformers import T5Tokenizer

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    T5Tokenizer(vocab=[*special, *((c, -3.0) for c in LETTERS)], extra_ids=0).save_pretrained(folder)


def clip(*, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=84,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=82,
        eos_token_id=83,
        pad_token_id=83,
        projection_dim=WIDTH,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def t5(width: int = WIDTH) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=48, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2))


def vae(**settings: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
        **settings,
    )


def unet(**settings: Any) -> Any:
    from diffusers import UNet2DConditionModel

    usual: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**usual, **settings})


def stable_diffusion(**scheduler: Any) -> dict[str, Any]:
    from diffusers import DDPMScheduler

    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    parts = {"unet": unet(), "vae": vae(), "text_encoder": clip()}
    return {**parts, "scheduler": DDPMScheduler(**{**settings, "clip_sample": False, **scheduler})}


def sdxl() -> dict[str, Any]:
    from diffusers import EulerDiscreteScheduler

    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "use_linear_projection": True}
    network = unet(cross_attention_dim=2 * WIDTH, projection_class_embeddings_input_dim=WIDTH + 6 * 4, **added)
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    encoders = {"text_encoder": clip(), "text_encoder_2": clip(projected=True)}
    return {"unet": network, "vae": vae(scaling_factor=0.13025, force_upcast=True), "scheduler": scheduler, **encoders}


def deepfloyd() -> dict[str, Any]:
    from diffusers import DDPMScheduler

    network = unet(
        in_channels=3,
        out_channels=6,
        down_block_types=("DownBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="text_proj",
        resnet_time_scale_shift="scale_shift",
    )
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True)
    return {"unet": network, "text_encoder": t5(), "scheduler": scheduler}


def sd3(*, with_t5: bool = True) -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH + 8,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=8,
    )
    return {
        "transformer": transformer,
        "vae": vae(scaling_factor=1.5305, shift_factor=0.0609),
        "text_encoder": clip(projected=True),
        "text_encoder_2": clip(projected=True),
        "text_encoder_3": t5(2 * WIDTH + 8) if with_t5 else None,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def flux(*, guided: bool = True) -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guided,
        axes_dims_rope=(4, 4, 8),
    )
    return {
        "transformer": transformer,
        "vae": vae(scaling_factor=0.3611, shift_factor=0.1159),
        "text_encoder": clip(),
        "text_encoder_2": t5(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guided),
    }


def pixart(*, shapes: bool = True) -> dict[str, Any]:
    from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=6,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=12,
        sample_size=128,  # where the pipeline tells the shape
        caption_channels=WIDTH,
        use_additional_conditions=shapes,
    )
    return {"transformer": transformer, "vae": vae(), "text_encoder": t5(), "scheduler": DPMSolverMultistepScheduler()}


PIPELINES: Mapping[str, Callable[..., dict[str, Any]]] = {
    "StableDiffusionPipeline": stable_diffusion,
    "StableDiffusionXLPipeline": sdxl,
    "IFPipeline": deepfloyd,
    "StableDiffusion3Pipeline": sd3,
    "FluxPipeline": flux,
    "PixArtAlphaPipeline": pixart,
    "PixArtSigmaPipeline": pixart,
}
"""What makes the parts of each pipeline class."""


def write_pipeline(folder: Path, pipeline: str, **settings: Any) -> Path:
    """A pipeline with random weights, the same every time; `settings` are those of its function here."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = PIPELINES[pipeline](**settings)
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.30.0"}
    for name, part in parts.items():
        index[name] = [None, None] if part is None else [type(part).__module__.partition(".")[0], type(part).__name__]
        if part is not None:
            part.save_pretrained(folder / name)
        if name.startswith("text_encoder"):
            is_t5 = type(part).__name__ == "T5EncoderModel"
            reader = name.replace("text_encoder", "tokenizer")
            kind = "T5Tokenizer" if is_t5 else "CLIPTokenizer"
            index[reader] = [None, None] if part is None else ["transformers", kind]
            if part is not None:
                (write_t5_tokenizer if is_t5 else write_clip_tokenizer)(folder / reader)
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n")
    return folder
