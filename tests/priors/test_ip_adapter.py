from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dream3d.cameras import turntable
from dream3d.checks import InputError, MissingError
from dream3d.guidance import CFG, VPCSM
from dream3d.guidance.base import guided
from dream3d.guidance.noise import FreshNoise
from dream3d.priors import ControlNet, FullCopy, IPAdapter, LoRA, Opening, Query, StableDiffusion
from dream3d.priors.picture import clip_pixels, read_picture
from dream3d.prompts import Prompt
from tests.tiny_pipelines import unet
from tests.tiny_seeing import WIDTH, Resampler, write_ip_adapter

BEAR = Prompt("a teddy bear", negative="blurry")
T = torch.tensor([0.3, 0.7])


@pytest.fixture(scope="module")
def bare(tiny_stable_diffusion: Callable[..., Path]) -> StableDiffusion:
    return StableDiffusion(model=str(tiny_stable_diffusion()))


@pytest.fixture(scope="module")
def shown(bare: StableDiffusion, tiny_ip_adapter: Path, tiny_picture: Path) -> IPAdapter:
    return IPAdapter(of=bare, model=str(tiny_ip_adapter), image=str(tiny_picture), strength=0.6)


def latents(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def split(folder: Path, name: str) -> dict[str, dict[str, Tensor]]:
    tensors = load_file(folder / f"{name}_sd15.safetensors")
    kinds = ("image_proj", "ip_adapter")
    return {kind: {n.partition(".")[2]: t for n, t in tensors.items() if n.startswith(kind)} for kind in kinds}


@pytest.mark.parametrize("plus", [False, True], ids=["plain", "plus"])
def test_it_answers_as_diffusers_own_loader(
    bare: StableDiffusion, tiny_picture: Path, tmp_path: Path, plus: bool
) -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPVisionModelWithProjection

    folder = write_ip_adapter(tmp_path / "models", Path(bare.model), plus=plus)
    name = "ip-adapter-plus" if plus else "ip-adapter"
    prior = IPAdapter(
        of=bare, model=str(tmp_path), image=str(tiny_picture), strength=0.6, file=f"{name}_sd15.safetensors"
    )
    network = UNet2DConditionModel.from_pretrained(Path(bare.model) / "unet")
    network._load_ip_adapter_weights([split(folder, name)], low_cpu_mem_usage=False)
    for processor in network.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.6]
    encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder").eval()
    on = prior.conditions(BEAR, turntable(2, 16))["visual"]
    with torch.no_grad():
        seen = encoder(clip_pixels(read_picture(str(tiny_picture)), 16), output_hidden_states=True)
        features = (seen.hidden_states[-2] if plus else seen.image_embeds)[:, None]
        told = {"image_embeds": [features.expand(2, *features.shape[1:])]}
        t, text = bare.schedule.timestep(T), on.tensors["embedding"]
        expected = network(latents(), t, encoder_hidden_states=text, added_cond_kwargs=told).sample
        assert torch.allclose(prior.denoise(latents(), T, on), expected, atol=1e-5)


def test_a_resampler_s_tokens_are_the_published_code_s(
    bare: StableDiffusion, tiny_picture: Path, tmp_path: Path
) -> None:
    folder = write_ip_adapter(tmp_path / "plus", Path(bare.model), plus=True)
    file = "ip-adapter-plus_sd15.safetensors"
    prior = IPAdapter(of=bare, model=str(folder), image=str(tiny_picture), file=file)
    prior.load()
    from transformers import CLIPVisionModelWithProjection

    encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder").eval()
    resampler = Resampler(WIDTH, WIDTH, 3)
    resampler.load_state_dict(split(folder, "ip-adapter-plus")["image_proj"])
    with torch.no_grad():
        seen = encoder(clip_pixels(read_picture(str(tiny_picture)), 16), output_hidden_states=True)
        assert torch.allclose(prior.tokens, resampler(seen.hidden_states[-2]), atol=1e-5)


def test_only_visual_is_shown_the_picture(shown: IPAdapter, bare: StableDiffusion) -> None:
    views = turntable(2, 16)
    on, plain = shown.conditions(BEAR, views), bare.conditions(BEAR, views)
    assert set(on) == {*plain, "visual"}
    with torch.no_grad():
        for name, condition in plain.items():
            expected = bare.denoise(latents(), T, condition)
            assert torch.equal(shown.denoise(latents(), T, on[name]), expected), name
        seen = shown.denoise(latents(), T, on["visual"])
    assert not torch.allclose(seen, bare.denoise(latents(), T, plain["text"]), atol=1e-3)


