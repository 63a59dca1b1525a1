"""Codes as masks, and parts alone in frames of their own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dream3d.cameras import turntable
from dream3d.checks import InputError
from dream3d.layouts import Part
from dream3d.renderers import Focus, Splat
from dream3d.representations import Gaussians, Image
from dream3d.representations.gaussians import point_splats
from dream3d.types import Splats

LEFT = Part(text="a snowman", center=(-0.5, 0.0, 0.0), size=(0.5, 0.5, 0.5), shape="sphere")
RIGHT = Part(text="a hydrant", center=(0.5, 0.1, 0.0), size=(0.3, 0.6, 0.3), rotation_deg=(0.0, 40.0, 0.0))
PARTS = {"left": LEFT, "right": RIGHT}


def scene(opacity: float = 0.3) -> Gaussians:
    torch.manual_seed(0)
    return Gaussians(count=400, opacity=opacity, parts=PARTS)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@torch.no_grad()
def test_masks_are_shares_of_alpha() -> None:
    """They sum to it, wherever parts overlap in the picture; normals beside them change nothing."""
    made, cameras = scene(), turntable(4, 32)
    render = Splat()(made, cameras)
    parts = render.aux["parts"]
    assert parts.shape == (4, 32, 32, 2) and float(parts.min()) >= 0
    torch.testing.assert_close(parts.sum(-1, keepdim=True), render.alpha, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(Splat()(made, cameras, normals=True).aux["parts"], parts)
    side = parts[1] > 0.05  # from +X the right one hides what is behind it
    assert bool(side[..., 1].any()) and float(parts[1, 16, 16, 1]) > float(parts[1, 16, 16, 0])


@torch.no_grad()
def test_balls_apart_have_masks_of_their_own() -> None:
    """From the front: one is in the left half, one in the right, and each is all there is."""
    render = Splat()(scene(), turntable(1, 64, elevation_deg=0))
    left, right = render.aux["parts"][0].unbind(-1)
    assert float(left[:, 32:].max()) == 0 and float(right[:, :32].max()) == 0
    torch.testing.assert_close(left[:, :32], render.alpha[0, :, :32, 0])
    # The middle of a ball in perspective.
    camera = turntable(1, 64, elevation_deg=0)
    pixels = 32 / torch.tan(camera.fov_y[0] / 2) / camera.distance[0]
    columns = (left * (torch.arange(64) + 0.5)).sum() / left.sum()
    assert float(columns) == pytest.approx(32 - 0.5 * float(pixels), abs=0.5)


@torch.no_grad()
def test_masks_of_what_is_behind() -> None:
    """Of two Gaussians in a line a and (1 - a) b, where a and b is each alone; from behind the other way round."""
    torch.manual_seed(0)
    ends = {"front": (0.0, 0.0, 0.4), "back": (0.0, 0.0, -0.4)}
    parts = {name: Part(text=name, center=at, size=(0.1, 0.1, 0.1)) for name, at in ends.items()}
    both = Gaussians(point_splats(torch.tensor(list(ends.values())), opacity=0.6), parts=parts)
    both.log_scales[:] = math.log(0.2)
    cameras = turntable(2, 32, elevation_deg=0)
    seen = []
    for number in range(2):
        with both.alone(number):
            seen.append(Splat()(both, cameras).alpha[..., 0])
    found = Splat()(both, cameras).aux["parts"]
    for camera, (near, far) in enumerate(((0, 1), (1, 0))):
        a, b = seen[near][camera], seen[far][camera]
        torch.testing.assert_close(found[camera, ..., near], a, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(found[camera, ..., far], (1 - a) * b, atol=1e-6, rtol=1e-5)


def test_codes_stay_with_their_gaussians() -> None:
    made = scene()
    optimizer = torch.optim.Adam([{"params": g["params"]} for g in made.parameter_groups()])
    source = torch.tensor([399, 0, 0, 250])
    made.rearrange(source, optimizer, fresh=torch.zeros(4, dtype=torch.bool))
    assert made.part is not None and made.part.tolist() == [1, 0, 0, 1] and made.codes is not None
    assert made.codes.tolist() == [[0, 1], [1, 0], [1, 0], [0, 1]]
    other = scene()
    other.load_state_dict(made.state_dict())
    assert other.part is not None and torch.equal(other.part, made.part)
    with torch.no_grad():
        made.means += 5
    assert torch.equal(Gaussians(made, parts=PARTS).part, made.part), "of the stage before"  # type: ignore[arg-type]
    bare = Gaussians(count=5)
    assert bare.codes is None and "part" not in bare.state_dict() and "parts" not in Splat()(bare, turntable(1, 8)).aux


def test_alone_only_one_part_is_seen_and_moved() -> None:
    made = scene()
    with made.alone(1):
        render = Splat()(made, turntable(2, 16))
    assert float(render.aux["parts"][..., 0].detach().abs().max()) == 0
    render.rgb.sum().backward()
    moved = made.dc.grad
    assert moved is not None and made.part is not None
    assert float(moved[made.part == 0].abs().max()) == 0 and float(moved[made.part == 1].abs().max()) > 0
    assert float(made.opacities.detach().min()) > 0, "afterwards all are there again"


@torch.no_grad()
def test_a_part_alone_is_what_cameras_of_its_frame_see() -> None:
    """The same part, alone in a scene of its own, upright in the origin and of the size of its frame."""
    made, cameras = scene(0.9), turntable(3, 24)
    focus = Focus(renderer=Splat(blur=0.01), whole=0.0)
    render = focus(made, cameras, generator=generator(), normals=True)
    subject = render.aux["subject"]
    assert set(subject.tolist()) == {0, 1} and render.depth is not None and render.normal is not None
    for row, number in enumerate(subject.tolist()):
        part = list(PARTS.values())[number]
        splats = made.to_splats()
        mine = made.part == number
        turn = part.rotation
        local = Gaussians(
            Splats(
                (splats.means[mine] - torch.tensor(part.center)) @ turn / part.scale,
                splats.quaternions[mine],  # they are round
                splats.scales[mine] / part.scale,
                splats.opacities[mine],
                splats.sh[mine],
            )
        )
        alone = Splat(blur=0.01)(local, cameras[row], normals=True)
        torch.testing.assert_close(render.rgb[[row]], alone.rgb, atol=2e-3, rtol=0)
        torch.testing.assert_close(render.depth[[row]], alone.depth, atol=5e-3, rtol=0)
        torch.testing.assert_close(render.aux["view"][[row]], alone.aux["view"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_pictures_show_the_whole() -> None:
    made, cameras = scene(), turntable(2, 16)
    plain, focused = Splat()(made, cameras), Focus(renderer=Splat())(made, cameras)
    assert torch.equal(plain.rgb, focused.rgb) and "subject" not in focused.aux
    whole = Focus(renderer=Splat(), whole=1.0)(made, cameras, generator=generator())
    assert torch.equal(plain.rgb, whole.rgb) and whole.aux["subject"].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("whole", "batch", "parts"), [(0.25, 4, 3), (0.1, 4, 2), (0.0, 6, 3), (0.5, 1, 2), (1.0, 3, 2)]
)
def test_shares_are_even(whole: float, batch: int, parts: int) -> None:
    focus, draws = Focus(renderer=Splat(), whole=whole), []
    source = generator()
    for _ in range(400):
        subject = focus.subjects(batch, parts, source)
        counts = torch.bincount(subject + 1, minlength=parts + 1).float()
        wanted = torch.tensor([whole, *[(1 - whole) / parts] * parts]) * batch
        assert bool(((counts - wanted).abs() < 1 + 1e-5).all())
        draws.append(subject)
    first = torch.stack(draws)[:, 0]
    for number in range(-1, parts):
        share = whole if number < 0 else (1 - whole) / parts
        assert float((first == number).float().mean()) == pytest.approx(share, abs=0.08), "rows are mixed"


def test_groups_show_one_subject() -> None:
    focus = Focus(renderer=Splat(), whole=0.0)
    focus.before_step(0, 2)
    subject = focus.subjects(8, 2, generator())
    assert torch.equal(subject[::2], subject[1::2]) and torch.bincount(subject).tolist() == [4, 4]
    with pytest.raises(InputError, match="multiple"):
        focus.subjects(7, 2, generator())


def test_gradients_reach_every_part() -> None:
    made = scene()
    render = Focus(renderer=Splat(), whole=0.0)(made, turntable(4, 16), generator=generator())
    render.over(torch.ones(3)).square().sum().backward()
    grad: Tensor | None = made.dc.grad
    assert grad is not None and made.part is not None
    assert all(float(grad[made.part == number].abs().max()) > 0 for number in (0, 1))


def test_who_has_no_parts() -> None:
    for bare in (Gaussians(count=3), Image()):
        with pytest.raises(InputError, match="Focus draws Gaussians with parts"):
            Focus(renderer=Splat())(bare, turntable(1, 8))
