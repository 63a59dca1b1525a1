"""Tetrahedral grids and marching tetrahedra: volumes, topology, orientation, derivatives."""

import math

import pytest
import torch

from dream3d.checks import InputError
from dream3d.meshing import topology
from dream3d.nn.tets import bcc_grid, crossed, crossings, marching_tets, refined
from dream3d.types import Mesh


def volume(vertices, faces):
    a, b, c = vertices[faces.long()].unbind(1)
    return (a * torch.linalg.cross(b, c)).sum() / 6


def euler(vertices, faces):
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(1).values.unique(dim=0)
    return len(vertices) - len(edges) + len(faces)


def ball(points, radius=0.6):
    return points.norm(dim=1) - radius


def torus(points):
    return ((points[:, :2].norm(dim=1) - 0.55) ** 2 + points[:, 2] ** 2).sqrt() - 0.2


def volumes(grid):
    p = grid.vertices[grid.tets.long()].double()
    return torch.linalg.det(p[:, 1:] - p[:, :1]) / 6


def test_the_lattice_fills_the_box():
    grid = bcc_grid(6, radius=0.75)
    assert volumes(grid).min() > 0
    assert volumes(grid).sum().item() == pytest.approx(1.5**3, rel=1e-5)
    assert len(grid.vertices) == 7**3 + 6**3 and len(grid.vertices) == len(grid.vertices.unique(dim=0))
    assert len(grid.tets) == 12 * 6**3
    assert (grid.border == 1).sum() == 7**3 - 5**3
    # Every triangle belongs to two tetrahedra, or lies in a wall.
    sides = torch.cat([grid.tets[:, [i for i in range(4) if i != k]] for k in range(4)]).sort(1).values
    sides, count = sides.unique(dim=0, return_counts=True)
    assert count.max() == 2 and bool((grid.border[sides[count == 1].long()] == 1).all())
    with pytest.raises(InputError, match="resolution"):
        bcc_grid(1)


@pytest.mark.parametrize(("shape", "characteristic", "true"), [
    (ball, 2, 4 / 3 * math.pi * 0.6**3), (torus, 0, 2 * math.pi**2 * 0.55 * 0.2**2),
])  # fmt: skip
def test_surfaces_are_closed_and_look_outwards(shape, characteristic, true):
    grid = bcc_grid(24)
    vertices, faces = marching_tets(shape(grid.vertices), grid.vertices, grid.tets)
    assert euler(vertices, faces) == characteristic
    assert topology(Mesh(vertices, faces)).manifold
    assert volume(vertices, faces).item() == pytest.approx(true, rel=0.03)  # positive: outwards
    assert shape(vertices).abs().max() < 0.02


def test_noise_is_closed_too():
    grid = bcc_grid(8)
    values = torch.randn(len(grid.vertices), generator=torch.Generator().manual_seed(0))
    values = torch.where(grid.border == 1, values.abs() + 0.1, values)
    vertices, faces = marching_tets(values, grid.vertices, grid.tets)
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert bool((edges.sort(1).values.unique(dim=0, return_counts=True)[1] == 2).all())
    # As often in one direction as in the other: all faces agree on what is outside.
    assert len(edges.unique(dim=0)) == len(edges) and volume(vertices, faces) > 0
    assert len(faces.unique()) == len(vertices)


def test_the_volume_feels_every_value():
    """d(volume) / d(value) by autograd against central differences; more distance is less volume."""
    grid = bcc_grid(6)
    points = grid.vertices.double()
    generator = torch.Generator().manual_seed(0)
    values = (ball(points, 0.55) + 0.02 * torch.randn(len(points), generator=generator).double()).requires_grad_()
    found = crossed(values.detach() < 0, grid.tets)
    volume(crossings(found.edges, values, points), found.faces).backward()
    touched = values.grad.nonzero()[:, 0]
    assert set(touched.tolist()) == set(found.edges.unique().tolist())
    for i in touched[::7].tolist():
        step = torch.zeros_like(values)
        step[i] = 1e-6
        with torch.no_grad():
            more, less = (volume(*marching_tets(values + s, points, grid.tets)) for s in (step, -step))
        assert values.grad[i].item() == pytest.approx(((more - less) / 2e-6).item(), rel=1e-5, abs=1e-8)
    assert values.grad.sum() < 0


def test_the_volume_feels_positions():
    grid = bcc_grid(4)
    points = grid.vertices.double().requires_grad_()
    values = ball(points.detach(), 0.5)
    found = crossed(values < 0, grid.tets)
    volume(crossings(found.edges, values, points), found.faces).backward()
    # Scaling the grid scales the volume: the sum of p . dV/dp is 3 V.
    total = volume(*marching_tets(values, points.detach(), grid.tets))
    assert (points * points.grad).sum().item() == pytest.approx(3 * total.item(), rel=1e-9)


@pytest.mark.parametrize(("shape", "characteristic"), [(ball, 2), (torus, 0)])
def test_subdivision_around_the_surface(shape, characteristic):
    grid = bcc_grid(16)
    values = shape(grid.vertices)
    coarse = marching_tets(values, grid.vertices, grid.tets)
    for _ in range(2):
        before, (grid, values) = grid, refined(grid, values)
        inner = volumes(grid)
        assert inner.min().item() == pytest.approx(volumes(before).min().item() / 8, rel=1e-3)
        assert grid.cell == before.cell / 2
        assert bool((values[grid.border != 0].sign() == grid.border[grid.border != 0]).all())
        values = shape(grid.vertices)
    vertices, faces = marching_tets(values, grid.vertices, grid.tets)
    assert euler(vertices, faces) == characteristic and topology(Mesh(vertices, faces)).manifold
    assert shape(vertices).abs().max() < 0.15 * shape(coarse[0]).abs().max()
    assert (grid.border == -1).any() and (grid.border == 1).any()  # both sides of the shell keep their sign


def test_means_at_new_vertices_leave_the_surface():
    """Values in the middles of edges are linear, so the finer surface is the coarser one."""
    grid = bcc_grid(8)
    finer, values = refined(grid, ball(grid.vertices))
    one = volume(*marching_tets(ball(grid.vertices), grid.vertices, grid.tets))
    other = volume(*marching_tets(values, finer.vertices, finer.tets))
    assert other.item() == pytest.approx(one.item(), rel=1e-4)


def test_nothing_inside_is_no_surface():
    grid = bcc_grid(4)
    vertices, faces = marching_tets(torch.ones(len(grid.vertices)), grid.vertices, grid.tets)
    assert vertices.shape == faces.shape == (0, 3)
