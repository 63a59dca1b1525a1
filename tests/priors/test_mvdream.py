from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dream3d.cameras import orbit, turntable
from dream3d.checks import InputError, MissingError
from dream3d.priors import IPAdapter, LoRA, MVDream, Opening, Query, StableDiffusion
from dream3d.priors.mvdream import camera_numbers
from dream3d.priors.picture import clip_pixels, read_picture
from dream3d.prompts import Prompt
from tests.tiny_seeing import MultiViewUNetModel

BEAR = Prompt("a teddy bear", negative="blurry")
T = torch.tensor([0.3, 0.7]).repeat_interleave(4)


@pytest.fixture(scope="module")
def prior(tiny_pipeline: Callable[..., Path]) -> MVDream:
    return MVDream(model=str(tiny_pipeline("MVDreamPipeline")), opening=Opening(image_size=16))


@pytest.fixture(scope="module")
def looking(tiny_pipeline: Callable[..., Path], tiny_picture: Path) -> MVDream:
    folder = tiny_pipeline("MVDreamPipeline", looks=True)
    return MVDream(model=str(folder), opening=Opening(image_size=16), image=str(tiny_picture))


def latents(seed: int = 0) -> Tensor:
    return torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def published(folder: Path) -> MultiViewUNetModel:
    import json

    network = MultiViewUNetModel(json.loads((folder / "unet" / "config.json").read_text()))
    network.load_state_dict(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"))
    return network


def test_it_answers_as_the_published_network(prior: MVDream) -> None:
    on, z_t = prior.conditions(BEAR, turntable(8, 16)), latents()
    numbers = camera_numbers(turntable(8, 16))
    text, null = (on[name].tensors["embedding"] for name in ("text", "null"))
    network = published(Path(prior.model))
    for name, embedding, camera in (("text", text, numbers), ("null", null, numbers), ("no_camera", text, None)):
        with torch.no_grad():
            expected = network(z_t, prior.schedule.timestep(T), embedding, camera, 4)
            assert torch.allclose(prior.denoise(z_t, T, on[name]), expected, atol=1e-4), name


def test_text_has_no_view_words_and_null_keeps_the_camera(prior: MVDream, tiny_stable_diffusion: Callable) -> None:
    cameras = turntable(4, 16)
    on = prior.conditions(BEAR, cameras)
    plain = StableDiffusion(model=str(tiny_stable_diffusion())).conditions(BEAR, cameras)
    assert set(on) == {"text", "null", "negative", "no_camera"}
    for name, same in (("text", "plain"), ("null", "null"), ("negative", "negative"), ("no_camera", "plain")):
        assert torch.equal(on[name].tensors["embedding"], plain[same].tensors["embedding"]), name
        assert torch.equal(on[name].tensors["camera"], (name != "no_camera") * on["text"].tensors["camera"]), name


def test_the_camera_is_told_as_published() -> None:
    """`get_camera(4, elevation, azimuth_start=90)` of the published code: y up, then Blender's (x, -z, y)."""
    elevation = math.radians(15)
    for k in range(4):
        around = math.radians(90 + 90 * k)
        eye = [math.cos(elevation) * math.sin(around), math.sin(elevation), math.cos(elevation) * math.cos(around)]
        position = torch.tensor(eye, dtype=torch.float64)
        right = torch.linalg.cross(-position, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
        right = right / right.norm()
        c2w = torch.eye(4, dtype=torch.float64)
        c2w[:3] = torch.stack([right, torch.linalg.cross(right, -position), position, position], dim=-1)
        expected = torch.stack([c2w[0], -c2w[2], c2w[1], c2w[3]]).flatten()
        angle, one = torch.tensor([k * math.pi / 2]).double(), torch.ones(1).double()
        ours = camera_numbers(orbit(angle, elevation * one, 3.7 * one, 0.7 * one, 16, 16))
        assert torch.allclose(ours[0], expected, atol=1e-7), k


def test_views_of_a_group_see_one_another(prior: MVDream, looking: MVDream) -> None:
    z_t = latents()
    changed = z_t.clone()
    changed[1] += 1
    for each in (prior, looking):
        on = each.conditions(BEAR, turntable(8, 16))["text"]
        with torch.no_grad():
            moved = (each.denoise(changed, T, on) - each.denoise(z_t, T, on)).abs().amax((1, 2, 3))
        assert [i for i in range(8) if moved[i] > 1e-5] == [0, 1, 2, 3]


def test_the_camera_matters(prior: MVDream) -> None:
    on, turned = (prior.conditions(BEAR, turntable(8, 16, elevation_deg=e)) for e in (0, 40))
    with torch.no_grad():
        answers = [prior.denoise(latents(), T, c[name]) for c in (on, turned) for name in ("text", "no_camera")]
    assert not torch.allclose(answers[0], answers[2], atol=1e-3)
    assert not torch.allclose(answers[0], answers[1], atol=1e-3)
    assert torch.equal(answers[1], answers[3])


def test_imagedream_answers_as_the_published_network(looking: MVDream, tiny_picture: Path) -> None:
    from diffusers import AutoencoderKL
    from transformers import CLIPVisionModel

    folder = Path(looking.model)
    encoder = CLIPVisionModel.from_pretrained(folder / "image_encoder").eval()
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    picture = read_picture(str(tiny_picture))
    small = torch.nn.functional.interpolate(picture, (16, 16), mode="bilinear", antialias=True, align_corners=False)
    with torch.no_grad():
        features = encoder(clip_pixels(picture, 16), output_hidden_states=True).hidden_states[-2]
        last = vae.encode(2 * small - 1).latent_dist.mean * vae.config.scaling_factor
    on = looking.conditions(BEAR, turntable(8, 16))
    numbers = torch.cat([camera_numbers(turntable(8, 16)).view(2, 4, 16), torch.zeros(2, 1, 16)], dim=1).flatten(0, 1)
    network = published(folder)
    for name, shown in (("text", 1.0), ("null", 0.0)):
        five = torch.cat([latents().view(2, 4, 4, 8, 8), torch.zeros(2, 1, 4, 8, 8)], dim=1).flatten(0, 1)
        text = on[name].tensors["embedding"][:1].expand(10, -1, -1)
        t = looking.schedule.timestep(torch.tensor([0.3, 0.7]).repeat_interleave(5))
        with torch.no_grad():
            told = {"ip": shown * features.expand(10, -1, -1), "last": shown * last.expand(2, -1, -1, -1)}
            expected = network(five, t, text, numbers, 5, **told).view(2, 5, 4, 8, 8)[:, :4].flatten(0, 1)
            assert torch.allclose(looking.denoise(latents(), T, on[name]), expected, atol=1e-4), name
    assert on["visual"] is on["text"]


@pytest.mark.parametrize("name", ["prior", "looking"])
def test_half_precision_keeps_the_callers_dtype(name: str, request: pytest.FixtureRequest) -> None:
    full = request.getfixturevalue(name)
    half = MVDream(model=full.model, opening=Opening(image_size=16, half=True), image=full.image)
    views = turntable(8, 16)
    with torch.no_grad():
        eps, expected = (p.denoise(latents(), T, p.conditions(BEAR, views)["text"]) for p in (half, full))
    assert {p.dtype for p in half.parameters()} == {torch.float16} and eps.dtype == torch.float32
    assert torch.allclose(eps, expected, atol=0.02 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["prior", "looking"])
def test_a_low_rank_critic_starts_as_the_prior(name: str, request: pytest.FixtureRequest) -> None:
    each, critic, cameras = request.getfixturevalue(name), LoRA(), turntable(8, 16)
    critic.attach(each)
    made = critic.watch(each.conditions(BEAR, cameras), cameras)
    with torch.no_grad():
        for camera, same in ((True, "text"), (False, "no_camera")):
            (answer,) = critic.eps([Query(latents(), T, critic.on(made, camera=camera))])
            assert torch.allclose(answer, each.denoise(latents(), T, made[same]), atol=1e-6)
    assert any("attn1" in weight for weight in critic.weights) and any("attn2" in weight for weight in critic.weights)


def test_a_picture_and_a_network_that_looks_belong_together(prior: MVDream, looking: MVDream) -> None:
    with pytest.raises(InputError, match="needs a picture: give image"):
        MVDream(model=looking.model).load()
    with pytest.raises(InputError, match="leave image out"):
        MVDream(model=prior.model, image="bear.png").load()
    with pytest.raises(InputError, match="bear.png' cannot be read; expected a PNG"):
        MVDream(model=looking.model, image="bear.png").load()


def test_misuse_is_one_line(prior: MVDream, looking: MVDream, tiny_stable_diffusion: Callable) -> None:
    on = prior.conditions(BEAR, turntable(3, 16))["text"]
    with pytest.raises(InputError, match="multiple of the prior's 4 views .got 3."):
        prior.denoise(latents()[:3], T[:3], on)
    with pytest.raises(MissingError, match="MVDream opens MVDream and ImageDream. Take StableDiffusion for it"):
        MVDream(model=str(tiny_stable_diffusion())).load()
    with pytest.raises(InputError, match="IPAdapter: MVDream .tiny. has a picture in its network"):
        IPAdapter(of=looking, model="a/b", image="a.png").load()
    assert MVDream(model="owner/name").image_size == 256
