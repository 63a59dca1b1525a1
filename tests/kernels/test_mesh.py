"""Rasterising and interpolating: closed forms, finite differences, the twins, and the corners."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from dream3d.checks import InputError
from dream3d.kernels import mesh, mesh_reference
from dream3d.types import Cameras
from tests.kernels.conftest import cameras, off_by
from tests.kernels.mesh_scenes import DOUBLE, for_threads_and_levels, front, icosphere, in_pixels, soup

FINE = {torch.float32: 1e-4, DOUBLE: 1e-9}
TRIANGLE = torch.tensor([[0, 1, 2]])


def draw(points, faces, library, **options):
    """Fragments of points in pixels and depths."""
    projected = mesh.project_vertices(in_pixels(points), front(), library=library)
    return mesh.rasterise(projected, torch.as_tensor(faces), library=library, **options)


# ---- closed forms


def test_one_triangle(double_library):
    points = torch.tensor([[2.0, 3, 1], [17, 5, 4], [6, 18, 2]], dtype=DOUBLE)
    fragments = draw(points, TRIANGLE, double_library)
    y, x = torch.meshgrid(*[torch.arange(20, dtype=DOUBLE) + 0.5] * 2, indexing="ij")
    (ax, bx, cx), (ay, by, cy), depth = points.T
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    flat = torch.stack([
        (bx - x) * (cy - y) - (cx - x) * (by - y),
        (cx - x) * (ay - y) - (ax - x) * (cy - y),
        (ax - x) * (by - y) - (bx - x) * (ay - y),
    ], dim=-1) / area  # fmt: skip
    inside = (flat > 0).all(dim=-1)
    assert 80 < inside.sum() < 120 and torch.equal(fragments.face[0] == 0, inside)
    distance = 1 / (flat / depth).sum(dim=-1)  # 1 / depth is linear in the picture
    assert torch.allclose(fragments.depth[0][inside], distance[inside], rtol=1e-12)
    shares = flat / depth * distance[..., None]
    assert torch.allclose(fragments.barycentrics[0][inside], shares[inside], rtol=1e-10)
    assert (fragments.barycentrics[0][~inside] == 0).all() and (fragments.depth[0][~inside] == 0).all()
    assert torch.equal(fragments.mask[0, ..., 0].bool(), inside)


def test_rows_and_axes(double_library):
    """World up is the picture's top, world right its right."""
    vertices = torch.tensor([[0.5, 0.5, -1], [0.9, 0.5, -1], [0.9, 0.9, -1]], dtype=DOUBLE)
    projected = mesh.project_vertices(vertices, front(), library=double_library)
    rows, columns = (mesh.rasterise(projected, TRIANGLE, library=double_library).face[0] >= 0).nonzero(as_tuple=True)
    assert rows.min() >= 1 and rows.max() < 5 and columns.min() >= 15 and columns.max() < 19


def test_interpolation_is_perspective_correct(double_library):
    """Attributes that are linear in the world come out at the world point that the ray hits."""
    views = cameras(number=3, height=30, width=41)
    vertices, faces = icosphere(1)
    projected = mesh.project_vertices(vertices, views, library=double_library)
    fragments = mesh.rasterise(projected, faces, library=double_library)
    places = mesh.interpolate(vertices, faces, fragments, library=double_library)
    origins, directions = views.rays()
    along = -(directions * views.c2w[:, None, None, :3, 2]).sum(dim=-1)
    wanted = origins + directions * (fragments.depth / along)[..., None]
    seen = fragments.face >= 0
    assert 300 < seen.sum() and torch.allclose(places[seen], wanted[seen], atol=1e-12) and (places[~seen] == 0).all()


