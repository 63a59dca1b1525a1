"""Closed forms of the regularisers."""

import math

import pytest
import torch

from dream3d.checks import InputError
from dream3d.guidance.time import Ramp
from dream3d.regularizers import Opaque, Orientation, Regularizer, Smooth, Sparsity
from dream3d.types import Render

CHANNELS = {"albedo": 0.5 * torch.rand(1, 4, 4, 3), "metallic": torch.full((1, 4, 4, 1), 0.25)}


def picture(alpha, depth=None, normal=None, aux=None):
    alpha = torch.full((1, 4, 4, 1), alpha)
    return Render(torch.zeros(1, 4, 4, 3), alpha, depth, normal, aux or {})


def test_closed_forms():
    assert Sparsity().loss(None, picture(0.0)).item() == pytest.approx(0.1)
    assert Opaque().loss(None, picture(0.5)).item() == pytest.approx(math.log(2))
    assert Opaque().loss(None, picture(1.0)).item() < 0.01
    toward = torch.tensor([0.0, 0, 1]).expand(1, 4, 4, 3)
    assert Orientation().loss(None, picture(1.0, normal=toward, aux={"view": -toward})).item() == 0
    assert Orientation().loss(None, picture(1.0, normal=toward, aux={"view": 0.5 * toward})).item() == 0.25
    ramp = torch.arange(4.0).view(1, 1, 4, 1).expand(1, 4, 4, 1)
    assert Smooth().loss(None, picture(1.0, depth=ramp)).item() == pytest.approx(1.0)


def test_missing_channels_are_named():
    with pytest.raises(InputError, match="normals"):
        Orientation().loss(None, picture(1.0))
    with pytest.raises(InputError, match="depth"):
        Smooth().loss(None, picture(1.0))


@pytest.mark.parametrize("family", Regularizer.__subclasses__())
def test_weights_follow_their_ramp(family):
    toward = torch.tensor([0.0, 0, 1]).expand(1, 4, 4, 3)
    render = picture(0.5, depth=torch.rand(1, 4, 4, 1), normal=toward, aux={"view": toward, **CHANNELS})
    regularizer = family(weight=Ramp(start=0.0, end=2.0, steps=10))
    assert regularizer(None, render, 0).item() == 0
    assert regularizer(None, render, 20).item() == pytest.approx(2 * regularizer.loss(None, render).item())
