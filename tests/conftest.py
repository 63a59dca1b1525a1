"""Shared by every test: no network, and priors of a few thousand weights."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import math
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

# Before anything imports a hub client: it reads these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import jaxtyping
import pytest
import torch
from beartype import BeartypeConf, beartype

from tests.tiny_pipelines import told, write_pipeline
from tests.tiny_seeing import write_controlnet, write_ip_adapter, write_picture

# The shapes in signatures are checked at run time here: annotations that lie are worse than none. In these packages,
# and before any of them is imported; the checker needs an importable name and takes an int where a float is asked for.
SHAPE_CHECKED = (
    "types", "cameras", "prompts", "lights", "materials", "nn.color", "nn.microfacet", "priors", "guidance",
)  # fmt: skip
_checker = ModuleType("dream3d_test_shapes")
_checker.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]
sys.modules[_checker.__name__] = _checker
jaxtyping.install_import_hook([f"dream3d.{name}" for name in SHAPE_CHECKED], "dream3d_test_shapes.check")

if TYPE_CHECKING:
    from dream3d.evaluation.judge import Judge
    from dream3d.priors.base import Prior

TinyPipeline = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests see an empty hub cache, whatever this machine holds."""
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.getbasetemp() / "huggingface"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def as_users_run() -> Iterator[None]:
    """Without the checks of shapes and types, so that the package's own error lines are reached."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> TinyPipeline:
    """Write a random pipeline of a class in `tiny_pipelines.PIPELINES` and return its folder; latents are 8 x 8.

    Call it with the class and settings of its function there: `tiny_pipeline("FluxPipeline", guided=False)`.
    """
    made: dict[str, Path] = {}

    def write(pipeline: str, **settings: object) -> Path:
        key = json.dumps([pipeline, settings], sort_keys=True)
        if key not in made:
            made[key] = write_pipeline(tmp_path_factory.mktemp(pipeline) / "tiny", pipeline, **settings)
        return made[key]

    return write


@pytest.fixture(scope="session")
def tiny_stable_diffusion(tiny_pipeline: TinyPipeline) -> Callable[..., Path]:
    """Write a random Stable Diffusion and return its folder; pictures are 16 x 16.

    Call it with settings of the scheduler: `tiny_stable_diffusion(prediction_type="v_prediction")`.
    """
    return functools.partial(tiny_pipeline, "StableDiffusionPipeline")


def members(family: type, package: str) -> list[type]:
    """Every concrete class of a family in a package, found by importing all of its files."""
    home = importlib.import_module(package)
    for module in pkgutil.iter_modules(home.__path__):
        importlib.import_module(f"{package}.{module.name}")
    found, queue = set(), [family]
    while queue:
        for child in queue.pop().__subclasses__():
            queue.append(child)
            if child.__module__.startswith("dream3d.") and not inspect.isabstract(child):
                found.add(child)
    return sorted(found, key=lambda c: c.__name__)


def _gaussian(request: pytest.FixtureRequest) -> Prior:
    from dream3d.priors import Gaussian

    return Gaussian()


def _gaussian_flow(request: pytest.FixtureRequest) -> Prior:
    from dream3d.priors import FlowSchedule, Gaussian

    return Gaussian(schedule=FlowSchedule())


def _mixture(request: pytest.FixtureRequest) -> Prior:
    from dream3d.priors import Mixture

    return Mixture(modes={"teddy": (0.6, 0.4, 0.2), "blurry": (0.5, 0.5, 0.5), "bear": (0.3, 0.2, 0.1)})


def _stable_diffusion(kind: str) -> Callable[[pytest.FixtureRequest], Prior]:
    def build(request: pytest.FixtureRequest) -> Prior:
        from dream3d.priors import StableDiffusion

        folder = request.getfixturevalue("tiny_stable_diffusion")(prediction_type=kind)
        return StableDiffusion(model=str(folder))

    return build


def _pretrained(name: str, pipeline: str, **settings: Any) -> Callable[[pytest.FixtureRequest], Prior]:
    def build(request: pytest.FixtureRequest) -> Prior:
        import dream3d.priors

        folder = request.getfixturevalue("tiny_pipeline")(pipeline)
        return getattr(dream3d.priors, name)(model=str(folder), **told(settings))

    return build


@pytest.fixture(scope="session")
def tiny_picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disc on nothing, 20 rows of 16 pixels."""
    return write_picture(tmp_path_factory.mktemp("picture") / "disc.png")