def test_the_nearer_wins_and_the_first_of_equals(library):
    square = [[2.0, 2, 0], [18, 2, 0], [18, 18, 0], [2, 18, 0]]
    points = torch.tensor(square + square + square, dtype=DOUBLE)
    points[:, 2] = torch.tensor([3.0, 2.0, 2.0]).repeat_interleave(4)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    projected = mesh.project_vertices(in_pixels(points).to(library.dtype), front(), library=library)
    fragments = mesh.rasterise(projected, torch.cat([faces, faces + 4, faces + 8]), library=library)
    assert set(fragments.face.unique().tolist()) == {-1, 2, 3} and (fragments.face >= 0).sum() == 256
    assert torch.allclose(fragments.depth[fragments.face >= 0], torch.tensor(2.0, dtype=library.dtype))


# ---- watertight


def test_no_holes_and_no_double_hits(library, generator):
    """A thousand triangulated squares of 18 x 18 pixels, a third of the vertices on pixel centres."""
    number = 1000
    at = torch.arange(49).view(7, 7)
    a, b, c, d = (t.flatten() for t in (at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]))
    turn = torch.rand(len(a), 1, generator=generator) < 0.5
    faces = torch.cat([
        torch.where(turn, torch.stack([a, b, c], 1), torch.stack([b, a, d], 1)),  # also of either winding
        torch.where(turn, torch.stack([a, c, d], 1), torch.stack([d, b, c], 1)),
    ])  # fmt: skip
    flat = torch.stack(torch.meshgrid(*[torch.linspace(1, 19, 7, dtype=DOUBLE)] * 2, indexing="ij"), dim=-1)
    flat = flat.repeat(number, 1, 1, 1)
    draw = lambda: torch.rand(number, 5, 5, 2, dtype=DOUBLE, generator=generator)  # noqa: E731
    inner = flat[:, 1:-1, 1:-1]
    inner += draw() - 0.5
    inner[:] = torch.where(draw() < 1 / 3, inner.floor() + 0.5, inner)
    w = 1 + torch.rand(number, 49, 1, dtype=DOUBLE, generator=generator)
    points = torch.cat([flat.view(number, 49, 2) * w, w], dim=-1).to(library.dtype)
    projected = mesh.ProjectedVertices(points, 20, 20)
    together = mesh.rasterise(projected, faces, library=library).face
    assert (together[:, 1:-1, 1:-1] >= 0).all() and (together >= 0).sum() == number * 18 * 18
    apart = torch.zeros_like(together)
    for face in faces:
        apart += mesh.rasterise(projected, face[None], library=library).face >= 0
    assert (apart[:, 1:-1, 1:-1] == 1).all() and apart.sum() == number * 18 * 18


# ---- gradients against finite differences


