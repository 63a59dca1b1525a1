"""Measures of meshes: edges, normals, the two Laplacians."""

import pytest
import torch

from dream3d.nn.triangles import cotangent_laplacian, face_normals, mesh_edges, uniform_laplacian
from tests.kernels.mesh_scenes import icosphere


def test_edges_of_a_ball_and_of_a_strip():
    vertices, faces = icosphere(1)
    edges = mesh_edges(faces, len(vertices))
    assert len(edges.ends) == 120 and len(edges.ends.unique(dim=0)) == 120
    for (a, b), pair in zip(edges.ends.tolist(), edges.faces.tolist(), strict=True):
        assert all({a, b} <= set(faces[i].tolist()) for i in pair) and pair[0] != pair[1]
    strip = torch.tensor([[0, 1, 2], [1, 3, 2]])
    assert sorted(mesh_edges(strip, 4).faces.tolist()) == [[-1, -1]] * 4 + [[0, 1]]
    fan = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]])  # an edge with three faces has no two
    assert bool((mesh_edges(fan, 5).faces == -1).all())


def test_normals():
    vertices, faces = icosphere(2)
    out = face_normals(vertices, faces)
    assert ((out * vertices[faces].mean(1)).sum(1) > 0.9).all()
    flat = torch.zeros(3, 3, requires_grad=True)
    face_normals(flat, torch.tensor([[0, 1, 2]])).sum().backward()
    assert flat.grad.isfinite().all()


def test_curvature_of_a_ball():
    """The cotangent Laplacian is -2 n / r at every vertex, whatever the triangles look like."""
    vertices, faces = icosphere(3)
    found = cotangent_laplacian(0.5 * vertices, faces)
    # Thirds of the areas are not what the twelve corners with five triangles should have.
    torch.testing.assert_close(found, -4 * vertices, atol=0.5, rtol=0)
    assert (found + 4 * vertices).norm(dim=1).mean() < 0.1


def test_flat_places():
    """Inside of a flat sheet cotangents give 0, however uneven it is; the uniform one sees the unevenness."""
    points = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0.3, 0.2, 0]]).double()
    ring = points[1:5] + torch.tensor([0.1, 0.3, 0.0])
    vertices = torch.cat([points[:1], ring])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1]])
    assert cotangent_laplacian(vertices, faces)[0].norm() < 1e-12
    torch.testing.assert_close(uniform_laplacian(vertices, faces)[0], torch.tensor([0.1, 0.3, 0.0]).double())
    lonely = torch.cat([vertices, torch.ones(1, 3).double()])
    assert uniform_laplacian(lonely, faces)[-1].norm() == 0 and cotangent_laplacian(lonely, faces)[-1].norm() == 0


@pytest.mark.parametrize("laplacian", [uniform_laplacian, cotangent_laplacian])
def test_going_along_it_makes_a_ball_rounder(laplacian):
    vertices, faces = icosphere(2)
    bumpy = (vertices * (1 + 0.05 * torch.sin(7 * vertices[:, :1]))).requires_grad_()
    laplacian(bumpy, faces).square().sum().backward()
    radii = [(bumpy - step * bumpy.grad / bumpy.grad.norm()).norm(dim=1).std().item() for step in (0.0, 0.1)]
    assert radii[1] < radii[0]
