"""From flags to a configuration, and from there to an asset."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dream3d.checks import InputError
from dream3d.cli import main
from dream3d.commands import generate
from dream3d.commands.base import Parser
from dream3d.config import load
from dream3d.recipes import find_recipe


def parsed(*words: str) -> Namespace:
    parser = Parser("generate", "about")
    generate.add_arguments(parser)
    return parser.parse(words)


TREE = {
    "stages": {
        "coarse": {"prior": "Builtin", "objective": "SDS"},
        "fine": {
            "prior": "Builtin",
            "objective": {"class_path": "SDS", "init_args": {"guider": {"class_path": "CFG"}}},
        },
    }
}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["no"], ['prompt="no"', 'tag="sds"']),
        (["x", "--seed", "3", "--tag", "t"], ['prompt="x"', "seed=3", 'tag="t"']),
        (["x", "--tag", "t", "--steps", "9"], ['prompt="x"', 'tag="t"', "stages.fine.steps=9"]),
        (["x", "--tag", "t", "--prior", "builtin", "--guidance", "sds"], ['prompt="x"', 'tag="t"']),
        (["x", "--tag", "t", "--no-export"], ['prompt="x"', 'tag="t"', "export=null"]),
        (
            ["x", "--tag", "t", "--faces", "9", "--size", "2", "--iso", "auto"],
            ['prompt="x"', 'tag="t"', 'export="Export"', "export.faces=9", "export.size_m=2.0", "export.iso=null"],
        ),
        (
            ["x", "--tag", "t", "--negative", "ugly"],
            ['prompt="x"', 'negative="ugly"', 'tag="t"', 'stages.fine.objective.guider.away="negative"'],
        ),
        (["x", "--tag", "t", "--set", "a.b=1", "--c.d", "2"], ['prompt="x"', 'tag="t"', "a.b=1", "c.d=2"]),
    ],
)
def test_flags_become_overrides(words: list[str], expected: list[str]) -> None:
    assert generate.overrides(parsed(*words), TREE) == expected


METHODS = sorted(generate.METHODS.keys() - generate.INCOMPLETE.keys())


def with_guidance(recipe: str, name: str, *words: str) -> dict[str, Any]:
    """A recipe resolved with --guidance NAME."""
    path = find_recipe(recipe)
    found = generate.overrides(parsed("a red chair", "--guidance", name, *words), generate.read_tree(path))
    return yaml.safe_load(load(path, found)[1])


@pytest.mark.parametrize("name", METHODS)
def test_guidance_is_the_method_and_nothing_else(name: str) -> None:
    """Everything of a stage that does not belong to the method stays; ramps end with the run."""
    if name == "multiviewsds":
        with pytest.raises(InputError, match="batch must be a multiple of the objective's 4 views"):
            with_guidance("draft", name)
        tree = with_guidance("draft", name, "--stages.nerf.batch", "4", "--stages.nerf.optimizer.lr", "0.02")
    else:
        tree = with_guidance("draft", name)
    before, after = yaml.safe_load(load("draft")[1])["stages"]["nerf"], tree["stages"]["nerf"]
    assert after["objective"]["class_path"].lower() == name == tree["tag"]
    for key in before.keys() - {*generate.METHOD, "regularizers", "batch"}:
        assert after[key] == before[key], key
    assert after["regularizers"].keys() == before["regularizers"].keys()
    ends = re.findall(r"'steps': (\d+), 'begin': (\d+)", str(after))
    assert ends and all(int(steps) + int(begin) <= 400 for steps, begin in ends)


@pytest.mark.parametrize("name", ["vsd", "csd", "asd", "dds"])
def test_guidance_on_the_default_recipe_is_the_paper_s(name: str) -> None:
    """These recipes differ from the default one in the method alone."""
    ours, theirs = with_guidance("default", name), yaml.safe_load(load(generate.METHODS[name])[1])
    assert ours["stages"] == theirs["stages"]


def test_guidance_on_pictures_and_away_from_something() -> None:
    tree = with_guidance("image", "esd", "--repr", "image", "--negative", "blurry")
    stage = tree["stages"]["picture"]
    assert stage["representation"]["class_path"] == "Image" and stage["objective"]["class_path"] == "ESD"
    assert stage["objective"]["init_args"]["guider"]["init_args"]["away"] == "negative"
    assert not stage["regularizers"] and stage["time"]["init_args"]["high"]["init_args"]["begin"] == 100


def test_what_another_method_left_goes() -> None:
    tree = with_guidance("dreamerxl", "csd")
    assert tree["stages"]["nerf"]["post"] is None and tree["stages"]["nerf"]["weight"] == "uniform"


@pytest.mark.parametrize(("name", "line"), generate.INCOMPLETE.items())
def test_methods_that_need_more_than_a_name(name: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "generate", "x", "--guidance", name) == (2, f"error: --guidance {name}: {line}\n")


def test_a_recipe_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "x", "--config", "luciddreamer", "--dry-run"]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert tree["prompt"] == "x" and tree["tag"] == "ism"
    assert said(capsys, "generate", "x", "--config", "lucid") == (
        2,
        "error: --config: no file lucid. Recipes by name: dream3d config list\n",
    )


def test_a_layout_is_the_compositional_recipe_with_its_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "prompt: a cat on a dog\nparts:\n"
        "  cat: {text: a cat, center: [0, 0.4, 0], size: [0.4, 0.4, 0.4]}\n"
        "  dog: {text: 'no', center: [0, -0.2, 0], size: [1, 0.6, 0.6], rotation_deg: [0, 90, 0]}\n"
    )
    for words, prompt in (([], "a cat on a dog"), (["two animals"], "two animals")):
        assert main(["generate", *words, "--layout", str(file), "--seed", "3", "--dry-run"]) == 0
        tree = yaml.safe_load(capsys.readouterr().out)
        assert tree["prompt"] == prompt and tree["seed"] == 3
        parts = tree["stages"]["scene"]["representation"]["init_args"]["parts"]
        assert {name: part["text"] for name, part in parts.items()} == {"cat": "a cat", "dog": "no"}
        assert parts["dog"]["rotation_deg"] == [0, 90, 0]
    assert main(["generate", "--layout", "snowman_hydrant", "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["prompt"] == "a snowman beside a fire hydrant"


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        (None, [], "--layout: no file mine.yaml. Layouts that ship: snowman_hydrant"),
        ("cat", ["--repr", "nerf"], "--layout and --repr exclude each other: a layout wants Gaussians and RegionSDS."),
        ("cat", ["--guidance", "sds"], "--layout and --guidance exclude each other: a layout wants Gaussians and "),
        ("cat", ["--config", "splats"], "--layout: the recipe has no Gaussians with parts; see: dream3d config show"),
        ("size: [1, 1]", [], "mine.yaml: parts.cat.size (line 5): expected [a number, a number, a number], got [1, 1]"),
        ("size: [1, 1, -1]", [], "mine.yaml: Part 'a cat': size must be 0.001–1000 (got -1)."),
        ("size: [3, 1, 1]", [], "mine.yaml: parts.cat reaches 1.66 m from the origin, and what is beyond 1 m is not"),
        ("sizes: [1, 1, 1]", [], "mine.yaml: unknown key parts.cat.sizes (line 5). Did you mean parts.cat.size?"),
    ],
)
def test_a_layout_is_checked_at_the_door(
    text: str | None,
    words: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        size = "size: [0.5, 0.5, 0.5]" if text == "cat" else text
        Path("mine.yaml").write_text(f"parts:\n  cat:\n    text: a cat\n    center: [0, 0, 0]\n    {size}\n")
    code, error = said(capsys, "generate", "x", "--layout", "mine.yaml", *words)
    assert code == 2 and error.startswith(f"error: {line}") and error.count("\n") == 1
    assert not Path("outputs").exists()


def test_a_folder_or_id_is_a_stable_diffusion_in_every_stage() -> None:
    found = generate.overrides(parsed("x", "--prior", "a/b"), TREE)
    wanted = '{"class_path": "StableDiffusion", "init_args": {"model": "a/b"}}'
    assert {f"stages.coarse.prior={wanted}", f"stages.fine.prior={wanted}"} <= set(found)


@pytest.mark.parametrize(
    ("name", "cls"), [("builtin-mv", "BuiltinMV"), ("builtin-latent", "BuiltinLatent"), ("builtin", None)]
)
def test_priors_that_ship_have_names(name: str, cls: str | None) -> None:
    found = [line for line in generate.overrides(parsed("x", "--prior", name), TREE) if ".prior=" in line]
    assert found == [f'stages.{stage}.prior="{cls}"' for stage in ("coarse", "fine") if cls]


def test_a_folder_is_opened_by_the_class_that_can(tiny_pipeline) -> None:
    folder = str(tiny_pipeline("StableDiffusionXLPipeline"))
    line = generate.overrides(parsed("x", "--prior", folder), TREE)[1]
    assert line == f'stages.coarse.prior={{"class_path": "SDXL", "init_args": {{"model": "{folder}"}}}}'


def test_dry_run_prints_what_would_run_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "outputs"
    words = ["a 3: b", "--dry-run", "--steps", "7", "--out", str(out), "--export.faces", "99", "--negative", "ugly"]
    assert main(["generate", *words]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert tree["prompt"] == "a 3: b" and tree["tag"] == "sds"
    assert list(tree["stages"].values())[-1]["steps"] == 7
    assert tree["export"]["init_args"]["faces"] == 99
    assert list(tree["stages"].values())[0]["objective"]["init_args"]["guider"]["init_args"]["away"] == "negative"
    assert not out.exists()


def test_every_quality_is_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    for quality in generate.RECIPES:
        assert main(["generate", "x", "--quality", quality, "--dry-run"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["stages"]


def test_a_run_from_end_to_end(finished: Path) -> None:
    assert finished.parent.name == "a-red-owl" and finished.name.startswith("sds@")
    assert (finished / "export" / "a-red-owl.glb").stat().st_size > 1000
    assert json.loads((finished / "run.json").read_text())["status"] == "done"
    assert (finished / "save" / "final" / "turntable.mp4").stat().st_size > 0
    assert (finished / "command.txt").read_text().startswith("dream3d ")


def test_the_written_configuration_repeats_the_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--config", str(finished / "config.yaml"), "--out", str(tmp_path), "--json"]
    assert main(words) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    again = Path(last["run"]) / "export" / "a-red-owl.glb"
    assert str(again) in last["files"]
    assert again.read_bytes() == (finished / "export" / "a-red-owl.glb").read_bytes()


def test_another_seed_is_another_object(
    finished: Path, small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a red owl", *small, "--seed", "1", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("dream3d 0") and "device cpu" in lines[0]
    assert lines[1].startswith("prior ") and lines[2].startswith("run ")
    (other,) = tmp_path.glob("a-red-owl/sds@*/export/a-red-owl.glb")
    assert other.read_bytes() != (finished / "export" / "a-red-owl.glb").read_bytes()


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(words)
    return code, capsys.readouterr().err


def test_an_unknown_key_of_a_file_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("prompt: an owl\nexport:\n  class_path: Export\n  init_args:\n    facez: 3\n")
    code, error = said(capsys, "generate", "--config", str(file))
    assert code == 2
    assert error == "error: run.yaml: unknown key export.facez (line 5). Did you mean export.faces?\n"


def test_a_class_of_another_family_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = said(capsys, "generate", "x", "--stages.nerf.prior", "SDS")
    assert code == 2
    assert "stages.nerf.prior: 'SDS' is not one of " in error and "StableDiffusion" in error
    assert len(error.splitlines()) == 1


def test_priors_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "outputs"))
    code, error = said(capsys, "generate", "x", "--prior", "stabilityai/stable-diffusion-2-1-base", *out)
    assert code == 3
    assert error.startswith(
        "error: prior 'stabilityai/stable-diffusion-2-1-base' not found: its owner removed it in Nov 2025."
    )
    assert "Give a local folder with --prior DIR, or another id: dream3d priors" in error
    code, error = said(capsys, "generate", "x", "--prior", "a/b", *out)
    assert code == 3 and "HF_HUB_OFFLINE=1 and it is not in the cache (" in error
    code, error = said(capsys, "generate", "x", "--prior", str(tmp_path / "nothing"), *out)
    assert code == 3 and "no such folder" in error
    assert not (tmp_path / "outputs").exists()


def test_an_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    code, error = said(capsys, "generate", "x", "--out", str(tmp_path / "file" / "outputs"))
    assert (code, error) == (2, f"error: --out {tmp_path}/file/outputs: {tmp_path}/file is a file.\n")


def test_out_of_memory_is_one_line_with_a_cure(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dream3d.priors import StableDiffusion

    def encode(self: StableDiffusion, images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.10 GiB.\nmore")

    monkeypatch.setattr(StableDiffusion, "encode", encode)
    code, error = said(capsys, "generate", "an owl", *small, "--out", str(tmp_path))
    assert code == 1
    assert error.startswith("error: out of memory in stage nerf: CUDA out of memory. Tried to allocate 2.10 GiB.")
    assert len(error.splitlines()) == 1
    (state,) = tmp_path.glob("an-owl/*/run.json")
    assert json.loads(state.read_text())["status"] == "failed"


def test_no_surface_writes_no_file(small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = said(capsys, "generate", "an owl", *small, "--iso", "1000000", "--out", str(tmp_path))
    assert code == 1
    assert error.startswith("error: no surface at iso 1e+06: density never exceeds ")
    assert "train longer or try --iso auto." in error
    assert list(tmp_path.glob("an-owl/*/export/*")) == []


def test_the_image_plane_has_a_recipe_of_its_own(
    tiny_builtin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["a red chair", "--repr", "image", "--steps", "2", "--out", str(tmp_path), "--device", "cpu", "--quiet"]
    words += ["--stages.picture.prior.folder", str(tiny_builtin), "--set", "picture_size=32", "--json"]
    words += ["--stages.picture.representation.particles", "2"]
    assert main(["generate", *words]) == 0
    files = json.loads(capsys.readouterr().out.splitlines()[-1])["files"]
    assert [Path(file).name for file in files] == ["a-red-chair-1.png", "a-red-chair-2.png", "a-red-chair-sheet.png"]
    assert main(["generate", *words, "--export.formats", "[glb]"]) == 1
    assert "an image has no surface" in capsys.readouterr().err
    assert main(["generate", "x", "--repr", "image", "--quality", "draft"]) == 2
    assert "--repr image and --quality exclude each other" in capsys.readouterr().err
