"""Closed forms of the losses of volumes."""

import math

import pytest
import torch

from dream3d.checks import InputError
from dream3d.regularizers import Curvature, Eikonal, SketchShape
from dream3d.representations import Field, Particles, SDFField
from tests.regularizers.test_pictures import picture

SMALL = {"levels": 2, "log2_table": 8, "base": 4, "finest": 16, "hidden": 8, "occupancy": 16}


def scaled_ball(factor):
    """An SDF field whose f is `factor` times the distance from a sphere of 0.5 m."""
    torch.manual_seed(0)
    field = SDFField(**SMALL)
    field.distance = lambda points: factor * (points.norm(dim=-1) - 0.5)
    return field


@pytest.fixture(scope="module")
def capsule(tmp_path_factory):
    """A file with an upright capsule, and its closed form after scaling."""
    import trimesh

    path = tmp_path_factory.mktemp("sketch") / "capsule.ply"
    trimesh.creation.capsule(height=2.0, radius=0.5).apply_transform(
        trimesh.transformations.rotation_matrix(math.pi / 2, [1, 0, 0])
    ).export(path)
    return path


def capsule_distance(points):
    """Of the capsule, whose ends touch the sphere of 0.7 m: a segment of 2 x 0.467 with radius 0.233."""
    scale = 0.7 / 1.5
    along = points[:, 1].clamp(-scale, scale)
    return (points - torch.stack([0 * along, along, 0 * along], dim=-1)).norm(dim=-1) - 0.5 * scale


def test_closed_forms_of_signed_distances():
    assert Eikonal().loss(scaled_ball(1.0), picture(1.0)).item() < 1e-3
    assert Eikonal().loss(scaled_ball(1.5), picture(1.0)).item() == pytest.approx(0.25, rel=0.02)
    # |Laplacian| is 2 factor / |x|, on average over the cells near the surface
    field = scaled_ball(1.5)
    near = field.probes(2048)[1024:]
    expected = (3 / near.norm(dim=-1)).mean().item()
    assert Curvature().loss(field, picture(1.0)).item() == pytest.approx(expected, rel=0.05)
    both = Particles(of=lambda start: SDFField(start, **SMALL), count=2)
    assert Eikonal().loss(both, picture(1.0)).item() == pytest.approx(0, abs=0.01)
    for regularizer in (Eikonal(), Curvature()):
        with pytest.raises(InputError, match="is for SDFField, not for Field"):
            regularizer.loss(Field(**SMALL), picture(1.0))


def test_the_sketch_is_known_where_it_counts(capsule):
    points = 2 * torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) - 1
    off = SketchShape(mesh=str(capsule)).distance(points, 1.0) - capsule_distance(points)
    assert off.abs().quantile(0.99) < 0.03


@pytest.mark.parametrize("kind", [Field, SDFField])
def test_volumes_follow_the_sketch(capsule, kind):
    """From a ball alone: full in the capsule's middle, empty far from it, and no pull at its surface."""
    torch.manual_seed(0)
    volume = kind(**{**SMALL, "levels": 4, "log2_table": 11})
    sketch = SketchShape(mesh=str(capsule), slack=0.1, points=2048)
    optimizer = torch.optim.Adam(volume.parameters(), lr=0.02)
    for step in range(60):
        optimizer.zero_grad()
        sketch(volume, picture(1.0), step).backward()
        optimizer.step()
        volume.after_step(step, optimizer)
    points = 2 * torch.rand(4000, 3, generator=torch.Generator().manual_seed(1)) - 1
    distance = capsule_distance(points)
    with torch.no_grad():
        alpha = -torch.expm1(-0.2 * volume.query(points)[0])
    assert alpha[distance < -0.1].mean() > 0.8 and alpha[distance > 0.15].mean() < 0.1
    free = 1 - torch.exp(-sketch.distance(points, 1.0).square() / (2 * 0.1**2))
    assert free[distance.abs() < 0.01].max() < 0.15


def test_a_sketch_that_is_not_there_is_named():
    with pytest.raises(InputError, match="absent.glb"):
        SketchShape(mesh="absent.glb").loss(Field(**SMALL), picture(1.0))
