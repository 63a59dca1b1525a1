"""Holes counted on surfaces whose holes are known; view prompts; the matcher's curve."""

from __future__ import annotations

import numpy as np
import pytest

from dream3d.evaluation.judge import Judge
from dream3d.report.gather import gather
from dream3d.report.measured import Edges, edges, edges_of, matcher_curve, view_prompts
from dream3d.runs import RunFolder

from .conftest import box

TETRAHEDRON = (np.eye(4)[:, :3], np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]]))


@pytest.mark.parametrize(("missing", "holes"), [([], 0), ([0], 1), ([0, 1], 1), ([0, 1, 2], 1)])
def test_holes_of_a_tetrahedron(missing: list[int], holes: int) -> None:
    points, faces = TETRAHEDRON
    assert edges(points, np.delete(faces, missing, axis=0)) == Edges(holes, 0)


def test_seams_are_not_holes_and_a_box_without_lid_and_floor_has_two() -> None:
    mesh = box(lid=True)
    assert edges(mesh.vertices.numpy(), mesh.faces.numpy()) == Edges(0, 0)
    assert edges(mesh.vertices.numpy(), mesh.faces.numpy()[:-2]) == Edges(1, 0)
    keep = np.r_[0:4, 6:10]
    assert edges(mesh.vertices.numpy(), mesh.faces.numpy()[keep]) == Edges(2, 0)


def test_an_edge_of_three_faces_is_crowded() -> None:
    points = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0]], float)
    assert edges(points, np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]])) == Edges(1, 1)


def test_of_an_asset(run: RunFolder) -> None:
    found = gather(run)
    assert edges_of(found) == Edges(1, 0)
    (run.export / "chair.glb").write_bytes(b"glTF but no more")
    assert edges_of(found) is None
    found.asset_path = None
    assert edges_of(found) is None


def test_each_side_has_its_words() -> None:
    assert view_prompts("an owl") == {
        "front": "an owl, front view",
        "left": "an owl, side view",
        "back": "an owl, back view",
        "right": "an owl, side view",
    }
    assert view_prompts(" ") == {}


def test_the_matcher_looks_at_every_preview(run: RunFolder, reading_judge: Judge) -> None:
    run.update(prompt="a chair")
    curve = matcher_curve(gather(run), reading_judge)
    assert {step: best for step, (_, best) in curve.items()} == {0: 0.0, 15: 1.0, 30: 1.0}
    assert curve[0][0] == pytest.approx(-1, abs=0.05) and curve[30][0] == pytest.approx(0, abs=0.1)
