from dataclasses import fields, replace

import pytest
import torch

from dream3d.checks import InputError
from dream3d.kernels.splat_reference import splat_colours, to_rotation
from dream3d.splat_files import base
from dream3d.splat_files.base import to_splats, to_table, turned
from dream3d.types import Cameras, Splats


def covariance(splats):
    axes = to_rotation(splats.quaternions) * splats.scales[:, None]
    return axes @ axes.mT


def test_half_a_turn_is_seen_the_same_from_the_other_side(make):
    splats = make(50)
    flips = torch.tensor([1.0, -1.0, -1.0])
    other = turned(splats)
    torch.testing.assert_close(covariance(other), flips[:, None] * covariance(splats) * flips)
    for position in ([3.0, 1.0, 2.0], [-1.0, -2.0, 3.0], [0.3, 2.0, -3.0]):
        place = torch.eye(4)[None].clone()
        place[0, :3, 3] = torch.tensor(position)
        beyond = place.clone()
        beyond[0, :3, 3] *= flips
        here, there = (Cameras(c2w, torch.ones(1), 8, 8) for c2w in (place, beyond))
        torch.testing.assert_close(
            splat_colours(other.means, other.sh, there), splat_colours(splats.means, splats.sh, here)
        )


def test_two_half_turns_are_none(make):
    splats = make(20)
    for field in fields(Splats):
        assert torch.equal(getattr(turned(turned(splats)), field.name), getattr(splats, field.name))


def test_rows_that_are_not_finite_are_left_out_and_counted(make):
    splats = make(10)
    for field, value in (
        ("means", "nan"),
        ("scales", "inf"),
        ("quaternions", "nan"),
        ("opacities", "nan"),
        ("sh", "inf"),
    ):
        bad = getattr(splats, field).clone()
        bad[3], bad[7] = float(value), float(value)
        spoilt = replace(splats, **{field: bad})
        with pytest.warns(UserWarning, match=r"^a\.ply: 2 of 10 Gaussians hold NaN or infinity and are left out\.$"):
            table = to_table("a.ply", spoilt)
        assert len(table.means) == 8
        assert torch.equal(to_splats("a.ply", table).means, splats.means[[0, 1, 2, 4, 5, 6, 8, 9]])
    with pytest.raises(
        InputError, match=r"^a\.ply: expected Gaussians of finite numbers, got NaN or infinity in all 10\.$"
    ):
        to_table("a.ply", replace(splats, means=torch.full((10, 3), torch.nan)))


def test_values_are_brought_into_range(make):
    splats = make(4)
    table = to_table(
        "a",
        replace(
            splats,
            quaternions=torch.tensor([[0.0, 0, 0, 0], [0, 3, 0, 0], [1e-30, 0, 0, 0], [1, 1, 1, 1]]),
            opacities=torch.tensor([-0.1, 0, 1, 1.5]),
            scales=torch.full((4, 3), -1.0),
        ),
    )
    assert table.quaternions.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]]
    assert table.opacities.tolist() == [0, 0, 1, 1] and (table.scales == 0).all()


def test_nothing_and_too_much_are_refused(make, monkeypatch):
    with pytest.raises(InputError, match=r"^a: expected at least one Gaussian, got none\.$"):
        to_table("a", make(0))
    monkeypatch.setattr(base, "LIMIT", 5)
    with pytest.raises(InputError, match=r"^a: expected at most 5 Gaussians, got 6\.$"):
        to_table("a", make(6))
