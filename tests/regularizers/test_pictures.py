"""Closed forms of the regularisers."""

import math

import pytest
import torch

from dream3d.checks import InputError
from dream3d.layouts import Part
from dream3d.regularizers import (
    DepthNormal,
    Distortion,
    Flatness,
    Inside,
    MaterialEntropy,
    OpacityL1,
    Opaque,
    Orientation,
    PlausibleAlbedo,
    SampleOrientation,
    ScaleL1,
    Smooth,
    SmoothAlbedo,
    Sparsity,
)
from dream3d.representations import Field, Gaussians, Particles
from dream3d.representations.gaussians import point_splats
from dream3d.types import Cameras, Render

CHANNELS = {
    "albedo": 0.5 * torch.rand(1, 4, 4, 3),
    "metallic": torch.full((1, 4, 4, 1), 0.25),
    "distortion": torch.rand(1, 4, 4, 1),
}


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


def test_closed_forms_of_materials():
    """Channels are premultiplied: opacity weighs, but does not change, what a place is made of."""
    ramp = torch.linspace(0, 0.9, 4).view(1, 1, 4, 1).expand(1, 4, 4, 3)
    assert SmoothAlbedo().loss(None, picture(0.5, aux={"albedo": 0.5 * ramp})).item() == pytest.approx(0.15)
    assert SmoothAlbedo().loss(None, picture(0.0, aux={"albedo": 0.0 * ramp})).item() == 0
    half = torch.full((1, 4, 4, 1), 0.25)
    assert MaterialEntropy().loss(None, picture(0.5, aux={"metallic": half})).item() == pytest.approx(math.log(2))
    assert MaterialEntropy().loss(None, picture(1.0, aux={"metallic": 0 * half})).item() < 0.01
    limits = PlausibleAlbedo(low=0.1, high=0.7)
    assert limits.loss(None, picture(1.0, aux={"albedo": torch.full((1, 4, 4, 3), 0.5)})).item() == 0
    assert limits.loss(None, picture(1.0, aux={"albedo": torch.ones(1, 4, 4, 3)})).item() == pytest.approx(0.09)
    assert limits.loss(None, picture(1.0, aux={"albedo": torch.zeros(1, 4, 4, 3)})).item() == pytest.approx(0.01)


def test_parts_stay_inside():
    """Each Gaussian is asked about its own part: (depth - margin)^2, and what is inside is left alone."""
    parts = {
        "left": Part(text="a", center=(-0.5, 0.0, 0.0), size=(0.4, 0.4, 0.4)),
        "right": Part(text="b", center=(0.5, 0.0, 0.0), size=(0.4, 0.4, 0.4), shape="sphere"),
    }
    made = Gaussians(point_splats(torch.tensor([[-0.5, 0.1, 0], [0.5, 0, 0.1]])), parts=parts)
    assert Inside(margin=1.0).loss(made, picture(1.0)).item() == 0
    with torch.no_grad():
        made.means += torch.tensor([[1.0, 0, 0], [0, 0, 0.2]])  # 5 and 1.5 halves of a size from their middles
    loss = Inside(margin=1.0).loss(made, picture(1.0))
    assert loss.item() == pytest.approx(4.0**2 + 0.5**2, rel=1e-5)
    loss.backward()
    assert made.means.grad is not None and made.means.grad[0].tolist() == pytest.approx([2 * 4 / 0.2, 0, 0], rel=1e-5)
    with pytest.raises(InputError, match="Inside needs Gaussians with parts"):
        Inside().loss(Gaussians(count=3), picture(1.0))


def test_missing_channels_are_named():
    with pytest.raises(InputError, match="'albedo'"):
        SmoothAlbedo().loss(None, picture(1.0))
    with pytest.raises(InputError, match="normals"):
        Orientation().loss(None, picture(1.0))
    with pytest.raises(InputError, match="DepthNormal needs a render with normals"):
        DepthNormal().loss(None, picture(1.0))
    with pytest.raises(InputError, match="'distortion'"):
        Distortion().loss(None, picture(1.0))
    with pytest.raises(InputError, match="depth"):
        Smooth().loss(None, picture(1.0))


