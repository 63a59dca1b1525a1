"""What is sent of meshes and Gaussians, and where a visitor's camera stands."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dream3d.cameras import turntable
from dream3d.checks import InputError
from dream3d.gltf import write_glb
from dream3d.renderers import March
from dream3d.representations import Field
from dream3d.splat_files import write_splats
from dream3d.types import Mesh, Splats
from dream3d.viewer.models import FIT, camera_at, draw, place, points, read_glb, read_points


def some_splats(count: int = 50) -> Splats:
    generator = torch.Generator().manual_seed(0)
    quaternions = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1)
    return Splats(
        torch.randn(count, 3, generator=generator) + 5.0, quaternions, 0.1 * torch.rand(count, 3, generator=generator),
        torch.rand(count, generator=generator), torch.randn(count, 4, 3, generator=generator),
    )  # fmt: skip


def glb(path: Path, **tree: Any) -> Path:
    text = json.dumps({"asset": {"version": "2.0"}, **tree}).encode()
    text += b" " * (-len(text) % 4)
    path.write_bytes(struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text), len(text), b"JSON") + text)
    return path


def test_a_box_is_brought_into_view() -> None:
    placed = place([1.0, 2.0, 3.0], [3.0, 2.5, 3.0])
    for corner in ([1.0, 2.0, 3.0], [3.0, 2.5, 3.0]):
        moved = placed.scale * np.array(corner) + placed.position
        assert np.linalg.norm(moved) == pytest.approx(FIT)
    assert math.isfinite(place([0.0] * 3, [0.0] * 3).scale)


def test_our_own_assets_are_shown(tmp_path: Path) -> None:
    corners = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 4, 0]])
    path = tmp_path / "chair.glb"
    write_glb(Mesh(corners, torch.tensor([[0, 1, 2]]), colors=torch.rand(3, 3)), path, {})
    data, placed = read_glb(path)
    assert data == path.read_bytes()
    assert placed.scale == pytest.approx(FIT / math.sqrt(5))
    assert placed.position == pytest.approx((-placed.scale, -2 * placed.scale, 0))


@pytest.mark.parametrize("part", ["buffers", "images"])
def test_a_mesh_that_would_fetch_something_is_refused(part: str, tmp_path: Path) -> None:
    for uri in ("http://evil.example/x.png", "//evil.example/x", "x.bin", "file:///etc/passwd", 1):
        with pytest.raises(InputError, match="refers to files outside"):
            read_glb(glb(tmp_path / "a.glb", **{part: [{}, {"uri": uri}]}))
    read_glb(glb(tmp_path / "a.glb", **{part: [{"uri": "data:application/octet-stream;base64,AAAA"}]}))


ONE: dict[str, Any] = {"meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}], "nodes": [{"mesh": 0}]}
BOX = [{"min": [-1, -1, -1], "max": [1, 1, 1]}]


def test_nodes_move_their_meshes(tmp_path: Path) -> None:
    """Half a turn around z and a scale of 2, then 10 along x, told twice: as three motions, and as a matrix."""
    parts = {"rotation": [0, 0, 1, 0], "scale": [2, 2, 4], "translation": [10, 0, 0], "mesh": 0}
    columns = [-2, 0, 0, 0, 0, -2, 0, 0, 0, 0, 4, 0, 10, 0, 0, 1]
    for node in (parts, {"matrix": columns, "mesh": 0}):
        nodes = [{"children": [1], "translation": [0, 5, 0]}, node]
        tree = {**ONE, "accessors": BOX, "nodes": nodes, "scenes": [{"nodes": [0]}]}
        _, placed = read_glb(glb(tmp_path / "a.glb", **tree))
        assert placed.scale == pytest.approx(FIT / math.sqrt(24))
        assert placed.position == pytest.approx((-10 * placed.scale, -5 * placed.scale, 0), abs=1e-6)


def test_nodes_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    read_glb(glb(tmp_path / "a.glb", **{**ONE, "accessors": BOX, "nodes": [{"children": [0, 0], "mesh": 0}]}))


@pytest.mark.parametrize(
    "tree",
    [
        {"buffers": 1},
        {"images": [1]},
        {"meshes": [{}], "nodes": [{"mesh": 0}]},
        {"nodes": [{"children": [7]}, {}], "scenes": [{"nodes": [0]}]},
        {"nodes": [{"matrix": [1, 2, 3]}]},
        {"nodes": [{"rotation": "x"}]},
        {"nodes": [{}], "scenes": [{}], "scene": 4},
        ONE,
        {"accessors": [{"min": [1], "max": [2]}], **ONE},
        {"accessors": [{"min": [1, 2, "x"], "max": [2, 3, 4]}], **ONE},
        {"accessors": [{"min": [1, 2, 1e999], "max": [2, 3, 4]}], **ONE},
    ],
    ids=str,
)
def test_damaged_meshes_are_refused(tree: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a GLB \(glTF 2.0 binary\)"):
        read_glb(glb(tmp_path / "a.glb", **tree))


def test_what_is_no_mesh_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_glb(tmp_path / "none.glb")
    for data in (b"", b"glTF", b"PK\x03\x04" * 10, glb(tmp_path / "b.glb").read_bytes()[:-8], b"glTF" + b"\xff" * 40):
        (tmp_path / "a.glb").write_bytes(data)
        with pytest.raises(InputError, match="expected a GLB"):
            read_glb(tmp_path / "a.glb")


def test_gaussians_are_sent_as_covariances(monkeypatch: pytest.MonkeyPatch) -> None:
    splats = some_splats()
    sent = points(splats)
    assert sent.centers.shape == (50, 3) and sent.opacities.shape == (50, 1) and sent.rgbs.max() <= 1
    variances = np.linalg.eigvalsh(sent.covariances)
    assert np.allclose(np.sort(variances), np.sort(splats.scales.numpy() ** 2), atol=1e-6)
    red = Splats(
        *(getattr(splats, name)[:1] for name in ("means", "quaternions", "scales", "opacities")), splats.sh[:1]
    )
    red.sh[:] = torch.tensor([1.0, -9.0, 0.0])
    assert points(red).rgbs[0] == pytest.approx([0.5 + 0.28209479, 0.0, 0.5])
    monkeypatch.setattr("dream3d.viewer.models.MOST", 10)
    few = points(splats)
    assert len(few.centers) == 10 and few.opacities.min() >= np.sort(splats.opacities.numpy())[-10]


def test_splat_files_are_brought_into_view(tmp_path: Path) -> None:
    write_splats(some_splats(500), tmp_path / "a.ply")
    sent, placed = read_points(tmp_path / "a.ply")
    moved = placed.scale * sent.centers + placed.position
    assert np.abs(np.median(moved, axis=0)).max() < 0.1 and 0.2 < np.linalg.norm(moved, axis=1).mean() < FIT
    with pytest.raises(InputError, match="cannot be read"):
        read_points(tmp_path / "none.ply")


def test_a_visitor_stands_where_the_page_says() -> None:
    """The front view of the turntable, told the way the page tells it."""
    ours = turntable(1, 64, elevation_deg=0.0)
    camera = camera_at((0.0, 1.0, 0.0, 0.0), ours.c2w[0, :3, 3].tolist(), float(ours.fov_y[0]), 1.5, 64)
    assert torch.allclose(camera.c2w, ours.c2w, atol=1e-6)
    assert (camera.height, camera.width) == (64, 96) and torch.allclose(camera.fov_y, ours.fov_y)
    wide = camera_at((1.0, 0, 0, 0), (0.0, 0, 0), 0.7, 1e9, 10**9)
    assert wide.height == 1024 and wide.width == 4096


def test_a_picture_for_a_visitor() -> None:
    field = Field(levels=4, log2_table=10, base=4, finest=32, hidden=16, occupancy=16)
    pixels = draw(March(samples=16), field, camera_at((0.0, 1.0, 0.0, 0.0), (0, 0, 3.0), 0.7, 1.5, 16))
    assert pixels.shape == (16, 24, 3) and pixels.dtype == np.uint8
    assert (pixels[0, 0] == 255).all() and (pixels[8, 12] < 250).any()
