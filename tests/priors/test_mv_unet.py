"""Against the published network's arithmetic and names, written down once more in `tiny_seeing`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dream3d.checks import MissingError
from dream3d.priors import mv_unet
from dream3d.priors.opened import Part, open_networks
from tests.tiny_seeing import MVDREAM, TINY, MultiViewUNetModel, random_network

LOOKS = {**MVDREAM, "ip_dim": 16, "ip_weight": 1.0}
COUNTS = {"mvdream": (MVDREAM, 867_572_164), "imagedream": (LOOKS, 941_672_900)}
"""Stable Diffusion 2.1's 865,910,724 and the camera's two maps; ImageDream's resampler and second attentions."""


@pytest.mark.parametrize(("config", "count"), COUNTS.values(), ids=COUNTS)
def test_every_published_tensor_finds_its_place(config: dict, count: int) -> None:
    with torch.device("meta"):
        published = MultiViewUNetModel(config).state_dict()
        unet = mv_unet.build(config, 4)
    renamed = mv_unet.renamed(published, config["num_res_blocks"])
    wanted = unet.state_dict()
    assert {n: t.shape for n, t in renamed.items()} == {n: t.shape for n, t in wanted.items()}
    assert sum(p.numel() for p in unet.parameters()) == count == sum(t.numel() for t in published.values())


def test_names_are_the_latent_diffusion_ones() -> None:
    """What diffusers' own converter of single-file checkpoints makes of the same names."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    with torch.device("meta"):
        published = MultiViewUNetModel(MVDREAM).state_dict()
    ours = mv_unet.renamed(published, 2)
    single = {f"model.diffusion_model.{name}": t for name, t in published.items() if "camera" not in name}
    theirs = convert_ldm_unet_checkpoint(single, {"layers_per_block": 2})
    assert len(theirs) == 686 and {n: t.shape for n, t in ours.items() if "camera" not in n} == {
        n: t.shape for n, t in theirs.items()
    }


@pytest.fixture(scope="module", params=[0, 3], ids=["mvdream", "imagedream"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[MultiViewUNetModel, Path]:
    torch.manual_seed(0)
    network = random_network({**TINY, "ip_dim": request.param, "picture_features": 16})
    folder = tmp_path_factory.mktemp("mv") / "unet"
    network.save_pretrained(folder)
    return network, folder


def opened(folder: Path) -> Any:
    parts = {"unet": Part(("MultiViewUNetModel",), "dream3d.priors.mv_unet")}
    return open_networks("tiny", folder.parent, parts, None, torch.float32)["unet"]


def test_it_computes_the_same(pair: tuple[MultiViewUNetModel, Path]) -> None:
    network, folder = pair
    ours, frames = opened(folder), 5 if network.config["ip_dim"] else 4
    x, t = torch.randn(2 * frames, 4, 8, 8), torch.tensor([20, 700]).repeat_interleave(frames)
    text, camera = torch.randn(2 * frames, 7, 16), torch.randn(2 * frames, 16)
    told, shown = {}, {}
    if frames == 5:
        features, last = torch.randn(2, 6, 16).repeat_interleave(5, dim=0), torch.randn(2, 4, 8, 8)
        x[4::5] = last
        told, shown = {"ip": features, "last": last}, {"added_cond_kwargs": {"image_embeds": [features[:, None]]}}
    for seen in (1.0, 0.0):
        labels = torch.cat([camera, torch.full((len(x), 1), seen)], dim=1)
        with torch.no_grad():
            expected = network(x, t, text, camera if seen else None, frames, **told)
            answer = ours(x, t, text, class_labels=labels, **shown).sample
        assert float(expected.std()) > 0.1
        assert torch.allclose(answer, expected, atol=2e-5 * float(expected.abs().max()))


def test_a_file_with_other_tensors_is_refused(pair: tuple[MultiViewUNetModel, Path], tmp_path: Path) -> None:
    source = pair[1]
    tensors = load_file(source / "diffusion_pytorch_model.safetensors")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_bytes((source / "config.json").read_bytes())
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({**tensors, "stranger.weight": torch.zeros(1)}, file)
    with pytest.raises(MissingError, match="does not name: stranger.weight"):
        opened(tmp_path / "unet")
    del tensors["out.2.bias"]
    save_file(tensors, file)
    with pytest.raises(MissingError, match="lacks 1 tensors .conv_out.bias"):
        opened(tmp_path / "unet")


def test_other_networks_are_refused() -> None:
    for change, why in (({"resblock_updown": True}, "resblock_updown"), ({"model_channels": None}, "not MVDream's")):
        with pytest.raises(MissingError, match=why):
            mv_unet.build({**TINY, **change}, 4)
