"""What priors from pipeline folders share, on tiny pipelines of every class, against diffusers' own pipelines."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dream3d.priors
from dream3d.cameras import orbit, turntable
from dream3d.checks import InputError, MissingError
from dream3d.priors.known import OPENS
from dream3d.priors.pretrained import FromText, Latent, Pretrained
from dream3d.prompts import Prompt
from tests.tiny_pipelines import told

BEAR = Prompt("A teddy bear", negative="blurry")
FRONT = "A teddy bear, front view"

Open = Callable[..., Any]
Tiny = Callable[..., Path]

PRIORS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "StableDiffusion": ("StableDiffusionPipeline", {}, {}),
    "SDXL": ("StableDiffusionXLPipeline", {}, {}),
    "DeepFloyd": ("IFPipeline", {}, {"clean_caption": False}),
    "SD3": ("StableDiffusion3Pipeline", {"text_tokens": 16}, {"max_sequence_length": 16}),
    "Flux": ("FluxPipeline", {"text_tokens": 16, "image_size": 16}, {"max_sequence_length": 16}),
    "PixArt": (
        "PixArtAlphaPipeline",
        {"image_size": 16},
        {"clean_caption": False, "use_resolution_binning": False},
    ),
}
"""Pipeline, arguments of the prior, and what the pipeline is called with to do the same."""

LATENT = [name for name in PRIORS if issubclass(getattr(dream3d.priors, name), Latent)]


@pytest.fixture(scope="module")
def opened(tiny_pipeline: Tiny) -> Open:
    """`opened("SDXL", half=True)`: a prior of its tiny pipeline."""

    def make(name: str, folder: Path | None = None, **settings: Any) -> Any:
        pipeline, own, _ = PRIORS[name]
        return getattr(dream3d.priors, name)(model=str(folder or tiny_pipeline(pipeline)), **told({**own, **settings}))

    return make


def pictures(prior: Pretrained, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, 3, prior.image_size, prior.image_size, generator=generator)


def front(batch: int = 1) -> Any:
    zero, one = torch.zeros(batch), torch.ones(batch)
    return orbit(zero, zero, 2 * one, one, 16, 16)


def theirs(tiny_pipeline: Tiny, name: str, **settings: Any) -> Any:
    """The pipeline of diffusers itself."""
    import diffusers

    pipeline = PRIORS[name][0]
    unused = {"safety_checker": None, "feature_extractor": None}
    unused |= {"requires_safety_checker": False, "watermarker": None} if name == "DeepFloyd" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = getattr(diffusers, pipeline).from_pretrained(
            tiny_pipeline(pipeline, **settings), **(unused if name in ("StableDiffusion", "DeepFloyd") else {})
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_every_member_is_here(family_members: Callable[[type, str], list[type]]) -> None:
    named = set(OPENS.values())
    assert set(PRIORS) <= named
    assert {cls.__name__ for cls in family_members(FromText, "dream3d.priors")} >= set(PRIORS)


# Answers


@pytest.mark.parametrize("name", PRIORS)
def test_predicts_what_the_pipeline_does(name: str, opened: Open, tiny_pipeline: Tiny) -> None:
    """The first step of the pipeline, and the prior asked the same: texts, sizes, times, output."""
    prior, pipe = opened(name), theirs(tiny_pipeline, name)
    calls: list[tuple[Tensor, Tensor]] = []

    def record(module: Any, args: Any, settings: Any, output: Any) -> None:
        z = args[0] if args else settings["hidden_states"]
        calls.append((z, output[0] if isinstance(output, tuple) else output.sample))

    network = pipe.unet if prior.core == "unet" else pipe.transformer
    network.register_forward_hook(record, with_kwargs=True)
    size = {"height": prior.image_size, "width": prior.image_size, "num_inference_steps": 2}
    negative = {} if name == "Flux" else {"negative_prompt": "blurry"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe(FRONT, guidance_scale=3.5, output_type="pt", **size, **negative, **PRIORS[name][2])
    z, output = calls[0]
    on = prior.conditions(BEAR, front())
    names = ["text"] if name == "Flux" else ["negative", "text"]
    tensors = {k: torch.cat([on[n].tensors[k] for n in names]) for k in on["text"].tensors}
    channels = prior._channels(Path(prior.model)) // getattr(prior, "channels_a_latent", 1)
    if name == "Flux":
        z, output = (pipe._unpack_latents(x, 16, 16, 2) for x in (z, output))
    times = pipe.scheduler.timesteps[:1].expand(len(z))
    with torch.no_grad():
        answer = prior._predict(z, times, tensors)
    assert answer.shape == z.shape == (len(names), channels, 8, 8)
    assert torch.allclose(answer, output[:, :channels], atol=1e-5)


@pytest.mark.parametrize("name", PRIORS)
def test_the_schedule_is_the_pipelines(name: str, opened: Open, tiny_pipeline: Tiny) -> None:
    prior, scheduler = opened(name), theirs(tiny_pipeline, name).scheduler
    z, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    t = torch.tensor([0.25, 0.75])
    if name in ("SD3", "Flux"):
        levels = t.view(-1, 1, 1, 1)
        wanted = levels * noise + (1 - levels) * z
        assert torch.equal(prior.schedule.timestep(t), torch.tensor([250.0, 750.0]))
    else:
        abar = scheduler.alphas_cumprod[[250, 750]].view(-1, 1, 1, 1)
        wanted = abar.sqrt() * z + (1 - abar).sqrt() * noise
        assert torch.equal(prior.schedule.timestep(t), torch.tensor([250, 750]))
    assert torch.allclose(prior.schedule.noised(z, noise, t), wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["SD3", "Flux"])
def test_flow_becomes_noise(name: str, opened: Open) -> None:
    """With velocity v, z_t + (1 - t) v is the noise and z_t - t v the clean latents."""
    prior = opened(name)
    on = prior.conditions(BEAR, front())["text"]
    z_t, t = torch.randn(1, 4, 8, 8), torch.tensor([0.6])
    with torch.no_grad():
        v = prior._predict(z_t, prior.schedule.timestep(t), on.tensors)
        eps = prior.denoise(z_t, t, on)
    assert torch.allclose(eps, z_t + 0.4 * v, atol=1e-6)
    assert torch.allclose(prior.schedule.clean(z_t, eps, t), z_t - 0.6 * v, atol=1e-5)


@pytest.mark.parametrize("name", LATENT)
def test_encode_is_the_scaled_posterior_mean_and_decode_its_inverse(name: str, opened: Open, tiny_pipeline) -> None:
    prior, vae = opened(name), theirs(tiny_pipeline, name).vae
    shift, scale = vae.config.shift_factor or 0.0, vae.config.scaling_factor
    with torch.no_grad():
        wanted = (vae.encode(pictures(prior) * 2 - 1).latent_dist.mode() - shift) * scale
        assert torch.allclose(prior.encode(pictures(prior)), wanted, atol=1e-6)
        assert torch.allclose(prior.decode(wanted), vae.decode(wanted / scale + shift).sample / 2 + 0.5, atol=1e-6)
    assert wanted.shape == (2, 4, 8, 8)


# Devices and memory

HALF = {
    "StableDiffusion": {"unet": torch.float16, "vae": torch.float16, "text_encoder": torch.float16},
    "SDXL": {"unet": torch.float16, "vae": torch.float32, "text_encoder": torch.float16},
    "DeepFloyd": {"unet": torch.float16, "text_encoder": torch.bfloat16},
    "SD3": {"transformer": torch.bfloat16, "vae": torch.float32, "text_encoder_3": torch.bfloat16},
    "Flux": {"transformer": torch.bfloat16, "text_encoder": torch.float16, "text_encoder_2": torch.bfloat16},
    "PixArt": {"transformer": torch.float16, "vae": torch.float32, "text_encoder": torch.bfloat16},
}


@pytest.mark.parametrize("name", PRIORS)
def test_half_precision_is_what_each_network_bears(name: str, opened: Open) -> None:
    half, full = opened(name, half=True), opened(name)
    images = pictures(half).requires_grad_()
    z = half.encode(images)
    (gradient,) = torch.autograd.grad(z.square().sum(), images)
    assert z.dtype == gradient.dtype == torch.float32 and bool(gradient.isfinite().all())
    t, z_t = torch.tensor([0.3, 0.7]), torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answers = [p.denoise(z_t, t, p.conditions(BEAR, turntable(2, 16))["text"]) for p in (half, full)]
    found = {part: next(getattr(half._networks, part).parameters()).dtype for part in HALF[name]}
    assert found == HALF[name]
    assert answers[0].dtype == torch.float32 and torch.allclose(*answers, atol=0.1)


@pytest.mark.parametrize("name", ["SDXL", "SD3", "DeepFloyd"])
def test_guests_answer_alike_and_are_not_moved(name: str, opened: Open) -> None:
    here, guests = opened(name).double(), opened(name, offload=True).double()
    images = pictures(here).double().requires_grad_()
    gradients = [torch.autograd.grad(p.encode(images).square().sum(), images)[0] for p in (here, guests)]
    assert torch.equal(*gradients)
    told = [p.conditions(BEAR, turntable(2, 16))["text"].tensors["embedding"] for p in (here, guests)]
    assert torch.equal(*told)
    kept = {n.partition(".")[2].partition(".")[0] for n, _ in guests.named_parameters()}
    assert kept == {guests.core}


@pytest.mark.cuda
@pytest.mark.parametrize("name", PRIORS)
def test_guests_visit_a_gpu(name: str, opened: Open) -> None:
    """Half precision, and the text encoders and autoencoder on the CPU: the answers of a CPU in float32, nearly."""
    here, there = opened(name), opened(name, offload=True).cuda()
    images = pictures(here)
    moved = images.cuda().requires_grad_()
    z = there.encode(moved)
    (gradient,) = torch.autograd.grad(z.square().sum(), moved)
    assert z.is_cuda and z.dtype == torch.float32 and bool(gradient.isfinite().all())
    assert torch.allclose(z.detach().cpu(), here.encode(images), atol=0.02)
    t, z_t = torch.tensor([0.3, 0.7]), torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = here.denoise(z_t, t, here.conditions(BEAR, turntable(2, 16))["text"])
        found = there.denoise(z_t.cuda(), t.cuda(), there.conditions(BEAR, turntable(2, 16).to("cuda"))["text"])
    assert torch.allclose(found.cpu(), wanted, atol=0.1)
    places = {part: next(getattr(there._networks, part).parameters()).device.type for part in there.parts}
    assert places == {part: "cuda" if part == there.core else "cpu" for part in there.parts}


@pytest.mark.parametrize("name", LATENT)
def test_low_memory_gives_the_same_gradient(name: str, opened: Open) -> None:
    gradients = []
    for low in (False, True):
        prior = opened(name, low_memory=low).double()
        images = pictures(prior).double().requires_grad_()
        (gradient,) = torch.autograd.grad(prior.encode(images).square().sum(), images)
        gradients.append(gradient)
    assert torch.allclose(*gradients, rtol=1e-10, atol=1e-14)


def test_slices_are_for_unets(opened: Open) -> None:
    whole, sliced = opened("SDXL"), opened("SDXL", slices=True)
    z_t, t = torch.randn(1, 4, 8, 8), torch.tensor([0.5])
    with torch.no_grad():
        answers = [p.denoise(z_t, t, p.conditions(BEAR, front())["text"]) for p in (whole, sliced)]
    assert torch.allclose(*answers, atol=1e-5)
    kinds = {type(p).__name__ for p in sliced.backbone().attn_processors.values()}
    assert kinds == {"SlicedAttnProcessor"}
    with pytest.raises(InputError, match="Flux: slices is for U-Nets"):
        opened("Flux", slices=True).load()


# Folders


def copied(tiny_pipeline: Tiny, name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_pipeline(PRIORS[name][0]), tmp_path / "copy"))


@pytest.mark.parametrize("name", PRIORS)
def test_every_missing_file_is_one_line(name: str, opened: Open, tiny_pipeline: Tiny, tmp_path: Path) -> None:
    folder, cls = copied(tiny_pipeline, name, tmp_path), getattr(dream3d.priors, name)
    files = [p for part in cls.parts for p in folder.glob(f"{part}/*")]
    readers = [p for p in folder.glob("tokenizer*/*") if p.name in ("vocab.json", "tokenizer.json")]
    needed = [*files, *readers, folder / "scheduler" / "scheduler_config.json", folder / "model_index.json"]
    assert (
        len(needed)
        == 3 * len(list(folder.glob("text_encoder*"))) + 2 * sum(not part.startswith("text") for part in cls.parts) + 2
    )
    for file in needed:
        hidden = file.rename(tmp_path / "hidden")
        with pytest.raises(MissingError, match=f"{file.name}|{file.parent.name}/") as error:
            opened(name, folder).load()
        assert "\n" not in str(error.value) and error.value.exit_code == 3
        hidden.rename(file)
    opened(name, folder).load()


@pytest.mark.parametrize("name", PRIORS)
def test_a_pipeline_of_another_class_names_what_opens_it(name: str, opened: Open, tiny_pipeline: Tiny) -> None:
    for other in PRIORS:
        if other != name:
            with pytest.raises(MissingError, match=f"; {name} opens .*Take {other} for it.$") as error:
                opened(name, tiny_pipeline(PRIORS[other][0])).load()
            assert "\n" not in str(error.value)


def test_a_network_for_other_inputs_is_refused(opened: Open, tiny_pipeline: Tiny, tmp_path: Path) -> None:
    folder = copied(tiny_pipeline, "DeepFloyd", tmp_path)
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"in_channels": 6}))
    with pytest.raises(MissingError, match="takes 6 channels where its pictures have 3 .*upscaling"):
        opened("DeepFloyd", folder).load()


def test_sizes_hold_whole_patches(opened: Open) -> None:
    with pytest.raises(InputError, match="image_size must be a multiple of 4 .got 18"):
        opened("SD3", image_size=18).load()
    prior = opened("SD3", image_size=12)
    assert prior.encode(pictures(prior)).shape == (2, 4, 6, 6)


def test_only_what_is_needed_is_downloaded(opened: Open) -> None:
    wanted = opened("SDXL", variant="fp16")._patterns()
    assert "text_encoder_2/model.fp16.safetensors" in wanted and "tokenizer_2/*" in wanted
    assert "unet/diffusion_pytorch_model.safetensors.index.fp16.json" in wanted
    assert not any(part in pattern for pattern in wanted for part in ("safety", "onnx", ".bin", "vae_1_0"))


def test_a_tokenizer_that_needs_more_packages_says_so(opened: Open, tiny_pipeline: Tiny, tmp_path: Path, monkeypatch):
    import importlib.util

    folder = copied(tiny_pipeline, "DeepFloyd", tmp_path)
    (folder / "tokenizer" / "tokenizer.json").rename(folder / "tokenizer" / "spiece.model")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="tokenizer/tokenizer.json is missing.*pip install sentencepiece protobuf$"):
        opened("DeepFloyd", folder).load()
