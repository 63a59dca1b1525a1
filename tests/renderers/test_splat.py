"""Gaussians as they are drawn, and what a drawing leaves for densification."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dream3d.cameras import turntable
from dream3d.checks import InputError, RunError
from dream3d.renderers import Each, Splat
from dream3d.representations import Field, Gaussians, Particles
from dream3d.types import Cameras, Splats

COLOUR = torch.tensor([0.9, 0.5, 0.2])
C0 = 0.28209479177387814
DISTANCE, FOV, SIZE = 2.5, 0.8, 32


def front(size: int = SIZE) -> Cameras:
    """One camera on the z axis, in double precision."""
    c2w = torch.eye(4, dtype=torch.float64)[None].clone()
    c2w[0, 2, 3] = DISTANCE
    return Cameras(c2w, torch.tensor([FOV], dtype=torch.float64), size, size)


def one(*, scale: tuple[float, float, float] = (0.2, 0.2, 0.2), opacity: float = 0.8) -> Gaussians:
    made = Splats(
        torch.zeros(1, 3),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.tensor([scale]),
        torch.tensor([opacity]),
        (COLOUR.view(1, 1, 3) - 0.5) / C0,
    )
    return Gaussians(made).double()


def some(count: int = 40, *, sh_degree: int = 0, degree_every: int = 0) -> Gaussians:
    torch.manual_seed(0)
    made = Gaussians(count=count, opacity=0.4, sh_degree=sh_degree, degree_every=degree_every)
    with torch.no_grad():
        made.log_scales += 0.3 * torch.randn_like(made.log_scales)
        made.rest.normal_(std=0.1)
    return made


def offsets(size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Right and up of the picture's middle, of every pixel's middle, pixels."""
    axis = torch.arange(size, dtype=torch.float64) + 0.5 - size / 2
    return axis.expand(size, size), -axis[:, None].expand(size, size)


