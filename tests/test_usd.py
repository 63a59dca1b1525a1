import json
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from dream3d.checks import InputError
from dream3d.meshing import decimate
from dream3d.texturing import bake, unwrap
from dream3d.types import Material, Mesh
from dream3d.usd import write_usd
from tests.test_meshing import sphere


@pytest.fixture(scope="module")
def ball():
    mesh = decimate(sphere(24), 400)
    points = torch.nn.functional.normalize(mesh.vertices, dim=-1)
    mesh = unwrap(Mesh(points, mesh.faces, normals=points), texture=128, gutter=2)
    return replace(mesh, material=bake(mesh, lambda p: {"base_color": 0.5 + 0.5 * p, "normal": p}, texture=128))


def scene_of(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0]).decode()


def array(scene, name):
    """The numbers of an attribute, flat."""
    text = re.search(rf"\] {re.escape(name)} = \[(.*?)\]", scene)[1]
    return np.array([float(x) for x in re.findall(r"[-+.\de]+", text)])


def test_the_archive_is_what_readers_map_into_memory(ball, tmp_path):
    write_usd(ball, tmp_path / "a-ball.usdz", {})
    data = (tmp_path / "a-ball.usdz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a-ball.usdz") as archive:
        assert archive.testzip() is None
        names = ["a_ball.usda", "textures/basecolor.png", "textures/orm.png", "textures/normal.png"]
        assert archive.namelist() == names
        for entry in archive.infolist():
            header = data[entry.header_offset : entry.header_offset + 30]
            start = (
                entry.header_offset
                + 30
                + int.from_bytes(header[26:28], "little")
                + int.from_bytes(header[28:30], "little")
            )
            assert start % 64 == 0 and entry.compress_type == zipfile.ZIP_STORED
            assert data[start : start + entry.file_size] == archive.read(entry)


def test_the_scene_holds_the_mesh(ball, tmp_path):
    write_usd(ball, tmp_path / "ball.usdz", {"prompt": 'a "ball"', "seed": 3})
    scene = scene_of(tmp_path / "ball.usdz")
    points, corner = array(scene, "points").reshape(-1, 3), array(scene, "faceVertexIndices").astype(int)
    assert len(points) == len(torch.unique(ball.vertices, dim=0))
    wanted = ball.vertices[ball.faces].numpy().reshape(-1, 3)
    np.testing.assert_allclose(points[corner], wanted, atol=1e-6)
    uv = array(scene, "primvars:st").reshape(-1, 2)[array(scene, "primvars:st:indices").astype(int)]
    np.testing.assert_allclose(uv * [1, -1] + [0, 1], ball.uv[ball.faces].numpy().reshape(-1, 2), atol=1e-6)
    np.testing.assert_allclose(array(scene, "normals").reshape(-1, 3), points, atol=1e-6)
    assert 'upAxis = "Y"' in scene and "metersPerUnit = 1" in scene and 'defaultPrim = "ball"' in scene
    told = re.search(r'string dream3d = "((?:\\.|[^"\\])*)"', scene)[1]
    assert json.loads(re.sub(r"\\(.)", r"\1", told)) == {"prompt": 'a "ball"', "seed": 3}


def test_materials_follow_what_there_is(ball, tmp_path):
    def written(**changes):
        unlit = changes.pop("unlit", False)
        write_usd(replace(ball, **changes), tmp_path / "b.usdz", {}, unlit=unlit)
        return scene_of(tmp_path / "b.usdz")

    full = written()
    for line in (
        "color3f inputs:diffuseColor.connect = </b/material/base_color.outputs:rgb>",
        "float inputs:occlusion.connect = </b/material/orm.outputs:r>",
        "float inputs:roughness.connect = </b/material/orm.outputs:g>",
        "float inputs:metallic = 0\n",
        "normal3f inputs:normal.connect = </b/material/normal.outputs:rgb>",
        "float4 inputs:bias = (-1, -1, -1, 0)",
    ):
        assert line in full
    assert full.count('"raw"') == 2 and full.count('"sRGB"') == 1
    assert "metallic.connect" in written(material=replace(ball.material, metallic=1.0))
    plain = written(material=Material(roughness=0.25))
    assert "roughness = 0.25" in plain and "UsdUVTexture" not in plain
    shining = written(unlit=True)
    assert "emissiveColor.connect" in shining and "inputs:normal" not in shining
    assert "displayColor" in written(uv=None, material=None, colors=ball.vertices.abs())


def test_same_mesh_same_bytes_and_names_that_usd_allows(ball, tmp_path):
    write_usd(ball, tmp_path / "3-bälle.usdz", {})
    first = (tmp_path / "3-bälle.usdz").read_bytes()
    write_usd(ball, tmp_path / "3-bälle.usdz", {})
    assert (tmp_path / "3-bälle.usdz").read_bytes() == first
    assert 'defaultPrim = "_3_b_lle"' in scene_of(tmp_path / "3-bälle.usdz")
    with pytest.raises(InputError, match="at least one triangle"):
        write_usd(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long)), tmp_path / "e.usdz", {})
