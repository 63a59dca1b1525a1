"""Mesh files and their materials, ours and strangers'."""

from __future__ import annotations

import json
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dream3d import mesh_files
from dream3d.checks import InputError
from dream3d.gltf import write_glb, write_obj
from dream3d.materials import PBR
from dream3d.mesh_files import FIT, read_mesh
from dream3d.nn.color import to_srgb
from dream3d.renderers import Raster
from dream3d.types import Material, Mesh
from tests.kernels.mesh_scenes import front

CORNERS = torch.tensor([[-1.0, 1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 0]])
FACES = torch.tensor([[0, 3, 2], [0, 2, 1]])
UV = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
FORWARD = torch.tensor([[0.0, 0, 1]]).expand(4, 3)
VIEW = front(32, 32, 2.0, torch.float32)
"""Sees the square in its middle half."""


def painted(size: int = 16) -> Mesh:
    texels = (torch.rand(3, size, size, 3) * 255).round() / 255
    local = torch.nn.functional.normalize(torch.tensor([0.4, 0.2, 0.9]), dim=0)
    normal = ((0.5 + 0.5 * local) * 255).round().expand(size, size, 3) / 255
    material = Material(base_color=texels[0], orm=texels[1], normal=normal, roughness=0.9, metallic=0.6)
    return Mesh(CORNERS, FACES, normals=FORWARD, uv=UV, material=material)


def edited(path: Path, edit) -> Path:
    """A GLB with another header."""
    data = path.read_bytes()
    (length,) = struct.unpack("<I", data[12:16])
    tree = json.loads(data[20 : 20 + length])
    edit(tree)
    head = json.dumps(tree).encode()
    head += b" " * (-len(head) % 4)
    rest = data[20 + length :]
    whole = struct.pack("<4sII", b"glTF", 2, 20 + len(head) + len(rest)) + struct.pack("<I4s", len(head), b"JSON")
    path.write_bytes(whole + head + rest)
    return path


def test_our_glb_comes_back_as_it_was(tmp_path: Path) -> None:
    """Base colour, ORM, normal map and factors, texel for texel."""
    mesh = painted()
    assert mesh.material is not None and mesh.material.base_color is not None and mesh.material.orm is not None
    write_glb(mesh, tmp_path / "a.glb", {})
    drawn = Raster(material=PBR())(read_mesh(tmp_path / "a.glb", fit=False), VIEW, normals=True)
    inner = (0, slice(8, 24), slice(8, 24))
    torch.testing.assert_close(drawn.aux["albedo"][inner], mesh.material.base_color, atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn.aux["roughness"][inner], 0.9 * mesh.material.orm[..., 1:2], atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn.aux["metallic"][inner], 0.6 * mesh.material.orm[..., 2:], atol=1e-4, rtol=0)
    wanted = torch.nn.functional.normalize(torch.tensor([0.4, 0.2, 0.9]), dim=0)
    assert drawn.normal is not None
    torch.testing.assert_close(drawn.normal[0, 16, 16], wanted, atol=0.01, rtol=0)


def test_our_obj_comes_back(tmp_path: Path) -> None:
    mesh = painted()
    assert mesh.material is not None and mesh.material.base_color is not None and mesh.material.orm is not None
    write_obj(mesh, tmp_path / "a.obj")
    drawn = Raster(material=PBR())(read_mesh(tmp_path / "a.obj", fit=False), VIEW)
    inner = (0, slice(8, 24), slice(8, 24))
    torch.testing.assert_close(drawn.aux["albedo"][inner], mesh.material.base_color, atol=1e-4, rtol=0)
    mean = 0.9 * float(mesh.material.orm[..., 1].mean())
    assert drawn.aux["roughness"][0, 16, 16].item() == pytest.approx(mean, abs=1e-3)


