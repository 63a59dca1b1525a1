"""Parts: their shapes, their own frames, and what a layout file may say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from dream3d.cameras import turntable
from dream3d.checks import InputError
from dream3d.config import checked
from dream3d.layouts import ALONE, Layout, Part, check_parts, filled, nearest_part
from dream3d.recipes import read, recipe_folder

TURNED = Part(text="a car", center=(0.3, -0.2, 0.1), size=(0.4, 0.6, 0.8), rotation_deg=(20.0, 90.0, -35.0))
EGG = Part(text="an egg", center=(-0.3, 0.0, 0.0), size=(0.4, 0.6, 0.4), shape="sphere")


@pytest.mark.parametrize("part", [TURNED, EGG])
def test_points_fill_the_shape(part: Part) -> None:
    """All inside; the mean is the middle, and of each radius there is as much as space: P(depth < d) = d^3."""
    torch.manual_seed(0)
    points = part.points(4000)
    depth = part.depth(points)
    assert float(depth.max()) <= 1 + 1e-4
    torch.testing.assert_close(points.mean(0), torch.tensor(part.center), atol=0.02, rtol=0)
    for share in (0.5, 0.8):
        assert float((depth < share).float().mean()) == pytest.approx(share**3, abs=0.03)
    assert float((points - torch.tensor(part.center)).norm(dim=-1).max()) <= part.reach + 1e-5


def test_depth_is_1_on_the_surface() -> None:
    assert EGG.depth(torch.tensor([[-0.3, 0.3, 0.0], [-0.1, 0.0, 0.0], [-0.3, 0.6, 0.0]])).tolist() == pytest.approx(
        [1, 1, 2]
    )
    box = Part(text="x", center=(0.0, 0.0, 0.0), size=(2.0, 1.0, 1.0), rotation_deg=(0.0, 90.0, 0.0))
    # Turned by 90 degrees about y its width is along z.
    assert box.depth(torch.tensor([[0.5, 0.0, 0.9], [0.0, 0.5, 0.0], [1.0, 0.0, 0.0]])).tolist() == pytest.approx(
        [1, 1, 2], abs=1e-5
    )
    assert box.reach == pytest.approx(math.sqrt(6) / 2) and EGG.reach == 0.3


def test_turns_are_right_handed_and_the_front_follows() -> None:
    front = torch.tensor([0.0, 0.0, 1.0])
    quarter = lambda *deg: Part(text="x", center=(0.0,) * 3, size=(1.0,) * 3, rotation_deg=deg).rotation @ front  # noqa: E731
    torch.testing.assert_close(quarter(0.0, 90.0, 0.0), torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(quarter(90.0, 0.0, 0.0), torch.tensor([0.0, -1, 0]))
    torch.testing.assert_close(quarter(0.0, 0.0, 90.0), front)
    torch.testing.assert_close(quarter(90.0, 90.0, 0.0), torch.tensor([0.0, -1, 0])), "x before y"
    r = TURNED.rotation
    torch.testing.assert_close(r @ r.T, torch.eye(3))
    assert float(torch.linalg.det(r)) == pytest.approx(1, abs=1e-5)


def test_own_frames_see_the_same() -> None:
    """There and back; a camera that looks at its frame's origin from the front looks at the part's middle from there;
    and a ball of radius ALONE is as large in the picture as the part's ball in the world."""
    own = turntable(4, 8)
    world = TURNED.to_world(own)
    torch.testing.assert_close(TURNED.to_own(world).c2w, own.c2w, atol=1e-5, rtol=0)
    towards = torch.nn.functional.normalize(torch.tensor(TURNED.center) - world.position, dim=-1)
    torch.testing.assert_close(towards, -world.c2w[:, :3, 2], atol=1e-5, rtol=0)
    away = (world.position - torch.tensor(TURNED.center)).norm(dim=-1)
    torch.testing.assert_close(TURNED.reach / away, ALONE / own.distance)
    direct = torch.nn.functional.normalize(own.position, dim=-1) @ TURNED.rotation.T
    torch.testing.assert_close(direct, -towards, atol=1e-5, rtol=0)


def test_points_belong_to_where_they_are_deepest() -> None:
    torch.manual_seed(0)
    parts = {"car": TURNED, "egg": EGG}
    points = filled(parts, 99)
    assert len(points) == 100
    assert nearest_part(parts, points).tolist() == [0] * 50 + [1] * 50


def test_what_is_no_part() -> None:
    middle, unit = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    with pytest.raises(InputError, match="Part: text is empty"):
        Part(text=" ", center=middle, size=unit)
    with pytest.raises(InputError, match=r"Part 'a cat': size must be 0.001–1000 \(got 0\)"):
        Part(text="a cat", center=middle, size=(1.0, 0.0, 1.0))
    with pytest.raises(InputError, match="Part 'a cat': rotation_deg must be -360–360"):
        Part(text="a cat", center=middle, size=unit, rotation_deg=(0.0, 400.0, 0.0))
    with pytest.raises(InputError, match="parts: expected 1–32, got 0"):
        Layout(parts={})
    with pytest.raises(InputError, match=r"parts.far reaches 1.66 m from the origin, and what is beyond 1 m"):
        check_parts({"far": Part(text="a cat", center=(1.0, 0.0, 0.0), size=unit)}, 1.0)


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prompt: x\n", "mine.yaml: missing parts."),
        ("parts:\n  one:\n    txt: a cat\n", "unknown key parts.one.txt (line 3). Did you mean parts.one.text?"),
        ("parts:\n  one: {text: a cat, size: [1, 1, 1]}\n", "parts.one (line 2) needs center."),
        (
            "parts:\n  one:\n    text: a cat\n    center: [0, 0]\n    size: [1, 1, 1]\n",
            "parts.one.center (line 4): expected [a number, a number, a number], got [0, 0].",
        ),
        (
            "parts:\n  one: {text: a cat, center: [0, 0, 0], size: [1, 1, 1], shape: cone}\n",
            "expected one of box, sphere, got 'cone'.",
        ),
        ("parts: [a cat]\n", "parts (line 1): expected"),
        ("- a cat\n", "mine.yaml: expected keys such as"),
        ("parts: {one\n", "mine.yaml: not YAML (line"),
    ],
)
def test_a_layout_file_is_checked(text: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        checked(Layout, write(tmp_path, text))
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_layouts_that_ship() -> None:
    """They are whole, inside what is seen, and apart; the recipe shows the same as the first."""
    files = sorted((recipe_folder() / "layouts").glob("*.yaml"))
    assert files
    for file in files:
        tree = checked(Layout, file)
        made = {name: Part(**spec["init_args"]) for name, spec in tree["parts"].items()}
        assert tree["prompt"]
        check_parts(made, 1.0)
        torch.manual_seed(0)
        owner = nearest_part(made, filled(made, 300 * len(made)))
        assert torch.equal(owner, torch.arange(len(made)).repeat_interleave(300)), file
    recipe = read("compositional")
    tree = read(recipe_folder() / "layouts" / "snowman_hydrant.yaml")
    assert recipe["prompt"] == tree["prompt"]
    assert recipe["stages"]["scene"]["representation"]["init_args"]["parts"] == tree["parts"]
