from __future__ import annotations

import math

import pytest
import torch

from dream3d.checks import InputError
from dream3d.evaluation.judge import FRONT
from dream3d.evaluation.measures import angle_between, border, distances, is_janus, median, recall, share


def test_recall_counts_ranks_and_holds_ties_against_it() -> None:
    similarity = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.5, 0.5, 0.1]])
    right = torch.tensor([0, 1, 2, 0])
    assert [recall(similarity, right, k) for k in (1, 2, 3)] == [0.25, 0.75, 1.0]
    with pytest.raises(InputError, match="1 to 3, got 4"):
        recall(similarity, right, 4)


def test_angles_go_the_short_way_round() -> None:
    one, other = torch.tensor([0.1, 3.0, -3.0, 0.0]), torch.tensor([-0.1, -3.0, 3.0, math.pi])
    expected = [math.degrees(0.2), math.degrees(2 * math.pi - 6), math.degrees(2 * math.pi - 6), 180]
    assert angle_between(one, other).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("front", "janus"),
    [
        ([True, False, False, False], False),
        ([False, False, True, False], False),  # turned as a whole
        ([True, False, True, False], True),
        ([True, True, False, False], True),  # a quarter of a turn apart
        ([False, False, False, False], False),
    ],
)
def test_a_second_front_makes_a_janus(front: list[bool], janus: bool) -> None:
    assert is_janus(torch.tensor(front), torch.arange(4) * (math.pi / 2)) is janus


def test_neighbouring_views_may_both_show_the_front() -> None:
    azimuth = torch.arange(8) * (math.pi / 4)
    assert not is_janus(torch.tensor([True, True, *[False] * 6]), azimuth)
    assert is_janus(torch.tensor([True, False, True, *[False] * 5]), azimuth)


@pytest.mark.parametrize("views", [4, 8, 16])
@pytest.mark.parametrize("error_deg", [0.0, 14.0, -14.0])
def test_one_front_seen_from_many_sides_is_no_janus(views: int, error_deg: float) -> None:
    azimuth = torch.arange(views) * (2 * math.pi / views)
    judged = torch.remainder(azimuth + math.radians(error_deg) * (azimuth - 1).sign() + math.pi, 2 * math.pi) - math.pi
    assert not is_janus(judged.abs() <= FRONT, azimuth)


def test_shares_and_medians() -> None:
    assert share([True, False, True, True]) == 0.75 and median(torch.tensor([1.0, 4.0, 2.0, 9.0])) == 3.0
    assert math.isnan(share([])) and math.isnan(median(torch.tensor([])))


def test_a_training_picture_on_another_background_is_found_again() -> None:
    """The nearest of three pictures, whatever stands behind them; its distance is zero."""
    generator = torch.Generator().manual_seed(0)
    alpha = torch.zeros(3, 1, 16, 16)
    alpha[..., 4:12, 4:12] = 1
    known = torch.cat([torch.rand(3, 3, 16, 16, generator=generator) * alpha, alpha], dim=1)
    behind = torch.tensor([0.3, 0.6, 0.9])[:, None, None]
    picture = known[1:2, :3] + (1 - known[1:2, 3:]) * behind
    assert torch.allclose(border(picture)[0], behind[:, 0, 0])
    nearest, which = distances(picture, known)
    assert int(which[0]) == 1 and float(nearest[0]) < 1e-6
    brighter = (picture + 0.1 * alpha[:1]).clamp(0, 2)
    assert float(distances(brighter, known)[0][0]) == pytest.approx(0.1 * math.sqrt(64 / 256), abs=1e-6)