def test_closed_forms_of_normals():
    up, right = torch.tensor([0.0, 1, 0]), torch.tensor([1.0, 0, 0])
    edge = torch.stack([up, up, right, right]).expand(1, 4, 4, 3)
    assert Flatness().loss(None, picture(1.0, normal=up.expand(1, 4, 4, 3))).item() == pytest.approx(0, abs=1e-6)
    assert Flatness().loss(None, picture(0.5, normal=0.5 * edge)).item() == pytest.approx(4 / 16)  # four of 16 pixels
    away = torch.full((1, 4, 4, 1), 0.25)
    assert SampleOrientation().loss(None, picture(1.0, aux={"away": away})).item() == 0.25
    with pytest.raises(InputError, match="'away'"):
        SampleOrientation().loss(None, picture(1.0))


def wall(tilt: float, *, alpha: float = 1.0, lean: float = 0.0) -> Render:
    """A wall 2 m away, turned by `tilt` (radians) around the vertical, with normals that are turned by `lean` more."""
    c2w = torch.eye(4)[None]
    directions = Cameras(c2w, torch.tensor([0.6]), 8, 8).rays()[1]
    true = torch.tensor([math.sin(tilt), 0, math.cos(tilt)])
    distance = (true * torch.tensor([0.0, 0, -2])).sum() / (directions * true).sum(-1, keepdim=True)
    shown = torch.tensor([math.sin(tilt + lean), 0, math.cos(tilt + lean)]).expand(1, 8, 8, 3)
    opacity = torch.full((1, 8, 8, 1), alpha)
    return Render(torch.zeros(1, 8, 8, 3), opacity, alpha * distance, alpha * shown, {"view": directions})


@pytest.mark.parametrize("tilt", [0.0, 0.5, -0.8])
def test_normals_against_depth(tilt):
    """1 - cos of the angle between the two, whatever the wall; transparent pixels count by their opacity, twice."""
    assert DepthNormal().loss(None, wall(tilt)).item() == pytest.approx(0, abs=1e-6)
    assert DepthNormal().loss(None, wall(tilt, lean=0.3)).item() == pytest.approx(1 - math.cos(0.3), rel=1e-4)
    faint = DepthNormal().loss(None, wall(tilt, lean=0.3, alpha=0.5)).item()
    assert faint == pytest.approx(0.25 * (1 - math.cos(0.3)), rel=1e-4)


def test_depth_beside_the_object_does_not_matter():
    render = wall(0.4, lean=0.2)
    hole = torch.ones(1, 8, 8, 1)
    hole[:, :, 5:] = 0
    cut = Render(render.rgb, hole, hole * render.depth, hole * render.normal, render.aux)
    share = 3 / 6  # columns whose neighbours are all of the wall, of the six inside
    assert DepthNormal().loss(None, cut).item() == pytest.approx(share * (1 - math.cos(0.2)), rel=1e-4)


def test_gaussians_have_closed_forms():
    made = Gaussians(count=40, opacity=0.3)
    assert OpacityL1().loss(made, picture(1.0)).item() == pytest.approx(0.3)
    assert ScaleL1().loss(made, picture(1.0)).item() == pytest.approx(made.scales.mean().item())
    discs = Gaussians(made.to_splats(), flat=True)
    assert ScaleL1().loss(discs, picture(1.0)).item() == pytest.approx(made.scales.mean().item())
    both = Particles(of=lambda start: Gaussians(start, count=20, opacity=0.3), count=2)
    assert OpacityL1().loss(both, picture(1.0)).item() == pytest.approx(0.3)
    assert OpacityL1(weight=0.5)(both, picture(1.0), 0).item() == pytest.approx(0.15)
    OpacityL1().loss(made, picture(1.0)).backward()
    torch.testing.assert_close(made.logits.grad, torch.full((40,), 0.3 * 0.7 / 40))
    with pytest.raises(InputError, match="OpacityL1 is for Gaussians, not for Field"):
        OpacityL1().loss(Field(levels=2, log2_table=8), picture(1.0))
