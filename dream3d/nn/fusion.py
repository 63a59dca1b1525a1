"""Surfaces out of depth pictures from all around: a fused distance (TSDF), or points with normals and Poisson."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.cameras import orbit
from dream3d.checks import RunError, in_range
from dream3d.nn.depth import depth_normals
from dream3d.types import Cameras

VIEWS = 24
"""Cameras around the object: of a torus 12 show as much, hollows need more."""
REACH = 3.0
"""Half the width of the band around the surface in which distances are averaged, cells."""
SOLID = 0.5
"""Opacity from which a pixel shows the object."""
CARVED = 0.05
"""Weight of seeing through a place, beside that of seeing a surface near it: silhouettes are a pixel wide."""
BLUR = 1.5
"""Standard deviation of the blur of a Poisson surface, cells."""
SLAB = 1 << 18
"""Points that are projected at once."""
FOV = math.radians(40)
ZOOM = 1.2


@dataclass(frozen=True)
class Views:
    """What cameras see of an object.

    Args:
        depth: mean, along the viewing axis, metres; anything where the object is not.
        spread: standard deviation of the depths that a pixel mixes, metres.
        alpha: opacity.
    """

    depth: Float[Tensor, "B H W"]
    spread: Float[Tensor, "B H W"]
    alpha: Float[Tensor, "B H W"]


Draw = Callable[[Cameras], Views]


def around(views: int, radius: float, size: int) -> Cameras:
    """Cameras on a sphere, evenly (a golden spiral), each of which sees the ball of this radius whole."""
    in_range("views", views, 1)
    height = 1 - (2 * torch.arange(views) + 1) / views
    azimuth = torch.arange(views) * (math.pi * (3 - math.sqrt(5)))
    fov = torch.full((views,), FOV)
    return orbit(azimuth, torch.asin(height), radius * ZOOM / torch.tan(fov / 2), fov, size, size)


@torch.no_grad()
def fuse(
    draw: Draw, radius: float, resolution: int, device: torch.device, *, views: int = VIEWS
) -> Float[Tensor, "R R R"]:
    """Distance to the surface at the corners of a grid over [-radius, radius]^3, metres, positive inside; x, y, z.

    Curless and Levoy 1996: the mean over views of the distance along the viewing axis, within `REACH` cells; the more
    a surface faces a camera, the more that camera has to say, and pixels that mix depths farther apart than the band,
    as at edges, have nothing to say. A place that every camera sees something in front of is inside, so the surface is
    closed.

    Args:
        draw: gives the pictures, a camera at a time.
        radius: half the side of the box.
        resolution: cells along an axis; pictures have twice as many pixels.
        device: where the cameras are.
        views: how many.
    """
    in_range("resolution", resolution, 8, 1024)
    reach = REACH * 2 * radius / resolution
    axis = torch.linspace(-radius, radius, resolution + 1, device=device)
    cameras = [camera for camera in around(views, radius, 2 * resolution).to(device)]
    pictures = [_Met.of(draw(camera), camera, reach) for camera in cameras]
    found = []
    for some in axis.split(max(1, SLAB // len(axis) ** 2)):
        points = torch.stack(torch.meshgrid(some, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
        total, weight, shown = (torch.zeros(len(points), device=device) for _ in range(3))
        for camera, picture in zip(cameras, pictures, strict=True):
            z, pixel, inside = _seen(points, camera)
            before = picture.depth.view(-1)[pixel] - z
            counts = torch.where(before < reach, picture.facing.view(-1)[pixel], CARVED) * (inside & (before > -reach))
            total += counts * before.clamp(-reach, reach)
            weight += counts
            shown += inside
        distance = -total / weight.clamp_min(1e-12)
        hidden = torch.where(shown > 0, reach, -reach)  # outside all pictures there is nothing
        found.append(torch.where(weight > 0, distance, hidden).view(-1, len(axis), len(axis)))
    return torch.cat(found)


@dataclass(frozen=True)
class _Met:
    """Where the surface is that a camera sees.

    Args:
        depth: along the viewing axis; infinite where there is no surface, minus infinite where it is not known.
        length: along the ray; 0 where there is no depth.
        normal: of the surface, unit length; 0 where a neighbour lies on another one.
        facing: squared cosine between normal and ray, `CARVED` at least.
    """

    depth: Float[Tensor, "H W"]
    length: Float[Tensor, "H W"]
    normal: Float[Tensor, "H W 3"]
    facing: Float[Tensor, "H W"]

    @staticmethod
    def of(seen: Views, camera: Cameras, reach: float) -> _Met:
        depth = torch.where(seen.spread > reach, -math.inf, seen.depth)
        depth = torch.where(seen.alpha < SOLID, math.inf, depth)
        directions = camera.rays()[1]
        length = torch.where(depth.isfinite(), depth / -(directions @ camera.c2w[0, :3, 2]), 0)
        # To a neighbour without depth the way is infinite.
        low, high = (functional.max_pool2d(sign * depth[None], 3, stride=1)[0] for sign in (-1, 1))
        whole = (high + low < reach)[..., None]
        normal = functional.pad(torch.where(whole, depth_normals(length, directions), 0), (0, 0, 1, 1, 1, 1))
        facing = (normal * directions).sum(dim=-1).square().clamp_min(CARVED)
        return _Met(depth[0], length[0], normal[0], facing[0])


def _seen(points: Tensor, camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Depth of points, the number of the pixel that each is in, and whether there is one."""
    own = (points - camera.position) @ camera.c2w[0, :3, :3]
    z = -own[:, 2]
    focal = 0.5 * camera.height / math.tan(0.5 * float(camera.fov_y))
    column = (focal * own[:, 0] / z + 0.5 * camera.width).floor()
    row = (0.5 * camera.height - focal * own[:, 1] / z).floor()
    inside = (z > 0) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    return z, torch.where(inside, row * camera.width + column, 0).long(), inside