def test_strength_0_is_the_bare_prior(bare: StableDiffusion, tiny_ip_adapter: Path, tiny_picture: Path) -> None:
    views = turntable(2, 16)
    off = IPAdapter(of=bare, model=str(tiny_ip_adapter), image=str(tiny_picture), strength=0)
    with torch.no_grad():
        expected = bare.denoise(latents(), T, bare.conditions(BEAR, views)["text"])
        assert torch.equal(off.denoise(latents(), T, off.conditions(BEAR, views)["visual"]), expected)


def test_visual_objectives_and_guiders_use_it(shown: IPAdapter, bare: StableDiffusion) -> None:
    on = shown.conditions(BEAR, turntable(2, 16))
    x = FreshNoise()(shown, latents(), T, on, torch.Generator().manual_seed(0))
    with torch.no_grad():
        visual, text, null = shown.eps(x.ask("visual", "text", "null"))
        residual = VPCSM(scale=7.0, visual_scale=3.0).residual(shown, x)
        (guided_by,) = guided(shown, (CFG(scale=5.0, towards="visual"), x))
    assert torch.allclose(residual, 7 * (text - null) + 3 * (visual - text), atol=1e-4)
    assert torch.allclose(guided_by, null + 5 * (visual - null), atol=1e-4)


def test_around_a_controlnet(
    shown: IPAdapter, bare: StableDiffusion, tiny_controlnet: Path, tiny_picture: Path
) -> None:
    views = turntable(2, 16)
    steered = ControlNet(of=bare, model=str(tiny_controlnet))
    both = IPAdapter(of=steered, model=shown.model, image=str(tiny_picture), strength=0.6)
    other = ControlNet(of=shown, model=str(tiny_controlnet))
    with torch.no_grad():
        answers = [p.denoise(latents(), T, p.conditions(BEAR, views)["visual"]) for p in (both, other)]
        alone = [
            p.denoise(latents(), T, p.conditions(BEAR, views)[n]) for p, n in ((shown, "visual"), (steered, "text"))
        ]
    assert torch.allclose(*answers, atol=1e-6)
    assert not any(torch.allclose(answers[0], one, atol=1e-3) for one in alone)
    with pytest.raises(InputError, match="of is steered by such a picture already"):
        IPAdapter(of=other, model=shown.model, image=str(tiny_picture))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_what_steers_follows_the_steered_network(
    bare: StableDiffusion, tiny_ip_adapter: Path, tiny_controlnet: Path, tiny_picture: Path, dtype: torch.dtype
) -> None:
    def around(of: StableDiffusion) -> IPAdapter:
        steered = ControlNet(of=of, model=str(tiny_controlnet))
        return IPAdapter(of=steered, model=str(tiny_ip_adapter), image=str(tiny_picture))

    half = dtype == torch.float16
    other = around(StableDiffusion(model=bare.model, opening=Opening(half=half)))
    other = other if half else other.double()
    z_t, views = latents().to(torch.float32 if half else dtype), turntable(2, 16)
    with torch.no_grad():
        eps = other.denoise(z_t, T, other.conditions(BEAR, views)["visual"])
        full = around(bare)
        expected = full.denoise(latents(), T, full.conditions(BEAR, views)["visual"])
    assert eps.dtype == z_t.dtype and next(other.backbone().parameters()).dtype == dtype
    assert torch.allclose(eps.float(), expected, atol=0.02 * float(expected.abs().max()) if half else 1e-5)


@pytest.mark.parametrize("critic", [FullCopy(), LoRA()], ids=["FullCopy", "LoRA"])
def test_a_critic_of_it_trains_no_adapter(shown: IPAdapter, critic: FullCopy | LoRA) -> None:
    views = turntable(2, 16)
    critic.attach(shown)
    made = critic.watch(shown.conditions(BEAR, views), views)
    with torch.no_grad():
        (answer,) = critic.eps([Query(latents(), T, critic.on(made))])
        assert torch.allclose(answer, shown.denoise(latents(), T, made["text"]), atol=1e-6)
    assert not any("_ip" in name for name, _ in critic.named_parameters())


def test_misuse_is_one_line(bare: StableDiffusion, tiny_ip_adapter: Path, tiny_picture: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image is empty"):
        IPAdapter(of=bare, model=str(tiny_ip_adapter), image="")
    with pytest.raises(InputError, match="none.png' cannot be read"):
        IPAdapter(of=bare, model=str(tiny_ip_adapter), image="none.png").load()
    with pytest.raises(MissingError, match="ip-adapter_sdxl.safetensors is missing. Give its name as file"):
        IPAdapter(of=bare, model=str(tiny_ip_adapter), image="a.png", file="ip-adapter_sdxl.safetensors").load()
    unet(block_out_channels=(8, 24)).save_pretrained(tmp_path / "sd" / "unet")
    other = write_ip_adapter(tmp_path / "other", tmp_path / "sd")
    with pytest.raises(InputError, match="was made for another network than Stable Diffusion .tiny."):
        IPAdapter(of=bare, model=str(other), image=str(tiny_picture)).load()
