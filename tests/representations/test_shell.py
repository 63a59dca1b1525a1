"""Shell: files at the door, paint as a field and as a texture, what survives a change of stage."""

import math

import pytest
import torch
import trimesh

from dream3d.checks import InputError
from dream3d.materials import PBR
from dream3d.meshing import topology
from dream3d.representations import Shell, Tets
from dream3d.representations.shell import read_mesh
from tests.kernels.mesh_scenes import icosphere

SMALL = {"levels": 2, "log2_table": 8, "finest": 16, "hidden": 8}


def tiny(start=None, **changes):
    torch.manual_seed(0)
    return Shell(start, **{**SMALL, **changes})


@pytest.fixture
def written(tmp_path):
    """A ball somewhere else, larger, with colours from left to right, as files of several kinds."""

    def write(suffix):
        vertices, faces = icosphere(2, torch.float32)
        ramp = (127.5 * (vertices + 1)).round().clamp(0, 255).to(torch.uint8).numpy()
        shape = trimesh.Trimesh((3 * vertices + 5).numpy(), faces.numpy(), vertex_colors=ramp, process=False)
        path = tmp_path / f"ball{suffix}"
        shape.export(path)
        return path

    return write


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply", ".stl", ".off"])
def test_files_are_read_welded_and_fitted(suffix, written):
    mesh = read_mesh(written(suffix), fit=0.6)
    assert len(mesh.faces) == 320 and len(mesh.vertices) == 162  # .stl has each corner by itself
    assert topology(mesh).manifold
    torch.testing.assert_close(mesh.vertices.norm(dim=1), torch.full((162,), 0.6), atol=5e-3, rtol=0)
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    assert (a * torch.linalg.cross(b, c)).sum() > 0
    assert read_mesh(written(suffix), fit=None).vertices.mean().item() == pytest.approx(5, abs=0.01)


def test_colours_of_the_vertices_come_along(written):
    mesh = read_mesh(written(".ply"), fit=0.6)
    torch.testing.assert_close(mesh.colors, mesh.vertices / 1.2 + 0.5, atol=0.01, rtol=0)


def test_files_that_are_refused(tmp_path):
    (tmp_path / "broken.glb").write_bytes(b"glTF and then nothing")
    (tmp_path / "note.txt").write_text("a mesh")
    (tmp_path / "empty.obj").write_text("v 0 0 0\nv 1 0 0\n")
    (tmp_path / "line.off").write_text("OFF\n3 1 0\n0 0 0\n0 0 0\n1 0 0\n3 0 1 2\n")
    (tmp_path / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    for name, words in (
        ("absent.glb", "no such file"), ("note.txt", "expected a mesh file"), ("broken.glb", "no mesh"),
        ("empty.obj", "triangles|no mesh"), ("line.off", "without an area"), ("nan.obj", "finite|no mesh"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            read_mesh(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        tiny(file=str(tmp_path / "absent.glb"))


@pytest.mark.parametrize("paint", ["field", "texture"])
def test_paint_is_trained_and_the_surface_stays(paint, written):
    shell = tiny(file=str(written(".obj")), paint=paint, texture=64, material=PBR())
    mesh = shell.facets()
    assert (mesh.uv is not None) == (paint == "texture")
    uv = None if mesh.uv is None else mesh.uv[mesh.faces.long()].mean(1)
    points = mesh.vertices[mesh.faces.long()].mean(1)
    raw = shell.paint(points, uv)
    assert raw.shape == (320, 5) and shell.width == 5 and not mesh.vertices.requires_grad
    raw.sum().backward()
    trained = [p for group in shell.parameter_groups() for p in group["params"]]
    assert all(p.grad is not None and p is not shell.vertices for p in trained)
    assert set(shell.surface().bake(points)) == {"base_color", "roughness", "metallic"}


def test_vertices_move_if_they_may():
    shell = tiny(moving=True)
    shell.facets().vertices.square().sum().backward()
    assert shell.vertices.grad.abs().sum() > 0
    assert any(shell.vertices is p for group in shell.parameter_groups() for p in group["params"])


def test_a_texture_needs_uvs():
    with pytest.raises(InputError, match="UVs"):
        tiny(paint="texture", texture=64).paint(torch.zeros(1, 3))


@pytest.mark.parametrize("paint", ["field", "texture"])
def test_appearance_survives_the_change_of_stage(paint, written):
    """File colours into paint, paint into the next shell's paint, paint into vertex colours."""
    colored = tiny(file=str(written(".ply")), paint=paint, texture=256, levels=6, log2_table=12, finest=64)
    wanted = (colored.vertices / 1.2 + 0.5).clamp(0.02, 0.98)
    assert (colored.to_mesh().colors - wanted).abs().mean() < 0.03
    second = tiny(colored, paint="texture" if paint == "field" else "field", texture=256, levels=6, log2_table=12)
    there = second.to_mesh()
    assert (there.colors - (there.vertices / 1.2 + 0.5).clamp(0.02, 0.98)).abs().mean() < 0.05
    points = colored.to_mesh().vertices
    assert (second.surface().bake(points)["base_color"] - wanted).abs().mean() < 0.05


def test_starts_from_tets_with_their_paint():
    torch.manual_seed(0)
    tets = Tets(resolution=12, **SMALL)
    torch.nn.init.normal_(tets.paint_field.encoding.table)
    shell = tiny(tets)
    assert torch.equal(shell.vertices, tets.surface().mesh.vertices)
    points = torch.rand(16, 3) - 0.5
    assert torch.equal(shell.paint(points), tets.paint(points))


@pytest.mark.parametrize("paint", ["field", "texture"])
def test_states_are_restored(paint):
    """As a run resumes: built from nothing, then filled with what came from another surface."""
    saved = tiny(Tets(resolution=10, ball=0.3, **SMALL), paint=paint, texture=64)
    restored = tiny(paint=paint, texture=64)
    assert len(restored.vertices) != len(saved.vertices)
    restored.load_state_dict(saved.state_dict())
    assert torch.equal(saved.facets().vertices, restored.facets().vertices)
    assert torch.equal(saved.facets().faces, restored.facets().faces)
    again = tiny(saved, paint=paint, texture=64)
    assert torch.equal(saved.to_mesh().colors, again.to_mesh().colors)


def test_without_anything_it_is_a_ball():
    radii = tiny().facets().vertices.norm(dim=1)
    assert math.isclose(float(radii.mean()), 0.5, abs_tol=0.02)
