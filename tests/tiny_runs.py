"""Runs of a few steps on a prior that is a formula, and what may happen to them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import torch

from dream3d.cameras import OrbitCameras
from dream3d.export import Export
from dream3d.guidance import CFG, SDS, Objective
from dream3d.pipeline import Pipeline
from dream3d.priors import Gaussian
from dream3d.renderers import March
from dream3d.representations import Field, Representation
from dream3d.stage import Stage


def small_field(start: Representation | None = None) -> Field:
    return Field(start, levels=4, log2_table=10, base=4, finest=32, hidden=16, occupancy=16, refresh=2)


def stage(**changes: Any) -> Stage:
    parts: dict[str, Any] = {
        "representation": small_field,
        "renderer": March(samples=24),
        "prior": Gaussian(),
        "objective": SDS(guider=CFG(scale=1.0)),
        "cameras": OrbitCameras(size=16),
        "batch": 2,
        "steps": 4,
    }
    return Stage(**{**parts, **changes})


def pipeline(out: Path, **changes: Any) -> Pipeline:
    parts: dict[str, Any] = {
        "prompt": "a teddy bear",
        "stages": {"nerf": stage()},
        "out": str(out),
        "device": "cpu",
        "preview_every": 2,
        "turntable_views": 4,
        "picture_size": 16,
        "quiet": True,
    }
    return Pipeline(**{**parts, **changes})


def small_export() -> Export:
    return Export(faces=200, texture_size=64, resolution=16, seconds=600)  # tests share their machine


class Raises(Objective):
    """Does something at a given step; the microscope, which asks for residuals as well, does not set it off."""

    def __init__(self, call: int, what: Any) -> None:
        super().__init__()
        self.call, self.what, self.calls = call, what, 0

    def residual(self, prior: Any, x: Any) -> torch.Tensor:
        return 0.1 * x.z

    def pixel_residual(self, prior: Any, x: Any, images: Any, residual: Any) -> None:
        self.calls += 1
        if self.calls == self.call:
            self.what()


def fail(error: BaseException) -> Any:
    def now() -> None:
        raise error

    return now


def press(times: int = 1, number: int = signal.SIGINT) -> Any:
    def now() -> None:
        for _ in range(times):
            signal.raise_signal(number)  # in this thread: two of them never become one

    return now
