"""Meshes, cameras and a loop for the tests of the mesh kernels."""

import math

import torch

from dream3d.types import Cameras

DOUBLE = torch.float64


def icosphere(levels, dtype=DOUBLE):
    """20 * 4^levels triangles with corners on the unit sphere."""
    g = (1 + math.sqrt(5)) / 2
    signs = [(a, b) for a in (-1, 1) for b in (-1, 1)]
    corners = [p for a, b in signs for p in ((0, a, b * g), (a, b * g, 0), (b * g, 0, a))]
    vertices = torch.nn.functional.normalize(torch.tensor(corners, dtype=DOUBLE), dim=1)
    near = torch.cdist(vertices, vertices) < 1.1
    triples = torch.combinations(torch.arange(12), 3)
    a, b, c = triples.unbind(dim=1)
    faces = triples[near[a, b] & near[b, c] & near[c, a]]
    normal = torch.linalg.cross(
        vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]]
    )
    inwards = (normal * vertices[faces[:, 0]]).sum(dim=1) < 0
    faces = torch.where(inwards[:, None], faces.flip(1), faces)
    for _ in range(levels):
        edges = torch.cat([faces[:, [1, 2]], faces[:, [2, 0]], faces[:, [0, 1]]]).sort(dim=1).values
        edges, middle = edges.unique(dim=0, return_inverse=True)
        x, y, z = (len(vertices) + middle).view(3, -1).unbind(dim=0)
        vertices = torch.cat([vertices, torch.nn.functional.normalize(vertices[edges].sum(dim=1), dim=1)])
        a, b, c = faces.unbind(dim=1)
        quarters = ((a, z, y), (b, x, z), (c, y, x), (x, y, z))
        faces = torch.cat([torch.stack(q, dim=1) for q in quarters])
    return vertices.to(dtype), faces


def front(height=20, width=20, distance=0.0, dtype=DOUBLE):
    """One camera on the z axis that looks along -z, 90 degrees high: at depth w a metre is height / (2 w) pixels."""
    c2w = torch.eye(4, dtype=dtype)[None].clone()
    c2w[0, 2, 3] = distance
    return Cameras(c2w, torch.tensor([math.pi / 2], dtype=dtype), height, width)


def in_pixels(points, height=20, width=20):
    """World points for `front()` from (x, y, depth), x and y in pixels."""
    x, y, w = torch.as_tensor(points, dtype=DOUBLE).unbind(dim=-1)
    scale = 2 * w / height
    return torch.stack([(x - width / 2) * scale, (height / 2 - y) * scale, -w], dim=-1)


def soup(number, dtype, generator, *, size=0.5):
    """Unconnected random triangles around the origin."""
    middle = 1.2 * torch.rand(number, 1, 3, dtype=DOUBLE, generator=generator) - 0.6
    corners = middle + size * (torch.rand(number, 3, 3, dtype=DOUBLE, generator=generator) - 0.5)
    return corners.view(-1, 3).to(dtype), torch.arange(3 * number).view(-1, 3)


def for_threads_and_levels(run, levels):
    """`run(library)` for every instruction set on one thread, then on three."""
    before = torch.get_num_threads()
    try:
        results = []
        for number in (1, 3):
            torch.set_num_threads(number)
            results += [run(library) for library in levels]
    finally:
        torch.set_num_threads(before)
    return results
