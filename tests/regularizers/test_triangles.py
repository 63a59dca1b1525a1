"""Closed forms of the losses of triangles."""

import math

import pytest
import torch

from dream3d.checks import InputError
from dream3d.regularizers import EdgeLength, Laplacian, NormalConsistency, SignChanges, Spread
from dream3d.representations import Field, Shell, Tets
from tests.kernels.mesh_scenes import icosphere


def shell(vertices, faces):
    made = Shell(moving=True, levels=1, log2_table=4)
    made.vertices = torch.nn.Parameter(torch.as_tensor(vertices).float())
    made.faces = torch.as_tensor(faces)
    return made


def octahedron(radius=0.5):
    vertices = torch.cat([torch.eye(3), -torch.eye(3)]) * radius
    signs = [(x, y, z) for x in (0, 3) for y in (0, 3) for z in (0, 3)]
    faces = [(x, 1 + y, 2 + z) if (x + y + z) % 2 == 0 else (x, 2 + z, 1 + y) for x, y, z in signs]
    return shell(vertices, torch.tensor(faces))


def test_closed_forms_of_meshes():
    eight = octahedron()
    # Neighbours of a corner are a square around the middle: the Laplacian is the radius, an edge is sqrt(2) radii.
    assert Laplacian().loss(eight, None).item() == pytest.approx(0.5)
    assert NormalConsistency().loss(eight, None).item() == pytest.approx(1 - 1 / 3)
    assert EdgeLength().loss(eight, None).item() == pytest.approx(0.5)
    assert EdgeLength(target=0.5 * math.sqrt(2)).loss(eight, None).item() == pytest.approx(0, abs=1e-10)
    assert Laplacian().loss(octahedron(2.0), None).item() == pytest.approx(0.5)  # at any scale
    vertices, faces = icosphere(3)
    assert Laplacian(kind="cotangent").loss(shell(0.5 * vertices, faces), None).item() == pytest.approx(16, rel=0.02)
    with pytest.raises(InputError, match="kind"):
        Laplacian(kind="round")


def test_closed_forms_of_grids():
    grid = Tets(resolution=4, ball=0.6, levels=1, log2_table=4)
    ends = grid.ends().detach()
    assert bool((ends[:, 0] < 0).all()) and bool((ends[:, 1] >= 0).all())
    # -log of both ends' probabilities to be on the other's side
    wanted = (torch.nn.functional.softplus(-ends[:, 0]) + torch.nn.functional.softplus(ends[:, 1])).mean()
    assert SignChanges().loss(grid, None).item() == pytest.approx(wanted.item(), rel=1e-5)
    SignChanges().loss(grid, None).backward()
    gone = grid.values - 0.5 * grid.values.grad / grid.values.grad.abs().max()
    assert gone.abs()[grid.values.grad != 0].mean() < grid.values.abs()[grid.values.grad != 0].mean()
    cubes = Tets(resolution=4, ball=0.6, extraction="flexicubes", levels=1, log2_table=4)
    assert 0 < Spread().loss(cubes, None).item() < 0.5
    with pytest.raises(InputError, match="flexicubes"):
        Spread().loss(grid, None)


def test_regularisers_of_surfaces_name_what_they_need():
    field = Field(levels=1, log2_table=4, occupancy=8)
    for one in (Laplacian(), NormalConsistency(), EdgeLength(), SignChanges(), Spread()):
        with pytest.raises(InputError, match="not Field"):
            one.loss(field, None)


@pytest.mark.parametrize("family", [Laplacian, NormalConsistency, EdgeLength, SignChanges, Spread])
def test_gradients_of_surfaces_are_finite(family):
    grid = Tets(resolution=6, extraction="flexicubes", levels=1, log2_table=4)
    with torch.no_grad():
        grid.values += 0.1 * torch.randn(grid.values.shape, generator=torch.Generator().manual_seed(0))
    family().loss(grid, None).backward()
    assert grid.values.grad.isfinite().all() and grid.values.grad.abs().sum() > 0
