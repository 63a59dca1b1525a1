"""Distances, insides and colours of meshes against spheres and boxes."""

import math

import pytest
import torch

from dream3d.checks import InputError, RunError
from dream3d.nn.mesh_distance import MeshDistance, nearest_on, read_triangles, solid_angles
from dream3d.types import Mesh


def box(size=0.5):
    """Twelve triangles, counter-clockwise from outside."""
    corners = torch.tensor([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)]) * size
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))]
    return Mesh(corners, torch.tensor(faces), colors=corners + 0.5)


def box_distance(points, size=0.5):
    q = points.abs() - size
    return q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)


def test_distance_of_a_box():
    points = 2 * torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) - 1
    known = MeshDistance(box())
    off = (known(points) - box_distance(points)).abs()
    assert off.quantile(0.99) < 1e-5 and off.max() < 1e-3
    on = points / points.abs().amax(-1, keepdim=True) * 0.5
    torch.testing.assert_close(known.colors(on), on + 0.5, atol=0.02, rtol=0)
    assert MeshDistance(Mesh(box().vertices, box().faces)).colors(on) is None


def test_inside_of_what_is_not_closed_or_inside_out():
    points = torch.tensor([[0.0, 0, 0], [0.3, -0.3, 0.2], [0.9, 0, 0], [0.0, 0.8, 0.7]])
    whole = box()
    torch.testing.assert_close(MeshDistance(whole).winding(points), torch.tensor([1.0, 1, 0, 0]), atol=0.02, rtol=0)
    turned = MeshDistance(Mesh(whole.vertices, whole.faces.flip(-1)))
    assert (turned(points) < 0).tolist() == [True, True, False, False]
    open_box = MeshDistance(Mesh(whole.vertices, whole.faces[:-1]))  # half a side is missing
    assert (open_box(points) < 0).tolist() == [True, True, False, False]
    with pytest.raises(RunError, match="no surface: .* got none that has an area"):
        MeshDistance(Mesh(whole.vertices, torch.zeros(3, 3, dtype=torch.long)))


def test_dipoles_stand_for_far_triangles():
    generator = torch.Generator().manual_seed(0)
    corners = 0.3 * torch.rand(400, 1, 3, generator=generator) + 0.05 * torch.rand(400, 3, 3, generator=generator)
    soup = MeshDistance(Mesh(corners.view(-1, 3), torch.arange(1200).view(-1, 3)), samples=100)
    points = 4 * torch.rand(200, 3, generator=generator) - 2
    exact = solid_angles(points.double(), corners.double()).sum(1).float() / (4 * math.pi)
    torch.testing.assert_close(soup.winding(points), exact, atol=0.01, rtol=0)


def test_nearest_point_of_a_triangle():
    corners = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]]).double()
    points = torch.tensor([[0.2, 0.3, 5], [2, -1, 0], [1, 1, 1], [0.5, -3, 0]]).double()
    expected = torch.tensor([[0.5, 0.2, 0.3], [0, 1, 0], [0, 0.5, 0.5], [0.5, 0.5, 0]]).double()
    torch.testing.assert_close(nearest_on(points, corners.expand(4, -1, -1)), expected)


def test_samples_lie_on_the_surface():
    points, face = MeshDistance(box(), samples=10).draw(500, torch.Generator().manual_seed(1))
    assert box_distance(points).abs().max() < 1e-6 and len(face.unique()) == 12


def test_files(tmp_path):
    import trimesh

    trimesh.Trimesh(2 * box().vertices.numpy() + 3, box().faces.numpy()).export(tmp_path / "box.ply")
    mesh = read_triangles(tmp_path / "box.ply", radius=0.7)
    assert len(mesh.faces) == 12
    torch.testing.assert_close(mesh.vertices.norm(dim=-1), torch.full((8,), 0.7))
    torch.testing.assert_close(mesh.vertices.sum(0), torch.zeros(3), atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="no mesh could be read"):
        read_triangles(tmp_path / "absent.glb", radius=1.0)
