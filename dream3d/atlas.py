"""UV atlases: xatlas, and a box projection for when xatlas takes too long.

numpy, scipy and xatlas only: `texturing.unwrap` runs this file as a script in a process of its own, which it can stop
(xatlas cannot be interrupted from a thread), and which starts in a tenth of a second because it imports no torch.
"""

from __future__ import annotations

import io
import math
import sys

import numpy as np
from numpy.typing import NDArray

MAX_COST = 8.0
"""xatlas grows a chart until this cost. Its default of 2 needs twice the time on noisy surfaces, for more charts."""

REPACKS = 5
"""Attempts at fitting the charts into the texture at exact texel size."""

MIN_USE = 0.35
"""Share of the texture below which the gutters are made thinner."""

BLOCK = 20_000
"""Faces that xatlas gets as one mesh: its time grows faster than their square, and blocks run side by side."""

MANY_CHARTS = 3000
"""From here on charts are packed as boxes on shelves: xatlas would take longer for that than for making them."""

# The picture's right and up for faces that look along +X, -X, +Y, -Y, +Z, -Z; right x up = the face's own direction.
BOX_RIGHT = np.array([[0, 0, -1], [0, 0, 1], [1, 0, 0], [-1, 0, 0], [1, 0, 0], [-1, 0, 0]], dtype=np.float64)
BOX_UP = np.array([[0, 1, 0], [0, 1, 0], [0, 0, -1], [0, 0, -1], [0, 1, 0], [0, 1, 0]], dtype=np.float64)

Atlas = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""For each new vertex the old one; the faces in new vertices, in the old order; UVs in [0, 1], origin top left."""


def xatlas_charts(vertices: NDArray, faces: NDArray, texture: int, gutter: int) -> Atlas:
    """Charts and packing by xatlas, with `gutter` empty texels between charts of a `texture` x `texture` image.

    A surface in thousands of charts would consist of gutters: those are halved, down to one texel, until the charts
    cover `MIN_USE` of the texture. More than `BLOCK` faces are divided into blocks of space, charted by themselves.
    """
    source, corners, texels, side = _charted(vertices, faces, texture, gutter)
    placed = corners[~(texels == 0).all(1)[corners].all(1)]
    chart = _connected(placed, np.zeros(len(placed), dtype=np.int64))
    if chart.max() >= MANY_CHARTS:
        return _with_slivers(source, corners, _on_shelves(texels, placed, chart, texture, gutter))
    while True:
        split, packed, uv = _packed(texels, corners, side, texture, gutter)
        if gutter <= 1 or _covered(uv, packed) >= MIN_USE:
            return _with_slivers(source[split], packed.astype(np.int64), uv)
        gutter //= 2


def _charted(vertices: NDArray, faces: NDArray, texture: int, gutter: int) -> tuple[NDArray, NDArray, NDArray, int]:
    """The old index of each vertex, the faces in their order, places in texels, and the side of that picture."""
    import xatlas

    charts = xatlas.ChartOptions()
    charts.max_cost = MAX_COST
    packing = xatlas.PackOptions()
    packing.padding = gutter
    packing.resolution = texture
    atlas = xatlas.Atlas()
    blocks = _blocks(vertices[faces].mean(1), BLOCK)
    of_block = []
    for block in blocks:
        used, inner = np.unique(faces[block], return_inverse=True)
        of_block.append(used)
        atlas.add_mesh(vertices[used].astype(np.float32), inner.reshape(-1, 3).astype(np.uint32))
    atlas.generate(charts, packing)
    sources, corners, uvs, count = [], np.empty_like(faces), [], 0
    for i, (block, used) in enumerate(zip(blocks, of_block, strict=True)):
        source, inner, uv = atlas[i]
        if inner.shape != faces[block].shape or not np.array_equal(used[source[inner]], faces[block]):
            raise RuntimeError("xatlas changed the triangles")
        corners[block] = inner.astype(np.int64) + count
        sources.append(used[source])
        uvs.append(uv)
        count += len(source)
    texels = np.concatenate(uvs) * np.array([atlas.width, atlas.height], dtype=np.float32)
    return np.concatenate(sources).astype(np.int64), corners, texels, max(atlas.width, atlas.height)


def _blocks(middle: NDArray, most: int) -> list[NDArray[np.int64]]:
    """Faces (by their middles) in blocks of `most` or fewer, halved across their longest extent; each in order."""
    done, todo = [], [np.arange(len(middle))]
    while todo:
        block = todo.pop()
        if len(block) <= most:
            done.append(np.sort(block))
            continue
        axis = int(np.ptp(middle[block], axis=0).argmax())
        order = block[np.argsort(middle[block, axis], kind="stable")]
        todo += [order[len(order) // 2 :], order[: len(order) // 2]]
    return done


def _on_shelves(texels: NDArray, corners: NDArray, chart: NDArray, texture: int, gutter: int) -> NDArray[np.float32]:
    """UVs of charts that are packed as boxes; vertices in none stay at (0, 0)."""
    used, corners = np.unique(corners, return_inverse=True)
    owner = np.zeros(len(used), dtype=np.int64)
    owner[corners.reshape(-1)] = chart.repeat(3)
    flat = texels[used].astype(np.float64)
    low, size = _boxes(flat, owner, int(chart.max()) + 1)
    scale, corner = _fit_shelves(size, texture, gutter)
    uv = np.zeros_like(texels, dtype=np.float32)
    uv[used] = ((flat - low[owner]) * scale + corner[owner]) / texture
    return uv


def _boxes(points: NDArray, owner: NDArray, count: int) -> tuple[NDArray, NDArray]:
    """Low corner and size of each owner's points."""
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, owner, points)
    np.maximum.at(high, owner, points)
    return low, high - low


