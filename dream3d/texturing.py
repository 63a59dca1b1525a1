"""UV unwrapping, tangents, and baking a coloured surface into textures."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dream3d.checks import InputError, in_range
from dream3d.meshing import unit, vertex_normals
from dream3d.occlusion import occlusion
from dream3d.representations.base import Bake
from dream3d.types import Material, Mesh
from dream3d.unwrapping import unwrap as unwrap

CHUNK = 1 << 16
"""Surface points a call of the bake function."""

SNAP = 0.03
"""Texels are moved onto the detailed surface if it is nearer than this share of the object's diagonal."""

FACING = 0.3
"""Cosine between a texel's normal and a face's under which the face is not what the texel shows."""

BEHIND = 8
"""Faces among which one that faces the right way is looked for, where the nearest does not: thin walls."""

DEFAULT_ROUGHNESS = 0.9
"""For fields that know no material: nearly matt. Exactly 1 looks like chalk under image-based lights."""


def tangents(mesh: Mesh) -> Float[Tensor, "V 4"]:
    """Unit tangents along +u, orthogonal to the normals, and the handedness w = ±1 (glTF's TANGENT).

    The bitangent `w * cross(normal, tangent)` points up in the texture, that is towards smaller v. Faces are weighted
    by their angle at the vertex, as MikkTSpace does (Mikkelsen 2008); vertices are expected to be split at UV seams.

    Raises:
        InputError: no UVs or no normals.
    """
    if mesh.uv is None or mesh.normals is None:
        raise InputError("tangents: expected a mesh with uv and normals. Call vertex_normals, then unwrap.")
    p, n, uv, faces = _double(mesh.vertices), _double(mesh.normals), _double(mesh.uv), mesh.faces.cpu().numpy()
    e1, e2 = p[faces[:, 1]] - p[faces[:, 0]], p[faces[:, 2]] - p[faces[:, 0]]
    d1, d2 = uv[faces[:, 1]] - uv[faces[:, 0]], uv[faces[:, 2]] - uv[faces[:, 0]]
    area = d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]
    along = unit((d2[:, 1:] * e1 - d1[:, 1:] * e2) * np.sign(area)[:, None])
    total, turn = np.zeros_like(p), np.zeros(len(p))
    for i in range(3):
        corner, to, back = faces[:, i], p[faces[:, (i + 1) % 3]], p[faces[:, i - 1]]
        angle = np.arccos(np.clip((unit(to - p[corner]) * unit(back - p[corner])).sum(1), -1, 1))
        # v grows downwards, so a face that is not mirrored has a negative area in (u, v).
        turn += np.bincount(corner, -np.sign(area) * angle, minlength=len(p))
        for axis in range(3):
            total[:, axis] += np.bincount(corner, angle * along[:, axis], minlength=len(p))
    total -= n * (n * total).sum(1, keepdims=True)
    # A vertex without a usable UV direction still needs some unit tangent.
    lost = np.linalg.norm(total, axis=1) < 1e-9
    spare = np.where(np.abs(n[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    total[lost] = (spare - n * (n * spare).sum(1, keepdims=True))[lost]
    sign = np.where(turn < 0, -1.0, 1.0)
    return torch.from_numpy(np.concatenate([unit(total), sign[:, None]], axis=1).astype(np.float32))


def bake(mesh: Mesh, colour: Bake, *, texture: int, surface: Mesh | None = None, occluded: bool = False) -> Material:
    """Query the surface once a texel and write base colour, ORM and tangent-space normal maps.

    Colours are stored as `colour` gives them: a field trained against images is display-referred, so its values are
    sRGB-coded already and a second gamma would wash them out. Texels between charts repeat their nearest neighbour, so
    that neither filtering nor mipmaps pull in a background.

    Args:
        mesh: with normals and non-overlapping UVs.
        colour: see `Representation.surface`. Missing channels: occlusion 1, roughness 0.9, metallic 0, the normals of
            `surface`.
        texture: side of the square textures, texels.
        surface: the surface before decimation; texels are moved onto it, so that coarse meshes keep its details.
        occluded: cast rays for the occlusion, unless `colour` has that channel.

    Raises:
        InputError: no UVs or normals; `colour` returned no "base_color", a wrong shape or non-finite values.
    """
    in_range("texture size", texture, 64, 8192)
    frame_w = tangents(mesh)
    faces = mesh.faces.cpu().numpy()
    texel, face, weight = rasterise(_double(mesh.uv), faces, texture)
    corner = faces[face]

    def blend(values: NDArray) -> NDArray:
        return np.einsum("nk,nkc->nc", weight, values[corner])

    points, normal = blend(_double(mesh.vertices)), unit(blend(_double(mesh.normals)))
    under = np.full(len(points), -1)
    if surface is not None:
        points, under = _snapped(points, normal, surface)
    channels = _query(colour, torch.from_numpy(points.astype(np.float32)))
    if "normal" not in channels and surface is not None:
        channels["normal"] = _normals_at(points, under, normal, surface)
    if "occlusion" not in channels and occluded:
        facing = channels.get("normal", normal)
        place, facing = (torch.from_numpy(x.astype(np.float32)) for x in (points, facing))
        channels["occlusion"] = occlusion(place, facing, surface or mesh).double().numpy()
    count = len(points)
    orm = [channels.get(k, np.full((count, 1), v)) for k, v in
           (("occlusion", 1.0), ("roughness", DEFAULT_ROUGHNESS), ("metallic", 0.0))]  # fmt: skip
    flat = np.broadcast_to(np.array([0.5, 0.5, 1.0]), (count, 3))
    if "normal" in channels:
        frame = _double(frame_w)
        flat = _tangent_space(channels["normal"], normal, blend(frame[:, :3]), blend(frame[:, 3:]))
    values = np.concatenate([channels["base_color"], *orm, flat], axis=1).clip(0, 1)
    image = torch.from_numpy(_filled(texel, values, texture).astype(np.float32))
    base_color, orm_image, normal_image = (image[..., i : i + 3].contiguous() for i in (0, 3, 6))
    metal = float(orm[2].max() > 0)
    return Material(base_color=base_color, orm=orm_image, normal=normal_image, roughness=1.0, metallic=metal)


def rasterise(uv: NDArray, faces: NDArray, size: int) -> tuple[NDArray, NDArray, NDArray]:
    """Texels whose centre lies in a UV triangle: flat indices (row-major), their faces and barycentric weights.

    Triangles too small to hold a centre still get the texel under their own, if nobody else claims it.
    """
    p = uv[faces] * size - 0.5
    area = (p[:, 1, 0] - p[:, 0, 0]) * (p[:, 2, 1] - p[:, 0, 1]) - (p[:, 1, 1] - p[:, 0, 1]) * (p[:, 2, 0] - p[:, 0, 0])
    usable = np.flatnonzero(np.abs(area) > 1e-9)
    owner = np.full(size * size, -1, dtype=np.int64)
    middle = np.clip(np.rint(p[usable].mean(1)).astype(np.int64), 0, size - 1)
    owner[middle[:, 1] * size + middle[:, 0]] = usable
    claimed, by = _claims(p[usable], size)
    owner[claimed] = usable[by]
    texel = np.flatnonzero(owner >= 0)
    face = owner[texel]
    weight = np.clip(_heights(p[face], texel, size) / area[face, None], 0, 1)
    return texel, face, weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)


def overlap(mesh: Mesh, *, texture: int) -> float:
    """The share of the used texels whose centre lies inside more than one triangle, by more than a hundredth texel.

    Raises:
        InputError: no UVs.
    """
    if mesh.uv is None:
        raise InputError("overlap: expected a mesh with uv. Call unwrap.")
    p = _double(mesh.uv)[mesh.faces.cpu().numpy()] * texture - 0.5
    texel, face = _claims(p, texture)
    length = np.linalg.norm(p[:, [2, 0, 1]] - p[:, [1, 2, 0]], axis=2)
    heights = _heights(p[face], texel, texture)
    # Orientation does not matter: inside means on the same side of all three.
    depth = np.abs(heights / np.maximum(length[face], 1e-12)).min(1)
    one_side = (heights > 0).all(1) | (heights < 0).all(1)
    hits = np.bincount(texel[one_side & (depth > 0.01)])
    return float((hits > 1).sum() / max(int((hits > 0).sum()), 1))


def _claims(p: NDArray, size: int) -> tuple[NDArray, NDArray]:
    """Every pair of a texel and a triangle (in texels) over its centre, by scanlines; in the triangles' order."""
    # One entry for each (triangle, row), then one for each texel in it.
    first = np.maximum(np.ceil(p[:, :, 1].min(1) - 1e-6).astype(np.int64), 0)
    last = np.minimum(np.floor(p[:, :, 1].max(1) + 1e-6).astype(np.int64), size - 1)
    which, row = _ranges(first, last)
    triangle = p[which]
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for i in range(3):
        a, b = triangle[:, i], triangle[:, (i + 1) % 3]
        rise = b[:, 1] - a[:, 1]
        along = np.clip((row - a[:, 1]) / np.where(np.abs(rise) < 1e-12, 1.0, rise), 0, 1)
        x = a[:, 0] + along * (b[:, 0] - a[:, 0])
        hit = (np.minimum(a[:, 1], b[:, 1]) - 1e-6 <= row) & (row <= np.maximum(a[:, 1], b[:, 1]) + 1e-6)
        left, right = np.where(hit, np.minimum(left, x), left), np.where(hit, np.maximum(right, x), right)
    start = np.maximum(np.ceil(left - 1e-6), 0)
    stop = np.minimum(np.floor(right + 1e-6), size - 1)
    line, column = _ranges(start.astype(np.int64), stop.astype(np.int64))
    return row[line] * size + column, which[line]


def _heights(p: NDArray, texel: NDArray, size: int) -> NDArray:
    """Twice the areas between a texel's centre and the sides of its triangle, opposite each corner; signed."""
    at = np.stack([texel % size, texel // size], axis=1)

    def cross(i: int, j: int) -> NDArray:
        a, b = p[:, i] - at, p[:, j] - at
        return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]

    return np.stack([cross(1, 2), cross(2, 0), cross(0, 1)], axis=1)


def _ranges(first: NDArray, last: NDArray) -> tuple[NDArray, NDArray]:
    """For each i every integer from first[i] to last[i]: the i's and the integers."""
    count = np.maximum(last - first + 1, 0)
    which = np.arange(len(first)).repeat(count)
    within = np.arange(len(which)) - (np.cumsum(count) - count).repeat(count)
    return which, first[which] + within


def _snapped(points: NDArray, normal: NDArray, surface: Mesh) -> tuple[NDArray, NDArray]:
    """Points moved along their normals onto the plane of the detailed face beneath them, and which face that is (-1:
    none is near)."""
    from scipy.spatial import cKDTree

    p, faces = _double(surface.vertices), surface.faces.cpu().numpy()
    a, b, c = (p[faces[:, i]] for i in range(3))
    facing = unit(np.cross(b - a, c - a))
    anchor, owner = _anchors(a, b, c)
    limit = SNAP * float(np.linalg.norm(np.ptp(p, axis=0)))
    size = np.linalg.norm(np.stack([a, b, c]) - (a + b + c) / 3, axis=2).max(0)
    tree = cKDTree(anchor)

    def good(near: NDArray, distance: NDArray, facing_it: NDArray) -> NDArray:
        # The other side of a thin wall faces away and must not attract.
        return (distance <= limit + size[near]) & ((facing[near] * facing_it).sum(-1) > FACING)

    distance, nearest = tree.query(points)
    under = owner[nearest]
    wrong = np.flatnonzero(~good(under, distance, normal))
    if len(wrong):
        distance, nearest = tree.query(points[wrong], k=range(1, min(BEHIND, len(anchor)) + 1))
        others = owner[nearest]
        fits = good(others, distance, normal[wrong, None])
        under[wrong] = np.where(fits.any(1), np.take_along_axis(others, fits.argmax(1)[:, None], 1)[:, 0], -1)
    found = np.flatnonzero(under >= 0)
    plane, at = facing[under[found]], a[under[found]]
    slope = (plane * normal[found]).sum(1)
    step = ((at - points[found]) * plane).sum(1) / slope
    result = points.copy()
    result[found] += np.clip(step, -limit, limit)[:, None] * normal[found]
    return result, under


def _anchors(a: NDArray, b: NDArray, c: NDArray) -> tuple[NDArray, NDArray]:
    """Points all over the triangles, one or more each, and their triangles: the middle alone of a large one would lie
    farther away than those of its small neighbours."""
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    number = np.clip(np.ceil(area / max(4 * float(area.mean()), 1e-30)), 1, 256).astype(np.int64)
    owner, order = _ranges(np.zeros_like(number), number - 1)
    # The R2 sequence (Roberts 2018) fills a square evenly; half of it is folded onto the triangle.
    u, v = (0.5 + order * 0.7548776662466927) % 1, (0.5 + order * 0.5698402909980532) % 1
    outside = u + v > 1
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    alone = number[owner] == 1
    u, v = (np.where(alone, 1 / 3, x)[:, None] for x in (u, v))
    return a[owner] + u * (b - a)[owner] + v * (c - a)[owner], owner


def _normals_at(points: NDArray, under: NDArray, normal: NDArray, surface: Mesh) -> NDArray:
    """Smooth normals of the detailed surface at points on its faces; `normal` where there is no face."""
    found = np.flatnonzero(under >= 0)
    corner = surface.faces.cpu().numpy()[under[found]]
    a, b, c = (_double(surface.vertices)[corner[:, i]] for i in range(3))
    across = np.cross(b - a, c - a)
    areas = [(np.cross(q - points[found], r - points[found]) * across).sum(1) for q, r in ((b, c), (c, a), (a, b))]
    weight = np.maximum(np.stack(areas, axis=1), 0)
    smooth = _double(vertex_normals(surface))[corner]
    result = normal.copy()
    result[found] = unit((weight[..., None] * smooth).sum(1))
    lost = np.linalg.norm(result, axis=1) < 0.5
    result[lost] = normal[lost]
    return result


def _query(colour: Bake, points: Float[Tensor, "N 3"]) -> dict[str, NDArray[np.float64]]:
    parts: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for chunk in points.split(CHUNK):
            for name, values in colour(chunk).items():
                parts.setdefault(name, []).append(values.detach().cpu().double())
    channels = {name: torch.cat(values).numpy() for name, values in parts.items()}
    if "base_color" not in channels:
        raise InputError(f"bake: expected a channel 'base_color', got {', '.join(channels) or 'none'}.")
    for name, width in (("base_color", 3), ("normal", 3), ("roughness", 1), ("metallic", 1), ("occlusion", 1)):
        if name in channels:
            shape = channels[name].shape
            if shape != (len(points), width):
                raise InputError(f"bake: expected {name} of shape ({len(points)}, {width}), got {shape}.")
            if not np.isfinite(channels[name]).all():
                raise InputError(f"bake: {name} has non-finite values. Check the field for NaN.")
    return channels


def _tangent_space(target: NDArray, normal: NDArray, tangent: NDArray, sign: NDArray) -> NDArray:
    """World normals in the frame that a renderer will rebuild from the interpolated vertex data, coded to [0, 1]."""
    tangent = unit(tangent)
    bitangent = np.where(sign < 0, -1.0, 1.0) * np.cross(normal, tangent)
    frame = np.stack([tangent, bitangent, normal], axis=2)
    # Interpolation leaves the frame slightly oblique, so this is a solve, not a transpose.
    safe = np.abs(np.linalg.det(frame)) > 0.1
    local = np.zeros_like(target)
    local[:, 2] = 1
    local[safe] = unit(np.linalg.solve(frame[safe], target[safe][..., None])[..., 0])
    # A noisy field may point below the surface, which shades black: tilt at most 75 degrees, and flat if it is inside.
    local[local[:, 2] < 0] = (0, 0, 1)
    steepest = 0.27 * np.linalg.norm(local[:, :2], axis=1)
    local[:, 2] = np.maximum(local[:, 2], steepest)
    return 0.5 + 0.5 * unit(local)


def _filled(texel: NDArray, values: NDArray, size: int) -> NDArray:
    """An image in which every texel without a value copies the nearest one that has one."""
    from scipy.ndimage import distance_transform_edt

    empty = np.ones(size * size, dtype=bool)
    empty[texel] = False
    row = np.zeros(size * size, dtype=np.int64)
    row[texel] = np.arange(len(texel))
    nearest = np.empty((2, size, size), dtype=np.int32)
    distance_transform_edt(empty.reshape(size, size), return_distances=False, return_indices=True, indices=nearest)
    return values[row[nearest[0].astype(np.int64) * size + nearest[1]]]


def _double(tensor: Tensor | None) -> NDArray[np.float64]:
    return np.zeros((0, 3)) if tensor is None else tensor.detach().cpu().double().numpy()
