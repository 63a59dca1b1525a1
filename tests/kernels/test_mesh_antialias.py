"""Silhouette antialiasing: areas and their derivatives, finite differences, the twin."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from dream3d.checks import InputError
from dream3d.kernels import mesh, mesh_reference
from tests.kernels.conftest import cameras, off_by
from tests.kernels.mesh_scenes import DOUBLE, for_threads_and_levels, front, icosphere, in_pixels, soup

FINE = {torch.float32: 1e-4, DOUBLE: 1e-9}
SQUARE = torch.tensor([[0, 1, 2], [0, 2, 3]])


def mask(vertices, faces, views, module=mesh, *, walk=64, **library):
    projected = module.project_vertices(vertices, views, **library)
    fragments = module.rasterise(projected, faces, **library)
    return module.antialias(fragments.mask, fragments, projected, faces, walk=walk, **library)[..., 0]


def square(left, right, top=4.0, bottom=16.0):
    flat = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return torch.stack([torch.stack([torch.as_tensor(x, dtype=DOUBLE) for x in (*p, 2.0)]) for p in flat])


@pytest.mark.parametrize("edge", [12.6, 12.5001, 12.95, 13.1, 13.4999])
def test_a_moving_edge(double_library, edge):
    """Between the centres of pixels 12 and 13 the mask of the two is the area that the square covers."""
    right = torch.tensor(edge, dtype=DOUBLE, requires_grad=True)
    image = mask(in_pixels(square(4.0, right)), SQUARE, front(), library=double_library)[0]
    row = image[10]
    assert torch.allclose(row[5:12], torch.ones(7, dtype=DOUBLE)) and (row[14:] == 0).all()
    assert math.isclose(row[12].item() + row[13].item(), edge - 12, abs_tol=1e-9)
    assert math.isclose(float(torch.autograd.grad(row.sum(), right)[0]), 1, abs_tol=1e-9)


def test_a_wall_in_front_of_a_wall(double_library):
    """Colours mix, the nearer square's edge moves, the farther one's does not show."""
    right = torch.tensor(10.7, dtype=DOUBLE, requires_grad=True)
    behind = square(2.0, 18.0)
    points = torch.cat([square(4.0, right), behind + torch.tensor([0, 0, 3.0])])
    faces = torch.cat([SQUARE, SQUARE + 4])
    projected = mesh.project_vertices(in_pixels(points), front(), library=double_library)
    fragments = mesh.rasterise(projected, faces, library=double_library)
    colours = 0.2 + 0.7 * (fragments.face < 2).to(DOUBLE)[..., None]
    image = mesh.antialias(colours, fragments, projected, faces, library=double_library)
    row = image[0, 10, 6:16, 0]
    assert math.isclose(row.sum().item(), 0.9 * (10.7 - 6) + 0.2 * (16 - 10.7), abs_tol=1e-9)
    assert math.isclose(float(torch.autograd.grad(row.sum(), right)[0]), 0.7, abs_tol=1e-9)


@pytest.mark.parametrize("levels, pixels", [(1, 64), (3, 96), (5, 96)])
def test_growing_spheres(levels, pixels):
    """d(mask area) / d(scale) of 80, 1,280 and 20,480 triangles against the outline's own growth, within 2 %."""
    vertices, faces = icosphere(levels, torch.float32)
    views = front(pixels, pixels, 3.0, torch.float32)
    faces = faces.int()
    radii = torch.linspace(0.9, 1.1, 11)
    found = []
    for radius in radii:
        scale = radius.clone().requires_grad_()
        found.append(float(torch.autograd.grad(mask(vertices * scale, faces, views).sum(), scale)[0]))
    # The silhouette's polygon in a picture so fine that counting its pixels is exact enough.
    fine = front(1024, 1024, 3.0, torch.float32)
    with torch.no_grad():
        ends = [mesh.rasterise(mesh.project_vertices(vertices * r, fine), faces).mask.sum() for r in (0.9, 1.1)]
    wanted = float(ends[1] - ends[0]) * (pixels / 1024) ** 2 / 0.2
    assert abs(sum(found) / len(found) / wanted - 1) < 0.02


def test_looking_at_one_triangle_only_is_not_enough():
    vertices, faces = icosphere(5, torch.float32)
    views = front(96, 96, 3.0, torch.float32)
    slopes = []
    for walk in (1, 64):
        scale = torch.tensor(1.0, requires_grad=True)
        slopes.append(float(torch.autograd.grad(mask(vertices * scale, faces, views, walk=walk).sum(), scale)[0]))
    assert slopes[0] < 0.1 * slopes[1]


