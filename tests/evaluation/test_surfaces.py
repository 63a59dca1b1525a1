from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dream3d.checks import InputError
from dream3d.evaluation.surfaces import FIT, fit, read_surface
from dream3d.gltf import write_glb
from dream3d.types import Material, Mesh

TRIANGLE = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 1, 0]])
FACE = torch.tensor([[0, 1, 2]])


def test_a_fitted_object_touches_the_sphere_and_keeps_its_shape() -> None:
    points = fit(np.array([[5.0, 5, 5], [7, 6, 5], [5, 5, 8]]))
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(FIT)
    assert np.allclose(points.min(0), -points.max(0))
    extent = np.ptp(points, axis=0)
    assert np.allclose(extent / extent[1], [2, 1, 3])
    stretched = np.ptp(fit(points, (1.0, 1.0, 4.0)), axis=0)
    assert np.allclose(stretched / stretched[0], [1, 1, 4])


def test_vertex_colours_of_a_glb_come_back(tmp_path: Path) -> None:
    """They are linear in the file, and sRGB-coded on both sides of it."""
    colors = torch.tensor([[0.2, 0.5, 0.9], [0.0, 1.0, 0.5], [0.7, 0.7, 0.7]])
    write_glb(Mesh(TRIANGLE, FACE, colors=colors), tmp_path / "a.glb", {})
    surface = read_surface(tmp_path / "a.glb")
    assert surface.painted is not None and surface.images == [None]
    assert np.allclose(np.sort(surface.painted, axis=0), np.sort(colors.numpy(), axis=0), atol=0.02)


def test_textures_of_a_glb_come_back_the_right_way_up(tmp_path: Path) -> None:
    texture = torch.zeros(64, 64, 3)
    texture[:32, :, 0] = 1  # red on top
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # from the top left
    normals = torch.tensor([[0.0, 0, 1]]).expand(3, 3)
    mesh = Mesh(TRIANGLE, FACE, normals=normals, uv=uv, material=Material(base_color=texture))
    write_glb(mesh, tmp_path / "a.glb", {})
    surface = read_surface(tmp_path / "a.glb")
    (image,) = surface.images
    assert image is not None and surface.painted is None
    top = surface.uv[:, 1].max()
    assert top == pytest.approx(1) and np.allclose(image[0, 0], [1, 0, 0]) and np.allclose(image[-1, 0], 0)


def test_rotation_comes_before_the_proportions(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\nf 1 3 4\n")
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    extent = np.ptp(read_surface(tmp_path / "a.obj", quarter, (1.0, 2.0, 3.0)).vertices, axis=0)
    assert np.allclose(extent / extent[0], [1, 2, 3])


def test_what_is_no_mesh_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(b"glTF but not really")
    (tmp_path / "b.obj").write_text("v 0 0 0\n")
    for name in ("a.glb", "b.obj"):
        with pytest.raises(InputError, match="mesh") as error:
            read_surface(tmp_path / name)
        assert "\n" not in str(error.value)