@torch.no_grad()
def point_cloud(
    draw: Draw, radius: float, resolution: int, device: torch.device, *, views: int = VIEWS
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
    """Points that the cameras see, and unit normals out of their neighbours' depths; arguments as of `fuse`."""
    points, normals = [], []
    reach = REACH * 2 * radius / resolution
    for camera in around(views, radius, 2 * resolution).to(device):
        met = _Met.of(draw(camera), camera, reach)
        origins, directions = (rays[0] for rays in camera.rays())
        known = met.normal.any(dim=-1)
        normals.append(met.normal[known])
        points.append((origins + met.length[..., None] * directions)[known])
    return torch.cat(points), torch.cat(normals)


@torch.no_grad()
def poisson(
    points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"], radius: float, resolution: int
) -> Float[Tensor, "R R R"]:
    """An indicator, 0 at the surface and positive inside, at the corners of a grid over [-radius, radius]^3; x, y, z.

    Poisson reconstruction (Kazhdan et al. 2006) on a grid, by Fourier transform (Shape As Points, arXiv:2106.03452,
    section 3.1): the indicator's gradient is the field of the normals, blurred by `BLUR` cells. Holes are closed.

    Args:
        points: on the surface, anywhere dense; how dense does not matter, since each cell's are taken together.
        normals: unit, outwards.
        radius: half the side of the box.
        resolution: cells along an axis.

    Raises:
        RunError: no point is in the box.
    """
    in_range("resolution", resolution, 8, 1024)
    pad = resolution // 8  # the transform is periodic
    size, cell = resolution + 1 + 2 * pad, 2 * radius / resolution
    places = (points + radius) / cell + pad
    inside = ((places > 1) & (places < size - 2)).all(dim=1)
    if not bool(inside.any()):
        raise RunError("no surface: no picture shows anything solid; train longer.")
    places, normals = _together(places[inside], normals[inside], size)
    # A surface runs through more cells where it is askew: as many an area as the sum of its normal's sizes.
    normals = normals / normals.abs().sum(dim=1, keepdim=True)
    corners, shares = _corners(places, size)
    wave = 2 * math.pi * torch.fft.fftfreq(size, device=points.device)
    waves = torch.meshgrid(wave, wave, wave[: size // 2 + 1].abs(), indexing="ij")
    square = waves[0] ** 2 + waves[1] ** 2 + waves[2] ** 2
    square[0, 0, 0] = 1
    divergence = torch.zeros_like(square, dtype=torch.complex64)
    for axis in range(3):
        field = torch.zeros(size**3, device=points.device)
        field.index_add_(0, corners.flatten(), (shares * normals[:, axis, None]).flatten())
        divergence += 1j * waves[axis] * torch.fft.rfftn(field.view(size, size, size))
    solved = torch.fft.irfftn(divergence * (torch.exp(-0.5 * BLUR**2 * square) / square), s=(size,) * 3)
    level = (solved.flatten()[corners] * shares).sum(dim=1).median()
    kept = slice(pad, pad + resolution + 1)
    return (solved - level)[kept, kept, kept]


def _together(places: Tensor, normals: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean place and unit mean normal of each cell that has any."""
    whole = places.long()
    cells, which = ((whole[:, 0] * size + whole[:, 1]) * size + whole[:, 2]).unique(return_inverse=True)
    sums = places.new_zeros(len(cells), 7).index_add_(
        0, which, torch.cat([places, normals, torch.ones_like(places[:, :1])], dim=1)
    )
    return sums[:, :3] / sums[:, 6:], functional.normalize(sums[:, 3:6], dim=1, eps=1e-9)


def _corners(places: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The eight grid points around each place, and how much of it is theirs, (N, 8)."""
    low = places.floor()
    part = (places - low)[:, None]
    step = torch.cartesian_prod(*[torch.arange(2, device=places.device)] * 3)
    at = low.long()[:, None] + step
    return (at[..., 0] * size + at[..., 1]) * size + at[..., 2], torch.where(step > 0, part, 1 - part).prod(dim=-1)
