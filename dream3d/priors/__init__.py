"""Priors: one file a network. Names load when they are used, so listing the known priors costs no import of torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dream3d.priors.base import Card as Card
    from dream3d.priors.base import Condition as Condition
    from dream3d.priors.base import DiscreteSchedule as DiscreteSchedule
    from dream3d.priors.base import FlowSchedule as FlowSchedule
    from dream3d.priors.base import Prior as Prior
    from dream3d.priors.base import Query as Query
    from dream3d.priors.base import Schedule as Schedule
    from dream3d.priors.builtin import Builtin as Builtin
    from dream3d.priors.builtin_latent import BuiltinLatent as BuiltinLatent
    from dream3d.priors.builtin_mv import BuiltinMV as BuiltinMV
    from dream3d.priors.controlnet import ControlNet as ControlNet
    from dream3d.priors.critic import Critic as Critic
    from dream3d.priors.critic import Denoising as Denoising
    from dream3d.priors.critic import FullCopy as FullCopy
    from dream3d.priors.critic import TrainablePrior as TrainablePrior
    from dream3d.priors.deepfloyd import DeepFloyd as DeepFloyd
    from dream3d.priors.flow import SD3 as SD3
    from dream3d.priors.flow import Flux as Flux
    from dream3d.priors.gaussian import Gaussian as Gaussian
    from dream3d.priors.ip_adapter import IPAdapter as IPAdapter
    from dream3d.priors.lora import LoRA as LoRA
    from dream3d.priors.mixture import Mixture as Mixture
    from dream3d.priors.mvdream import MVDream as MVDream
    from dream3d.priors.opened import Opening as Opening
    from dream3d.priors.pixart import PixArt as PixArt
    from dream3d.priors.sdxl import SDXL as SDXL
    from dream3d.priors.stable_diffusion import StableDiffusion as StableDiffusion
    from dream3d.priors.zero123 import Zero123 as Zero123

_HOMES = {
    "Builtin": "builtin",
    "BuiltinLatent": "builtin_latent",
    "BuiltinMV": "builtin_mv",
    "Card": "base",
    "Condition": "base",
    "ControlNet": "controlnet",
    "Critic": "critic",
    "DeepFloyd": "deepfloyd",
    "Denoising": "critic",
    "DiscreteSchedule": "base",
    "FlowSchedule": "base",
    "Flux": "flow",
    "FullCopy": "critic",
    "Gaussian": "gaussian",
    "IPAdapter": "ip_adapter",
    "LoRA": "lora",
    "MVDream": "mvdream",
    "Mixture": "mixture",
    "Opening": "opened",
    "PixArt": "pixart",
    "Prior": "base",
    "Query": "base",
    "SD3": "flow",
    "SDXL": "sdxl",
    "Schedule": "base",
    "StableDiffusion": "stable_diffusion",
    "TrainablePrior": "critic",
    "Zero123": "zero123",
}

__all__ = [
    "Builtin",
    "BuiltinLatent",
    "BuiltinMV",
    "Card",
    "Condition",
    "ControlNet",
    "Critic",
    "DeepFloyd",
    "Denoising",
    "DiscreteSchedule",
    "FlowSchedule",
    "Flux",
    "FullCopy",
    "Gaussian",
    "IPAdapter",
    "LoRA",
    "MVDream",
    "Mixture",
    "Opening",
    "PixArt",
    "Prior",
    "Query",
    "SD3",
    "SDXL",
    "Schedule",
    "StableDiffusion",
    "TrainablePrior",
    "Zero123",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
