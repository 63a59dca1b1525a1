"""Meshes as solids: distances, winding numbers, signs."""

import math

import pytest
import torch

from dream3d.checks import InputError
from dream3d.nn.solid import Solid
from tests.kernels.mesh_scenes import icosphere

GENERATOR = torch.Generator().manual_seed(0)


def cloud(count=400, size=1.0):
    return (2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) - 1) * size


def cube(half=0.5):
    corners = torch.tensor([[(k & 1) - 0.5, (k >> 1 & 1) - 0.5, (k >> 2) - 0.5] for k in range(8)]) * 2 * half
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    return corners, torch.tensor([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])


def box_distance(points, half=0.5):
    q = points.abs() - half
    return q.clamp_min(0).norm(dim=1) + q.amax(1).clamp_max(0)


def test_distances_to_a_cube_of_large_triangles():
    points = cloud()
    found = Solid(*cube()).signed_distance(points, band=10.0)
    torch.testing.assert_close(found, box_distance(points), atol=1e-5, rtol=0)


def test_beyond_the_band_they_are_nearly_right():
    points = cloud()
    found = Solid(*cube(), detail=0.05).signed_distance(points, band=0.1)
    true = box_distance(points)
    near = true.abs() < 0.1
    torch.testing.assert_close(found[near], true[near], atol=1e-5, rtol=0)
    torch.testing.assert_close(found, true, atol=0.02, rtol=0)
    assert torch.equal(found < 0, true < 0)


def test_signs_on_a_lattice_are_those_of_the_winding_number():
    """Points are settled in groups: no member may differ."""
    axis = torch.linspace(-0.9, 0.9, 15)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    vertices, faces = icosphere(2, torch.float32)
    solid = Solid(vertices * torch.tensor([0.8, 0.3, 0.5]), faces)
    found = solid.signed_distance(points, band=0.1)
    assert torch.equal(found < 0, solid.winding(points) > 0.5)
    assert 0.03 < (found < 0).float().mean() < 0.2


@pytest.mark.parametrize("levels", [1, 3])
def test_winding_numbers(levels):
    vertices, faces = icosphere(levels, torch.float32)
    points = cloud(size=1.5)
    radius = points.norm(dim=1)
    clear = (radius < 0.75) | (radius > 1.05)  # 80 triangles lie up to a fifth inside of the ball
    expected = (radius < 0.9).float()
    found = Solid(vertices, faces).winding(points)
    assert (found - expected)[clear].abs().max() < 0.03
    # Turned inside out it is the same solid; two of them, one in the other, wind twice.
    assert (Solid(vertices, faces.flip(1)).winding(points) - expected)[clear].abs().max() < 0.03
    twice = Solid(torch.cat([vertices, 0.5 * vertices]), torch.cat([faces, faces + len(vertices)]))
    assert twice.winding(torch.zeros(1, 3)).item() == pytest.approx(2, abs=0.03)
    assert twice.signed_distance(torch.zeros(1, 3), band=1.0).item() < 0


def test_holes_leave_the_inside_inside():
    vertices, faces = icosphere(3, torch.float32)
    open_faces = faces[vertices[faces].mean(1)[:, 2] < 0.9]
    assert len(open_faces) < len(faces)
    solid = Solid(vertices, open_faces)
    points = torch.tensor([[0.0, 0, 0], [0, 0, -0.8], [0, 0, 1.5], [1.2, 0, 0]])
    assert (solid.signed_distance(points, band=1.0) < 0).tolist() == [True, True, False, False]
    missing = (1 - math.sqrt(1 - (1 - 0.9**2))) / 2  # the cap's share of the sphere, roughly
    assert solid.winding(points[:1]).item() == pytest.approx(1 - missing, abs=0.03)


def test_nearest_points_and_their_weights():
    vertices, faces = cube()
    points = torch.tensor([[0.2, 0.1, 2.0], [2.0, 2.0, 2.0], [0.7, 0.7, 0.1]])
    near = Solid(vertices, faces).nearest(points)
    at = (vertices[faces[near.face]] * near.weights[..., None]).sum(1)
    torch.testing.assert_close(at, torch.tensor([[0.2, 0.1, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.1]]))
    torch.testing.assert_close(near.distance, (points - at).norm(dim=1))
    torch.testing.assert_close(near.weights.sum(1), torch.ones(3))


def test_the_door():
    vertices, faces = cube()
    with pytest.raises(InputError, match="with an area"):
        Solid(vertices * 0, faces)
    with pytest.raises(InputError, match="finite"):
        Solid(vertices * math.nan, faces)
