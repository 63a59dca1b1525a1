"""Runs of a scene of two parts: what they leave, and that they resume."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from dream3d.densify import MCMC
from dream3d.guidance import CFG, RegionSDS
from dream3d.layouts import Part
from dream3d.media import read_pictures
from dream3d.pipeline import Pipeline
from dream3d.regularizers import Inside
from dream3d.renderers import Focus, Splat
from dream3d.representations import Gaussians
from dream3d.runs import RunFolder
from tests.tiny_runs import pipeline, small_export, stage

PARTS = {
    "snowman": Part(text="a snowman", center=(-0.45, 0.0, 0.0), size=(0.6, 1.0, 0.6), shape="sphere"),
    "hydrant": Part(text="a hydrant", center=(0.45, 0.0, 0.0), size=(0.5, 0.8, 0.5), rotation_deg=(0.0, 30.0, 0.0)),
}


def scene(start: Any = None) -> Gaussians:
    grow = MCMC(most=130, begin=1, every=1, growth=0.1)
    return Gaussians(start, count=100, opacity=0.7, densify=grow, parts=PARTS)


def made(out: Path, **changes: Any) -> Pipeline:
    drawn = stage(
        representation=scene,
        renderer=Focus(renderer=Splat(), whole=0.3),
        objective=RegionSDS(guider=CFG(scale=1.0)),
        regularizers={"inside": Inside()},
        batch=4,
        steps=6,
    )
    return pipeline(out, stages={"scene": drawn}, checkpoint_every=2, export=small_export(), picture_size=32, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("outputs")).run()


def test_the_masks_are_a_picture(whole: Path) -> None:
    """Four views side by side; from the front each part has its colour on its side, from the back on the other."""
    with Picture.open(whole / "save" / "final" / "masks.png") as file:
        pixels = np.asarray(file).astype(int)
    assert pixels.shape == (32, 128, 3) and (pixels[0, 0] == 255).all(), "nothing is white"
    front, back = pixels[:, :32], pixels[:, 64:96]
    for one, other in ((front[:, :14], front[:, 18:]), (back[:, 18:], back[:, :14])):
        snowman, hydrant = (side[side.sum(-1) < 600].mean(0) for side in (one, other))
        assert snowman.argmax() == 2 and hydrant.argmax() != 2, "the first is blue"
    assert not list((whole / "save" / "final").glob("parts*"))


def test_who_has_no_parts_has_no_masks(tmp_path: Path) -> None:
    run = pipeline(tmp_path, export=None).run()
    assert (run / "save" / "final" / "views.png").is_file() and not (run / "save" / "final" / "masks.png").exists()


def test_the_microscope_looks_at_scenes(whole: Path) -> None:
    texts = [path.read_text() for path in sorted((whole / "save" / "microscope").glob("*.json"))]
    assert texts and not [text for text in texts if '"reason"' in text]
    assert next(iter(read_pictures(sorted((whole / "save" / "microscope").glob("*.jpg"))))).size


def test_resuming_ends_in_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    """Parts travel with the Gaussians through densification, checkpoint and resume."""
    copy = Path(shutil.copytree(whole, tmp_path / "outputs" / "x" / "run", symlinks=True))
    (copy / "ckpts" / "step000006.ckpt").unlink()
    shutil.rmtree(copy / "export")
    (copy / "export").mkdir()
    run = RunFolder(copy)
    run.update(status="interrupted")
    made(tmp_path / "outputs").resume(run)
    for name in ("ckpts/step000006.ckpt", "save/final/masks.png", "metrics.csv"):
        assert (copy / name).read_bytes() == (whole / name).read_bytes(), name
    assert len(list((copy / "export").glob("*.glb"))) == 1
