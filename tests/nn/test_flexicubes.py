"""FlexiCubes: every case is closed, the formulas, what weights do."""

import math

import pytest
import torch

from dream3d.nn.flexicubes import CORNERS, EDGES, CubeWeights, _pieces, cube_grid, cube_surface, cubes_crossed
from tests.nn.test_tets import ball, euler, torus, volume


def grid(n, dtype=torch.float32):
    return cube_grid(n).to(dtype)


def corners(values, n):
    return (values < 0).view(n + 1, n + 1, n + 1)


def neutral(n, dtype=torch.float32):
    return CubeWeights.of(torch.zeros(n**3, 21, dtype=dtype))


def edge_counts(faces):
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return edges, edges.sort(1).values.unique(dim=0, return_counts=True)[1]


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize(("shape", "characteristic", "true"), [
    (ball, 2, 4 / 3 * math.pi * 0.6**3), (torus, 0, 2 * math.pi**2 * 0.55 * 0.2**2),
])  # fmt: skip
def test_surfaces_are_closed_and_look_outwards(shape, characteristic, true, soft):
    n, points = 24, grid(24)
    values = shape(points)
    weights = CubeWeights.of(torch.randn(n**3, 21, generator=torch.Generator().manual_seed(0)))
    for some in (neutral(n), weights):
        surface = cube_surface(cubes_crossed(corners(values, n)), values, points, some, soft=soft)
        assert euler(surface.vertices, surface.faces) == characteristic
        assert bool((edge_counts(surface.faces)[1] == 2).all())
        assert volume(surface.vertices, surface.faces).item() == pytest.approx(true, rel=0.07)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_no_edge_has_more_than_two_faces_whatever_the_signs(density):
    """Random signs hold every ambiguous case next to every other; the two that dual marching cubes joins too."""
    n = 14
    generator = torch.Generator().manual_seed(int(10 * density))
    inside = torch.zeros(n + 1, n + 1, n + 1, dtype=torch.bool)
    inside[1:-1, 1:-1, 1:-1] = torch.rand(n - 1, n - 1, n - 1, generator=generator) < density
    values = torch.where(inside, -1.0, 1.0).view(-1)
    found = cubes_crossed(inside)
    surface = cube_surface(found, values, grid(n), neutral(n), soft=False)
    edges, count = edge_counts(surface.faces)
    assert bool((count == 2).all()) and len(edges.unique(dim=0)) == len(edges)
    assert volume(surface.vertices, surface.faces) > 0
    assert len(found.quads) == len(found.edges.unique(dim=0)) == len(found.edges) / 4


def test_the_cases_that_are_joined():
    """The rule matters: two cubes whose shared face joins all its edges on both sides."""
    joining = [case for case in range(256) if _pieces(case, None)[1]]
    assert len(joining) == 36  # C16 and C19 with their turns and mirror images
    assert all(len(_pieces(case, None)[1]) == 1 for case in joining)
    for case in joining:
        (face,) = _pieces(case, None)[1]
        pieces, again = _pieces(case, face)
        assert again != [face] and max(pieces) == max(_pieces(case, None)[0]) + 1


def test_a_plane_and_the_formula():
    """A plane is reproduced exactly by neutral weights; alpha and beta move a vertex as the paper says."""
    n, points = 8, grid(8, torch.float64)
    values = points[:, 0] * 0.6 + points[:, 1] * 0.8 - 0.13
    border = points.abs().amax(1) > 0.99
    values = torch.where(border, values.abs(), values)
    found = cubes_crossed(corners(values, n))
    raw = 0.5 * torch.randn(n**3, 21, generator=torch.Generator().manual_seed(0)).double()
    weights = CubeWeights.of(raw)
    surface = cube_surface(found, values, points, weights)
    for vertex in (0, len(found.owner) // 2):
        cube = found.owner[vertex]
        total, norm = torch.zeros(3).double(), 0.0
        for row in (found.vertex == vertex).nonzero()[:, 0].tolist():
            (i, j), (a, b) = found.edges[row].tolist(), EDGES[int(found.place[row])]
            s, t = values[i] * weights.alpha[cube, a], values[j] * weights.alpha[cube, b]
            beta = weights.beta[cube, found.place[row]]
            total, norm = total + beta * (s * points[j] - t * points[i]) / (s - t), norm + beta
            assert found.cube[row] == cube and (values[i] < 0) != (values[j] < 0)
        torch.testing.assert_close(surface.vertices[vertex], total / norm)
    plain = cube_surface(found, values, points, neutral(n, torch.float64)).vertices
    inner = (plain.abs() < 0.7).all(1)  # the cubes at the walls, where values were bent, lie beyond 3/4
    assert inner.any() and (plain[inner] @ torch.tensor([0.6, 0.8, 0.0]).double() - 0.13).abs().max() < 1e-7


def test_weights_are_bounded():
    weights = CubeWeights.of(torch.tensor([[100.0] * 21, [-100.0] * 21]))
    assert weights.alpha.min() > 0 and weights.beta.min() > 0 and weights.gamma.min() > 0
    zero = CubeWeights.of(torch.zeros(1, 21))
    assert bool((zero.alpha == 1).all()) and bool((zero.beta == 1).all()) and zero.gamma.item() == 0.5


def test_gradients_against_finite_differences():
    n, points = 3, grid(3, torch.float64)
    values = ball(points, 0.7) + 0.01
    found = cubes_crossed(corners(values, n))
    raw = 0.3 * torch.randn(n**3, 21, generator=torch.Generator().manual_seed(1)).double()

    def measured(values, points, raw):
        surface = cube_surface(found, values, points, CubeWeights.of(raw))
        return volume(surface.vertices, surface.faces) + surface.spread.square().sum()

    used = found.owner.unique()
    inputs = (values.requires_grad_(), points.requires_grad_(), raw[used].requires_grad_())
    assert torch.autograd.gradcheck(lambda v, p, r: measured(v, p, raw.index_put((used,), r)), inputs, atol=1e-6)


def test_beta_pulls_the_vertex_of_a_cube_to_any_of_its_crossings():
    assert len(EDGES) == 12 and all(sum(abs(a - b) for a, b in zip(CORNERS[i], CORNERS[j], strict=True)) == 1
                                    for i, j in EDGES)  # fmt: skip
    n, points = 2, grid(2)
    values = points[:, 0] + points[:, 1] + points[:, 2] + 0.7  # cuts off one corner of cube 0 and more
    values = torch.where(points.abs().amax(1) > 0.99, values.abs(), values)
    values[13] = -0.5
    found = cubes_crossed(corners(values, n))
    raw = torch.zeros(n**3, 21)
    row = (found.vertex == 0).nonzero()[0, 0]
    raw[:, 8:20] = -100.0
    raw[found.owner[0], 8 + found.place[row]] = 100.0
    pulled = cube_surface(found, values, points, CubeWeights.of(raw)).vertices[0]
    a, b = found.edges[row]
    crossing = (points[b] * values[a] - points[a] * values[b]) / (values[a] - values[b])
    torch.testing.assert_close(pulled, crossing, atol=0.02, rtol=0)
