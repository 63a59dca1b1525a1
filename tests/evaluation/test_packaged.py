"""The judge that ships, on solids that it can be shown without any catalogue."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dream3d.cameras import turntable
from dream3d.evaluation.draw import shade, spread
from dream3d.evaluation.judge import TrainedJudge
from dream3d.evaluation.measures import recall
from dream3d.prior_training.captions import COLORS
from dream3d.prior_training.subjects import solid

GREY = 0.8


@pytest.fixture(scope="module")
def judge() -> TrainedJudge:
    found = TrainedJudge()
    found.load()
    return found


def shown(name: str, color: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Tensor:
    """A solid from four sides over light grey."""
    points, cameras = spread(solid(name), 128), turntable(4, 64, elevation_deg=20.0)
    light = torch.nn.functional.normalize(torch.tensor([[0.5, 1.0, 1.0]]), dim=1).expand(4, 3)
    views = shade(points, cameras, light, torch.full((4,), 0.5))
    return (views.rgb * torch.tensor(color) + (1 - views.alpha) * GREY).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["sphere", "cube", "cone", "torus", "cylinder"])
def test_it_names_solids(judge: TrainedJudge, name: str) -> None:
    names = list(judge.names)
    right = torch.full((4,), names.index(name))
    assert recall(judge.similarity(shown(name), names), right, 5) >= 0.75


@pytest.mark.parametrize("color", ["red", "yellow", "green", "blue", "purple"])
def test_it_sees_colors(judge: TrainedJudge, color: str) -> None:
    seen = judge.color(shown("cone", COLORS[color]))
    assert (seen == judge.colors.index(color)).float().mean() >= 0.75


def test_it_says_how_well_it_does(judge: TrainedJudge) -> None:
    own = {**judge.card["matcher"], **judge.card["views"]}
    assert len(judge.names) > 600 and own["own_top1"] > 0.5 and own["own_top5"] > 0.75
    assert own["own_view_error_deg"] < 15 and own["own_color"] > 0.95
    assert {"teddy bear", "horse", "car"} <= judge.turning and "sphere" not in judge.turning
