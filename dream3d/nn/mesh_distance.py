"""How far points are from a triangle mesh, and whether they are inside."""

from __future__ import annotations

import math
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dream3d.checks import InputError, RunError
from dream3d.types import Mesh

CANDIDATES = 4
"""Nearest samples of the surface whose triangles are looked at."""
CLUSTERS = 12
"""Blocks of space along an axis into which triangles are gathered for the winding number."""
FAR = 2.5
"""Radii of a cluster beyond which it counts as one dipole; the error there is about one percent of its own part."""
CHUNK = 1 << 15
"""Points that are looked at together."""


@final
class MeshDistance:
    """Signed distance, inside and colour of any triangle soup; everything on the CPU, without gradients.

    Distances are exact but for triangles whose nearest sample is not among the nearest `CANDIDATES`. Inside is where
    the generalised winding number (Jacobson and others 2013) is beyond one half: holes, overlapping parts and a mesh
    that is inside out as a whole are no obstacle. Far triangles count as dipoles (Barill and others 2018).

    Args:
        mesh: triangles; vertex colours are used by `colors`.
        samples: points on the surface by which the nearest triangles are found.

    Raises:
        RunError: no triangle has an area.
    """

    def __init__(self, mesh: Mesh, *, samples: int = 20_000) -> None:
        from scipy.spatial import cKDTree

        corners = mesh.vertices.detach().cpu().double()[mesh.faces.cpu()]
        normal = 0.5 * torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        sound = normal.norm(dim=-1) > 0
        if not bool(sound.any()):
            raise RunError("no surface: expected a mesh with triangles, got none that has an area.")
        self._corners, self._normal = corners[sound], normal[sound]
        faces = mesh.faces.cpu()[sound]
        self._colors = None if mesh.colors is None else mesh.colors.detach().cpu().double()[faces]
        generator = torch.Generator().manual_seed(0)
        points, face = self.draw(samples, generator)
        # Every triangle is found at least by its middle and near its corners: in them it would be one of many.
        every = torch.arange(len(faces))
        self._face = torch.cat([face, every, every.repeat(3)]).numpy()
        middle = self._corners.mean(1)
        ends = torch.lerp(self._corners, middle[:, None], 0.1).transpose(0, 1).reshape(-1, 3)
        self._tree = cKDTree(torch.cat([points.double(), middle, ends]).numpy())
        self._clusters = self._gathered()

    def draw(self, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "{count} 3"], Int[Tensor, "{count}"]]:
        """Points spread evenly over the surface, and their triangles."""
        area = self._normal.norm(dim=-1)
        face = torch.multinomial(area / area.sum(), count, replacement=True, generator=generator)
        u = torch.rand(count, 2, generator=generator, dtype=torch.float64)
        root = u[:, :1].sqrt()
        weight = torch.cat([1 - root, root * (1 - u[:, 1:]), root * u[:, 1:]], dim=-1)
        return (weight[..., None] * self._corners[face]).sum(1).float(), face

    def __call__(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Signed distance, metres: negative inside."""
        distance, _, _ = self._nearest(points)
        return torch.where(self.winding(points).abs() > 0.5, -distance, distance)

    def colors(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"] | None:
        """Colours of the nearest points of the surface; None where the mesh has none."""
        if self._colors is None:
            return None
        _, face, weight = self._nearest(points)
        return (weight[..., None] * self._colors[face]).sum(1).float()

    def winding(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """How often the surface goes round: 1 inside a closed one whose triangles are counter-clockwise outside."""
        return torch.cat([self._wound(some.detach().cpu().double()) for some in points.split(CHUNK)]).float()

    def _nearest(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distance, triangle and barycentric coordinates of the nearest points of the surface."""
        distances, faces, weights = [], [], []
        for some in points.detach().cpu().double().split(CHUNK):
            _, near = self._tree.query(some.numpy(), k=CANDIDATES)
            candidates = torch.from_numpy(self._face[near])
            at = some[:, None].expand(-1, CANDIDATES, -1).reshape(-1, 3)
            weight = nearest_on(at, self._corners[candidates.view(-1)]).view(-1, CANDIDATES, 3)
            foot = (weight[..., None] * self._corners[candidates]).sum(2)
            distance, best = (foot - some[:, None]).norm(dim=-1).min(dim=1)
            row = torch.arange(len(some))
            distances.append(distance)
            faces.append(candidates[row, best])
            weights.append(weight[row, best])
        return torch.cat(distances).float(), torch.cat(faces), torch.cat(weights)

    def _gathered(self) -> list[tuple[Tensor, Tensor, Tensor, float]]:
        """Triangles by blocks of space: their corners, and middle, summed normal and radius of the block."""
        middle = self._corners.mean(1)
        low, high = middle.amin(0), middle.amax(0)
        block = ((middle - low) / (high - low).max().clamp_min(1e-12) * CLUSTERS).long().clamp_max(CLUSTERS - 1)
        number = (block[:, 0] * CLUSTERS + block[:, 1]) * CLUSTERS + block[:, 2]
        found = []
        for which in number.unique():
            inside = number == which
            corners, normal = self._corners[inside], self._normal[inside]
            area = normal.norm(dim=-1, keepdim=True)
            centre = (area * middle[inside]).sum(0) / area.sum()
            found.append((corners, centre, normal.sum(0), float((corners - centre).norm(dim=-1).max())))
        return found

    def _wound(self, points: Tensor) -> Tensor:
        total = torch.zeros(len(points), dtype=points.dtype)
        for corners, centre, normal, radius in self._clusters:
            to = centre - points
            away = to.norm(dim=-1)
            near = (away < FAR * radius).nonzero()[:, 0]
            part = (to @ normal) / away.clamp_min(1e-12) ** 3
            # Triangles in turns, such that pairs stay few.
            exact = torch.cat([solid_angles(some, corners).sum(1) for some in points[near].split(1 + CHUNK // 8)])
            total += part.index_put((near,), exact)
        return total / (4 * math.pi)


def solid_angles(points: Float[Tensor, "N 3"], corners: Float[Tensor, "F 3 3"]) -> Float[Tensor, "N F"]:
    """Signed solid angles of triangles as seen from points (Van Oosterom and Strackee 1983); positive from behind."""
    a, b, c = (corners[None, :, i] - points[:, None] for i in range(3))
    la, lb, lc = (v.norm(dim=-1) for v in (a, b, c))
    volume = (a * torch.linalg.cross(b, c)).sum(-1)
    rest = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return 2 * torch.atan2(volume, rest)


def nearest_on(points: Float[Tensor, "N 3"], corners: Float[Tensor, "N 3 3"]) -> Float[Tensor, "N 3"]:
    """Barycentric coordinates of the nearest point of a triangle, one triangle a point."""
    a, b, c = corners.unbind(1)
    edges = (b - a, c - b, a - c)
    normal = torch.linalg.cross(edges[0], -edges[2])
    square = (normal * normal).sum(-1).clamp_min(1e-30)
    inner = [(torch.linalg.cross(edge, points - start) * normal).sum(-1) / square
             for edge, start in zip(edges, (a, b, c), strict=True)]  # fmt: skip
    # What lies over an edge belongs to the corner opposite it.
    best = torch.stack([inner[1], inner[2], inner[0]], dim=-1)
    height = ((points - a) * normal).sum(-1) / square.sqrt()
    least = torch.where((best >= 0).all(-1), height.abs(), math.inf)
    for i, (edge, start) in enumerate(zip(edges, (a, b, c), strict=True)):
        t = (((points - start) * edge).sum(-1) / (edge * edge).sum(-1).clamp_min(1e-30)).clamp(0, 1)
        distance = (points - start - t[:, None] * edge).norm(dim=-1)
        weight = torch.zeros_like(best)
        weight[:, i], weight[:, (i + 1) % 3] = 1 - t, t
        closer = distance < least
        best, least = torch.where(closer[:, None], weight, best), torch.where(closer, distance, least)
    return best


def read_triangles(path: str | Path, *, radius: float) -> Mesh:
    """A mesh file, centred on the origin and scaled into a sphere; y up, +Z front, as glTF has it.

    Args:
        path: GLB, OBJ, PLY, STL and whatever else trimesh opens.
        radius: of the sphere, metres.

    Raises:
        InputError: no mesh could be read from it.
    """
    import trimesh

    try:
        mesh = trimesh.load(path, force="mesh", process=False)
        vertices, faces = (torch.as_tensor(getattr(mesh, name).copy()) for name in ("vertices", "faces"))
    except Exception as error:  # trimesh raises whatever its readers meet
        raise InputError(f"{path}: no mesh could be read ({type(error).__name__}).") from error
    if not len(faces):
        raise InputError(f"{path}: expected a triangle mesh, got none.")
    vertices = vertices.float() - 0.5 * (vertices.amin(0) + vertices.amax(0)).float()
    return Mesh(vertices * (radius / vertices.norm(dim=-1).max().clamp_min(1e-12)), faces.long())