@pytest.mark.parametrize("ending", ["glb", "ply", "obj"])
def test_colours_of_corners_come_back(tmp_path: Path, ending: str) -> None:
    """Linear in GLB, as shown in PLY and OBJ; 8 bits in between."""
    path = tmp_path / f"a.{ending}"
    colors = torch.tensor([[0.8, 0.3, 0.6]]).expand(4, 3)
    mesh = Mesh(CORNERS, FACES, colors=colors)
    if ending == "ply":
        trimesh.Trimesh(CORNERS, FACES, vertex_colors=(colors * 255).round().byte().numpy()).export(path)
    else:
        write_glb(mesh, path, {}) if ending == "glb" else write_obj(mesh, path)
    drawn = Raster()(read_mesh(path, fit=False), VIEW)
    torch.testing.assert_close(drawn.rgb[0, 16, 16], colors[0], atol=0.01, rtol=0)


def scene(tmp_path: Path) -> Path:
    """Two boxes of the same material in different places, one mirrored, and a metal one that shines."""
    red = trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 0, 0, 255], roughnessFactor=0.4, metallicFactor=0.0)
    metal = trimesh.visual.material.PBRMaterial(emissiveFactor=[0.1, 0.2, 0.3])
    boxes = [trimesh.creation.box((1, 1, 1)) for _ in range(2)]
    for box, material in zip(boxes, (red, metal), strict=True):
        box.visual = trimesh.visual.TextureVisuals(np.zeros((8, 2)), material=material)
    made = trimesh.Scene()
    made.add_geometry(boxes[0], geom_name="red", transform=trimesh.transformations.translation_matrix([2, 0, 0]))
    made.add_geometry(boxes[1], geom_name="metal")
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = -2
    made.graph.update(frame_to="again", frame_from=made.graph.base_frame, matrix=mirror, geometry="red")
    made.export(tmp_path / "boxes.glb")
    return tmp_path / "boxes.glb"


def test_scenes_become_one_mesh(tmp_path: Path) -> None:
    shape = read_mesh(scene(tmp_path), fit=False)
    assert len(shape.faces) == 36 and len(shape.looks) == 2
    x = shape.vertices[shape.faces.long()].mean(1)[:, 0]
    assert sorted({round(float(v)) for v in x}) == [-2, 0, 2]
    a, b, c = shape.vertices[shape.faces.long()].unbind(1)
    middle = torch.stack([x.round(), 0 * x, 0 * x], dim=1)
    outwards = (torch.linalg.cross(b - a, c - a) * ((a + b + c) / 3 - middle)).sum(1)
    assert (outwards > 0).all(), "a mirrored box is not inside out"
    drawn = Raster(material=PBR())(shape, front(40, 40, 4.0, torch.float32))
    red = drawn.aux["albedo"][0, 20, [8, 32]]
    torch.testing.assert_close(red, torch.tensor([[1.0, 0, 0]]).expand(2, 3))
    assert (
        drawn.aux["metallic"][0, 20, 20].item() == 1 and drawn.aux["metallic"][0, 20, 8].item() == 0
    )  # glTF's default
    assert drawn.aux["roughness"][0, 20, 32].item() == pytest.approx(0.4)


def test_meshes_are_fitted_for_the_cameras(tmp_path: Path) -> None:
    trimesh.Trimesh(100 * CORNERS.numpy() + 7, FACES).export(tmp_path / "a.stl")
    points = read_mesh(tmp_path / "a.stl").vertices
    assert points.norm(dim=1).max().item() == pytest.approx(FIT, rel=1e-5)
    assert torch.allclose(points.amin(0), -points.amax(0), atol=1e-5)
    grey = Raster()(read_mesh(tmp_path / "a.stl"), VIEW).rgb[0, 16, 16]
    torch.testing.assert_close(grey, torch.full((3,), mesh_files.GREY))


def test_large_textures_are_averaged_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_files, "LARGEST_TEXTURE", 8)
    mesh = painted(16)
    write_glb(mesh, tmp_path / "a.glb", {})
    assert mesh.material is not None and mesh.material.base_color is not None
    look = read_mesh(tmp_path / "a.glb").looks[0]
    assert look.sizes["base"][0] == (8, 8)
    monkeypatch.setattr(mesh_files, "MOST_PIXELS", 700)
    with pytest.raises(InputError, match="a.glb: expected textures of at most 700 pixels, got more"):
        read_mesh(tmp_path / "a.glb")