@pytest.fixture(scope="session")
def tiny_controlnet(tmp_path_factory: pytest.TempPathFactory, tiny_stable_diffusion: Callable[..., Path]) -> Path:
    """A ControlNet for `tiny_stable_diffusion`."""
    return write_controlnet(tmp_path_factory.mktemp("controlnet") / "tiny", tiny_stable_diffusion())


@pytest.fixture(scope="session")
def tiny_ip_adapter(tmp_path_factory: pytest.TempPathFactory, tiny_stable_diffusion: Callable[..., Path]) -> Path:
    """An IP-Adapter for `tiny_stable_diffusion`."""
    return write_ip_adapter(tmp_path_factory.mktemp("ip_adapter") / "tiny", tiny_stable_diffusion())


def _seeing(name: str, pipeline: str, *, looks: bool = False, **settings: Any) -> Callable[..., Prior]:
    def build(request: pytest.FixtureRequest) -> Prior:
        import dream3d.priors

        made = request.getfixturevalue("tiny_pipeline")(pipeline, looks=looks)
        seen = {"image": str(request.getfixturevalue("tiny_picture"))} if looks else {}
        return getattr(dream3d.priors, name)(model=str(made), **seen, **told(settings))

    return build


def _controlnet(request: pytest.FixtureRequest) -> Prior:
    from dream3d.priors import ControlNet, StableDiffusion

    of = StableDiffusion(model=str(request.getfixturevalue("tiny_stable_diffusion")()))
    return ControlNet(of=of, model=str(request.getfixturevalue("tiny_controlnet")))


def _ip_adapter(request: pytest.FixtureRequest) -> Prior:
    from dream3d.priors import IPAdapter, StableDiffusion

    of = StableDiffusion(model=str(request.getfixturevalue("tiny_stable_diffusion")()))
    picture = str(request.getfixturevalue("tiny_picture"))
    return IPAdapter(of=of, model=str(request.getfixturevalue("tiny_ip_adapter")), image=picture)


def write_builtin(folder: Path, *, latent: bool = False) -> Path:
    """A built-in prior's folder with random weights: 12 words, 8 numbers a word; of latents with its autoencoder."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

    from dream3d.priors.builtin import RAY_CHANNELS, label_size
    from dream3d.priors.static_text import StaticText

    words = "a teddy bear red chair blurry , . front side back view".split()
    channels, grid = (4, 32) if latent else (48, 16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vectors = torch.nn.functional.normalize(torch.randn(len(words), 8), dim=-1)
        unet = UNet2DConditionModel(
            sample_size=grid,
            in_channels=channels + RAY_CHANNELS,
            out_channels=channels,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=8,
            attention_head_dim=2,
            norm_num_groups=4,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=label_size(8),
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            norm_num_groups=4,
            sample_size=128,
        )
    unet.save_pretrained(folder / "unet")
    if latent:
        vae.save_pretrained(folder / "vae")
    StaticText(words, vectors, torch.ones(len(words))).save(folder / "text")
    DDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True).save_pretrained(folder / "scheduler")
    (folder / "card.json").write_text(json.dumps({"name": "tiny", "source": "random", "licence": "Apache-2.0"}))
    return folder


@pytest.fixture(scope="session")
def tiny_builtin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a built-in prior of pictures, one view or several."""
    return write_builtin(tmp_path_factory.mktemp("builtin"))


