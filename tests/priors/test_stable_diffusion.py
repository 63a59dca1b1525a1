"""A Stable Diffusion of a few thousand random weights, opened as a user would open a real one."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dream3d.cameras import orbit, turntable
from dream3d.checks import MissingError
from dream3d.priors import Condition, Opening, Query, StableDiffusion
from dream3d.prompts import Prompt

BEAR = Prompt("a teddy bear", negative="blurry")


@pytest.fixture(scope="module")
def prior(tiny_stable_diffusion) -> StableDiffusion:
    return StableDiffusion(model=str(tiny_stable_diffusion()))


@pytest.fixture
def folder(tiny_stable_diffusion, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_stable_diffusion(), tmp_path / "copy"))


def latents(seed: int, batch: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 4, 8, 8, generator=generator, dtype=torch.float64).to(dtype)


def pictures(seed: int, batch: int = 1, size: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, size, size, generator=generator, dtype=torch.float64).to(dtype)


# Loading


def test_constructing_reads_no_weights(tiny_stable_diffusion) -> None:
    prior = StableDiffusion(model=str(tiny_stable_diffusion()))
    assert prior.image_size == 16 and prior.views == 1
    assert not list(prior.parameters())
    prior.load()
    assert list(prior.parameters())


def test_network_is_frozen_and_stays_in_evaluation_mode(prior: StableDiffusion) -> None:
    prior.load()
    prior.train()
    assert not any(p.requires_grad for p in prior.parameters())
    assert not any(m.training for m in prior.modules())


def test_moving_before_or_after_loading_gives_the_same(tiny_stable_diffusion) -> None:
    early = StableDiffusion(model=str(tiny_stable_diffusion())).double()
    late = StableDiffusion(model=str(tiny_stable_diffusion()))
    late.load()
    late.double()
    z = early.encode(pictures(0, dtype=torch.float64))
    assert z.dtype == torch.float64
    assert torch.equal(z, late.encode(pictures(0, dtype=torch.float64)))


def test_half_precision_keeps_the_callers_dtype(tiny_stable_diffusion, prior: StableDiffusion) -> None:
    half = StableDiffusion(model=str(tiny_stable_diffusion()), opening=Opening(half=True))
    images = pictures(1).requires_grad_()
    z = half.encode(images)
    (gradient,) = torch.autograd.grad(z.square().sum(), images)
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    assert z.dtype == gradient.dtype == torch.float32 and bool(gradient.isfinite().all())
    on = half.conditions(BEAR, turntable(2, 16))["text"]
    eps = half.denoise(latents(0), torch.tensor([0.3, 0.7]), on)
    full = prior.denoise(latents(0), torch.tensor([0.3, 0.7]), on)
    assert eps.dtype == torch.float32
    assert torch.allclose(eps, full, atol=0.02)


def test_card_names_the_licence_of_the_folder(prior: StableDiffusion) -> None:
    card = prior.card()
    assert card.licence == "creativeml-openrail-m"
    assert card.name == "Stable Diffusion (tiny)"
    assert card.source == "a local folder", "a path of somebody's disk must not travel in the asset"
    assert StableDiffusion(model="owner/name", opening=Opening(revision="v2")).card().source == "owner/name@v2"


def test_fp16_files_serve_when_they_are_alone(folder: Path, prior: StableDiffusion) -> None:
    for weights in folder.glob("*/*.safetensors"):
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    found = StableDiffusion(model=str(folder))
    assert torch.equal(found.encode(pictures(0)), prior.encode(pictures(0)))
    with pytest.raises(MissingError, match=r"unet/diffusion_pytorch_model.bf16.safetensors is missing"):
        StableDiffusion(model=str(folder), opening=Opening(variant="bf16")).load()


# Pictures and latents


def test_encode_is_the_scaled_posterior_mean(prior: StableDiffusion, tiny_stable_diffusion) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(tiny_stable_diffusion() / "vae")
    with torch.no_grad():
        expected = vae.encode(pictures(2) * 2 - 1).latent_dist.mode() * 0.18215
    assert torch.equal(prior.encode(pictures(2)), expected)
    assert prior.decode(expected).shape == (1, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(prior.decode(expected), vae.decode(expected / 0.18215).sample / 2 + 0.5, atol=1e-6)


@pytest.mark.parametrize("size", [9, 16, 40])
def test_encode_takes_any_size(prior: StableDiffusion, size: int) -> None:
    images = pictures(3, size=size).requires_grad_()
    z = prior.encode(images)
    (gradient,) = torch.autograd.grad(z.sum(), images)
    assert z.shape == (1, 4, 8, 8)
    assert bool(gradient.isfinite().all()) and float(gradient.abs().min()) >= 0 and float(gradient.abs().sum()) > 0


def test_encode_gradient_matches_finite_differences(tiny_stable_diffusion) -> None:
    prior = StableDiffusion(model=str(tiny_stable_diffusion())).double()
    images = pictures(4, dtype=torch.float64).requires_grad_()
    push, along = latents(5, 1, torch.float64), pictures(6, dtype=torch.float64) - 0.5
    (gradient,) = torch.autograd.grad((prior.encode(images) * push).sum(), images)
    step = 1e-5
    with torch.no_grad():
        ahead, behind = (prior.encode(images + sign * step * along) for sign in (1, -1))
    numeric = ((ahead - behind) * push).sum() / (2 * step)
    analytic = (gradient * along).sum()
    assert abs(analytic) > 1e-4
    assert torch.allclose(analytic, numeric, rtol=1e-7)


def test_low_memory_changes_no_gradient(tiny_stable_diffusion) -> None:
    gradients = []
    for low in (False, True):
        prior = StableDiffusion(model=str(tiny_stable_diffusion()), opening=Opening(low_memory=low)).double()
        images = pictures(7, batch=3, dtype=torch.float64).requires_grad_()
        (gradient,) = torch.autograd.grad(prior.encode(images).square().sum(), images)
        gradients.append(gradient)
    assert torch.allclose(*gradients, rtol=1e-10, atol=1e-14)


# Predictions


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_denoise_agrees_with_the_scheduler(tiny_stable_diffusion, kind: str, zero_snr: bool) -> None:
    from diffusers import DDPMScheduler, UNet2DConditionModel

    folder = tiny_stable_diffusion(prediction_type=kind, rescale_betas_zero_snr=zero_snr)
    prior = StableDiffusion(model=str(folder))
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    on = prior.conditions(BEAR, turntable(1, 16))["text"]
    for level in (20, 500, 980):
        z_t, t = latents(level, 1), torch.tensor([level / 1000])
        with torch.no_grad():
            output = unet(z_t, level, encoder_hidden_states=on.tensors["embedding"]).sample
        clean = scheduler.step(output, level, z_t).pred_original_sample
        eps = prior.denoise(z_t, t, on)
        abar = scheduler.alphas_cumprod[level]
        assert torch.allclose(eps, (z_t - abar.sqrt() * clean) / (1 - abar).sqrt(), atol=2e-4)
        if kind == "epsilon":
            assert torch.equal(eps, output)
        if kind == "v_prediction":
            assert torch.allclose(eps, abar.sqrt() * output + (1 - abar).sqrt() * z_t, atol=1e-5)


def test_schedule_is_the_schedulers(tiny_stable_diffusion) -> None:
    from diffusers import DDPMScheduler

    for settings in ({}, {"beta_schedule": "linear", "num_train_timesteps": 500}, {"rescale_betas_zero_snr": True}):
        folder = tiny_stable_diffusion(**settings)
        schedule = StableDiffusion(model=str(folder)).schedule
        scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
        steps = len(scheduler.alphas_cumprod)
        levels = torch.tensor([0, 1, steps // 2, steps - 1])
        z, eps = latents(0, 4), latents(1, 4)
        noised = schedule.noised(z, eps, levels / steps)
        assert torch.equal(schedule.timestep(levels / steps), levels)
        assert torch.allclose(noised, scheduler.add_noise(z, eps, levels), atol=1e-6)


def test_one_batched_call_equals_single_calls(prior: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    on = prior.conditions(BEAR, turntable(2, 16))
    t = torch.tensor([0.2, 0.6])
    queries = [Query(latents(i), t, on[name]) for i, name in enumerate(("text", "null", "negative"))]
    singles = [prior.eps([q])[0] for q in queries]
    calls: list[int] = []
    unet = prior._networks.unet
    forward = unet.forward
    monkeypatch.setattr(unet, "forward", lambda z, *a, **k: calls.append(len(z)) or forward(z, *a, **k))
    for batched, single in zip(prior.eps(queries), singles, strict=True):
        assert torch.allclose(batched, single, atol=1e-5)
    assert calls == [6]


# Texts


def embedding(conditions: dict[str, Condition], name: str) -> Tensor:
    return conditions[name].tensors["embedding"]


def test_embeddings_are_the_pipelines(prior: StableDiffusion, tiny_stable_diffusion) -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(
        tiny_stable_diffusion(), safety_checker=None, feature_extractor=None, local_files_only=True
    )
    front = turntable(1, 16, elevation_deg=0)
    made = prior.conditions(BEAR, front)
    texts = {"text": "a teddy bear, front view", "plain": "a teddy bear", "null": "", "negative": "blurry"}
    for name, text in texts.items():
        expected, _ = pipe.encode_prompt(text, "cpu", 1, False)
        assert torch.equal(embedding(made, name), expected), name


def test_text_is_interpolated_between_views(prior: StableDiffusion) -> None:
    angles = torch.tensor([0.0, torch.pi / 4, torch.pi / 2, torch.pi])
    one = torch.ones(4)
    views = embedding(prior.conditions(BEAR, orbit(angles, 0 * one, 2 * one, one, 16, 16)), "text")
    assert torch.allclose(views[1], (views[0] + views[2]) / 2, atol=1e-5)
    assert not torch.allclose(views[0], views[3], atol=1e-3)


def test_empty_negative_is_null(prior: StableDiffusion) -> None:
    made = prior.conditions(Prompt("a chair"), turntable(3, 16))
    assert torch.equal(embedding(made, "negative"), embedding(made, "null"))
    assert all(len(c.tensors["embedding"]) == 3 for c in made.values())


def test_a_text_is_embedded_once(tiny_stable_diffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = StableDiffusion(model=str(tiny_stable_diffusion()))
    prior.load()
    asked: list[str] = []
    embed = prior._networks.embed
    monkeypatch.setattr(prior._networks, "embed", lambda text: asked.append(text) or embed(text))
    for _ in range(3):
        prior.conditions(BEAR, turntable(4, 16))
    assert len(asked) == len(set(asked)) == 7


def test_a_cut_prompt_is_said(prior: StableDiffusion) -> None:
    with pytest.warns(UserWarning, match=r"text encoder reads 77.*cut") as caught:
        prior.conditions(Prompt("bear " * 40), turntable(1, 16))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior.conditions(Prompt("bear " * 40), turntable(1, 16))


def test_files_of_2022_open(folder: Path, prior: StableDiffusion) -> None:
    """The published checkpoints name some tensors otherwise than today's libraries do, and carry one more."""
    from safetensors.torch import load_file, save_file

    text = folder / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in load_file(text).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, text, metadata={"format": "pt"})
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in load_file(vae).items():
        for today, then in old.items():
            name = name.replace(f"attentions.0.{today}.", f"attentions.0.{then}.")
        tensors[name] = tensor
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, vae, metadata={"format": "pt"})
    opened = StableDiffusion(model=str(folder))
    assert torch.equal(opened.encode(pictures(8)), prior.encode(pictures(8)))
    views = turntable(2, 16)
    assert torch.equal(*(embedding(p.conditions(BEAR, views), "text") for p in (opened, prior)))


@pytest.mark.cuda
def test_cuda_is_half_by_default_and_agrees(tiny_stable_diffusion, prior: StableDiffusion) -> None:
    moved = StableDiffusion(model=str(tiny_stable_diffusion())).cuda()
    images = pictures(9, 2).cuda().requires_grad_()
    z = moved.encode(images)
    (gradient,) = torch.autograd.grad(z.square().sum(), images)
    assert {p.dtype for p in moved.parameters()} == {torch.float16}
    assert z.is_cuda and z.dtype == gradient.dtype == torch.float32 and bool(gradient.isfinite().all())
    assert torch.allclose(z.cpu(), prior.encode(pictures(9, 2)), atol=5e-3)
    on, t = moved.conditions(BEAR, turntable(2, 16).to("cuda"))["text"], torch.tensor([0.3, 0.7])
    eps = moved.denoise(latents(0).cuda(), t.cuda(), on)
    expected = prior.denoise(latents(0), t, prior.conditions(BEAR, turntable(2, 16))["text"])
    assert torch.allclose(eps.cpu(), expected, atol=0.03)
