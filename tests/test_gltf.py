import json
import os
import struct
from dataclasses import replace

import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from PIL import Image

from dream3d import __version__, gltf
from dream3d.checks import InputError
from dream3d.gltf import write_glb, write_obj
from dream3d.meshing import decimate, topology, vertex_normals
from dream3d.texturing import bake, unwrap
from dream3d.types import Material, Mesh
from tests.test_meshing import sphere


@pytest.fixture(scope="module")
def ball():
    """A textured unit sphere: normals equal positions, the case in which both share one buffer view."""
    mesh = decimate(sphere(24), 400)
    points = torch.nn.functional.normalize(mesh.vertices, dim=-1)
    mesh = unwrap(Mesh(points, mesh.faces, normals=points), texture=128, gutter=2)
    material = bake(mesh, lambda p: {"base_color": 0.5 + 0.5 * p, "normal": p}, texture=128)
    return replace(mesh, material=material)


def header(path):
    data = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    size, kind = struct.unpack("<I4s", data[12:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    return json.loads(data[20 : 20 + size])


def test_glb_structure(ball, tmp_path):
    write_glb(ball, tmp_path / "ball.glb", {"prompt": "a ball", "seed": 3})
    tree = header(tmp_path / "ball.glb")
    assert tree["asset"] == {
        "version": "2.0",
        "generator": f"dream3d {__version__}",
        "extras": {"prompt": "a ball", "seed": 3},
    }
    assert tree["scenes"] == [{"nodes": [0], "extras": {"prompt": "a ball", "seed": 3}}]
    assert tree["nodes"] == [{"name": "ball", "mesh": 0}]
    (primitive,) = tree["meshes"][0]["primitives"]
    assert set(primitive["attributes"]) == {"POSITION", "NORMAL", "TANGENT", "TEXCOORD_0"}
    (material,) = tree["materials"]
    assert material["doubleSided"] is False and material["alphaMode"] == "OPAQUE"
    pbr = material["pbrMetallicRoughness"]
    assert (pbr["metallicFactor"], pbr["roughnessFactor"]) == (0.0, 1.0)
    assert material["occlusionTexture"] == pbr["metallicRoughnessTexture"]
    assert len(tree["images"]) == len(tree["textures"]) == 3
    assert all(texture["sampler"] == 0 for texture in tree["textures"]) and tree["samplers"] == [gltf.SAMPLER]
    for index in primitive["attributes"].values():
        view = tree["bufferViews"][tree["accessors"][index]["bufferView"]]
        assert view["target"] == gltf.ARRAY_BUFFER and view["byteStride"] % 4 == 0
    indices = tree["accessors"][primitive["indices"]]
    assert tree["bufferViews"][indices["bufferView"]]["target"] == gltf.ELEMENT_ARRAY_BUFFER


def test_trimesh_reads_back_what_was_written(ball, tmp_path):
    write_glb(ball, tmp_path / "ball.glb", {})
    scene = trimesh.load_scene(tmp_path / "ball.glb")
    (read,) = scene.geometry.values()
    np.testing.assert_array_equal(read.vertices.astype(np.float32), ball.vertices.numpy())
    np.testing.assert_array_equal(read.faces, ball.faces.numpy())
    np.testing.assert_allclose(read.visual.uv[:, 1], 1 - ball.uv[:, 1].numpy(), atol=1e-6)
    # Display-referred values go into the file as they are: no second gamma.
    picture = np.asarray(read.visual.material.baseColorTexture)[..., :3]
    np.testing.assert_array_equal(picture, (ball.material.base_color * 255).round().byte().numpy())


def test_pygltflib_reads_tangents_and_pictures(ball, tmp_path):
    write_glb(ball, tmp_path / "ball.glb", {})
    read = pygltflib.GLTF2().load(str(tmp_path / "ball.glb"))
    accessor = read.accessors[read.meshes[0].primitives[0].attributes.TANGENT]
    view = read.bufferViews[accessor.bufferView]
    assert (accessor.type, accessor.count) == ("VEC4", len(ball.vertices))
    blob = read.binary_blob()
    tangent = np.frombuffer(blob[view.byteOffset : view.byteOffset + view.byteLength], "<f4").reshape(-1, 4)
    assert set(np.unique(tangent[:, 3])) <= {-1.0, 1.0}
    np.testing.assert_allclose(np.linalg.norm(tangent[:, :3], axis=1), 1, atol=1e-5)
    for image in read.images:
        view = read.bufferViews[image.bufferView]
        assert blob[view.byteOffset : view.byteOffset + 8] == b"\x89PNG\r\n\x1a\n"


def test_unlit_needs_neither_normals_nor_tangents(ball, tmp_path):
    write_glb(ball, tmp_path / "ball.glb", {}, unlit=True)
    tree = header(tmp_path / "ball.glb")
    assert tree["extensionsUsed"] == ["KHR_materials_unlit"]
    assert tree["materials"][0]["extensions"] == {"KHR_materials_unlit": {}}
    assert "normalTexture" not in tree["materials"][0] and len(tree["images"]) == 1


def test_vertex_colours_become_linear(tmp_path):
    mesh = sphere(12)
    colors = torch.tensor([0.5, 0.02, 1.0]).repeat(len(mesh.vertices), 1)
    write_glb(replace(mesh, colors=colors), tmp_path / "c.glb", {}, unlit=True)
    read = pygltflib.GLTF2().load(str(tmp_path / "c.glb"))
    accessor = read.accessors[read.meshes[0].primitives[0].attributes.COLOR_0]
    view = read.bufferViews[accessor.bufferView]
    first = np.frombuffer(read.binary_blob()[view.byteOffset : view.byteOffset + 12], "<f4")
    np.testing.assert_allclose(first, [0.2140411, 0.02 / 12.92, 1.0], rtol=1e-5)
    assert read.extensionsUsed == ["KHR_materials_unlit"]


def test_obj_shares_positions_across_seams_and_names_its_files(ball, tmp_path):
    written = write_obj(ball, tmp_path / "ball.obj")
    assert sorted(p.name for p in written) == ["ball.mtl", "ball.obj", "basecolor.png", "normal.png", "orm.png"]
    lines = (tmp_path / "ball.obj").read_text().splitlines()
    rows = {key: [line for line in lines if line.startswith(key + " ")] for key in ("v", "vt", "vn", "f")}
    assert len(rows["f"]) == len(ball.faces) and len(rows["vt"]) == len(rows["vn"]) == len(ball.vertices)
    assert len(rows["v"]) == len(torch.unique(ball.vertices, dim=0)) < len(ball.vertices)
    for name in ("map_Kd textures/basecolor.png", "norm textures/normal.png", "Pr 0.9"):
        assert name in (tmp_path / "ball.mtl").read_text()
    read = trimesh.load_mesh(tmp_path / "ball.obj")
    np.testing.assert_allclose(np.sort(read.visual.uv, 0), np.sort(ball.uv.numpy() * [1, -1] + [0, 1], 0), atol=1e-5)
    read.merge_vertices(merge_tex=True, merge_norm=True)
    assert read.is_watertight and read.volume > 0


def test_obj_without_textures(tmp_path):
    mesh = sphere(12)
    write_obj(replace(mesh, colors=mesh.vertices.abs()), tmp_path / "plain.obj")
    assert os.listdir(tmp_path) == ["plain.obj"]
    assert len((tmp_path / "plain.obj").read_text().splitlines()[1].split()) == 7
    write_obj(replace(mesh, normals=vertex_normals(mesh)), tmp_path / "plain.obj")
    read = trimesh.load_mesh(tmp_path / "plain.obj")
    assert len(read.faces) == len(mesh.faces) and topology(mesh).watertight == read.is_watertight


def test_pictures_are_rounded_not_cut(tmp_path):
    gltf.write_textures(Material(base_color=torch.full((8, 8, 3), 127.9 / 255)), tmp_path)
    assert Image.open(tmp_path / "basecolor.png").getpixel((0, 0)) == (128, 128, 128)


def test_empty_meshes_and_foreign_extras_are_refused(ball, tmp_path, as_users_run):
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
    for write in (lambda: write_glb(empty, tmp_path / "e.glb", {}), lambda: write_obj(empty, tmp_path / "e.obj")):
        with pytest.raises(InputError, match="at least one triangle"):
            write()
    for value in (float("nan"), tmp_path):
        with pytest.raises(InputError, match="JSON"):
            write_glb(ball, tmp_path / "e.glb", {"x": value})
    assert not list(tmp_path.iterdir())
