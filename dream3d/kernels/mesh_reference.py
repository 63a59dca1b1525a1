"""The twins of the mesh kernels in plain torch: any floating type, any device, differentiable by autograd.

A mesh is its vertices and faces, an index buffer (F, 3). Attributes may come with an index buffer of their own: texture
coordinates have seams where the surface has none.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from dream3d.kernels.mesh_types import (
    Fragments,
    ProjectedVertices,
    check_antialias,
    check_interpolate,
    check_mip_levels,
    check_project_vertices,
    check_rasterise,
    projection_matrices,
)
from dream3d.types import Cameras

__all__ = [
    "Fragments",
    "ProjectedVertices",
    "antialias",
    "find_neighbours",
    "interpolate",
    "mip_levels",
    "project_vertices",
    "rasterise",
]

BOX_MARGIN = 0.0625


def project_vertices(vertices: Float[Tensor, "V 3"], cameras: Cameras) -> ProjectedVertices:
    """World points to pixels and depths, homogeneously: points behind the camera are as good as others.

    Args:
        vertices: world points, metres. Gradients flow here, none to the cameras.
        cameras: their axes must be orthonormal.

    Raises:
        InputError: a shape does not fit, or a coordinate is not finite.
    """
    check_project_vertices(vertices, cameras)
    m = projection_matrices(cameras, vertices)[:, None]
    x, y, z = vertices.unbind(dim=-1)
    rows = [m[..., k, 0] * x + m[..., k, 1] * y + m[..., k, 2] * z + m[..., k, 3] for k in range(3)]
    return ProjectedVertices(torch.stack(rows, dim=-1), cameras.height, cameras.width)


def rasterise(
    projected: ProjectedVertices, faces: Int[Tensor, "F 3"], *, near: float = 0.01, far: float = 1e10
) -> Fragments:
    """The nearest triangle at every pixel centre, by 2D homogeneous coordinates (Olano & Greer 1997).

    Both windings are drawn. A pixel centre on an edge that two triangles share belongs to exactly one of them (top-left
    rule); at equal depth the lower face wins. Barycentrics and depth carry gradients to the points; the choice of the
    face does not (`antialias` makes up for it).

    Args:
        projected: from `project_vertices`.
        faces: corners as rows of `points`, int32 or int64.
        near: what is nearer along the viewing axis is cut away, metres.
        far: and so is what is farther.

    Raises:
        InputError: a shape, type, device or number does not fit.
    """
    check_rasterise(projected, faces, near, far)
    points, faces = projected.points, faces.long()
    with torch.no_grad():
        seen = torch.stack([_nearest_faces(p[faces], projected.height, projected.width, near, far) for p in points])
    camera, row, column = (seen >= 0).nonzero(as_tuple=True)
    corners = points[camera[:, None], faces[seen[camera, row, column]]]
    weights = _weights(corners, column.to(points) + 0.5, row.to(points) + 0.5)
    barycentrics, depth = points.new_zeros(*seen.shape, 3), points.new_zeros(seen.shape)
    where = (camera, row, column)
    barycentrics = barycentrics.index_put(where, torch.stack(weights, dim=-1) / _sum(weights)[:, None])
    return Fragments(seen.to(torch.int32), barycentrics, depth.index_put(where, _depth(corners, weights)))


def interpolate(
    attributes: Float[Tensor, "V C"] | Float[Tensor, "B V C"], faces: Int[Tensor, "F 3"], fragments: Fragments
) -> Float[Tensor, "B H W C"]:
    """Attributes at the pixels, by barycentrics; 0 where there is no surface.

    Args:
        attributes: one row for every number in `faces`; with a batch axis, different ones for each camera.
        faces: index buffer of the attributes, with the faces in the order in which they were rasterised.
        fragments: from `rasterise`. Gradients flow to its barycentrics, and to the attributes.

    Raises:
        InputError: a shape, type, device or number does not fit.
    """
    check_interpolate(attributes, faces, fragments)
    where = (fragments.face >= 0).nonzero(as_tuple=True)
    rows = faces.long()[fragments.face[where].long()]
    corners = attributes[rows] if attributes.ndim == 2 else attributes[where[0][:, None], rows]
    b = fragments.barycentrics[where][..., None]
    values = b[:, 0] * corners[:, 0] + b[:, 1] * corners[:, 1] + b[:, 2] * corners[:, 2]
    return values.new_zeros(*fragments.face.shape, values.shape[-1]).index_put(where, values)


@torch.no_grad()
def mip_levels(
    projected: ProjectedVertices,
    faces: Int[Tensor, "F 3"],
    fragments: Fragments,
    uv: Float[Tensor, "T 2"],
    uv_faces: Int[Tensor, "F 3"],
    *,
    size: tuple[int, int],
) -> Float[Tensor, "B H W"]:
    """Level of detail for `sample_texture`: log2 of a pixel's footprint in texels, 0 where the texture is magnified.

    The footprint is the longer of two ways: what one step to the right and one step down make in the texture, in the
    plane of the triangle (exact derivatives, no differences between pixels). No gradient.

    Args:
        projected: from `project_vertices`.
        faces: index buffer of the points.
        fragments: from `rasterise`.
        uv: texture coordinates.
        uv_faces: their index buffer.
        size: height and width of the texture, texels.

    Raises:
        InputError: a shape, type, device or number does not fit.
    """
    check_mip_levels(projected, faces, fragments, uv, uv_faces, size)
    where = (fragments.face >= 0).nonzero(as_tuple=True)
    face = fragments.face[where].long()
    corners = projected.points[where[0][:, None], faces.long()[face]]
    texels = uv[uv_faces.long()[face]] * uv.new_tensor([size[1], size[0]])
    weights = _weights(corners, where[2].to(uv) + 0.5, where[1].to(uv) + 0.5)
    total = _sum(weights)[:, None]
    here = sum((w[:, None] / total * texels[:, k] for k, w in enumerate(weights)), start=texels.new_zeros(()))
    right, below = torch.zeros_like(here), torch.zeros_like(here)
    for k in range(3):
        (ax, ay, aw), (bx, by, bw) = (corners[:, (k + j) % 3].unbind(dim=-1) for j in (1, 2))
        away = (texels[:, k] - here) / total
        right = right + (bw * ay - aw * by)[:, None] * away
        below = below + (aw * bx - bw * ax)[:, None] * away
    ways = [way.square().sum(dim=-1) for way in (right, below)]
    longest = torch.maximum(*ways)
    level = torch.where(longest > 1, 0.5 * torch.log2(longest.clamp(min=1)), 0)
    return torch.zeros_like(fragments.depth).index_put(where, level)


def find_neighbours(faces: Int[Tensor, "F 3"]) -> Int32[Tensor, "F 3"]:
    """Which face lies across the edge opposite to a corner; -1 at borders and where more than two faces meet.

    It depends on the index buffer alone: compute it once for a mesh whose vertices move.
    """
    edges = torch.stack([faces[:, [1, 2]], faces[:, [2, 0]], faces[:, [0, 1]]], dim=1).long().sort(dim=-1).values
    edge = (edges[..., 0] * (int(faces.max()) + 1 if len(faces) else 1) + edges[..., 1]).flatten()
    key, order = edge.sort(stable=True)
    number = torch.unique_consecutive(key, return_counts=True)[1]
    first = (number.cumsum(0) - number)[number == 2]
    neighbours = torch.full_like(edge, -1)
    neighbours[order[first]], neighbours[order[first + 1]] = order[first + 1] // 3, order[first] // 3
    return neighbours.view(-1, 3).to(torch.int32)


def antialias(
    colours: Float[Tensor, "B H W C"],
    fragments: Fragments,
    projected: ProjectedVertices,
    faces: Int[Tensor, "F 3"],
    *,
    neighbours: Int32[Tensor, "F 3"] | None = None,
    walk: int = 64,
) -> Float[Tensor, "B H W C"]:
    """Soften silhouettes, so that colours (and a mask) change smoothly as the silhouette moves over a pixel.

    Where a silhouette passes between the centres of neighbouring pixels, the one whose half it cuts takes from the
    other's colour, by the length of the cut (nvdiffrast, arXiv:2011.03277, section 3.5). Unlike there the silhouette is
    looked for by walking from triangle to triangle between the two centres: a mesh with triangles smaller than pixels
    has nearly all its silhouettes outside the triangles that pixels see.

    Args:
        colours: any channels; gradients flow to them, and through the cuts to the points.
        fragments: from `rasterise`.
        projected: from `project_vertices`.
        faces: as rasterised; vertices must be shared (welded), since an edge with one face is a silhouette.
        neighbours: from `find_neighbours`, which is called otherwise.
        walk: triangles to look at, 1 or more; 1 looks at the nearer pixel's own.

    Raises:
        InputError: a shape, type, device or number does not fit.
    """
    neighbours = find_neighbours(faces) if neighbours is None else neighbours
    check_antialias(colours, fragments, projected, faces, neighbours, walk)
    faces, flat = faces.long(), colours.reshape(-1, colours.shape[-1])
    pairs = _Pairs.of(fragments)
    with torch.no_grad():
        face, corner = _silhouettes(projected.points, pairs, faces, neighbours.long(), walk)
    pairs, face, corner = pairs[face >= 0], face[face >= 0], corner[face >= 0]
    a, b = (pairs.see(projected.points, faces[face, (corner + k) % 3]) for k in (1, 2))
    position = (a.along * b.aside - b.along * a.aside) / (b.aside - a.aside)
    taker = torch.where(position < 0.5, pairs.nearer, pairs.other)
    taken = (0.5 - position)[:, None] * (flat[pairs.other] - flat[pairs.nearer])
    return flat.index_add(0, taker, taken).view_as(colours)


class _Seen(NamedTuple):
    along: Tensor
    aside: Tensor
    ahead: Tensor


class _Pairs(NamedTuple):
    """Neighbouring pixels that see different triangles, and the picture as seen from the nearer one's centre."""

    nearer: Tensor
    other: Tensor
    face: Tensor
    other_face: Tensor
    camera: Tensor
    x: Tensor
    y: Tensor
    down: Tensor
    sign: Tensor

    @staticmethod
    def of(fragments: Fragments) -> _Pairs:
        face, depth = fragments.face.long(), fragments.depth.detach()
        _, height, width = face.shape
        pixel = torch.arange(face.numel(), device=face.device).view_as(face)
        one = torch.cat([pixel[:, :, :-1].flatten(), pixel[:, :-1].flatten()])
        two = torch.cat([pixel[:, :, 1:].flatten(), pixel[:, 1:].flatten()])
        face, depth = face.flatten(), depth.flatten()
        differ = face[one] != face[two]
        one, two = one[differ], two[differ]
        swap = (face[one] < 0) | ((face[two] >= 0) & (depth[two] < depth[one]))
        near, far = torch.where(swap, two, one), torch.where(swap, one, two)
        x, y = (near % width).to(depth) + 0.5, (near // width % height).to(depth) + 0.5
        sign = torch.where(swap, -1, 1).to(depth)
        return _Pairs(near, far, face[near], face[far], near // (width * height), x, y, two - one != 1, sign)

    def __getitem__(self, which: Tensor) -> _Pairs:  # type: ignore[override]
        return _Pairs(*(tensor[which] for tensor in self))

    def see(self, points: Tensor, vertex: Tensor) -> _Seen:
        px, py, w = points[self.camera, vertex].unbind(dim=-1)
        ahead = w > 0
        w = torch.where(ahead, w, 1)
        right, down = px / w - self.x, py / w - self.y
        return _Seen(torch.where(self.down, down, right) * self.sign, torch.where(self.down, right, down), ahead)


def _silhouettes(points: Tensor, pairs: _Pairs, faces: Tensor, neighbours: Tensor, walk: int) -> tuple[Tensor, Tensor]:
    """For each pair the face and the corner opposite to the silhouette between the centres; -1 for none."""
    found, opposite = torch.full_like(pairs.face, -1), torch.zeros_like(pairs.face)
    live = torch.arange(len(pairs.face), device=faces.device)
    face, origin, last = pairs.face, torch.full_like(pairs.face, -1), torch.zeros_like(pairs.x)
    for _ in range(walk):
        if not len(live):
            break
        here = pairs[live]
        seen = [here.see(points, faces[face, k]) for k in range(3)]
        u, v = torch.stack([s.along for s in seen], dim=1), torch.stack([s.aside for s in seen], dim=1)
        leave, t = torch.full_like(face, -1), torch.zeros_like(last)
        for k in range(3):
            a, b = (k + 1) % 3, (k + 2) % 3
            skip = ((origin >= 0) & (neighbours[face, k] == origin)) | ((v[:, a] < 0) == (v[:, b] < 0))
            cut = (u[:, a] * v[:, b] - u[:, b] * v[:, a]) / torch.where(skip, 1, v[:, b] - v[:, a])
            better = ~skip & ((leave < 0) | (cut > t))
            leave, t = torch.where(better, k, leave), torch.where(better, cut, t)
        going = seen[0].ahead & seen[1].ahead & seen[2].ahead & (leave >= 0) & (t >= last) & (t <= 1)
        leave = leave.clamp(min=0)
        following = neighbours[face, leave]
        at = torch.arange(len(face), device=faces.device)
        a, b = (leave + 1) % 3, (leave + 2) % 3
        ua, va, ub, vb, uo, vo = u[at, a], v[at, a], u[at, b], v[at, b], u[at, leave], v[at, leave]
        corners, first, second = faces[following.clamp(min=0)], faces[face, a], faces[face, b]
        c = [(corners[:, k] != first) & (corners[:, k] != second) for k in (0, 1)]
        third = here.see(points, torch.where(c[0], corners[:, 0], torch.where(c[1], corners[:, 1], corners[:, 2])))
        mine = (ub - ua) * (vo - va) - (vb - va) * (uo - ua)
        its = (ub - ua) * (third.aside - va) - (vb - va) * (third.along - ua)
        border = following < 0
        going &= border | third.ahead
        silhouette = border | ((mine > 0) == (its > 0))
        hit = going & silhouette & ((ub - ua) * (ub - ua) <= (vb - va) * (vb - va))
        found[live[hit]], opposite[live[hit]] = face[hit], leave[hit]
        going &= ~silhouette & (following != here.other_face)
        live, face, origin, last = live[going], following[going], face[going], t[going]
    return found, opposite


def _weights(corners: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Barycentric weights before they are divided by their sum: see custom_cuda/mesh_rasterise.h on their exactness."""
    px = [corners[:, k, 0] - x * corners[:, k, 2] for k in range(3)]
    py = [corners[:, k, 1] - y * corners[:, k, 2] for k in range(3)]
    return px[1] * py[2] - px[2] * py[1], px[2] * py[0] - px[0] * py[2], px[0] * py[1] - px[1] * py[0]


def _sum(weights: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return weights[0] + weights[1] + weights[2]


def _depth(corners: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    w = corners[..., 2]
    return (weights[0] * w[:, 0] + weights[1] * w[:, 1] + weights[2] * w[:, 2]) / _sum(weights)


def _nearest_faces(corners: Tensor, height: int, width: int, near: float, far: float) -> Tensor:
    """(H, W) faces of one camera from their corners (F, 3, 3)."""
    x0, y0, x1, y1 = _boxes(corners, height, width, near)
    number = (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)
    face = torch.repeat_interleave(torch.arange(len(corners), device=corners.device), number)
    place = torch.arange(len(face), device=corners.device) - (number.cumsum(0) - number)[face]
    columns = (x1 - x0)[face]
    x, y = x0[face] + place % columns, y0[face] + place // columns
    corner = corners[face]
    weights = _weights(corner, x.to(corners) + 0.5, y.to(corners) + 0.5)
    depth = _depth(corner, weights)
    hit = _covers(corner, weights) & (depth >= near) & (depth < far)
    face, depth, pixel = face[hit], depth[hit], (y * width + x)[hit]
    best = depth.new_full((height * width,), math.inf).scatter_reduce(0, pixel, depth, "amin")
    face = torch.where(depth == best[pixel], face, len(corners))
    nearest = face.new_full((height * width,), len(corners)).scatter_reduce(0, pixel, face, "amin")
    return torch.where(nearest < len(corners), nearest, -1).view(height, width)


def _covers(corners: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    positive = negative = torch.ones(len(corners), dtype=torch.bool, device=corners.device)
    for k, weight in enumerate(weights):
        (ax, ay, aw), (bx, by, bw) = (corners[:, (k + j) % 3].unbind(dim=-1) for j in (1, 2))
        right, down = bw * ay - aw * by, aw * bx - bw * ax
        lean = torch.where(right != 0, right, down)
        positive = positive & ((weight > 0) | ((weight == 0) & (lean > 0)))
        negative = negative & ((weight < 0) | ((weight == 0) & (lean < 0)))
    return positive | negative


def _boxes(corners: Tensor, height: int, width: int, near: float) -> tuple[Tensor, ...]:
    """x0, y0, x1, y1 of the pixels that may see what of a triangle lies beyond the near plane."""
    following = corners.roll(-1, dims=1)
    w, next_w = corners[..., 2], following[..., 2]
    beyond, crosses = w >= near, (w >= near) != (next_w >= near)
    t = ((near - w) / torch.where(crosses, next_w - w, 1))[..., None]
    cut = (corners + t * (following - corners))[..., :2] / near
    own = corners[..., :2] / torch.where(beyond, w, 1)[..., None]
    places, there = torch.cat([own, cut], dim=1), torch.cat([beyond, crosses], dim=1)[..., None]
    low = torch.where(there, places, 1e30).amin(dim=1)
    high = torch.where(there, places, -1e30).amax(dim=1)
    most = corners.new_tensor([width, height])
    first = (low - 0.5 - BOX_MARGIN).ceil().clamp(min=0).minimum(most).long()
    end = ((high - 0.5 + BOX_MARGIN).floor() + 1).clamp(min=0).minimum(most).long()
    return (*first.unbind(dim=-1), *end.unbind(dim=-1))
