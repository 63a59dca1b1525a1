import math

import numpy as np
import pytest
import torch
import trimesh

from dream3d.checks import InputError
from dream3d.meshing import vertex_normals
from dream3d.occlusion import occlusion
from dream3d.types import Mesh
from tests.test_meshing import sphere, surface_of


def rectangle(a, b, c, d):
    return torch.tensor([a, b, c, d], dtype=torch.float32), torch.tensor([[0, 1, 2], [0, 2, 3]])


def corner(height=1.0, half=12.0):
    """A floor and, over x = 0, a wall that is long enough to count as endless."""
    floor, faces = rectangle((-3, 0, half), (3, 0, half), (3, 0, -half), (-3, 0, -half))
    wall, _ = rectangle((0, 0, half), (0, 0, -half), (0, height, -half), (0, height, half))
    return Mesh(torch.cat([floor, wall]), torch.cat([faces, faces + 4]))


def test_a_convex_body_sees_everything():
    ball = sphere(32)
    seen = occlusion(ball.vertices, vertex_normals(ball), ball, directions=64, pixels=128)
    assert seen.shape == (len(ball.vertices), 1)
    assert float(seen.min()) > 0.97 and float(seen.mean()) > 0.999


def test_the_inside_of_a_ball_sees_nothing():
    ball = sphere(32)
    assert float(occlusion(ball.vertices, -vertex_normals(ball), ball, directions=64, pixels=128).max()) == 0


def test_beside_a_wall():
    """An endless wall of height h at distance d takes (1 - d / sqrt(d² + h²)) / 2 of the light."""
    places = (0.25, 0.5, 1.0, 2.0)
    points = torch.tensor([[x, 0.0, 0.0] for x in places])
    seen = occlusion(points, torch.tensor([[0.0, 1.0, 0.0]]).repeat(4, 1), corner(), directions=500, pixels=512)
    assert seen.view(-1).tolist() == pytest.approx([1 - (1 - x / math.hypot(x, 1)) / 2 for x in places], abs=0.03)


def test_rays_by_embree_agree():
    thing = surface_of(lambda p: 0.22 - torch.stack([p[..., [0, 2]].norm(dim=-1) - 0.55, p[..., 1]], -1).norm(dim=-1)
                       + 0.04 * torch.sin(9 * p).prod(-1), cells=40)  # fmt: skip
    normals = vertex_normals(thing)
    some = torch.arange(0, len(thing.vertices), 17)
    points, normal = thing.vertices[some], normals[some]
    found = occlusion(points, normal, thing, directions=200, pixels=384).view(-1).numpy()

    rng = np.random.default_rng(0)
    rays = 300
    u, turn = rng.random((len(some), rays)), 2 * math.pi * rng.random((len(some), rays))
    n = normal.double().numpy()
    side = np.cross(n, np.where(np.abs(n[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]]))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    over = np.cross(n, side)
    flat = np.sqrt(u)[..., None] * (np.cos(turn)[..., None] * side[:, None] + np.sin(turn)[..., None] * over[:, None])
    ways = flat + np.sqrt(1 - u)[..., None] * n[:, None]
    starts = np.broadcast_to((points.double().numpy() + 2e-3 * n)[:, None], ways.shape)
    scene = trimesh.Trimesh(thing.vertices.numpy(), thing.faces.numpy(), process=False)
    hit = scene.ray.intersects_any(starts.reshape(-1, 3), ways.reshape(-1, 3)).reshape(len(some), rays)
    truth = 1 - hit.mean(1)
    assert truth.min() < 0.65 and truth.max() > 0.95
    assert np.abs(found - truth).mean() < 0.02 and np.corrcoef(found, truth)[0, 1] > 0.98


def test_size_and_place_do_not_matter():
    ball = sphere(24)
    hollow = Mesh(torch.cat([ball.vertices, 1.5 * ball.vertices[:40]]), ball.faces)
    normals = vertex_normals(hollow)
    one = occlusion(hollow.vertices, normals, hollow, directions=32, pixels=64)
    moved = Mesh(64 * hollow.vertices, hollow.faces)
    assert torch.equal(occlusion(moved.vertices, normals, moved, directions=32, pixels=64), one)


def test_numbers_are_checked():
    ball = sphere(12)
    for wrong in ({"directions": 4}, {"pixels": 8}):
        with pytest.raises(InputError, match="must be"):
            occlusion(ball.vertices, ball.vertices, ball, **wrong)
