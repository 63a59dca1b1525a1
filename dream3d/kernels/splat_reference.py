"""The splat kernels' twins in plain torch: any floating type, any device, differentiable by autograd.

3D Gaussian Splatting (Kerbl et al. 2023, arXiv:2308.04079), front to back, premultiplied, without a background.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from dream3d.kernels.types import (
    ProjectedSplats,
    SplatImage,
    check_composite_splats,
    check_project_splats,
    check_splat_colours,
)
from dream3d.types import Cameras

__all__ = [
    "ProjectedSplats",
    "SplatImage",
    "composite_splats",
    "project_splats",
    "splat_colours",
    "splat_normals",
    "to_rotation",
]

TILE = 16
HIGHEST_ALPHA = 0.999
SHORTEST_QUATERNION = 1e-12
JACOBIAN_EDGE = 1.3
"""Beside the picture the projection is linearised at this multiple of its edge, as in the authors' code."""
C0 = 0.28209479177387814
C1 = 0.4886025119029199
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


def to_rotation(quaternions: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Rotation matrices of quaternions w, x, y, z, which need not have unit length."""
    w, x, y, z = (quaternions / quaternions.norm(dim=-1, keepdim=True)).unbind(dim=-1)
    rows = (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def focal_lengths(cameras: Cameras, like: Tensor) -> Float[Tensor, "C"]:
    """In pixels, with the type and on the device of `like`."""
    return 0.5 * cameras.height / torch.tan(0.5 * cameras.fov_y.to(like))


def project_splats(
    means: Float[Tensor, "N 3"],
    quaternions: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, "N"],
    cameras: Cameras,
    *,
    near: float = 0.01,
    far: float = 1e10,
    blur: float = 0.3,
    antialias: bool = False,
    alpha_min: float = 1 / 255,
) -> ProjectedSplats:
    """3D Gaussians to 2D ones (EWA splatting; 3D Gaussian Splatting, arXiv:2308.04079, eq. 5).

    The covariance in the picture is J W S (J W S)^T + blur: J is the projection's Jacobian at the centre, W turns
    into the camera's axes, S is the Gaussian's axes times its scales. Gradients flow to the first four arguments.

    Args:
        means: world points, metres.
        quaternions: w, x, y, z; normalised here.
        scales: standard deviations along the Gaussian's own axes, metres, 0 or more (not checked).
        opacities: 0 to 1 (not checked).
        cameras: their axes must be orthonormal.
        near: centres must be farther than this along the viewing axis, metres.
        far: and nearer than this.
        blur: added to both variances in the picture, pixel^2: at least a pixel sees every Gaussian (3DGS: 0.3).
        antialias: make a Gaussian fainter by what the blur adds to it (Mip-Splatting, arXiv:2311.16493, eq. 9).
        alpha_min: below it a Gaussian is not there.

    Raises:
        InputError: a shape, type, device or number does not fit.
    """
    check_project_splats(
        means, quaternions, scales, opacities, cameras, near=near, far=far, blur=blur, alpha_min=alpha_min
    )
    broken = ~torch.cat([means, quaternions, scales, opacities[:, None]], dim=1).isfinite().all(dim=1)
    broken |= ~(quaternions.square().sum(dim=1) > SHORTEST_QUATERNION**2)
    # What is not drawn is replaced before anything is computed with it: a NaN behind a `where` still spoils gradients.
    means, scales = (torch.where(broken[:, None], 0, t) for t in (means, scales))
    quaternions, opacities = torch.where(broken[:, None], 1, quaternions), torch.where(broken, 0, opacities)
    c2w, focal = cameras.c2w.to(means), focal_lengths(cameras, means)[:, None]
    view = torch.stack([c2w[:, :3, 0], -c2w[:, :3, 1], -c2w[:, :3, 2]], dim=1)  # rows: right, down, forward
    x, y, z = torch.einsum("cij,cnj->cin", view, means - c2w[:, None, :3, 3]).unbind(dim=1)
    seen = (z > near) & (z < far) & ~broken
    x, y, z = torch.where(seen, x, 0), torch.where(seen, y, 0), torch.where(seen, z, 1)
    size = means.new_tensor([cameras.width, cameras.height])
    slope = torch.stack([x, y], dim=-1) / z[..., None]
    axes = to_rotation(quaternions) * scales[:, None]
    covariance = _covariances(axes, view, slope, z, focal, edge=JACOBIAN_EDGE * 0.5 * size / focal[..., None])
    xx, xy, yy = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    with torch.no_grad():
        determinant = (xx + blur) * (yy + blur) - xy * xy
        seen = seen & (determinant > 0) & (1 / determinant > 0)
    xx, xy, yy = (torch.where(seen, t, 1) for t in (xx, xy, yy))
    before = xx * yy - xy * xy
    xx, yy = xx + blur, yy + blur
    determinant = torch.where(seen, xx * yy - xy * xy, 1)
    opacity = opacities.expand_as(z)
    if antialias:
        seen = seen & (before > 0)
        opacity = opacity * torch.where(seen, before / determinant, 1).sqrt()
    centre = focal[..., None] * slope + 0.5 * size
    conics = torch.stack([yy / determinant, -xy / determinant, xx / determinant], dim=-1)
    boxes = _boxes(centre, torch.stack([xx, yy], dim=-1), torch.where(seen, opacity, 0), size, alpha_min)
    first, end = boxes.to(torch.int32).split(2, dim=-1)
    seen = seen & (end > first).all(dim=-1)
    tiles = torch.where(seen, ((end - 1) // TILE - first // TILE + 1).prod(dim=-1), 0).to(torch.int32)
    return ProjectedSplats(
        means=torch.where(seen[..., None], centre, 0),
        depths=torch.where(seen, z, 0),
        conics=torch.where(seen[..., None], conics, 0),
        opacities=torch.where(seen, opacity, 0),
        boxes=boxes,
        tiles=tiles,
        broken=broken,
        height=cameras.height,
        width=cameras.width,
        alpha_min=alpha_min,
    )


def _covariances(axes: Tensor, view: Tensor, slope: Tensor, z: Tensor, focal: Tensor, *, edge: Tensor) -> Tensor:
    """In the picture, C N 2 2, pixel^2, without the blur; beyond `edge` the projection bends no further."""
    bend = torch.minimum(torch.maximum(slope, -edge), edge)
    to_image = (focal / z)[..., None, None] * (view[:, None, :2] - bend[..., None] * view[:, None, 2:])  # J W
    half = to_image @ axes
    return half @ half.mT


@torch.no_grad()
def _boxes(centre: Tensor, variances: Tensor, opacity: Tensor, size: Tensor, alpha_min: float) -> Tensor:
    """Around the ellipses opacity exp(-d^T conic d / 2) >= alpha_min, in whole pixels; zeros where there is nothing."""
    reach = (2 * (opacity / alpha_min).clamp(min=1).log()).sqrt()[..., None] * variances.sqrt()
    first = torch.minimum((centre - reach - 0.5).ceil().clamp(min=0), size)
    end = torch.minimum(((centre + reach - 0.5).floor() + 1).clamp(min=0), size)
    there = (opacity > alpha_min) & (end > first).all(dim=-1)
    return torch.where(there[..., None], torch.cat([first, end], dim=-1), 0).to(torch.int16)


def composite_splats(
    projected: ProjectedSplats,
    *,
    viewed: Float[Tensor, "C N A"] | None = None,
    shared: Float[Tensor, "N B"] | None = None,
    probe: Float[Tensor, "C N 2"] | None = None,
    transmittance_min: float = 1e-4,
) -> SplatImage:
    """Front-to-back sum of features, depth and alpha (3D Gaussian Splatting, arXiv:2308.04079, eqs. 2 and 3).

    At a pixel alpha_i = min(0.999, opacity_i exp(-d^T conic_i d / 2)), d from the centre to the middle of the pixel;
    weight_i = T_i alpha_i, T_{i+1} = T_i (1 - alpha_i). The order is that of the centres' depths, ties in the order of
    the Gaussians. Gradients flow to the projection and to all features.

    Args:
        projected: from `project_splats`.
        viewed: features that depend on the camera, such as colours from `splat_colours` and `splat_normals`.
        shared: features that do not, such as plain colours or codes; together at most 64, any finite values.
        probe: zeros whose gradient becomes the sum over pixels of the absolute value of the gradient with respect to
            the centre, per axis (AbsGS, arXiv:2404.10484): what `means.grad` loses where pixels pull opposite ways.
        transmittance_min: a pixel ends before the Gaussian that would bring T below this.

    Raises:
        InputError: a shape, type or device does not fit, or a feature is not finite.
    """
    check_composite_splats(projected, viewed, shared, probe, transmittance_min)
    pictures = []
    for camera, depths in enumerate(projected.depths):
        drawn = projected.visible[camera].nonzero()[:, 0]
        order = drawn[depths.detach()[drawn].argsort(stable=True)]
        boxes = projected.boxes[camera, order].long()
        parts = [f for f in (None if viewed is None else viewed[camera], shared) if f is not None]
        values = torch.cat([*parts, depths[:, None], torch.ones_like(depths[:, None])], dim=1)
        rows = []
        for top in range(0, projected.height, TILE):
            in_band = (boxes[:, 1] < top + TILE) & (boxes[:, 3] > top)
            band, band_boxes = order[in_band], boxes[in_band]
            tiles = []
            for left in range(0, projected.width, TILE):
                chosen = band[(band_boxes[:, 0] < left + TILE) & (band_boxes[:, 2] > left)]
                weights = _weights_in_tile(projected, camera, chosen, left, top, probe, transmittance_min)
                tiles.append((weights.t() @ values[chosen]).view(TILE, TILE, -1))
            rows.append(torch.cat(tiles, dim=1))
        pictures.append(torch.cat(rows)[: projected.height, : projected.width])
    image = torch.stack(pictures)
    return SplatImage(image[..., :-2], image[..., -2], image[..., -1])


def _weights_in_tile(
    projected: ProjectedSplats,
    camera: int,
    chosen: Tensor,
    left: int,
    top: int,
    probe: Tensor | None,
    transmittance_min: float,
) -> Tensor:
    """Weights (G, 256) of the chosen Gaussians, from near to far, at the pixels of a tile."""
    x = left + torch.arange(TILE, device=chosen.device).repeat(TILE)
    y = top + torch.arange(TILE, device=chosen.device).repeat_interleave(TILE)
    middles = torch.stack([x, y], dim=-1).to(projected.means) + 0.5
    centres = projected.means[camera, chosen]
    copies = centres[:, None] if probe is None else _Probed.apply(centres, probe[camera, chosen], middles)
    dx, dy = (middles - copies).unbind(dim=-1)
    xx, xy, yy = projected.conics[camera, chosen, :, None].unbind(dim=1)
    sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    alpha = (projected.opacities[camera, chosen, None] * torch.exp(-sigma)).clamp(max=HIGHEST_ALPHA)
    box = projected.boxes[camera, chosen, :, None]
    inside = (x >= box[:, 0]) & (x < box[:, 2]) & (y >= box[:, 1]) & (y < box[:, 3])
    alpha = torch.where((alpha >= projected.alpha_min) & (sigma >= 0) & inside, alpha, 0)
    after = torch.cumprod(1 - alpha, dim=0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    return torch.where(after >= transmittance_min, before * alpha, 0)


class _Probed(Function):
    """One copy of a Gaussian's centre for every pixel; going back, the copies' gradients and their sizes add up."""

    @staticmethod
    def forward(ctx: Any, centres: Tensor, probe: Tensor, middles: Tensor) -> Tensor:
        return centres[:, None].repeat(1, len(middles), 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient.sum(dim=1), gradient.abs().sum(dim=1), None


def splat_colours(
    means: Float[Tensor, "N 3"],
    coefficients: Float[Tensor, "N J 3"],
    cameras: Cameras,
    *,
    degree: int | None = None,
) -> Float[Tensor, "C N 3"]:
    """View-dependent colours: max(0, 1/2 + spherical harmonics), with the basis and the signs of 3D Gaussian Splatting.

    The direction is the one from the camera to the centre, in world axes. Gradients flow to means and coefficients.

    Args:
        means: world points.
        coefficients: (degree + 1)^2 rows, ordered by degree, then by order; red, green, blue.
        cameras: only their positions matter.
        degree: how many degrees to use, 0 to 3; None is all that are stored.

    Raises:
        InputError: a shape, type, device or degree does not fit.
    """
    number = (check_splat_colours(means, coefficients, degree) + 1) ** 2
    x, y, z = _directions(means, cameras).unbind(dim=-1)
    basis = [torch.full_like(x, C0)]
    if number > 1:
        basis += [-C1 * y, C1 * z, -C1 * x]
    xx, yy, zz = x * x, y * y, z * z
    if number > 4:
        basis += [C2[0] * x * y, -C2[0] * y * z, C2[1] * (2 * zz - xx - yy), -C2[0] * x * z, C2[2] * (xx - yy)]
    if number > 9:
        basis += [
            *(-C3[0] * y * (3 * xx - yy), C3[1] * x * y * z, -C3[2] * y * (4 * zz - xx - yy)),
            C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            *(-C3[2] * x * (4 * zz - xx - yy), C3[4] * z * (xx - yy), -C3[0] * x * (xx - 3 * yy)),
        ]
    return (0.5 + torch.einsum("cnj,njk->cnk", torch.stack(basis, dim=-1), coefficients[:, :number])).clamp(min=0)


def splat_normals(
    means: Float[Tensor, "N 3"],
    quaternions: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    cameras: Cameras,
) -> Float[Tensor, "C N 3"]:
    """Unit normals in world axes: the shortest axis, turned towards the camera. Differentiable in the quaternions."""
    shortest = scales.detach().argmin(dim=1)
    normals = to_rotation(quaternions).gather(2, shortest[:, None, None].expand(-1, 3, 1))[..., 0]
    away = (_directions(means.detach(), cameras) * normals.detach()).sum(dim=-1, keepdim=True) > 0
    return torch.where(away, -normals, normals)


def _directions(means: Tensor, cameras: Cameras) -> Tensor:
    """From the cameras to the centres, of unit length."""
    offsets = means - cameras.position.to(means)[:, None]
    return offsets / offsets.square().sum(dim=-1, keepdim=True).clamp(min=1e-24).sqrt()