def test_gradients(double_library, generator):
    vertices, faces = icosphere(0)
    views = cameras(height=11, width=12)
    colours = torch.randn(2, 11, 12, 2, dtype=DOUBLE, generator=generator).requires_grad_()

    def run(v, c):
        projected = mesh.project_vertices(v, views, library=double_library)
        with torch.no_grad():
            fragments = mesh.rasterise(projected, faces, library=double_library)
        return mesh.antialias(c, fragments, projected, faces, library=double_library)

    assert gradcheck(run, ((0.8 * vertices).requires_grad_(), colours), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("scene", ["sphere", "soup"])
@pytest.mark.parametrize("walk", [1, 64])
def test_antialiasing_equals_its_twin(library, generator, scene, walk):
    views = cameras(library.dtype, 2, 43, 50)
    vertices, faces = icosphere(3, library.dtype) if scene == "sphere" else soup(60, library.dtype, generator)
    vertices.requires_grad_()
    colours = torch.randn(2, 43, 50, 3, dtype=DOUBLE, generator=generator).to(library.dtype).requires_grad_()
    weight = torch.randn(2, 43, 50, 3, dtype=DOUBLE, generator=generator).to(library.dtype)
    results = []
    for module, chosen in ((mesh, {"library": library}), (mesh_reference, {})):
        projected = module.project_vertices(vertices, views, **chosen)
        fragments = module.rasterise(projected, faces, **chosen)
        image = module.antialias(colours, fragments, projected, faces, walk=walk, **chosen)
        results.append([image, *torch.autograd.grad(image, (colours, vertices), weight)])
    assert (results[0][0] != colours).any(dim=-1).sum() > 10
    for a, b in zip(*results, strict=True):
        assert off_by(a, b) < FINE[library.dtype]


def test_bytes_do_not_depend_on_threads(levels, generator):
    vertices, faces = icosphere(3, torch.float32)
    vertices.requires_grad_()
    views = cameras(torch.float32, 3, 60, 70)

    def run(library):
        image = mask(vertices, faces, views, library=library)
        return [image, *torch.autograd.grad(image.square().sum(), vertices)]

    results = for_threads_and_levels(run, levels)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


# ---- neighbours and corners


def test_neighbours():
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 1, 4], [1, 3, 5]])  # three meet in 1-3
    assert mesh.find_neighbours(faces).tolist() == [[1, -1, -1], [-1, -1, 0], [-1, -1, -1], [-1, -1, -1]]
    vertices, faces = icosphere(2)
    across = mesh.find_neighbours(faces)
    assert (across >= 0).all() and all(
        len({*faces[f].tolist()} & {*faces[n].tolist()}) == 2 for f, row in enumerate(across) for n in row
    )
    assert mesh.find_neighbours(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)


@pytest.mark.parametrize("module", [mesh, mesh_reference])
def test_no_faces_and_what_lies_behind(module):
    views = front(dtype=torch.float32)
    none = torch.zeros(0, 3, dtype=torch.int64)
    vertices = torch.rand(3, 3, requires_grad=True)
    assert (mask(vertices, none, views, module) == 0).all()
    through = in_pixels([[2.0, 3, 1], [17, 5, -1], [6, 18, 2]]).float().requires_grad_()  # one corner behind
    image = mask(through, torch.tensor([[0, 1, 2]]), views, module)
    assert image.sum() > 0 and torch.autograd.grad(image.sum(), through)[0].isfinite().all()


def test_what_is_refused():
    vertices, faces = icosphere(0, torch.float32)
    projected = mesh.project_vertices(vertices, front(dtype=torch.float32, distance=3.0))
    fragments = mesh.rasterise(projected, faces)
    with pytest.raises(InputError, match="antialias: colours: expected shape"):
        mesh.antialias(torch.zeros(1, 20, 19, 3), fragments, projected, faces)
    with pytest.raises(InputError, match="antialias: neighbours"):
        mesh.antialias(fragments.mask, fragments, projected, faces, neighbours=torch.zeros(2, 3).int())
    with pytest.raises(InputError, match="antialias: walk"):
        mesh.antialias(fragments.mask, fragments, projected, faces, walk=0)