def test_one_gaussian_is_its_formula() -> None:
    """alpha = o exp(-r^2 / 2 (f^2 s^2 / d^2 + blur)); depth is along the ray."""
    focal = 0.5 * SIZE / math.tan(0.5 * FOV)
    x, y = offsets()
    variances = [(focal * s / DISTANCE) ** 2 + 0.3 for s in (0.2, 0.1)]
    alpha = 0.8 * torch.exp(-0.5 * (x**2 / variances[0] + y**2 / variances[1]))
    alpha = torch.where(alpha >= 1 / 255, alpha, 0)
    render = Splat()(one(scale=(0.2, 0.1, 0.2)), front())
    torch.testing.assert_close(render.alpha[0, ..., 0], alpha, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(render.rgb[0], alpha[..., None] * COLOUR.double(), rtol=1e-6, atol=1e-6)
    length = (1 + (x**2 + y**2) / focal**2).sqrt()
    assert render.depth is not None
    torch.testing.assert_close(render.depth[0, ..., 0], alpha * DISTANCE * length, rtol=1e-6, atol=1e-6)


def test_antialias_keeps_the_light_of_what_is_small() -> None:
    """A Gaussian far below a pixel: blurred it would shine as if it were one pixel wide."""
    focal = 0.5 * SIZE / math.tan(0.5 * FOV)
    share = (focal * 0.01 / DISTANCE) ** 2
    plain, fair = (Splat(antialias=a)(one(scale=(0.01, 0.01, 0.01)), front()).alpha.max() for a in (False, True))
    assert (fair / plain).item() == pytest.approx(share / (share + 0.3), rel=1e-5)


def test_normals_face_the_camera_and_come_with_the_view() -> None:
    disc = one(scale=(0.2, 0.2, 0.01))
    render = Splat()(disc, front(), normals=True)
    assert render.normal is not None and render.depth is not None
    torch.testing.assert_close(render.normal, render.alpha * torch.tensor([0.0, 0, 1]).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(render.aux["view"], front().rays()[1])
    assert Splat()(disc, front()).normal is None


@pytest.mark.parametrize("sh_degree", [0, 1, 3])
def test_gradients_reach_every_parameter(sh_degree: int) -> None:
    made = some(sh_degree=sh_degree)
    render = Splat()(made, turntable(2, 24), normals=True)
    weights = torch.rand(render.rgb.shape, generator=torch.Generator().manual_seed(1))
    assert render.normal is not None
    (render.rgb * weights + 0.1 * render.normal * weights).sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert not parameter.numel() or float(parameter.grad.abs().sum()) > 0, name


def test_degrees_above_the_current_one_do_not_take_part() -> None:
    plain, rising = some(sh_degree=2), some(sh_degree=2, degree_every=10)
    flat = some(sh_degree=2)
    with torch.no_grad():
        flat.rest.zero_()
    views = turntable(1, 16)
    assert torch.equal(Splat()(rising, views).rgb, Splat()(flat, views).rgb)
    rising.trained += 20
    assert rising.degree == 2 and torch.equal(Splat()(rising, views).rgb, Splat()(plain, views).rgb)


@pytest.mark.parametrize("watch", ["mean", "absolute"])
def test_watching_changes_no_picture_and_no_gradient(watch: str) -> None:
    plain, watched, views = some(), some(), turntable(2, 24)
    watched.watch = watch  # type: ignore[assignment]
    weights = torch.rand(2, 24, 24, 3)
    pictures = []
    for made in (plain, watched):
        pictures.append(Splat()(made, views).rgb)
        (pictures[-1] * weights).sum().backward()
    assert torch.equal(*pictures) and not plain.drawn
    for one, two in zip(plain.parameters(), watched.parameters(), strict=True):
        assert one.grad is not None and two.grad is not None
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-5, atol=1e-7)
    (drawn,) = watched.drawn
    assert drawn.centres.grad is not None and drawn.centres.grad.shape == (2, 40, 2)
    with torch.no_grad():
        Splat()(watched, views)
    assert len(watched.drawn) == 1


def test_discs_have_the_depth_of_their_plane() -> None:
    """A tilted one: not that of its middle."""
    tilt, focal = 0.6, 0.5 * 64 / math.tan(0.5 * FOV)
    made = Gaussians(one(scale=(0.3, 0.3, 0.1)).float().to_splats(), flat=True).double()
    with torch.no_grad():
        made.quaternions.copy_(torch.tensor([[math.cos(tilt / 2), 0, math.sin(tilt / 2), 0]]))  # around the vertical
    render = Splat()(made, front(64), normals=True)
    plain = Splat()(made, front(64))
    assert render.depth is not None and plain.depth is not None and render.normal is not None
    torch.testing.assert_close(plain.depth, render.depth)
    x, y = offsets(64)
    alpha = render.alpha[0, ..., 0]
    z = DISTANCE / (1 - math.tan(tilt) * x / focal)  # the plane z_world = -tan(tilt) x_world, seen from in front
    length = (1 + (x**2 + y**2) / focal**2).sqrt()
    near = alpha > 0.5
    found = (render.depth[0, ..., 0] / alpha / length)[near].detach()
    torch.testing.assert_close(found, z[near], rtol=1e-2, atol=0)
    assert float((found - DISTANCE).abs().max()) > 0.1
    torch.testing.assert_close(
        render.normal[0, 32, 32] / alpha[32, 32], torch.tensor([math.sin(tilt), 0, math.cos(tilt)]).double()
    )


def test_distortion_of_two_is_their_product() -> None:
    """w_1 w_2 (z_1 - z_2)^2 in the middle of the picture, along the ray."""
    both = Splats(*(torch.cat([t, t]) for t in vars(one().float().to_splats()).values()))
    both.means[1, 2] = -0.5
    render = Splat()(Gaussians(both).double(), front(33), normals=True)
    wanted = torch.tensor([0.8 * (1 - 0.8) * 0.8 * 0.5**2]).double()
    torch.testing.assert_close(render.aux["distortion"][0, 16, 16], wanted, rtol=1e-5, atol=0)
    alone = Splat()(one(), front(33), normals=True).aux["distortion"]
    torch.testing.assert_close(alone, torch.zeros_like(alone), rtol=0, atol=1e-12)


def test_absolute_pulls_do_not_cancel() -> None:
    """The whole picture brighter: a centre in the middle is pulled equally to all sides."""
    found = {}
    for watch in ("mean", "absolute"):
        made = one()
        made.watch = watch  # type: ignore[assignment]
        Splat()(made, front()).rgb.sum().backward()
        gradient = made.drawn[0].centres.grad
        assert gradient is not None
        found[watch] = float(gradient.norm())
    assert found["mean"] < 1e-6 < 1 < found["absolute"]


def test_tally_is_the_sum_of_the_weights() -> None:
    made = some()
    made.watch = "mean"
    render = Splat()(made, turntable(3, 24))
    (0.37 * render.rgb).sum().backward()
    tally = made.drawn[0].tally.grad
    assert tally is not None and bool((tally >= 0).all())
    torch.testing.assert_close(tally.sum(), render.alpha.detach().sum(), rtol=1e-4, atol=1e-3)


def test_no_gaussians_is_an_empty_picture() -> None:
    made = Gaussians(count=0)
    made.watch = "absolute"
    render = Splat()(made, turntable(2, 8), normals=True)
    assert torch.equal(render.rgb, torch.zeros(2, 8, 8, 3)) and torch.equal(render.alpha, torch.zeros(2, 8, 8, 1))
    render.rgb.sum().backward()
    assert len(made.drawn) == 1


def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(InputError, match="Splat draws Gaussians, not a Field"):
        Splat()(Field(levels=2, log2_table=8), turntable(1, 8))
    broken = some()
    with torch.no_grad():
        broken.means[3, 1] = float("nan")
    with pytest.raises(RunError, match="1 of 40 Gaussians are not finite; lower the learning rate"):
        Splat()(broken, turntable(1, 8))


def test_particles_of_gaussians_are_drawn_each() -> None:
    torch.manual_seed(0)
    made = Particles(of=lambda start: Gaussians(start, count=20), count=2)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    render = Each(renderer=Splat())(made, turntable(4, 16), generator=generator)
    parts = [Splat()(part, turntable(4, 16)[rows]) for part, rows in zip(made, (slice(2), slice(2, 4)), strict=True)]
    torch.testing.assert_close(render.rgb, torch.cat([part.rgb for part in parts]))