def _with_slivers(source: NDArray, corners: NDArray, uv: NDArray) -> Atlas:
    """xatlas leaves triangles without area in no chart, at (0, 0): shrink each to a corner of a neighbour's chart.

    A point, because a sliver that spans charts would be painted across everything between them.
    """
    sliver = (uv == 0).all(1)[corners].all(1)
    if not sliver.any():
        return source, corners, uv
    placed = np.zeros(len(source), dtype=bool)
    placed[corners[~sliver]] = True
    good = np.flatnonzero(placed)[::-1]
    home = np.full(int(source.max()) + 1, -1, dtype=np.int64)
    home[source[good]] = good
    old = source[corners[sliver]]
    twin = home[old]
    chosen = np.take_along_axis(twin, (twin >= 0).argmax(1)[:, None], 1)[:, 0]
    point = np.where(chosen[:, None] >= 0, uv[chosen], 0).astype(np.float32)
    corners = corners.copy()
    corners[sliver] = len(source) + np.arange(3 * len(old)).reshape(-1, 3)
    source, uv = np.concatenate([source, old.reshape(-1)]), np.concatenate([uv, point.repeat(3, axis=0)])
    used, corners = np.unique(corners, return_inverse=True)
    return source[used], corners.reshape(-1, 3), uv[used]


def _packed(texels: NDArray, corners: NDArray, side: int, texture: int, gutter: int) -> tuple[NDArray, ...]:
    """Pack finished charts to fit the texture: the old index of each vertex, the faces, the UVs in [0, 1].

    xatlas takes a wanted resolution as a hint and overshoots by 15-100 %. Shrinking its picture would shrink the
    gutters too, so the charts are packed again at a smaller scale until they fit.
    """
    import xatlas

    packing = xatlas.PackOptions()
    packing.padding = gutter
    tried = [(1.0, side)]
    best: tuple[int, NDArray, NDArray, NDArray] | None = None
    for _ in range(REPACKS):
        packing.texels_per_unit = _next_scale(tried, texture)
        atlas = xatlas.Atlas()
        atlas.add_uv_mesh(texels, corners)
        atlas.generate(xatlas.ChartOptions(), packing)
        split, packed, uv = atlas[0]
        side = max(atlas.width, atlas.height)
        tried.append((packing.texels_per_unit, side))
        if atlas.atlas_count == 1 and np.array_equal(split[packed], corners):
            # The largest that fits, or else the smallest that does not.
            if best is None or (side < best[0] if best[0] > texture else best[0] < side <= texture):
                best = (side, split, packed, uv * np.array([atlas.width, atlas.height], dtype=np.float32))
            if 0.97 * texture <= side <= texture:
                break
    if best is None:
        raise RuntimeError("xatlas could not pack its charts")
    side, split, packed, uv = best
    return split, packed, uv / np.float32(max(side, texture))


def _covered(uv: NDArray, faces: NDArray) -> float:
    """The share of the texture that lies in triangles."""
    a, b, c = (uv[faces[:, i]].astype(np.float64) for i in range(3))
    return 0.5 * float(np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).sum())


