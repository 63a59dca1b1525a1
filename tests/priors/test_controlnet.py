from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from dream3d.cameras import OrbitCameras, orbit, turntable
from dream3d.checks import InputError, MissingError
from dream3d.guidance import CFG, SDS, FreshNoise, MultiViewSDS
from dream3d.priors import ControlNet, FullCopy, Gaussian, LoRA, Prior, Query, StableDiffusion
from dream3d.priors.controlnet import Hint, depth_hint, normal_hint
from dream3d.prompts import Prompt
from dream3d.renderers import March
from dream3d.representations import Field
from dream3d.stage import Stage, StageModule
from dream3d.types import Render
from tests.tiny_pipelines import unet
from tests.tiny_seeing import write_controlnet

BEAR = Prompt("a teddy bear", negative="blurry")
T = torch.tensor([0.3, 0.7])


@pytest.fixture(scope="module")
def bare(tiny_stable_diffusion: Callable[..., Path]) -> StableDiffusion:
    return StableDiffusion(model=str(tiny_stable_diffusion()))


@pytest.fixture(scope="module")
def steered(bare: StableDiffusion, tiny_controlnet: Path) -> ControlNet:
    return ControlNet(of=bare, model=str(tiny_controlnet), strength=0.7)


def latents(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def scene() -> Render:
    """Two pictures of 4 x 4 pixels: the left half covered, at 2 and 4 metres."""
    alpha = torch.zeros(2, 4, 4, 1)
    alpha[:, :, :2] = 1
    depth = 2 * alpha
    depth[:, :, 1] = 4
    return Render(alpha.expand(-1, -1, -1, 3), alpha, depth, torch.nn.functional.pad(alpha, (0, 2)))


def test_it_answers_as_diffusers_put_together(
    steered: ControlNet, bare: StableDiffusion, tiny_controlnet: Path
) -> None:
    from diffusers import ControlNetModel, UNet2DConditionModel

    network = UNet2DConditionModel.from_pretrained(Path(bare.model) / "unet")
    side = ControlNetModel.from_pretrained(tiny_controlnet)
    views = turntable(2, 16)
    on = steered.hinted(steered.conditions(BEAR, views), scene(), views)
    hint, t = on["text"].tensors["depth hint"], bare.schedule.timestep(T)
    assert hint.shape == (2, 3, 16, 16) and float(hint.max()) == 1
    for name in ("text", "null", "negative"):
        text = on[name].tensors["embedding"]
        with torch.no_grad():
            down, middle = side(latents(), t, text, hint, conditioning_scale=0.7, return_dict=False)
            added = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            expected = network(latents(), t, encoder_hidden_states=text, **added).sample
            assert torch.allclose(steered.denoise(latents(), T, on[name]), expected, atol=1e-6), name
        assert torch.equal(on[name].tensors["depth hint"], hint)


def test_hints_matter_and_strength_0_is_the_bare_prior(
    steered: ControlNet, bare: StableDiffusion, tiny_controlnet: Path
) -> None:
    views = turntable(2, 16)
    on = steered.conditions(BEAR, views)
    plain = bare.conditions(BEAR, views)
    off = ControlNet(of=bare, model=str(tiny_controlnet), strength=0)
    with torch.no_grad():
        without = steered.denoise(latents(), T, on["text"])
        expected = bare.denoise(latents(), T, plain["text"])
        hinted = steered.denoise(latents(), T, steered.hinted(on, scene(), views)["text"])
        assert torch.equal(off.denoise(latents(), T, off.conditions(BEAR, views)["text"]), expected)
        assert torch.equal(bare.denoise(latents(), T, plain["text"]), expected), "the bare prior stays as it was"
    assert not torch.allclose(without, hinted, atol=1e-3) and not torch.allclose(without, expected, atol=1e-3)


def test_a_step_is_one_call_of_each_network(steered: ControlNet, monkeypatch: pytest.MonkeyPatch) -> None:
    on = steered.conditions(BEAR, turntable(2, 16))
    calls: list[tuple[str, int]] = []
    for name, network in (("unet", steered.backbone()), ("side", steered.side)):

        def counted(
            z: Tensor, *a: object, forward: Callable = network.forward, name: str = name, **k: object
        ) -> object:
            calls.append((name, len(z)))
            return forward(z, *a, **k)

        monkeypatch.setattr(network, "forward", counted)
    with torch.no_grad():
        steered.eps([Query(latents(i), T, on[name]) for i, name in enumerate(("text", "null", "negative"))])
    assert sorted(calls) == [("side", 6), ("unet", 6)]


def test_two_add_up(steered: ControlNet, bare: StableDiffusion, tiny_controlnet: Path) -> None:
    views = turntable(2, 16)
    both = ControlNet(of=steered, model=str(tiny_controlnet), hint="normal", strength=0.2)
    assert both.needs_normals
    on = both.hinted(both.conditions(BEAR, views), scene(), views)["text"]
    text, t = on.tensors["embedding"], bare.schedule.timestep(T)
    with torch.no_grad():
        parts = [
            both.side(latents(), t, text, on.tensors[hint], conditioning_scale=scale, return_dict=False)
            for hint, scale in (("normal hint", 0.2), ("depth hint", 0.7))
        ]
        (down, middle), (more, further) = parts
        added = {"down_block_additional_residuals": tuple(a + b for a, b in zip(down, more, strict=True))}
        added["mid_block_additional_residual"] = middle + further
        network = both.backbone()
        expected = network(latents(), t, encoder_hidden_states=text, **added).sample
        assert torch.allclose(both.denoise(latents(), T, on), expected, atol=1e-6)
    with pytest.raises(InputError, match="ControlNet: of is steered by such a depth hint already"):
        ControlNet(of=both, model=str(tiny_controlnet))


@pytest.mark.parametrize("critic", [FullCopy(), LoRA()], ids=["FullCopy", "LoRA"])
def test_a_critic_starts_as_the_steered_prior(steered: ControlNet, critic: FullCopy | LoRA) -> None:
    views = turntable(2, 16)
    critic.attach(steered)
    made = critic.watch(steered.hinted(steered.conditions(BEAR, views), scene(), views), views)
    with torch.no_grad():
        (answer,) = critic.eps([Query(latents(), T, critic.on(made))])
        assert torch.allclose(answer, steered.denoise(latents(), T, made["text"]), atol=1e-6)


@pytest.mark.parametrize("hint", ["depth", "normal"])
def test_a_step_of_training_draws_the_hint(bare: StableDiffusion, tiny_controlnet: Path, hint: Hint) -> None:
    def pushed(prior: Prior) -> Tensor:
        stage = Stage(
            representation=lambda start: Field(start, levels=2, log2_table=8, finest=16),
            renderer=March(samples=8),
            prior=prior,
            objective=SDS(guider=CFG(scale=2.0)),
            cameras=OrbitCameras(size=16),
            batch=2,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = StageModule(stage, BEAR, stage.representation(None), seed=0)
        module.loss(5).backward()
        assert module._noised is not None
        drawn.append(module._noised.conditions["text"].tensors.get(f"{hint} hint"))
        return torch.cat([p.grad.flatten() for p in module.representation.parameters() if p.grad is not None])

    drawn: list[Tensor | None] = []
    priors = [bare, *(ControlNet(of=bare, model=str(tiny_controlnet), hint=hint, strength=s) for s in (0.0, 1.0))]
    alone, off, on = (pushed(prior) for prior in priors)
    assert drawn[0] is None and drawn[2] is not None and float(drawn[2].std()) > 0
    assert torch.equal(alone, off) and not torch.allclose(alone, on, rtol=1e-2)


def test_hints_of_a_grid_are_a_grid(bare: StableDiffusion, tiny_controlnet: Path) -> None:
    """BoostDream: several views in one picture, steered by the same grid of hints."""
    prior, views = ControlNet(of=bare, model=str(tiny_controlnet)), turntable(4, 16)
    four = Render(*(torch.cat([x, x]) for x in (scene().rgb, scene().alpha, cast(Tensor, scene().depth))))
    on = prior.hinted(prior.conditions(BEAR, views), four, views)
    asked: list[Tensor] = []
    handle = prior.side.register_forward_pre_hook(lambda _, a, k: asked.append(k["controlnet_cond"]), with_kwargs=True)
    z = torch.cat([latents(), latents(1)])
    x = FreshNoise()(prior, z, torch.full((4,), 0.5), on, torch.Generator().manual_seed(0))
    with torch.no_grad():
        MultiViewSDS().residual(prior, x)
    handle.remove()
    hint = on["text"].tensors["depth hint"]
    assert torch.equal(asked[0][0, :, :16, 16:], hint[1]) and torch.equal(asked[0][0, :, 16:, :16], hint[2])


def test_depth_is_inverse_and_near_is_white() -> None:
    hint = depth_hint(scene())
    assert torch.equal(hint[:, :, :, 0], torch.ones(2, 3, 4)) and torch.equal(
        hint[:, :, :, 2:], torch.zeros(2, 3, 4, 2)
    )
    assert torch.allclose(hint[:, :, :, 1], torch.tensor(0.5))
    empty = Render(torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4, 1), torch.zeros(1, 4, 4, 1))
    assert torch.equal(depth_hint(empty), torch.zeros(1, 3, 4, 4))


def test_normals_are_the_camera_s() -> None:
    """A ball seen from +X: what faces the camera is blue, the top green, the picture's left red."""
    one, angle = torch.ones(1), torch.tensor([math.pi / 2])
    camera = orbit(angle, 0 * one, 2 * one, one, 1, 4)
    towards, up, left, nothing = (1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), (0.0, 0, 0)
    normal = torch.tensor([towards, up, left, nothing]).view(1, 1, 4, 3)
    alpha = torch.tensor([1.0, 1, 1, 0]).view(1, 1, 4, 1)
    hint = normal_hint(Render(normal, alpha, None, normal), camera)[0, :, 0].mT
    expected = torch.tensor([[0.5, 0.5, 1], [0.5, 1, 0.5], [1, 0.5, 0.5], [0.5, 0.5, 1]])
    assert torch.allclose(hint, expected, atol=1e-6)


def test_no_gradient_flows_through_hints() -> None:
    render = scene()
    for tensor in (render.alpha, render.depth, render.normal):
        assert tensor is not None
    alpha, depth = render.alpha.clone().requires_grad_(), (2 * render.alpha).requires_grad_()
    live = Render(render.rgb, alpha, depth, render.normal.clone().requires_grad_())  # type: ignore[union-attr]
    assert not depth_hint(live).requires_grad and not normal_hint(live, turntable(2, 4)).requires_grad


@pytest.mark.usefixtures("as_users_run")
def test_misuse_is_one_line(bare: StableDiffusion, tiny_controlnet: Path, tmp_path: Path) -> None:
    views = turntable(2, 16)
    flat = Render(torch.zeros(2, 4, 4, 3), torch.zeros(2, 4, 4, 1))
    depth = ControlNet(of=bare, model=str(tiny_controlnet))
    normal = ControlNet(of=bare, model=str(tiny_controlnet), hint="normal")
    assert normal.needs_normals and not depth.needs_normals
    for each, why in ((depth, "draws no depth"), (normal, "draws no normals")):
        with pytest.raises(InputError, match=f"{why}. Take March"):
            each.hinted(each.conditions(BEAR, views), flat, views)
    with pytest.raises(InputError, match="Gaussian.* has no U-Net to steer. Give a StableDiffusion as of"):
        ControlNet(of=Gaussian(), model=str(tiny_controlnet)).load()
    with pytest.raises(MissingError, match="config.json is missing"):
        (tmp_path / "empty").mkdir()
        ControlNet(of=bare, model=str(tmp_path / "empty")).load()
    with pytest.raises(InputError, match="'dpth' is not one of depth, normal. Did you mean 'depth'"):
        ControlNet(of=bare, model="a/b", hint="dpth")  # type: ignore[arg-type]
    unet(cross_attention_dim=24).save_pretrained(tmp_path / "sd" / "unet")
    other = write_controlnet(tmp_path / "other", tmp_path / "sd")
    with pytest.raises(InputError, match="made for another network .cross_attention_dim 24, the prior's is 16"):
        ControlNet(of=bare, model=str(other)).load()


def test_the_card_names_both(steered: ControlNet) -> None:
    card = steered.card()
    assert card.name == "Stable Diffusion (tiny) with ControlNet (tiny)"
    assert card.source == "a local folder; a local folder"
    assert card.licence == "creativeml-openrail-m; unknown: see the model card"