def test_gradients_of_barycentrics_and_depth(double_library, generator):
    vertices, faces = soup(4, DOUBLE, generator, size=1.2)
    views = cameras(height=9, width=8)
    wanted = mesh.rasterise(
        mesh.project_vertices(vertices, views, library=double_library), faces, library=double_library
    )
    weight = torch.randn(wanted.barycentrics.shape, dtype=DOUBLE, generator=generator)

    def run(v):
        fragments = mesh.rasterise(
            mesh.project_vertices(v, views, library=double_library), faces, library=double_library
        )
        assert torch.equal(fragments.face, wanted.face), "the step of the finite difference is too long"
        return (fragments.barycentrics * weight).sum(dim=-1), fragments.depth

    assert (wanted.face >= 0).sum() > 10 and gradcheck(run, vertices.requires_grad_(), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("batched", [False, True])
def test_gradients_of_interpolation(double_library, generator, batched):
    vertices, faces = soup(5, DOUBLE, generator, size=1.2)
    projected = mesh.project_vertices(vertices, cameras(height=7, width=8), library=double_library)
    fragments = mesh.rasterise(projected, faces, library=double_library)
    shape = (2, 15, 3) if batched else (15, 3)
    attributes = torch.randn(shape, dtype=DOUBLE, generator=generator).requires_grad_()
    shares = fragments.barycentrics.clone().requires_grad_()

    def run(a, b):
        seen = mesh.Fragments(fragments.face, b, fragments.depth)
        return mesh.interpolate(a, faces, seen, library=double_library)

    assert gradcheck(run, (attributes, shares), fast_mode=True)


# ---- against the twins


def surface(module, vertices, faces, views, attributes, **library):
    """Outputs, and gradients of a random functional of them."""
    projected = module.project_vertices(vertices, views, **library)
    fragments = module.rasterise(projected, faces, **library)
    values = module.interpolate(attributes, faces, fragments, **library)
    fixed = torch.Generator().manual_seed(7)
    outputs = [fragments.barycentrics, fragments.depth, values]
    weights = [torch.randn(o.shape, dtype=DOUBLE, generator=fixed).to(o) for o in outputs]
    loss = torch.stack([(w * o).sum() for w, o in zip(weights, outputs, strict=True)]).sum()
    gradients = torch.autograd.grad(loss, (vertices, attributes))
    return fragments, [projected.points, *outputs, *gradients]


@pytest.mark.parametrize("scene", ["sphere", "soup", "inside"])
def test_surfaces_equal_their_twin(library, generator, scene):
    views = cameras(library.dtype, 3, 53, 70)
    vertices, faces = icosphere(3, library.dtype) if scene == "sphere" else soup(300, library.dtype, generator)
    if scene == "inside":  # triangles around and behind the cameras, cut by the near plane
        vertices = vertices * 6
    vertices.requires_grad_()
    attributes = torch.randn(len(vertices), 5, dtype=DOUBLE, generator=generator).to(library.dtype).requires_grad_()
    mine, values = surface(mesh, vertices, faces, views, attributes, library=library)
    twin, wanted = surface(mesh_reference, vertices, faces, views, attributes)
    assert torch.equal(mine.face, twin.face) and (mine.face >= 0).double().mean() > 0.2
    for a, b in zip(values, wanted, strict=True):
        assert a.shape == b.shape and off_by(a, b) < FINE[library.dtype]


def test_mip_levels_equal_their_twin_and_the_closed_form(library, generator):
    views, (vertices, faces) = cameras(library.dtype, 2, 40, 50), icosphere(2, library.dtype)
    uv = torch.rand(60, 2, dtype=DOUBLE, generator=generator).to(library.dtype)
    uv_faces = torch.randint(60, faces.shape, generator=generator)
    projected = mesh.project_vertices(vertices, views, library=library)
    fragments = mesh.rasterise(projected, faces, library=library)
    arguments = (projected, faces, fragments, uv, uv_faces)
    levels = mesh.mip_levels(*arguments, size=(300, 200), library=library)
    assert off_by(levels, mesh_reference.mip_levels(*arguments, size=(300, 200))) < FINE[library.dtype]
    assert levels.max() > 3

    square = torch.tensor([[2.0, 2, 3], [18, 2, 3], [18, 18, 3], [2, 18, 3]], dtype=DOUBLE)
    projected = mesh.project_vertices(in_pixels(square).to(library.dtype), front(), library=library)
    faces, uv = torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]).to(library.dtype)
    fragments = mesh.rasterise(projected, faces, library=library)
    levels = mesh.mip_levels(projected, faces, fragments, uv, faces, size=(128, 64), library=library)
    assert torch.allclose(
        levels[fragments.face >= 0], torch.tensor(3.0).to(levels), atol=1e-4
    )  # 128 / 16 texels a pixel
    assert (levels[fragments.face < 0] == 0).all()


def test_bytes_do_not_depend_on_threads_or_instruction_sets(levels, generator):
    vertices, faces = icosphere(5, torch.float32)
    vertices.requires_grad_()
    attributes = torch.randn(len(vertices), 3, generator=generator).requires_grad_()

    def run(library):
        fragments, values = surface(
            mesh, vertices, faces, cameras(torch.float32, 3, 150, 130), attributes, library=library
        )
        return [fragments.face, *values]

    results = for_threads_and_levels(run, levels)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


# ---- corners


