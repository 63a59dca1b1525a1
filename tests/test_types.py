"""The bundles: what they refuse, and the few things that they compute."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from jaxtyping import TypeCheckError

from dream3d.cameras import orbit, turntable
from dream3d.checks import InputError
from dream3d.types import Cameras, Material, Mesh, Render, Splats

DOUBLE = {"dtype": torch.float64}


def cameras(batch: int = 3, height: int = 6, width: int = 10) -> Cameras:
    one = torch.ones(batch, **DOUBLE)
    return orbit(torch.arange(batch, **DOUBLE), 0.3 * one, 2.5 * one, 0.7 * one, height, width)


def test_annotated_shapes_are_checked_in_tests() -> None:
    """The hook of conftest.py is at work: without it, annotations could say anything."""
    with pytest.raises(TypeCheckError, match="c2w"):
        Cameras(torch.eye(4), torch.ones(1), 4, 4)


def test_bundles_are_frozen() -> None:
    for bundle, name in ((cameras(), "height"), (Render(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 1)), "rgb")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(bundle, name, 1)
    with pytest.raises(TypeError):
        Render(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 1)).aux["x"] = torch.zeros(1)  # type: ignore[index]


@pytest.mark.usefixtures("as_users_run")
def test_cameras_refuse_wrong_shapes() -> None:
    good = {"c2w": torch.eye(4).repeat(2, 1, 1), "fov_y": torch.ones(2), "height": 4, "width": 4}
    Cameras(**good)
    for wrong in ({"c2w": torch.eye(4)}, {"c2w": torch.eye(3).repeat(2, 1, 1)}, {"fov_y": torch.ones(3)}):
        with pytest.raises(InputError, match="expected c2w .B, 4, 4. and fov_y .B,., got"):
            Cameras(**(good | wrong))
    for wrong in ({"height": 0}, {"width": -1}):
        with pytest.raises(InputError, match="height and width"):
            Cameras(**(good | wrong))


def test_cameras_index_slice_and_end() -> None:
    c = cameras(3)
    for index in (-3, -1, 0, 2):
        assert len(c[index]) == 1 and torch.equal(c[index].c2w[0], c.c2w[index])
    assert torch.equal(c[1:].c2w, c.c2w[1:])
    assert torch.equal(c[torch.tensor([2, 0])].fov_y, c.fov_y[[2, 0]])
    assert len(list(c)) == 3
    for index in (3, -4):
        with pytest.raises(IndexError):
            c[index]


def test_cameras_move_and_resize() -> None:
    c = cameras()
    assert torch.equal(c.to("cpu").c2w, c.c2w)
    bigger = c.resized(12, 20)
    assert (bigger.height, bigger.width) == (12, 20) and bigger.c2w is c.c2w
    # Twice the pixels: the middle of a 2 x 2 block is the old pixel.
    blocks = bigger.rays()[1].reshape(3, 6, 2, 10, 2, 3).mean(dim=(2, 4))
    assert torch.allclose(torch.nn.functional.normalize(blocks, dim=-1), c.rays()[1], atol=1e-3)


def test_rays_pass_through_pixel_centres() -> None:
    """By the pinhole equations, pixel by pixel, in camera coordinates."""
    c = cameras(2, height=4, width=6)
    origins, directions = c.rays()
    assert origins.shape == directions.shape == (2, 4, 6, 3)
    assert torch.allclose(directions.norm(dim=-1), torch.ones(2, 4, 6, **DOUBLE))
    assert torch.equal(origins[:, 3, 5], c.position)
    focal = 2 / math.tan(0.35)
    local = torch.einsum("bji,bhwj->bhwi", c.c2w[:, :3, :3], directions)
    for row in range(4):
        for column in range(6):
            x, y, z = local[0, row, column].tolist()
            assert x / -z * focal + 3 == pytest.approx(column + 0.5)
            assert 2 - y / -z * focal == pytest.approx(row + 0.5)
            assert z < 0


def test_field_of_view_is_that_of_the_height() -> None:
    c = cameras(1, height=1000, width=3)
    _, d = c.rays()
    angle = torch.arccos((d[0, 0, 1] * d[0, -1, 1]).sum())
    assert float(angle) == pytest.approx(0.7, rel=2e-3)


def test_render_over_a_background() -> None:
    rgb, alpha = torch.rand(2, 4, 5, 3), torch.rand(2, 4, 5, 1)
    render = Render(rgb * alpha, alpha)
    colour = torch.tensor([0.2, 0.5, 0.9])
    over = render.over(colour)
    assert over.shape == (2, 3, 4, 5)
    expected = alpha * rgb + (1 - alpha) * colour
    assert torch.allclose(over, expected.permute(0, 3, 1, 2))
    assert torch.equal(render.over(colour.expand(2, 3)), over)
    assert torch.equal(render.over(colour.expand(2, 4, 5, 3)), over)
    each = render.over(torch.stack([colour, 1 - colour]))
    assert torch.equal(each[0], over[0]) and not torch.allclose(each[1], over[1])


def test_render_ends() -> None:
    nothing = Render(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 1))
    solid = Render(torch.full((1, 2, 2, 3), 0.3), torch.ones(1, 2, 2, 1))
    white = torch.ones(3)
    assert torch.equal(nothing.over(white), torch.ones(1, 3, 2, 2))
    assert torch.equal(solid.over(white), solid.over(torch.zeros(3)))


@pytest.mark.usefixtures("as_users_run")
def test_mesh_refuses_wrong_shapes() -> None:
    vertices, faces = torch.rand(3, 3), torch.tensor([[0, 1, 2]])
    mesh = Mesh(vertices, faces, material=Material())
    assert mesh.uv is None and mesh.material == Material()
    for wrong in ((vertices[:, :2], faces), (vertices, faces[0]), (vertices[0], faces)):
        with pytest.raises(InputError, match="expected vertices .V, 3. and faces .F, 3., got"):
            Mesh(*wrong)


def test_turntable_starts_at_the_front() -> None:
    assert float(turntable(5, 8).azimuth[0]) == 0


@pytest.mark.usefixtures("as_users_run")
def test_splats_refuse_wrong_shapes() -> None:
    one = torch.ones
    good = {"means": one(2, 3), "quaternions": one(2, 4), "scales": one(2, 3), "opacities": one(2), "sh": one(2, 4, 3)}
    assert len(Splats(**good)) == 2
    for wrong in ({"quaternions": one(2, 3)}, {"opacities": one(2, 1)}, {"sh": one(2, 5, 3)}, {"sh": one(1, 4, 3)}):
        with pytest.raises(InputError, match=f"Splats: expected {next(iter(wrong))} .2"):
            Splats(**(good | wrong))