@pytest.fixture(scope="session")
def tiny_builtin_latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_builtin(tmp_path_factory.mktemp("builtin"), latent=True)


def _builtin(request: pytest.FixtureRequest) -> Prior:
    from dream3d.priors import Builtin

    return Builtin(folder=str(request.getfixturevalue("tiny_builtin")))


def _builtin_mv(request: pytest.FixtureRequest) -> Prior:
    from dream3d.priors import BuiltinMV

    return BuiltinMV(folder=str(request.getfixturevalue("tiny_builtin")))


def _builtin_latent(request: pytest.FixtureRequest) -> Prior:
    from dream3d.priors import BuiltinLatent

    return BuiltinLatent(folder=str(request.getfixturevalue("tiny_builtin_latent")))


# Every prior that opens without a network. A new class of `dream3d.priors` needs a line here: test_family.py says so.
PRIORS: dict[str, Callable[[pytest.FixtureRequest], Prior]] = {
    "builtin": _builtin,
    "builtin_mv": _builtin_mv,
    "builtin_latent": _builtin_latent,
    "controlnet": _controlnet,
    "deepfloyd": _pretrained("DeepFloyd", "IFPipeline"),
    "flux": _pretrained("Flux", "FluxPipeline", image_size=16, text_tokens=16),
    "gaussian": _gaussian,
    "gaussian_flow": _gaussian_flow,
    "imagedream": _seeing("MVDream", "MVDreamPipeline", image_size=16, looks=True),
    "ip_adapter": _ip_adapter,
    "mixture": _mixture,
    "mvdream": _seeing("MVDream", "MVDreamPipeline", image_size=16),
    "pixart": _pretrained("PixArt", "PixArtAlphaPipeline", image_size=16),
    "sd3": _pretrained("SD3", "StableDiffusion3Pipeline", text_tokens=16),
    "sdxl": _pretrained("SDXL", "StableDiffusionXLPipeline"),
    "stable_diffusion_eps": _stable_diffusion("epsilon"),
    "stable_diffusion_v": _stable_diffusion("v_prediction"),
    "stable_diffusion_x0": _stable_diffusion("sample"),
    "zero123": _seeing("Zero123", "Zero123Pipeline", looks=True),
}


@pytest.fixture(scope="session", params=PRIORS)
def any_prior(request: pytest.FixtureRequest) -> Prior:
    """Each prior in turn."""
    return PRIORS[request.param](request)


@pytest.fixture(scope="session")
def all_priors(request: pytest.FixtureRequest) -> dict[str, Prior]:
    """All of them, by the names of `PRIORS`."""
    return {name: build(request) for name, build in PRIORS.items()}


@pytest.fixture(scope="session")
def family_members() -> Callable[[type, str], list[type]]:
    return members


@pytest.fixture(scope="session")
def reading_judge() -> Judge:
    """A judge that reads its answers from a picture's mean colour: red is a tenth of the name's number, green the
    azimuth as a share of the turn, blue a tenth of the colour's number."""
    from dream3d.evaluation.judge import Judge

    class Reading(Judge):
        names = ("ball", "chair", "mug", "sofa")
        synonyms = {"cup": "mug"}
        colors = ("red", "blue", "green")
        turning = frozenset(("chair", "mug"))
        card = {"matcher": {"own_top1": 0.9}, "views": {"own_color": 0.8}}

        def _read(self, images: torch.Tensor, channel: int) -> torch.Tensor:
            return images[:, channel].mean((1, 2))

        def similarity(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
            return -(10 * self._read(images, 0)[:, None] - torch.arange(len(texts))).abs()

        def azimuth(self, images: torch.Tensor) -> torch.Tensor:
            return 2 * math.pi * self._read(images, 1)

        def color(self, images: torch.Tensor) -> torch.Tensor:
            return (10 * self._read(images, 2)).round().long()

        def nearest_name(self, text: str) -> str:
            return "sofa"

    return Reading()
