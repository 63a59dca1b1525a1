"""Gaussians: where they come from, what moves along with them, and the surface that they make."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch import Tensor

from dream3d.cameras import turntable
from dream3d.checks import InputError, RunError
from dream3d.kernels.splat_reference import to_rotation
from dream3d.meshing import topology
from dream3d.renderers import Splat
from dream3d.representations import Field, Gaussians, Image
from dream3d.representations.gaussians import PARAMETERS, point_splats
from dream3d.stage import Adam
from dream3d.types import Mesh, Splats

C0 = 0.28209479177387814


def splats(count: int = 30, rows: int = 4) -> Splats:
    generator = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    quaternions = torch.nn.functional.normalize(rand(count, 4) - 0.5, dim=-1)
    sh = rand(count, rows, 3) - 0.5
    return Splats(rand(count, 3) - 0.5, quaternions, 0.01 + 0.1 * rand(count, 3), 0.1 + 0.8 * rand(count), sh)


def ball(count: int = 4000) -> Gaussians:
    """A red, opaque ball of radius 0.5."""
    torch.manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1) * 0.5 * torch.rand(count, 1) ** (1 / 3)
    return Gaussians(point_splats(points, torch.tensor([0.8, 0.2, 0.1]).expand(count, 3), opacity=0.9))


def trained(made: Gaussians) -> torch.optim.Optimizer:
    """Two steps of Adam, so that all running means differ from one another."""
    optimizer = Adam(lr=0.01)(made.parameter_groups())
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        for parameter in made.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return optimizer


def test_splats_survive_the_way_there_and_back() -> None:
    there = splats()
    back = Gaussians(there, sh_degree=1).to_splats()
    for name in ("means", "quaternions", "scales", "opacities", "sh"):
        torch.testing.assert_close(getattr(back, name), getattr(there, name))


@pytest.mark.parametrize("degree, rows", [(0, 1), (1, 4), (3, 16)])
def test_harmonics_are_cut_or_filled_up(degree: int, rows: int) -> None:
    found = Gaussians(splats(), sh_degree=degree).to_splats().sh
    assert found.shape == (30, rows, 3) and torch.equal(found[:, :4], splats().sh[:, :rows])
    assert not found[:, 4:].any()


def test_the_stage_before_hands_over() -> None:
    first = Gaussians(splats(), sh_degree=1)
    second = Gaussians(first, sh_degree=1, count=7)
    for name in PARAMETERS:
        one, two = getattr(first, name), getattr(second, name)
        assert one is not two
        torch.testing.assert_close(one, two)


def test_random_points_fill_the_ball() -> None:
    torch.manual_seed(0)
    made = Gaussians(count=4000, ball=0.4, opacity=0.2).to_splats()
    radii = made.means.norm(dim=-1) / 0.4
    assert float(radii.max()) <= 1 and float((radii < 0.5 ** (1 / 3)).float().mean()) == pytest.approx(0.5, abs=0.03)
    torch.testing.assert_close(made.opacities, torch.full((4000,), 0.2))
    spacing = 0.4 * (4 * math.pi / 3 / 4000) ** (1 / 3)
    assert float(made.scales.mean()) == pytest.approx(spacing, rel=0.3)


def test_points_of_a_lattice_are_as_wide_as_its_spacing() -> None:
    axis = torch.arange(4) * 0.25
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    colors = torch.rand(64, 3)
    made = point_splats(points, colors, opacity=0.3)
    torch.testing.assert_close(made.scales, torch.full((64, 3), 0.25))
    torch.testing.assert_close(0.5 + C0 * made.sh[:, 0], colors)
    assert len(point_splats(points[:1])) == 1 and len(point_splats(points[:0])) == 0


def test_a_surface_is_covered_evenly_in_its_colours() -> None:
    """From a field: the starting ball, on whose surface the points then are."""
    field = Field(levels=4, log2_table=10, base=4, finest=32, hidden=16, occupancy=16)
    mesh = field.to_mesh()
    torch.manual_seed(0)
    made = Gaussians(field, count=500).to_splats()
    assert len(made) == 500 and mesh.colors is not None
    radius = mesh.vertices.norm(dim=-1)
    assert bool((made.means.norm(dim=-1) <= radius.max() + 1e-6).all())
    assert bool((made.means.norm(dim=-1) > 0.95 * radius.min()).all())
    assert float(made.means.mean(0).norm()) < 0.1 * float(radius.mean())
    colors = 0.5 + C0 * made.sh[:, 0]
    assert bool((colors > mesh.colors.amin(0) - 1e-5).all() & (colors < mesh.colors.amax(0) + 1e-5).all())
    with pytest.raises(RunError, match="an image has no surface"):
        Gaussians(Image(size=8))


def test_learning_rates_are_relative_to_that_of_the_colours() -> None:
    made = Gaussians(count=5, sh_degree=1)
    groups = Adam(lr=0.01)(made.parameter_groups()).param_groups
    rates = {name: g["rate"] for name, g in zip(PARAMETERS, groups, strict=True)}
    assert all(g["params"][0] is getattr(made, name) for name, g in zip(PARAMETERS, groups, strict=True))
    wanted = {"means": 1e-3, "log_scales": 5e-3, "quaternions": 5e-3, "logits": 0.05, "dc": 0.01, "rest": 5e-4}
    assert rates == pytest.approx(wanted)


def test_flat_ones_are_discs() -> None:
    made = Gaussians(splats(), sh_degree=1, flat=True)
    there = splats()
    assert made.log_scales.shape == (30, 2) and not made.scales[:, 2].any()
    torch.testing.assert_close(made.scales.sort(dim=1).values[:, 1:], there.scales.sort(dim=1).values[:, 1:])
    again = Gaussians(made, flat=True, sh_degree=1)
    for name in PARAMETERS:
        torch.testing.assert_close(getattr(again, name), getattr(made, name))
    thin = Gaussians(made, sh_degree=1).to_splats().scales
    torch.testing.assert_close(thin[:, :2], made.scales[:, :2])
    assert float(thin[:, 2].max()) < 2e-6
    with pytest.raises(RuntimeError, match="log_scales"):
        Gaussians(splats(), sh_degree=1).load_state_dict(made.state_dict())


def test_discs_from_a_surface_lie_on_it_and_from_a_ball_do_not_line_up() -> None:
    torch.manual_seed(0)
    corners = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 1]])

    class Wall(Image):  # type: ignore[misc]
        def to_mesh(self) -> Mesh:
            return Mesh(corners, torch.tensor([[0, 1, 2]]))

    third = to_rotation(Gaussians(Wall(size=8), count=20, flat=True).quaternions)[..., 2]
    torch.testing.assert_close(third.abs(), torch.tensor([[1.0, 0, 0]]).expand(20, 3))
    third = to_rotation(Gaussians(count=2000, flat=True).quaternions)[..., 2]
    torch.testing.assert_close(third.mT @ third / 2000, torch.eye(3) / 3, rtol=0, atol=0.03)


def test_rearranging_moves_parameters_and_running_means() -> None:
    """By a map written by hand, row by row."""
    made = Gaussians(splats(4), sh_degree=1)
    optimizer = trained(made)
    before = {name: getattr(made, name).detach().clone() for name in PARAMETERS}
    moments = {name: dict(optimizer.state[getattr(made, name)]) for name in PARAMETERS}
    made.pull += 1
    logits = torch.arange(5.0)
    source, fresh = [2, 0, 0, 3, 2], [False, False, True, False, True]
    made.rearrange(torch.tensor(source), optimizer, fresh=torch.tensor(fresh), changed={"logits": logits})
    assert len(made) == 5 and torch.equal(made.logits, logits) and torch.equal(made.pull, torch.zeros(5))
    assert sorted(name for name, _ in made.named_parameters()) == sorted(PARAMETERS)
    assert [id(p) for g in optimizer.param_groups for p in g["params"]] == [id(getattr(made, n)) for n in PARAMETERS]
    assert len(optimizer.state) == len(PARAMETERS)
    for name in PARAMETERS:
        state = optimizer.state[getattr(made, name)]
        assert torch.equal(state["step"], torch.tensor(2.0))
        for row, (old, new) in enumerate(zip(source, fresh, strict=True)):
            if name != "logits":
                assert torch.equal(getattr(made, name)[row], before[name][old])
            for kind in ("exp_avg", "exp_avg_sq"):
                wanted = torch.zeros_like(before[name][old]) if new else moments[name][kind][old]
                assert torch.equal(state[kind][row], wanted), (name, kind, row)


def test_training_goes_on_while_an_old_graph_lives() -> None:
    """The usual loop: the loss before is still there when the next picture is drawn."""
    made = Gaussians(splats(6))
    optimizer, old = Adam(lr=0.01)(made.parameter_groups()), []
    for count in (6, 9):
        loss = Splat()(made, turntable(1, 16)).rgb.sum()
        old.append(loss)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        made.rearrange(torch.arange(9) % count, optimizer, fresh=torch.zeros(9, dtype=torch.bool))


def test_another_number_of_gaussians_can_be_loaded() -> None:
    """Into the very parameters that the optimiser knows."""
    made, elsewhere = Gaussians(splats(9), sh_degree=1), Gaussians(count=4, sh_degree=1)
    made.share += torch.arange(9)
    optimizer = Adam(lr=0.01)(elsewhere.parameter_groups())
    file = io.BytesIO()
    torch.save({"of": made.state_dict(), "optimizer": trained(made).state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    elsewhere.load_state_dict(saved["of"])
    optimizer.load_state_dict(saved["optimizer"])
    assert len(elsewhere) == 9 and torch.equal(elsewhere.share, torch.arange(9.0))
    for name in PARAMETERS:
        parameter = getattr(elsewhere, name)
        assert (
            torch.equal(parameter, saved["of"][name]) and parameter.shape == optimizer.state[parameter]["exp_avg"].shape
        )
    with pytest.raises(RuntimeError, match="rest"):
        Gaussians(count=4, sh_degree=0).load_state_dict(saved["of"])


def test_statistics_are_a_sum_over_views() -> None:
    """Pulls in the unit of 3DGS: pixels of half a picture, of one picture's loss."""
    made = Gaussians(splats(8))
    made.watch, views = "mean", turntable(3, 16)
    for _ in range(2):
        (Splat()(made, views).rgb.square().sum() / 3).backward()
    gradients = [drawn.centres.grad for drawn in made.drawn]
    assert all(g is not None for g in gradients)
    wanted = sum((8 * g.norm(dim=-1) * 3).sum(0) for g in gradients if g is not None)
    visible = sum(drawn.visible.sum(0) for drawn in made.drawn)
    made.after_step(0, torch.optim.Adam(made.parameters()))
    assert isinstance(wanted, Tensor) and isinstance(visible, Tensor)
    torch.testing.assert_close(made.pull, wanted)
    assert torch.equal(made.views, visible.float()) and float(made.share.sum()) > 0 and not made.drawn