def test_occlusion_of_another_size_joins_the_rest(tmp_path: Path) -> None:
    shade = Image.fromarray(np.full((4, 4, 3), 51, np.uint8))
    rest = Image.fromarray(np.full((8, 8, 3), 102, np.uint8))
    material = trimesh.visual.material.PBRMaterial(occlusionTexture=shade, metallicRoughnessTexture=rest)
    mesh = trimesh.Trimesh(CORNERS, FACES, process=False)
    mesh.visual = trimesh.visual.TextureVisuals(UV.numpy(), material=material)
    mesh.export(tmp_path / "a.glb")
    orm = read_mesh(tmp_path / "a.glb").looks[0].orm[0]
    torch.testing.assert_close(orm, torch.tensor([0.2, 0.4, 0.4]))


def test_what_is_left_out_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_glb(painted(), tmp_path / "a.glb", {})

    def ask(tree: dict) -> None:
        tree["extensionsUsed"] = ["KHR_texture_transform"]
        tree["materials"][0]["alphaMode"] = "MASK"

    with caplog.at_level(logging.WARNING, "dream3d"):
        read_mesh(edited(tmp_path / "a.glb", ask))
    assert [record.getMessage() for record in caplog.records] == [
        "a.glb: extension KHR_texture_transform; drawn without.",
        "a.glb: alpha mode MASK; drawn without.",
    ]


def test_strangers_files_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_glb(painted(), tmp_path / "a.glb", {})
    good = (tmp_path / "a.glb").read_bytes()
    (tmp_path / "cut.glb").write_bytes(good[: len(good) // 2])
    (tmp_path / "junk.glb").write_bytes(b"glTF but not really")
    (tmp_path / "empty.obj").write_text("v 0 0 0\n")
    (tmp_path / "nan.obj").write_text("v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "bomb.glb").write_bytes(good)
    edited(tmp_path / "bomb.glb", lambda tree: tree["accessors"].append({"count": 10**10, "type": "VEC3"}))
    (tmp_path / "draco.glb").write_bytes(good)
    edited(tmp_path / "draco.glb", lambda tree: tree.update(extensionsRequired=["KHR_draco_mesh_compression"]))
    for name, words in {
        "cut.glb": "no mesh could be read",
        "junk.glb": "no glTF header",
        "empty.obj": "no mesh could be read|expected a triangle mesh, got none",
        "nan.obj": "not finite",
        "a.txt": r"expected a mesh file \(.glb, .*\), got '.txt'",
        "none.glb": "cannot be read",
        "bomb.glb": "rows, got 10,000,000,",
        "draco.glb": "compressed with KHR_draco_mesh_compression, which is not read",
    }.items():
        with pytest.raises(InputError, match=words) as error:
            read_mesh(tmp_path / name)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(mesh_files, "MOST_FACES", 1)
    with pytest.raises(InputError, match="at most 1 triangles, got 2"):
        read_mesh(tmp_path / "a.glb")
    monkeypatch.setattr(mesh_files, "MOST_BYTES", 100)
    with pytest.raises(InputError, match="at most 100 bytes"):
        read_mesh(tmp_path / "a.glb")


def test_factors_are_linear(tmp_path: Path) -> None:
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[128, 64, 255, 255])
    mesh = trimesh.Trimesh(CORNERS, FACES, process=False)
    mesh.visual = trimesh.visual.TextureVisuals(UV.numpy(), material=material)
    mesh.export(tmp_path / "a.glb")
    wanted = to_srgb(torch.tensor([128.0, 64, 255]) / 255)
    torch.testing.assert_close(Raster()(read_mesh(tmp_path / "a.glb"), VIEW).rgb[0, 16, 16], wanted, atol=1e-4, rtol=0)