def _next_scale(tried: list[tuple[float, int]], texture: int) -> float:
    """The side grows almost linearly with the scale (gutters are the constant part): a secant step."""
    scale, side = tried[-1]
    target = 0.985 * texture
    if len(tried) == 1:
        return scale * target / side
    before, side_before = tried[-2]
    if scale == before or side == side_before:
        return scale * 0.95
    guess = scale + (target - side) * (scale - before) / (side - side_before)
    return float(np.clip(guess, 0.3 * scale, 3.0 * scale))


def box_charts(vertices: NDArray, faces: NDArray, texture: int, gutter: int) -> Atlas:
    """Connected patches that look along the same axis, projected along it and packed on shelves.

    Fast (under a second at 100k faces) and never mirrored, but wasteful. A patch that winds over itself like a spiral
    staircase shares texels with itself; patches never overlap one another.
    """
    vertices = vertices.astype(np.float64)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    axis = np.abs(normal).argmax(1)
    direction = 2 * axis + (np.take_along_axis(normal, axis[:, None], 1)[:, 0] < 0)
    chart = _connected(faces, direction)
    # A vertex is repeated in every chart that it touches.
    key, corners = np.unique(chart.repeat(3) * len(vertices) + faces.reshape(-1), return_inverse=True)
    source, owner = key % len(vertices), key // len(vertices)
    count = int(chart.max()) + 1
    look = np.zeros(count, dtype=np.int64)
    look[chart] = direction
    points = vertices[source]
    flat = np.stack([(points * BOX_RIGHT[look[owner]]).sum(1), -(points * BOX_UP[look[owner]]).sum(1)], axis=1)
    low, size = _boxes(flat, owner, count)
    scale, corner = _fit_shelves(size, texture, gutter)
    uv = ((flat - low[owner]) * scale + corner[owner]) / texture
    return source, corners.reshape(-1, 3), uv.astype(np.float32)


def _connected(faces: NDArray, label: NDArray) -> NDArray[np.int64]:
    """Number the patches of faces that share edges and a label."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    face = np.arange(len(faces)).repeat(3)
    order = np.lexsort((face, edges[:, 1], edges[:, 0]))
    edges, face = edges[order], face[order]
    joined = (edges[1:] == edges[:-1]).all(1) & (label[face[1:]] == label[face[:-1]])
    pairs = (face[:-1][joined], face[1:][joined])
    graph = coo_matrix((np.ones(len(pairs[0]), dtype=np.int8), pairs), shape=(len(faces), len(faces)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _fit_shelves(size: NDArray, texture: int, gutter: int) -> tuple[float, NDArray]:
    """The largest texels-per-metre at which boxes of `size` metres fit, and their top left corners in texels."""
    order = np.lexsort((np.arange(len(size)), -size[:, 1]))
    # So many charts that gutters alone fill the texture: thinner gutters, down to none, which fits at some scale.
    for space in (float(gutter), gutter / 2, gutter / 4, 0.0):
        low, high = 0.0, texture / max(float(size.max()), 1e-12)
        corner = None
        for _ in range(24):
            scale = 0.5 * (low + high)
            placed = _shelves(size * scale + space, order, texture)
            if placed is None:
                high = scale
            else:
                low, corner = scale, placed + 0.5 * space
        if corner is not None:
            return low, corner
    return 0.0, np.zeros_like(size)


def _shelves(box: NDArray, order: NDArray, texture: int) -> NDArray | None:
    """Boxes from tall to low, left to right, shelf under shelf; None where they do not fit."""
    corner = np.zeros_like(box)
    x = y = shelf = 0.0
    for i in order:
        width, height = box[i]
        if x + width > texture:
            x, y, shelf = 0.0, y + shelf, 0.0
        shelf = max(shelf, height)
        if x + width > texture or y + shelf > texture:
            return None
        corner[i] = x, y
        x += width
    return corner


def limit_processor_time(seconds: float) -> None:
    """End this process after so many seconds of work on all its threads; a busy machine does not shorten them."""
    try:
        import resource
    except ImportError:  # not on Windows, where the parent's clock is all there is
        return
    whole, (_, most) = max(1, math.ceil(seconds)), resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (whole if most == resource.RLIM_INFINITY else min(whole, most), most))


def main() -> None:
    """Arrays come in as an .npz on standard input and leave as an .npz on standard output.

    The first argument is the limit of processor time, seconds.
    """
    limit_processor_time(float(sys.argv[1]))
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as given:
        source, corners, uv = xatlas_charts(
            given["vertices"], given["faces"], int(given["texture"]), int(given["gutter"])
        )
    out = io.BytesIO()
    np.savez(out, source=source, faces=corners, uv=uv)
    sys.stdout.buffer.write(out.getvalue())


if __name__ == "__main__":
    main()
