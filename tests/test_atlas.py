import numpy as np
import pytest

from dream3d import atlas
from dream3d.atlas import box_charts, xatlas_charts
from dream3d.meshing import decimate
from dream3d.texturing import rasterise
from tests.test_meshing import sphere

WAYS = {"xatlas": {}, "xatlas in blocks": {"BLOCK": 150}, "xatlas on shelves": {"MANY_CHARTS": 1}, "box": {}}


@pytest.fixture(params=WAYS)
def charts(request, monkeypatch):
    for name, value in WAYS[request.param].items():
        monkeypatch.setattr(atlas, name, value)
    return box_charts if request.param == "box" else xatlas_charts


def arrays(faces=600):
    mesh = decimate(sphere(32), faces)
    return mesh.vertices.numpy(), mesh.faces.numpy()


def overlap(uv, faces, size):
    """Texels that lie well inside two triangles."""
    hits = np.zeros(size * size, dtype=int)
    for triangle in uv[faces].astype(np.float64):
        middle = triangle.mean(0)
        inner = middle + 0.8 * (triangle - middle)
        texel, _, _ = rasterise(inner, np.array([[0, 1, 2]]), size)
        hits[texel] += 1
    return int((hits > 1).sum())


def test_charts_fill_the_texture_without_overlap_and_keep_the_triangles(charts):
    vertices, faces = arrays()
    source, corners, uv = charts(vertices, faces, 256, 4)
    assert np.array_equal(source[corners], faces)
    assert uv.dtype == np.float32 and uv.min() >= 0 and uv.max() <= 1
    assert 0.25 < len(rasterise(uv.astype(np.float64), corners, 256)[0]) / 256**2 < 1
    # Triangles narrower than a texel may claim the same one; anything more is an overlap.
    assert overlap(uv, corners, 256) < 20


def test_charts_are_a_gutter_apart(charts):
    vertices, faces = arrays()
    _, corners, uv = charts(vertices, faces, 256, 4)
    chart = np.arange(len(uv))
    for _ in range(200):
        low = chart[corners].min(1)
        for i in range(3):
            np.minimum.at(chart, corners[:, i], low)
    gap = np.inf
    for number in np.unique(chart[corners]):
        mine, others = uv[chart == number] * 256, uv[chart != number] * 256
        if len(others):
            gap = min(gap, np.linalg.norm(mine[:, None] - others[None], axis=-1).min())
    assert gap >= 3.0


def test_same_input_same_bytes(charts):
    vertices, faces = arrays(300)
    first, second = charts(vertices, faces, 128, 2), charts(vertices, faces, 128, 2)
    for a, b in zip(first, second, strict=True):
        assert a.tobytes() == b.tobytes()


def test_blocks_hold_every_face_once_and_lie_apart():
    middle = np.random.default_rng(0).random((1000, 3)) * [4, 1, 1]
    blocks = atlas._blocks(middle, 300)
    assert [len(block) for block in blocks] == [250] * 4
    assert np.array_equal(np.sort(np.concatenate(blocks)), np.arange(1000))
    ends = [(middle[block, 0].min(), middle[block, 0].max()) for block in blocks]
    assert all(a[1] <= b[0] for a, b in zip(ends[:-1], ends[1:], strict=True))


def test_box_projection_is_not_mirrored():
    vertices, faces = arrays()
    _, corners, uv = box_charts(vertices, faces, 256, 4)
    a, b, c = (uv[corners[:, i]].astype(np.float64) for i in range(3))
    # v points down, so a picture that is not mirrored runs clockwise in (u, v).
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (area <= 1e-9).all()


def test_thousands_of_charts_in_a_tiny_texture_still_fit():
    rng = np.random.default_rng(0)
    vertices = rng.standard_normal((3000, 3)).astype(np.float32)
    faces = np.arange(3000).reshape(-1, 3)
    _, _, uv = box_charts(vertices, faces, 64, 4)
    assert np.isfinite(uv).all() and uv.min() >= 0 and uv.max() <= 1


def test_slivers_get_the_place_of_a_neighbour():
    """xatlas puts triangles without area nowhere; marching cubes makes them where grid corners meet the surface."""
    vertices, faces = arrays()
    a, b, _ = faces[0]
    middle = len(vertices)
    vertices = np.concatenate([vertices, 0.5 * (vertices[[a]] + vertices[[b]])])
    faces = np.concatenate([faces, [[a, middle, b]]])
    source, corners, uv = xatlas_charts(vertices, faces, 256, 4)
    assert np.array_equal(source[corners], faces)
    place = uv[corners[-1]]
    assert (place == place[0]).all() and (place[0] > 0).all()
    assert (np.abs(uv[source == a][:, None] - place[0]).max(-1) == 0).any()
