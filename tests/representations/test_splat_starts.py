"""Where Gaussians start: turned to normals, and flattened along their shortest axis."""

from __future__ import annotations

import torch

from dream3d.kernels.splat_reference import to_rotation
from dream3d.representations.splat_starts import flattened, from_z, parameters_of, point_splats, surface_points
from dream3d.types import Mesh, Splats


def random_splats(count: int = 50) -> Splats:
    generator = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    turned = torch.nn.functional.normalize(rand(count, 4) - 0.5, dim=-1)
    return Splats(rand(count, 3), turned, 0.01 + rand(count, 3), rand(count), rand(count, 1, 3))


def test_z_is_turned_to_the_normal() -> None:
    normals = torch.cat([torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.eye(3), -torch.eye(3)])
    quaternions = from_z(normals)
    torch.testing.assert_close(quaternions.norm(dim=-1), torch.ones(46))
    third = to_rotation(quaternions)[..., 2]
    along = torch.nn.functional.normalize(normals, dim=-1)
    torch.testing.assert_close((third * along).sum(-1).abs(), torch.ones(46))


def test_flat_ones_lose_their_shortest_axis_and_nothing_else() -> None:
    """Covariances: the projection of the old one onto the plane across its shortest axis."""
    made = random_splats()
    flat = flattened(made)
    old, new = (to_rotation(s.quaternions) for s in (made, flat))
    torch.testing.assert_close(torch.linalg.det(new), torch.ones(50))
    axis = old.gather(2, made.scales.argmin(1)[:, None, None].expand(-1, 3, 1))[..., 0]
    torch.testing.assert_close((new[..., 2] * axis).sum(-1).abs(), torch.ones(50))
    half, flat_half = old * made.scales[:, None], new * flat.scales[:, None]
    across = torch.eye(3) - axis[:, :, None] * axis[:, None]
    torch.testing.assert_close(flat_half @ flat_half.mT, across @ half @ half.mT @ across, rtol=1e-4, atol=1e-5)
    assert not flat.scales[:, 2].any()
    again = flattened(flat)
    torch.testing.assert_close(again.quaternions, flat.quaternions)
    assert torch.equal(again.scales, flat.scales)


def test_round_ones_keep_their_third_axis() -> None:
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    made = point_splats(points, normals=torch.tensor([[1.0, 2, 3]]).expand(20, 3))
    torch.testing.assert_close(flattened(made).quaternions, made.quaternions)
    assert parameters_of(made, 1, flat=True)["log_scales"].shape == (20, 2)


def test_points_know_the_normals_of_their_faces() -> None:
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    mesh = Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    points, colors, normals = surface_points(mesh, 200)
    along_z = normals[:, 2] > 0.5
    assert colors is None and 60 < int(along_z.sum()) < 140
    assert not points[along_z, 2].any() and not points[~along_z, 0].any() and bool((normals[~along_z, 0] > 0.5).all())
