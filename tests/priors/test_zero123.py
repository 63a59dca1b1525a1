from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dream3d.cameras import orbit, turntable
from dream3d.checks import InputError, MissingError
from dream3d.priors import Opening, Zero123
from dream3d.priors.picture import clip_pixels, read_picture
from dream3d.prompts import Prompt

CUP = Prompt("a cup", negative="blurry")
T = torch.tensor([0.3, 0.7])


@pytest.fixture(scope="module")
def folder(tiny_pipeline: Callable[..., Path]) -> Path:
    return tiny_pipeline("Zero123Pipeline", looks=True)


@pytest.fixture(scope="module")
def prior(folder: Path, tiny_picture: Path) -> Zero123:
    return Zero123(model=str(folder), image=str(tiny_picture), elevation_deg=10, azimuth_deg=-30, distance=2.5)


def latents(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_it_answers_as_the_pipeline_does(prior: Zero123, folder: Path, tiny_picture: Path) -> None:
    """diffusers' classes, put together as in the published conversion: unscaled latents beside z_t, one token."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPVisionModelWithProjection

    unet, vae = (c.from_pretrained(folder / n) for c, n in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")))
    encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder").eval()
    linear = load_file(folder / "clip_camera_projection" / "diffusion_pytorch_model.safetensors")
    picture = read_picture(str(tiny_picture))
    small = torch.nn.functional.interpolate(picture, (16, 16), mode="bilinear", antialias=True, align_corners=False)
    around, up = torch.tensor([0.0, 1.0]), torch.tensor([0.5, -0.2])
    on = prior.conditions(CUP, orbit(around, up, torch.tensor([2.0, 3.0]), torch.ones(2), 16, 16))
    turned = around + math.radians(30)
    way = [math.radians(10) - up, turned.sin(), turned.cos(), torch.tensor([-0.5, 0.5])]
    with torch.no_grad():
        feature = encoder(clip_pixels(picture, 16)).image_embeds.expand(2, -1)
        both = torch.cat([feature, torch.stack(way, dim=-1)], dim=-1)
        token = (both @ linear["proj.weight"].mT + linear["proj.bias"])[:, None]
        beside = vae.encode(2 * small - 1).latent_dist.mode().expand(2, -1, -1, -1)
        for name, seen in (("text", 1.0), ("null", 0.0)):
            z = torch.cat([latents(), seen * beside], dim=1)
            expected = unet(z, prior.schedule.timestep(T), encoder_hidden_states=seen * token).sample
            assert torch.allclose(prior.denoise(latents(), T, on[name]), expected, atol=1e-5), name


def test_the_way_to_a_camera(folder: Path, tiny_picture: Path) -> None:
    one, angle = torch.ones(1), torch.tensor([math.pi / 2])
    side = orbit(angle, 0 * one, 2 * one, one, 16, 16)
    settings = {"model": str(folder), "image": str(tiny_picture), "elevation_deg": 30.0}
    assert torch.allclose(Zero123(**settings).pose(side), torch.tensor([[math.pi / 6, 1, 0, 0]]), atol=1e-6)
    stable = Zero123(**settings, stable=True, azimuth_deg=90).pose(side)
    assert torch.allclose(stable, torch.tensor([[math.pi / 6, 0, 1, math.pi / 3]]), atol=1e-6)
    assert Zero123(model="owner/stable-zero123", image="a.png").stable and not Zero123(**settings).stable


def test_the_camera_matters_and_texts_do_not(prior: Zero123) -> None:
    made = [prior.conditions(p, turntable(2, 16, elevation_deg=e)) for p, e in ((CUP, 0), (Prompt("x"), 0), (CUP, 50))]
    with torch.no_grad():
        first, same, other = (prior.denoise(latents(), T, on["text"]) for on in made)
    assert torch.equal(first, same) and not torch.allclose(first, other, atol=1e-4)
    assert set(made[0]) == {"text", "null", "negative"} and made[0]["negative"] is made[0]["null"]


def test_the_other_conversion_opens_too(prior: Zero123, folder: Path, tiny_picture: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "clip_camera_projection").rename(copy / "cc_projection")
    file = copy / "cc_projection" / "diffusion_pytorch_model.safetensors"
    save_file({name.replace("proj.", "projection."): t for name, t in load_file(file).items()}, file)
    index = json.loads((copy / "model_index.json").read_text())
    index["cc_projection"] = ["pipeline_zero1to3", "CCProjection"]
    del index["clip_camera_projection"]
    (copy / "model_index.json").write_text(json.dumps(index))
    views = turntable(2, 16)
    settings = {"image": str(tiny_picture), "elevation_deg": 10.0, "azimuth_deg": -30.0, "distance": 2.5}
    for each in (
        Zero123(model=str(copy), **settings),
        Zero123(model=str(copy), opening=Opening(offload=True), **settings),
    ):
        token = each.conditions(CUP, views)["text"].tensors["token"]
        assert torch.equal(token, prior.conditions(CUP, views)["text"].tensors["token"])
    del index["cc_projection"]
    (copy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(MissingError, match="no clip_camera_projection and no cc_projection"):
        Zero123(model=str(copy), image=str(tiny_picture)).load()


def test_half_precision_keeps_the_callers_dtype(prior: Zero123) -> None:
    settings = {"elevation_deg": 10.0, "azimuth_deg": -30.0, "distance": 2.5}
    half = Zero123(model=prior.model, opening=Opening(half=True), image=prior.image, **settings)
    with torch.no_grad():
        eps, expected = (p.denoise(latents(), T, p.conditions(CUP, turntable(2, 16))["text"]) for p in (half, prior))
    assert {p.dtype for p in half.parameters()} == {torch.float16} and eps.dtype == torch.float32
    assert torch.allclose(eps, expected, atol=0.02 * float(expected.abs().max()))


def test_misuse_is_one_line(folder: Path, tiny_stable_diffusion: Callable[..., Path], tiny_picture: Path) -> None:
    with pytest.raises(InputError, match="elevation_deg must be -90"):
        Zero123(model=str(folder), image="a.png", elevation_deg=100)
    with pytest.raises(InputError, match="a.png' cannot be read"):
        Zero123(model=str(folder), image="a.png").load()
    with pytest.raises(MissingError, match="Zero123 opens .* Take StableDiffusion for it"):
        Zero123(model=str(tiny_stable_diffusion()), image=str(tiny_picture)).load()
