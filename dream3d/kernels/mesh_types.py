"""What the mesh kernels and their twins take and give, and the checks at their door."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from dream3d.checks import InputError, in_range
from dream3d.kernels.types import expect
from dream3d.types import Cameras

WIDEST_MESH_IMAGE = 32767
"""Pixels along a side; boxes are 16-bit numbers."""
MOST_CHANNELS = 1024


@dataclass(frozen=True)
class ProjectedVertices:
    """`V` vertices as `B` cameras see them.

    Args:
        points: (x w, y w, w) with x right and y down in pixels, (0, 0) the picture's upper left corner, and w metres
            along the viewing axis, 0 or less behind the camera.
        height: of the pictures, pixels.
        width: of the pictures, pixels.
    """

    points: Float[Tensor, "B V 3"]
    height: int
    width: int


@dataclass(frozen=True)
class Fragments:
    """The nearest surface at the pixel centres of `B` pictures; row 0 is the top.

    Args:
        face: which triangle, -1 for none.
        barycentrics: the shares of its corners, perspective-correct, with the sum 1; zeros where there is none.
        depth: along the viewing axis (not along the ray), metres; 0 where there is none.
    """

    face: Int32[Tensor, "B H W"]
    barycentrics: Float[Tensor, "B H W 3"]
    depth: Float[Tensor, "B H W"]

    @property
    def mask(self) -> Float[Tensor, "B H W 1"]:
        """1 where there is a surface, with hard edges; `antialias` softens them."""
        return (self.face >= 0).to(self.depth)[..., None]


def projection_matrices(cameras: Cameras, like: Tensor) -> Float[Tensor, "B 3 4"]:
    """World points (with a 1 appended) to (x w, y w, w); computed in float64, with the type and device of `like`."""
    c2w, fov = cameras.c2w.detach().double(), cameras.fov_y.detach().double()
    right, down, forward = c2w[:, :3, 0], -c2w[:, :3, 1], -c2w[:, :3, 2]
    focal = 0.5 * cameras.height / torch.tan(0.5 * fov)[:, None]
    rows = (focal * right + 0.5 * cameras.width * forward, focal * down + 0.5 * cameras.height * forward, forward)
    axes = torch.stack(rows, dim=1)
    return torch.cat([axes, -axes @ c2w[:, :3, 3:]], dim=2).to(like).contiguous()


def check_project_vertices(vertices: Tensor, cameras: Cameras) -> None:
    """Raise unless the vertices are finite points."""
    expect("project_vertices: vertices", vertices, (None, 3))
    _expect_finite("project_vertices: vertices", vertices, "lower the learning rate, or drop the vertices")
    in_range("project_vertices: width and height", max(cameras.height, cameras.width), 1, WIDEST_MESH_IMAGE)


def check_rasterise(projected: ProjectedVertices, faces: Tensor, near: float, far: float) -> None:
    """Raise unless the faces are triangles of the vertices."""
    expect("rasterise: points", projected.points, (None, None, 3))
    check_faces("rasterise: faces", faces, projected.points.shape[1], projected.points)
    if not 0 < near < far:
        raise InputError(f"rasterise: near and far must be 0 < near < far, got {near:g} and {far:g}.")


def check_interpolate(attributes: Tensor, faces: Tensor, fragments: Fragments) -> None:
    """Raise unless every corner has a row of attributes."""
    if attributes.ndim not in (2, 3):
        raise InputError(f"interpolate: attributes: expected (V, C) or (B, V, C), got {tuple(attributes.shape)}.")
    batch = () if attributes.ndim == 2 else (len(fragments.face),)
    expect("interpolate: attributes", attributes, (*batch, None, None), like=fragments.barycentrics)
    in_range("interpolate: channels", attributes.shape[-1], 1, MOST_CHANNELS)
    check_faces("interpolate: faces", faces, attributes.shape[-2], attributes)
    _expect_seen("interpolate", fragments, faces)


def check_mip_levels(
    projected: ProjectedVertices,
    faces: Tensor,
    fragments: Fragments,
    uv: Tensor,
    uv_faces: Tensor,
    size: tuple[int, int],
) -> None:
    """Raise unless every corner has a point and texture coordinates."""
    expect("mip_levels: uv", uv, (None, 2), like=projected.points)
    check_faces("mip_levels: faces", faces, projected.points.shape[1], projected.points)
    expect("mip_levels: uv_faces", uv_faces, tuple(faces.shape), dtype=uv_faces.dtype, device=faces.device)
    check_faces("mip_levels: uv_faces", uv_faces, len(uv), uv)
    in_range("mip_levels: texture size", min(size), 1)
    _expect_seen("mip_levels", fragments, faces)


def check_antialias(
    colours: Tensor, fragments: Fragments, projected: ProjectedVertices, faces: Tensor, neighbours: Tensor, walk: int
) -> None:
    """Raise unless there is a colour for every pixel and a neighbour (or -1) for every edge."""
    expect("antialias: colours", colours, (*fragments.face.shape, None), like=projected.points)
    shape = (len(projected.points), projected.height, projected.width)
    expect("antialias: fragments.depth", fragments.depth, shape, like=colours)
    check_faces("antialias: faces", faces, projected.points.shape[1], colours)
    expect("antialias: neighbours", neighbours, tuple(faces.shape), dtype=torch.int32, device=faces.device)
    if len(faces) and int(neighbours.max()) >= len(faces):
        raise InputError(f"antialias: neighbours: expected -1 to {len(faces) - 1}, got {int(neighbours.max())}.")
    in_range("antialias: walk", walk, 1, 1 << 20)
    _expect_seen("antialias", fragments, faces)


def check_faces(what: str, faces: Tensor, rows: int, like: Tensor) -> None:
    """Raise unless `faces` is (F, 3) int32 or int64, on the device of `like`, with numbers from 0 to `rows` - 1."""
    dtype = faces.dtype if faces.dtype in (torch.int32, torch.int64) else torch.int32
    expect(what, faces, (None, 3), dtype=dtype, device=like.device)
    if not len(faces):
        return
    low, high = (int(x) for x in torch.aminmax(faces))
    if low < 0 or high >= rows:
        raise InputError(f"{what}: expected numbers from 0 to {rows - 1}, got {low} to {high}.")


def _expect_seen(op: str, fragments: Fragments, faces: Tensor) -> None:
    expect(f"{op}: fragments.face", fragments.face, (None, None, None), dtype=torch.int32, device=faces.device)
    if fragments.face.numel() and int(fragments.face.max()) >= len(faces):
        raise InputError(
            f"{op}: the fragments see face {int(fragments.face.max())}, but there are {len(faces)} faces; "
            "give index buffers with one row for each face that was rasterised."
        )


def _expect_finite(what: str, tensor: Tensor, cure: str) -> None:
    # One sum is much quicker than looking at every number, and one bad number is enough to spoil it.
    if not bool(tensor.detach().sum().isfinite()) and (wrong := int((~tensor.detach().isfinite()).sum())):
        raise InputError(f"{what}: expected finite numbers, got {wrong} that are not; {cure}.")
