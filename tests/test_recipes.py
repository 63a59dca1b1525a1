"""Every recipe that ships, for two steps, with built-in priors of random weights."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dream3d.commands.base import Parser
from dream3d.commands.generate import INCOMPLETE, METHODS, add_arguments, overrides
from dream3d.config import load, members
from dream3d.guidance import Objective
from dream3d.papers import NUMBER, PAPERS
from dream3d.priors.known import KNOWN
from dream3d.recipes import headline, last_stage, parsed, read, recipe_folder, recipes
from dream3d.runs import RunFolder

RECIPES = recipes()
DOCS = Path(__file__).parents[1] / "docs" / "recipes.md"

SMALLER = {
    "Field": {"representation.levels": 2, "representation.log2_table": 8, "representation.finest": 16},
    "Image": {"representation.particles": 2},
    "Gaussians": {"representation.count": 200},
    "March": {"renderer.samples": 8},
    "OrbitCameras": {"cameras.size": 16},
}
"""What makes a stage cheap, by the classes that it has; the weights of its prior are random and few anyhow."""


def cheap(recipe: str, folders: dict[str, Path]) -> list[str]:
    """Overrides for two steps of every stage."""
    found = ["picture_size=16", "turntable_views=0", "preview_every=0", "export.faces=300", "export.texture_size=64"]
    found += ["export.resolution=24"]
    for name, stage in read(recipe)["stages"].items():
        named = [value.get("class_path") if isinstance(value, dict) else value for value in stage.values()]
        keys = {key: value for cls in named for key, value in SMALLER.get(str(cls), {}).items()}
        keys |= {"steps": 2, "batch": 4 if {"BuiltinMV", "MultiViewSDS"} & {str(cls) for cls in named} else 2}
        keys |= {"prior.folder": folders[stage["prior"]]}
        found += [f"stages.{name}.{key}={value}" for key, value in keys.items()]
    return found


@pytest.fixture(scope="session")
def folders(tiny_builtin: Path, tiny_builtin_latent: Path) -> dict[str, Path]:
    """Tiny weights for each built-in prior."""
    return {"Builtin": tiny_builtin, "BuiltinMV": tiny_builtin, "BuiltinLatent": tiny_builtin_latent}


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_steps_end_in_an_asset(recipe: str, folders: dict[str, Path], tmp_path: Path) -> None:
    common = [f"out={tmp_path}", "device=cpu", "quiet=true", 'prompt="a red chair"', "export.size_m=2"]
    made, text = load(recipe, [*common, *cheap(recipe, folders)])
    run = RunFolder(made.run())
    assert made.export is not None
    files = sorted(run.export.glob(f"a-red-chair*.{made.export.formats[0]}"))
    assert run.state()["status"] == "done" and files and all(file.stat().st_size > 500 for file in files)
    assert run.config.read_text(encoding="utf-8") == text and "extends" not in text

    # What was written down repeats the run, to the byte.
    again, _ = load(run.config)
    repeated = RunFolder(again.run())
    assert repeated.path != run.path
    assert all((repeated.export / file.name).read_bytes() == file.read_bytes() for file in files)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_key_is_explained(recipe: str) -> None:
    """A comment in the line of a key, or, where a class follows, in that class's line; a sentence on top."""
    lines = (recipe_folder() / f"{recipe}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# {headline(recipe)}" and lines[0].endswith(".") and max(map(len, lines)) <= 120
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        key = line.strip().partition(":")[0]
        if key in ("class_path", "init_args") or line.startswith("#"):
            continue
        explained = line if "#" in line or not following.strip().startswith("class_path") else following
        assert "  # " in explained, f"{recipe}.yaml: {key}"


def test_recipes_extend_once() -> None:
    """Who reads one has to open two files at most."""
    for recipe in RECIPES:
        base = parsed(recipe_folder() / f"{recipe}.yaml")[0].get("extends")
        assert base is None or "extends" not in parsed(recipe_folder() / f"{base}.yaml")[0], recipe


def annealed(tree: Any) -> Iterator[int]:
    """Last steps of everything in a stage that changes with the step."""
    if isinstance(tree, dict):
        if tree.get("class_path") in ("Ramp", "AnnealedTime", "DreamTime"):
            yield tree["init_args"]["steps"] + tree["init_args"].get("begin", 0)
        for below in tree.values():
            yield from annealed(below)


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_anneals_has_ended_at_the_last_step(recipe: str) -> None:
    for name, stage in read(recipe)["stages"].items():
        assert max(annealed(stage), default=0) <= stage["steps"], name


def test_every_objective_has_a_recipe() -> None:
    """The table behind --guidance names each of the family once, and the recipes that it names are of that method."""
    names = {cls.lower() for cls in members(Objective)}
    assert set(METHODS) == names and set(INCOMPLETE) < names
    for name, recipe in METHODS.items():
        assert read(recipe)["stages"][last_stage(recipe)]["objective"]["class_path"].lower() == name


def test_papers_that_recipes_name_are_in_the_table() -> None:
    named = {n: r for r in RECIPES for n in NUMBER.findall((recipe_folder() / f"{r}.yaml").read_text(encoding="utf-8"))}
    assert len(named) > 25 and not {n: r for n, r in named.items() if n not in PAPERS}


def test_the_page_lists_them_all() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == RECIPES


def test_flags_for_larger_priors_are_understood() -> None:
    """What the comments on top advise: ids that are known, keys that are there."""
    advised = 0
    for recipe in RECIPES:
        text = (recipe_folder() / f"{recipe}.yaml").read_text(encoding="utf-8")
        for lines in re.findall(r"^# On a GPU: (.*(?:\n#   .*)*)", text, re.MULTILINE):
            for words in lines.replace("\n# ", "").split(", or"):
                args = Parser("generate", "about")
                add_arguments(args)
                given = args.parse(["x", *shlex.split(words)])
                assert KNOWN[given.prior].state == "ready", recipe
                given.prior = None
                advised += 1
                if given.overrides:
                    load(recipe, overrides(given, read(recipe)))
    assert advised > 20


def test_recipes_run_without_a_download() -> None:
    priors = {stage["prior"] for recipe in RECIPES for stage in read(recipe)["stages"].values()}
    assert priors == {"Builtin", "BuiltinMV", "BuiltinLatent"}
