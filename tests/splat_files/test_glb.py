import json
import struct

import numpy as np
import pygltflib
import pytest
import torch

from dream3d import __version__
from dream3d.checks import InputError
from dream3d.splat_files import write_splats
from dream3d.splat_files.base import SH_C0

EXTENSION = "KHR_gaussian_splatting"


def read(path):
    """Attributes by name, through pygltflib's own reading of buffers; its class knows only the core's names."""
    tree = pygltflib.GLTF2().load(str(path))
    data = path.read_bytes()
    (size,) = struct.unpack_from("<I", data, 12)
    names = json.loads(data[20 : 20 + size])["meshes"][0]["primitives"][0]["attributes"]
    found = {}
    for name, index in names.items():
        accessor = tree.accessors[index]
        view = tree.bufferViews[accessor.bufferView]
        kind = {pygltflib.FLOAT: "<f4", pygltflib.UNSIGNED_SHORT: "<u2"}[accessor.componentType]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor.type]
        blob = tree.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
        found[name] = np.frombuffer(blob, kind).reshape(accessor.count, width)
    return tree, found


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_pygltflib_reads_what_was_written(make, tmp_path, degree):
    splats = make(37, degree)
    write_splats(splats, tmp_path / "a.glb", extras={"prompt": "a ball", "seed": 3})
    tree, found = read(tmp_path / "a.glb")
    harmonics = [f"SH_DEGREE_{d}_COEF_{n}" for d in range(degree + 1) for n in range(2 * d + 1)]
    own = {f"{EXTENSION}:{name}" for name in ("ROTATION", "SCALE", "OPACITY", *harmonics)}
    assert set(found) == {"POSITION", "COLOR_0"} | own
    np.testing.assert_array_equal(found["POSITION"], splats.means.numpy())
    rotation = found[f"{EXTENSION}:ROTATION"]
    np.testing.assert_allclose(rotation, splats.quaternions[:, [1, 2, 3, 0]].numpy(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rotation, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(found[f"{EXTENSION}:SCALE"], splats.scales.numpy())
    np.testing.assert_array_equal(found[f"{EXTENSION}:OPACITY"][:, 0], splats.opacities.numpy())
    for k, name in enumerate(harmonics):
        np.testing.assert_array_equal(found[f"{EXTENSION}:{name}"], splats.sh[:, k].numpy())
    accessor = tree.accessors[0]
    assert accessor.min == splats.means.amin(0).tolist() and accessor.max == splats.means.amax(0).tolist()
    (primitive,) = tree.meshes[0].primitives
    assert primitive.mode == pygltflib.POINTS and tree.extensionsUsed == [EXTENSION]
    assert primitive.extensions[EXTENSION] == {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "projection": "perspective",
        "sortingMethod": "cameraDistance",
    }
    assert tree.asset.generator == f"dream3d {__version__}" and tree.asset.extras == {"prompt": "a ball", "seed": 3}
    assert all(view.byteOffset % 4 == 0 and view.target == pygltflib.ARRAY_BUFFER for view in tree.bufferViews)
    assert tree.buffers[0].byteLength == len(tree.binary_blob())


def test_points_have_linear_colours(make, tmp_path):
    splats = make(50, 1)
    write_splats(splats, tmp_path / "a.glb")
    tree, found = read(tmp_path / "a.glb")
    shown = (0.5 + SH_C0 * splats.sh[:, 0]).clamp(0, 1)
    linear = torch.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(found["COLOR_0"][:, :3] / 65535, linear.numpy(), atol=1e-5)
    np.testing.assert_allclose(found["COLOR_0"][:, 3] / 65535, splats.opacities.numpy(), atol=1e-5)
    assert tree.accessors[1].normalized


def test_chunks_are_as_long_as_they_say(make, tmp_path):
    write_splats(make(3, 0), tmp_path / "a.glb")
    data = (tmp_path / "a.glb").read_bytes()
    magic, version, length, text, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON") and text % 4 == 0
    body, kind = struct.unpack_from("<I4s", data, 20 + text)
    assert (body, kind) == (len(data) - 28 - text, b"BIN\0") and body % 4 == 0


def test_foreign_extras_are_refused(make, tmp_path):
    for value in (float("nan"), tmp_path):
        with pytest.raises(InputError, match="^extras: expected JSON values"):
            write_splats(make(1, 0), tmp_path / "a.glb", extras={"x": value})
    assert not list(tmp_path.iterdir())
