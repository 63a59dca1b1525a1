"""How deep a picture of Gaussians is at each pixel, how much that spreads, and the normals that depth implies."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.kernels.splat_reference import JACOBIAN_EDGE, ProjectedSplats, focal_lengths, to_rotation
from dream3d.types import Cameras

NARROWEST = 0.01
"""Added to the variances of a Gaussian in the picture where its depth is looked for, pixel^2: within the blur of 0.3 no
depth is then farther from the centre than three standard deviations, however much from the side a disc is seen."""


def depth_planes(
    projected: ProjectedSplats,
    means: Float[Tensor, "N 3"],
    quaternions: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    cameras: Cameras,
) -> Float[Tensor, "C N 3"]:
    """Where in depth a ray meets each Gaussian: a + b x + c y, along the viewing axis, metres from the world's origin.

    x (right) and y (down) are pixels from the picture's middle. A ray is met where it finds the Gaussian densest, which
    for a disc is its plane: with the covariances S of picture and depth, z = z_centre + S_zp S_pp^-1 (p - p_centre), to
    first order in perspective (RaDe-GS, arXiv:2406.01467, section 3.1). S_pp is `NARROWEST` at least, so discs that are
    seen from the side do not lean to infinity. What is not drawn has zeros.

    Args:
        projected: the Gaussians as `project_splats` sees them with these cameras.
        means: world points.
        quaternions: w, x, y, z, of any length but 0.
        scales: standard deviations along the Gaussian's own axes; one of them may be 0.
        cameras: those of the projection.
    """
    c2w, focal = cameras.c2w.to(means), focal_lengths(cameras, means)[:, None, None]
    view = torch.stack([c2w[:, :3, 0], -c2w[:, :3, 1], -c2w[:, :3, 2]], dim=1)  # rows: right, down, forward
    size = means.new_tensor([cameras.width, cameras.height])
    z = torch.where(projected.visible, projected.depths, 1)[..., None]
    from_middle = torch.where(projected.visible[..., None], projected.means - 0.5 * size, 0)
    edge = JACOBIAN_EDGE * 0.5 * size / focal
    bend = torch.minimum(torch.maximum(from_middle / focal, -edge), edge)
    own = torch.einsum("cij,njk->cnik", view, to_rotation(quaternions) * scales[:, None])
    in_picture = (focal / z)[..., None] * (own[:, :, :2] - bend[..., None] * own[:, :, 2:])
    x, y = (in_picture * own[:, :, 2:]).sum(dim=-1).unbind(dim=-1)  # covariance of picture and depth
    (xx, xy), (_, yy) = (row.unbind(dim=-1) for row in (in_picture @ in_picture.mT).unbind(dim=-2))
    xx, yy = xx + NARROWEST, yy + NARROWEST
    slope = torch.stack([yy * x - xy * y, xx * y - xy * x], dim=-1) / (xx * yy - xy * xy)[..., None]
    offset = z[..., 0] - _origins(cameras, means)[:, None] - (slope * from_middle).sum(dim=-1)
    return torch.where(projected.visible[..., None], torch.cat([offset[..., None], slope], dim=-1), 0)


def squared(planes: Float[Tensor, "C N 3"]) -> Float[Tensor, "C N 6"]:
    """Coefficients of (a + b x + c y)^2, for `depth_and_distortion`."""
    a, b, c = planes.unbind(dim=-1)
    return torch.stack([a * a, 2 * a * b, 2 * a * c, b * b, 2 * b * c, c * c], dim=-1)


def depth_and_distortion(
    planes: Float[Tensor, "C H W K"], alpha: Float[Tensor, "C H W"], cameras: Cameras
) -> tuple[Float[Tensor, "C H W"], Float[Tensor, "C H W"] | None]:
    """Depth along the viewing axis (premultiplied, metres); sum over pairs i < j of w_i w_j (z_i - z_j)^2 (metres^2).

    Compositing is linear and x, y are a pixel's own, so the weighted sums of the planes' coefficients are enough for
    the exact moments M1 = sum w z and M2 = sum w z^2; and with A = sum w the double sum is A M2 - M1^2.

    Args:
        planes: composited `depth_planes`, and behind them, for the distortion (else None), `squared`.
        alpha: A, the sum of the weights.
        cameras: those of the pictures.
    """
    like = {"device": planes.device, "dtype": planes.dtype}
    y, x = torch.meshgrid(
        torch.arange(cameras.height, **like) + 0.5 - 0.5 * cameras.height,
        torch.arange(cameras.width, **like) + 0.5 - 0.5 * cameras.width,
        indexing="ij",
    )
    one = torch.ones_like(x)
    first = (planes[..., :3] * torch.stack([one, x, y], dim=-1)).sum(dim=-1)
    depth = first + alpha * _origins(cameras, planes)[:, None, None]
    if planes.shape[-1] == 3:
        return depth, None
    second = (planes[..., 3:] * torch.stack([one, x, y, x * x, x * y, y * y], dim=-1)).sum(dim=-1)
    # Depths are counted from the world's origin, near the object: from the camera the two terms would cancel.
    return depth, (alpha * second - first.square()).clamp_min(0)


def depth_normals(depth: Float[Tensor, "B H W"], directions: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B H-2 W-2 3"]:
    """Unit normals towards the camera of the surface at these depths, in world axes; a picture's border has none.

    Central differences of the points that the pixels see (2DGS, arXiv:2403.17888, eq. 15).

    Args:
        depth: distance along the ray, metres.
        directions: of the pixels' rays, unit length, world axes.
    """
    points = depth[..., None] * directions  # from the camera
    right = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    return functional.normalize(torch.linalg.cross(down, right), dim=-1, eps=1e-12)


def _origins(cameras: Cameras, like: Tensor) -> Float[Tensor, "C"]:
    """Depths of the world's origin along the viewing axes."""
    return (cameras.position * cameras.c2w[:, :3, 2]).sum(dim=-1).to(like)
