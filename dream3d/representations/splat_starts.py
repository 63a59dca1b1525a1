"""Where Gaussians come from: points in a ball or on a surface, and the parameters that are trained."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dream3d.checks import InputError, in_range
from dream3d.kernels.splat_reference import C0
from dream3d.types import Mesh, Splats

SMALLEST, FAINTEST = 1e-6, 1e-4
"""Scale (metres) and distance of opacities from 0 and 1 that logarithm and logit are taken of."""


def point_splats(
    points: Float[Tensor, "N 3"],
    colors: Float[Tensor, "N 3"] | None = None,
    *,
    normals: Float[Tensor, "N 3"] | None = None,
    opacity: float = 0.1,
) -> Splats:
    """Round Gaussians at the points of a cloud, as wide as the mean distance to the three nearest (3DGS, section 5.1).

    Args:
        points: metres.
        colors: display-referred, [0, 1]; None is grey.
        normals: of any length but 0, and either sign: the Gaussians' third axes. None leaves them along z.
        opacity: of all of them.
    """
    from scipy.spatial import cKDTree

    number = len(points)
    in_range("point_splats: opacity", opacity, 0, 1)
    near = torch.full((number,), 0.1)
    if number > 1:
        array = points.detach().cpu().double().numpy()
        distances, _ = cKDTree(array).query(array, k=min(4, number))
        near = torch.from_numpy(distances[:, 1:]).square().mean(dim=1).sqrt()
    scales = near.to(points).clamp_min(SMALLEST)[:, None].repeat(1, 3)
    turned = points.new_tensor([1.0, 0, 0, 0]).repeat(number, 1) if normals is None else from_z(normals.to(points))
    grey = torch.full_like(points, 0.5) if colors is None else colors.to(points)
    return Splats(points.clone(), turned, scales, points.new_full((number,), opacity), (grey[:, None] - 0.5) / C0)


def from_z(normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 4"]:
    """Unit quaternions (w, x, y, z) of the shortest turns that put the z axis along these lines, of either sign."""
    x, y, z = functional.normalize(torch.where(normals[:, 2:] < 0, -normals, normals), dim=-1).unbind(dim=-1)
    return functional.normalize(torch.stack([1 + z, -y, x, torch.zeros_like(x)], dim=-1), dim=-1)


def flattened(splats: Splats) -> Splats:
    """With each Gaussian's shortest axis as its third (of equal ones the third itself), and nothing along it."""
    preferred = splats.scales * splats.scales.new_tensor([1, 1, 1 - 1e-4])
    shortest = preferred.argmin(dim=1)
    order = (shortest[:, None] + torch.arange(1, 4).to(shortest)) % 3  # cyclic, so that it stays a rotation
    turn = splats.quaternions.new_tensor([[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, -0.5, -0.5], [1, 0, 0, 0]])[shortest]
    w, v = splats.quaternions[:, :1], splats.quaternions[:, 1:]
    a, u = turn[:, :1], turn[:, 1:]
    real = w * a - (v * u).sum(dim=1, keepdim=True)
    quaternions = torch.cat([real, w * u + a * v + torch.linalg.cross(v, u)], dim=1)
    scales = splats.scales.gather(1, order) * splats.scales.new_tensor([1, 1, 0])
    return Splats(splats.means, quaternions, scales, splats.opacities, splats.sh)


def ball_points(count: int, radius: float) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
    """Points, evenly in a ball, and colours around grey."""
    directions = functional.normalize(torch.randn(count, 3), dim=-1)
    points = radius * torch.rand(count, 1).pow(1 / 3) * directions
    return points, 0.5 + 0.1 * (torch.rand(count, 3) - 0.5)


def surface_points(
    mesh: Mesh, count: int
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"] | None, Float[Tensor, "N 3"]]:
    """Points, evenly over a surface, its colours there, and the normals of its faces (not of unit length)."""
    corners = mesh.vertices[mesh.faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = normals.norm(dim=-1)
    if not len(areas) or not float(areas.sum()) > 0:
        raise InputError("Gaussians: the surface to start from has no area.")
    # A cumulative sum rather than multinomial, which takes no more than 2^24 faces.
    ends = areas.double().cumsum(0)
    which = torch.searchsorted(ends, torch.rand(count, dtype=torch.float64).to(ends) * ends[-1]).clamp_max(
        len(areas) - 1
    )
    u, v = torch.rand(2, count, 1).to(corners).unbind()
    u = u.sqrt()
    inside = torch.stack([1 - u, u * (1 - v), u * v], dim=1)
    colors = None if mesh.colors is None else (mesh.colors[mesh.faces[which]] * inside).sum(1)
    return (corners[which] * inside).sum(1), colors, normals[which]


def parameters_of(splats: Splats, rows: int, *, flat: bool) -> dict[str, Tensor]:
    """Not activated, with so many rows of harmonics: those that are missing are 0. Flat ones have two scales."""
    sh = functional.pad(splats.sh, (0, 0, 0, max(0, rows - splats.sh.shape[1])))[:, :rows]
    splats = flattened(splats) if flat else splats
    parts = {
        "means": splats.means,
        "log_scales": splats.scales[:, : 2 if flat else 3].clamp_min(SMALLEST).log(),
        "quaternions": splats.quaternions,
        "logits": splats.opacities.logit(FAINTEST),
        "dc": sh[:, :1],
        "rest": sh[:, 1:],
    }
    return {name: value.detach().clone() for name, value in parts.items()}
