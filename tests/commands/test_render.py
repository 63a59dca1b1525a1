"""Pictures and films of a finished run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import trimesh

from dream3d.checks import InputError
from dream3d.cli import main
from dream3d.commands.render import picture
from dream3d.lights import Sky, write_hdr
from dream3d.nn.color import to_srgb
from dream3d.types import Render


def test_pictures_and_film(finished: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--views", "3", "--aov", "rgb,normal,depth", "--turntable", "--pixels", "32", "--out", str(out)]
    assert main(["render", "latest", *words]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert len(files) == 3 * 3 + 3 and all(file.parent == finished / "save" / "render" for file in files)
    for file in files[:9]:
        assert iio.imread(file).shape == (32, 32, 3)
    film = iio.imread(finished / "save" / "render" / "turntable_rgb.mp4", plugin="pyav")
    assert film.shape == (72, 32, 32, 3)


def test_channels_are_coded_as_they_say() -> None:
    alpha = torch.tensor([[1.0, 1.0], [0.75, 0.0]]).view(1, 2, 2, 1)
    normal = torch.tensor([0.0, 0.0, 1.0]).expand(1, 2, 2, 3) * alpha
    depth = torch.tensor([[1.0, 3.0], [2.0, 9.0]]).view(1, 2, 2, 1) * alpha
    render = Render(0.5 * alpha.expand(1, 2, 2, 3), alpha, depth, normal)
    assert picture(render, "rgb")[:, :, 0].tolist() == [[128, 128], [159, 255]]
    assert picture(render, "normal").tolist() == [[[128, 128, 255]] * 2, [[128, 128, 255], [0, 0, 0]]]
    np.testing.assert_allclose(picture(render, "depth")[:, :, 0], [[255, 51], [153, 0]], atol=1)


def test_channels_of_the_material() -> None:
    alpha = torch.full((1, 1, 2, 1), 0.75)
    aux = {"albedo": torch.tensor([0.2, 0.4, 0.6]) * alpha, "roughness": 0.3 * alpha}
    render = Render(torch.zeros(1, 1, 2, 3), alpha, aux=aux)
    assert picture(render, "albedo")[0].tolist() == [[51, 102, 153]] * 2
    np.testing.assert_allclose(picture(render, "roughness"), 76.5, atol=0.5)
    with pytest.raises(InputError, match="--aov: no metallic is drawn of this"):
        picture(render, "metallic")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["render", *words]) == 2
    return capsys.readouterr().err


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    known = "rgb, albedo, normal, roughness, metallic, depth"
    assert refused(capsys, "latest", "--aov", "rgb,gloss") == f"error: --aov: 'gloss' is not one of {known}.\n"
    assert "--env is for mesh files: a run is drawn as its recipe says" in refused(capsys, "latest", "--env", "sky")
    assert "'studo' is not one of studio, sky, even, nor a .hdr file. Did you mean 'studio'?" in refused(
        capsys, "a.glb", "--env", "studo"
    )
    assert "no.hdr: cannot be read" in refused(capsys, "a.glb", "--env", "no.hdr")
    assert refused(capsys, "no.glb") == "error: no.glb: cannot be read (No such file or directory).\n"
    assert "expected a mesh file (.glb, " in refused(capsys, "no.jpg")
    assert "--material: 'pdr' is not one of pbr, plain, lambert, mc. Did you mean 'pbr'?" in refused(
        capsys, "no.glb", "--material", "pdr"
    )
    assert "--size must be 16–4096 (got 5)" in refused(capsys, "no.glb", "--size", "5")
    assert main(["render", "nowhere"]) == 4


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    """A grey-blue ball, half rough and not metal."""
    made = trimesh.creation.icosphere(subdivisions=3)
    material = trimesh.visual.material.PBRMaterial(
        baseColorFactor=[60, 60, 120, 255], roughnessFactor=0.5, metallicFactor=0.0
    )
    made.visual = trimesh.visual.TextureVisuals(np.zeros((len(made.vertices), 2)), material=material)
    made.export(tmp_path / "ball.glb")
    return tmp_path / "ball.glb"


def test_a_mesh_file(ball: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every channel of a file, beside it, under a panorama that was read."""
    write_hdr(ball.with_name("sky.hdr"), 7 * Sky(height=16).radiance())
    aov = "rgb,albedo,normal,roughness,metallic,depth"
    words = ["--views", "2", "--size", "48", "--aov", aov, "--env", str(ball.with_name("sky.hdr")), "--json"]
    assert main(["render", str(ball), *words]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["file"] == str(ball) and len(told["files"]) == 12
    assert all(Path(file).parent == ball.with_name("ball_render") for file in told["files"])
    seen = {name: iio.imread(ball.with_name("ball_render") / f"{name}_000.png") for name in aov.split(",")}
    middle = {name: pixels[24, 24].tolist() for name, pixels in seen.items()}
    assert middle["roughness"] == [128] * 3 and middle["metallic"] == [0] * 3
    assert np.allclose(middle["albedo"], (to_srgb(torch.tensor([60.0, 60, 120]) / 255) * 255).tolist(), atol=1)
    assert abs(middle["normal"][2] - (0.5 + 0.5 * math.cos(math.radians(15))) * 255) < 5  # seen from 15 degrees above
    assert middle["depth"][0] > 240 and seen["rgb"][0, 0].tolist() == [255] * 3
    assert seen["rgb"][12, 24].mean() > seen["rgb"][36, 24].mean() + 20  # the sky is above


@pytest.mark.slow
def test_a_film_of_a_file_and_materials(ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream3d.commands.render.FRAMES", 4)
    shown = {}
    for material in ("plain", "lambert", "mc"):
        folder = tmp_path / material
        words = ["--turntable", "--views", "1", "--size", "16", "--material", material, "--env", "even"]
        assert main(["render", str(ball), *words, "--out", str(folder), "--quiet"]) == 0
        assert iio.imread(folder / "turntable_rgb.mp4", plugin="pyav").shape == (4, 16, 16, 3)
        shown[material] = iio.imread(folder / "rgb_000.png")[8, 8].astype(int)
    assert (shown["plain"] == shown["lambert"]).all(), "even light shows the base colour"
    assert abs(shown["mc"] - shown["plain"]).max() < 25, "and so does the integral, but for what shines"