def test_surface_of_one_gaussian_is_where_its_formula_says() -> None:
    """Peak A = -log(1 - o) / sqrt(2 pi) / s, wider and lower by the blur of half a cell; a sphere at each level."""
    s, blur = 0.2, 1 / 48
    one = Splats(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), s), torch.tensor([0.8]),
                 torch.zeros(1, 1, 3))  # fmt: skip
    wide = math.sqrt(s**2 + blur**2)
    peak = -math.log(1 - 0.8) / math.sqrt(2 * math.pi) * s**2 / wide**3
    surfaced = Gaussians(one).surface(iso=0.4 * peak, resolution=48)
    radius = wide * math.sqrt(2 * math.log(1 / 0.4))
    radii = surfaced.mesh.vertices.norm(dim=-1)
    torch.testing.assert_close(radii, torch.full_like(radii, radius), rtol=5e-3, atol=0)
    baked = surfaced.bake(surfaced.mesh.vertices)
    torch.testing.assert_close(baked["base_color"], torch.full_like(surfaced.mesh.vertices, 0.5))
    torch.testing.assert_close(baked["normal"], surfaced.mesh.vertices / radii[:, None], rtol=0, atol=2e-3)


def test_mesh_is_what_the_pictures_show() -> None:
    made = ball()
    mesh = made.to_mesh()
    assert topology(mesh).watertight and mesh.colors is not None
    volume = (mesh.vertices[mesh.faces[:, 0]] * _normals(mesh)).sum() / 6
    assert float(volume) > 0
    torch.testing.assert_close(mesh.colors.mean(0), torch.tensor([0.8, 0.2, 0.1]), rtol=0, atol=0.02)
    # Its silhouette beside that of the pictures: the same area to a few percent.
    with torch.no_grad():
        shown = Splat()(made, turntable(1, 96)).alpha[0, ..., 0] > 0.5
    direction = turntable(1, 96).rays()[1][0][shown]
    widest = torch.linalg.cross(direction, turntable(1, 96).position.expand_as(direction)).norm(dim=-1).max()
    assert float(mesh.vertices.norm(dim=-1).mean()) == pytest.approx(float(widest), rel=0.06)


def _normals(mesh: Mesh) -> Tensor:
    a, b, c = mesh.vertices[mesh.faces].unbind(dim=1)
    return torch.linalg.cross(b - a, c - a)


@pytest.mark.parametrize("count", [0, 20])
def test_no_surface_says_why(count: int) -> None:
    faint = Gaussians(count=count, opacity=0.001)
    with pytest.raises(RunError, match=r"no surface at iso .* after 0 steps; train longer"):
        faint.surface(resolution=16)


@pytest.mark.parametrize("wrong", [{"sh_degree": 4}, {"count": -1}, {"opacity": 1.0}, {"ball": 0.0}, {"radius": 0.0}])
def test_bad_values_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match=f"Gaussians: {next(iter(wrong))}"):
        Gaussians(**wrong)
