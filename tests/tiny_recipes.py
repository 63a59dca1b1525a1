"""A small recipe, the families that it names, and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from dream3d.backgrounds import Background
from dream3d.cameras import CameraSampler
from dream3d.checks import InputError
from dream3d.config import load
from dream3d.guidance import Guider, Noiser, Objective, TimeSampler
from dream3d.priors import Prior
from dream3d.regularizers import Regularizer
from dream3d.renderers import Renderer
from dream3d.representations import Representation
from dream3d.stage import Optimizing

SMALL = """\
prompt: an owl
stages:
  a:
    representation: {class_path: Field, init_args: {levels: 2, log2_table: 8, finest: 16}}
    renderer: March
    prior: Gaussian
    objective: SDS
    regularizers: {thin: Sparsity}
    steps: 3
"""

AXES: dict[str, type] = {
    "representation": Representation,
    "renderer": Renderer,
    "prior": Prior,
    "objective": Objective,
    "objective.guider": Guider,
    "cameras": CameraSampler,
    "time": TimeSampler,
    "noise": Noiser,
    "background": Background,
    "regularizers.thin": Regularizer,
    "optimizer": Optimizing,
}


def fails(recipe: str | Path, *overrides: str) -> str:
    """The error's line."""
    with pytest.raises(InputError) as caught:
        load(recipe, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path