def test_the_near_plane_cuts(double_library):
    """A floor one metre below, from behind the camera to the horizon: row y sees depth 10 / (y - 10)."""
    floor = torch.tensor([[-1e3, -1, 1e3], [1e3, -1, 1e3], [0, -1, -1e4]], dtype=DOUBLE)
    projected = mesh.project_vertices(floor, front(), library=double_library)
    fragments = mesh.rasterise(projected, TRIANGLE, near=1.6, far=6.0, library=double_library)
    depth = 10 / (torch.arange(20, dtype=DOUBLE) + 0.5 - 10)
    seen = (depth > 1.6) & (depth < 6)
    assert seen.sum() == 4 and torch.equal((fragments.face[0] >= 0), seen[:, None].expand(20, 20))
    assert torch.allclose(fragments.depth[0, seen], depth[seen, None].expand(-1, 20), rtol=1e-9)


@pytest.mark.parametrize("points", [
    [[2.0, 3, -1], [17, 5, -4], [6, 18, -2]],  # behind
    [[2.0, 3, 1e-4], [17, 5, 1e-4], [6, 18, 1e-4]],  # nearer than the near plane
    [[30.0, 3, 1], [40, 5, 1], [35, 18, 1]],  # beside
    [[5.0, 5, 1], [5, 5, 1], [15, 9, 1]],  # two corners in one
    [[4.5, 4.5, 1], [9.5, 9.5, 1], [14.5, 14.5, 1]],  # a line through pixel centres
    [[4.5, 4.5, 1]] * 3,
])  # fmt: skip
def test_what_is_not_drawn(library, points):
    vertices = in_pixels(points).to(library.dtype).requires_grad_()
    projected = mesh.project_vertices(vertices, front(), library=library)
    fragments = mesh.rasterise(projected, TRIANGLE, library=library)
    assert (fragments.face == -1).all()
    values = mesh.interpolate(torch.ones(3, 2).to(vertices), TRIANGLE, fragments, library=library)
    gradient = torch.autograd.grad(values.sum() + fragments.depth.sum(), vertices)[0]
    assert (values == 0).all() and (gradient == 0).all()


@pytest.mark.parametrize("module", [mesh, mesh_reference])
def test_no_faces(module):
    projected = module.project_vertices(torch.rand(3, 3, requires_grad=True), front(dtype=torch.float32))
    none = torch.zeros(0, 3, dtype=torch.int64)
    fragments = module.rasterise(projected, none)
    assert (fragments.face == -1).all() and fragments.face.shape == (1, 20, 20)
    values = module.interpolate(torch.rand(3, 2, requires_grad=True), none, fragments)
    (values.sum() + fragments.depth.sum()).backward()
    assert values.shape == (1, 20, 20, 2)


def test_what_is_refused():
    vertices, views = torch.rand(4, 3), front(dtype=torch.float32)
    spoilt = vertices.clone()
    spoilt[1, 2] = math.nan
    with pytest.raises(InputError, match="expected finite numbers, got 1 that are not"):
        mesh.project_vertices(spoilt, views)
    projected = mesh.project_vertices(vertices, views)
    with pytest.raises(InputError, match="expected numbers from 0 to 3, got 0 to 4"):
        mesh.rasterise(projected, torch.tensor([[0, 1, 4]]))
    with pytest.raises(InputError, match="0 < near < far"):
        mesh.rasterise(projected, TRIANGLE, near=0)
    with pytest.raises(InputError, match=r"expected shape \(N, 3\)"):
        mesh.rasterise(projected, torch.tensor([0, 1, 2]))
    fragments = mesh.Fragments(torch.ones(1, 2, 2).int(), torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2))
    with pytest.raises(InputError, match="the fragments see face 1, but there are 1 faces"):
        mesh.interpolate(vertices, TRIANGLE, fragments)


def test_second_derivatives_are_refused():
    vertices = in_pixels([[2.0, 3, 1], [17, 5, 4], [6, 18, 2]]).float().requires_grad_()
    views = Cameras(front().c2w.float(), front().fov_y.float(), 20, 20)
    depth = mesh.rasterise(mesh.project_vertices(vertices, views), TRIANGLE).depth
    with pytest.raises(InputError, match="mesh_reference.rasterise"):
        torch.autograd.grad(depth.sum(), vertices, create_graph=True)
