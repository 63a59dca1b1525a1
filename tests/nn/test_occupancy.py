"""The occupancy grid: bounds, decay, determinism, lookups."""

import pytest
import torch

from dream3d.checks import InputError
from dream3d.nn.occupancy import OccupancyGrid


def ball(points):
    """Density 100 within 0.5 m; half of it hides."""
    density = 100.0 * (points.norm(dim=-1) < 0.5)
    return density, 0.5 * density


def nothing(points):
    return torch.zeros(len(points)), torch.zeros(len(points))


def test_cells_of_the_matter_are_occupied():
    grid = OccupancyGrid(cells=30, radius=1.0, refresh=4)  # rounded up
    assert grid.cells == 32 and grid.cell == pytest.approx(1 / 16)
    occupied = grid.occupancy(ball).unpack()
    volume = occupied.float().mean().item() * 8
    assert volume == pytest.approx(4 / 3 * torch.pi * 0.125, rel=0.05)
    assert occupied.shape == (32, 32, 32) and grid.occupancy(nothing) is grid.occupancy(ball)  # until the next look
    with pytest.raises(InputError, match="occupancy"):
        OccupancyGrid(cells=4, radius=1.0, refresh=4)


def test_looks_at_every_refresh_and_forgets_slowly():
    grid = OccupancyGrid(cells=16, radius=1.0, refresh=4)
    grid.occupancy(ball)
    grid.after_step(1, nothing)
    assert grid.peaks.max() == 100
    grid.after_step(4, nothing)
    assert grid.peaks.max() == pytest.approx(90) and grid.means.max() == pytest.approx(12.5)
    again = OccupancyGrid(cells=16, radius=1.0, refresh=4)
    again.load_state_dict(grid.state_dict())
    assert torch.equal(again.occupancy(nothing).bits, grid.occupancy(nothing).bits)
    for one in (grid, again):
        one.after_step(8, ball)
    assert torch.equal(again.peaks, grid.peaks)  # a resumed run looks at the same points


def test_axes():
    """What is at +x, and nowhere else, is found there."""
    grid = OccupancyGrid(cells=16, radius=2.0, refresh=1)
    grid.after_step(0, lambda p: ((p[:, 0] > 1.0) * 10.0, (p[:, 0] > 1.0) * 10.0))
    at = torch.tensor([[1.9, 0, 0], [-1.9, 0, 0], [0, 1.9, 0], [0, 0, 1.9], [9.0, 0, 0]])
    assert grid.hidden_by(at).tolist() == [5, 0, 0, 0, 5]
    drawn = grid.draw(nothing, 200, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 3) and drawn[:, 0].min() >= 1 and drawn.abs().max() <= 2
    assert drawn[:, 1].min() < -1 and drawn[:, 2].max() > 1


def test_draws_anywhere_where_there_is_nothing():
    grid = OccupancyGrid(cells=8, radius=1.0, refresh=1)
    drawn = grid.draw(nothing, 100, torch.Generator().manual_seed(0))
    assert drawn.min() < -0.8 and drawn.max() > 0.8 and drawn.abs().max() <= 1
