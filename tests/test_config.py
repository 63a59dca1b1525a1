"""Recipes: what they may name, what they become, and the one line when something is wrong."""

from __future__ import annotations

import inspect
import itertools
import os
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dream3d.backgrounds import Background
from dream3d.cameras import CameraSampler
from dream3d.checks import InputError
from dream3d.config import load, members
from dream3d.guidance import Guider, Noiser, Objective, TimeSampler
from dream3d.guidance.time import WEIGHTS, Ramp, value_at
from dream3d.pipeline import Pipeline
from dream3d.priors import Gaussian, Prior
from dream3d.priors.builtin import Packaged
from dream3d.recipes import find_recipe, last_stage, read, recipes
from dream3d.regularizers import Regularizer, Sparsity
from dream3d.renderers import Renderer
from dream3d.representations import Field, Representation
from dream3d.stage import Optimizing, Stage

RECIPES = recipes()

SMALL = """\
prompt: an owl
stages:
  a:
    representation: {class_path: Field, init_args: {levels: 2, log2_table: 8, finest: 16}}
    renderer: March
    prior: Gaussian
    objective: SDS
    regularizers: {thin: Sparsity}
    steps: 3
"""

AXES: dict[str, type] = {
    "representation": Representation,
    "renderer": Renderer,
    "prior": Prior,
    "objective": Objective,
    "objective.guider": Guider,
    "cameras": CameraSampler,
    "time": TimeSampler,
    "noise": Noiser,
    "background": Background,
    "regularizers.thin": Regularizer,
    "optimizer": Optimizing,
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(SMALL)
    return path


def fails(recipe: str | Path, *overrides: str) -> str:
    """The error's line."""
    with pytest.raises(InputError) as caught:
        load(recipe, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_load_and_repeat(recipe: str, tmp_path: Path) -> None:
    """The resolved text, written into the run folder, gives the same pipeline and the same text again."""
    made, text = load(recipe)
    again, same = load(written(tmp_path, text))
    assert same == text == made.resolved and isinstance(made, Pipeline)
    assert [settings(s) for s in made.stages.values()] == [settings(s) for s in again.stages.values()]
    assert isinstance(list(made.stages.values())[-1].prior, Packaged)
    assert last_stage(recipe) == list(made.stages)[-1]


def settings(thing: Any) -> Any:
    """An object as plain values, to compare two."""
    if isinstance(thing, (Stage, Ramp, Objective, *AXES.values())):
        return type(thing).__name__, {k: settings(v) for k, v in vars(thing).items() if not k.startswith("_")}
    if isinstance(thing, dict):
        return {k: settings(v) for k, v in thing.items()}
    return thing if isinstance(thing, (int, float, str, tuple, list, type(None))) else type(thing).__name__


def test_values_reach_the_constructors(small: Path) -> None:
    made, _ = load(
        small,
        [
            "stages.a.steps=7",
            "stages.a.objective.guider={class_path: CFG, init_args: {scale: 3}}",
            "stages.a.time=UniformTime",
            "stages.a.time.high={class_path: Ramp, init_args: {start: 0.9, end: 0.5, steps: 10}}",
            "stages.a.cameras={class_path: OrbitCameras, init_args: {elevation_deg: [0, 10]}}",
            "stages.a.optimizer={class_path: Adam, init_args: {lr: 1e-3}}",
            "export=Export",
            "export.faces=99",
            "seed=5",
        ],
    )
    stage = made.stages["a"]
    assert made.seed == 5 and made.export is not None and made.export.faces == 99
    assert stage.steps == 7 and stage.objective.guider.scale == 3 and value_at(stage.time.high, 10) == 0.5
    assert stage.cameras.elevation_deg == (0, 10) and stage.optimizer.lr == 1e-3
    field = stage.representation(None)
    assert isinstance(field, Field) and field.encoding.spec.finest == 16
    assert isinstance(stage.representation(field), Field)


def test_nothing_where_something_is_the_default_repeats(small: Path, tmp_path: Path) -> None:
    made, text = load(small, ["stages.a.noise=Inversion", "stages.a.noise.interval=null"])
    again, same = load(written(tmp_path, text))
    assert same == text and made.stages["a"].noise.interval is again.stages["a"].noise.interval is None


def test_where_there_is_one_class_its_name_may_be_left_out(small: Path) -> None:
    prior = "stages.a.prior={class_path: SDXL, init_args: {model: some/folder, opening: {half: true}}}"
    made, text = load(small, [prior, "stages.a.prior.opening.slices=true"])
    opening = made.stages["a"].prior.opening
    assert opening.half and opening.slices and opening.variant is None
    assert yaml.safe_load(text)["stages"]["a"]["prior"]["init_args"]["opening"]["class_path"] == "Opening"
    assert "Did you mean stages.a.prior.opening.half?" in fails(small, prior, "stages.a.prior.opening.halve=true")


def test_the_last_override_wins(small: Path) -> None:
    made, text = load(small, ["seed=1", "seed=2", "stages.a.objective.guider=CFG", "stages.a.objective.guider.scale=4"])
    assert made.seed == 2 and made.stages["a"].objective.guider.scale == 4
    assert yaml.safe_load(text)["seed"] == 2


def test_text_stays_text(small: Path) -> None:
    """A prompt that looks like YAML, quoted as JSON the way the command line does it."""
    assert load(small, ['prompt="no: [3"', 'negative="null"'])[0].prompt.text == "no: [3"
    assert load(small, ["prompt=a dog, sitting"])[0].prompt.text == "a dog, sitting"


# Each member replaces its neighbour and is replaced by it: all pairs of a long family would say no more.
PAIRS = [
    (axis, *pair)
    for axis, family in AXES.items()
    for old, new in itertools.pairwise(members(family).values())
    for pair in ((old, new), (new, old))
]


NEEDED: dict[str, Any] = {"model": "some/folder", "image": "some.png", "mesh": "some.glb", "renderer": "March"}
"""Something for parameters without a default."""


def needed(cls: type) -> dict[str, Any]:
    """Arguments without which a class cannot be had."""
    given = {**NEEDED, "of": "Gaussian" if issubclass(cls, Prior) else "Field"}
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: given[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty}


def setting(axis: str, cls: type) -> list[str]:
    """`needed` as overrides."""
    return [f"stages.a.{axis}.{key}={value}" for key, value in needed(cls).items()]


def changed(cls: type) -> dict[str, Any]:
    """Arguments that differ from the defaults, where that is easy: every number a little larger."""
    parameters = inspect.signature(cls).parameters.values()
    numbers = [p for p in parameters if p.kind is p.KEYWORD_ONLY and type(p.default) is float]
    return {p.name: p.default * 0.9 + 0.01 for p in numbers}


@pytest.mark.parametrize(("axis", "old", "new"), PAIRS, ids=[f"{a}-{o.__name__}-{n.__name__}" for a, o, n in PAIRS])
@pytest.mark.parametrize("spelling", ["{axis}={new}", "{axis}.class_path={new}", "{axis}={{class_path: {new}}}"])
def test_another_class_has_its_own_defaults(tmp_path: Path, axis: str, old: type, new: type, spelling: str) -> None:
    """The known trap: what the file sets for one class must not leak into the class that replaces it."""
    tree = yaml.safe_load(SMALL)
    place, (*above, name) = tree["stages"]["a"], axis.split(".")
    for part in above:
        if isinstance(place[part], str):
            place[part] = {"class_path": place[part], "init_args": {}}
        place = place[part].get("init_args", place[part])
    place[name] = {"class_path": old.__name__, "init_args": {**changed(old), **needed(old)}}
    path = written(tmp_path, yaml.safe_dump(tree))
    override = "stages.a." + spelling.format(axis=axis, new=new.__name__)
    _, text = load(path, [override, *setting(axis, new)])
    found = yaml.safe_load(text)["stages"]["a"]
    for part in axis.split("."):
        found = found.get("init_args", found)[part]
    assert found["class_path"] == new.__name__
    defaults = {p.name: p.default for p in inspect.signature(new).parameters.values()}
    for key, value in (found.get("init_args") or {}).items():
        default = list(defaults[key]) if isinstance(defaults[key], tuple) else defaults[key]
        assert value == default or key in needed(new), key


def test_the_pairs_are_not_empty() -> None:
    assert {axis for axis, _, _ in PAIRS} >= {"prior", "regularizers.thin"}


def test_every_member_of_every_axis_can_be_named(small: Path) -> None:
    for axis, family in AXES.items():
        known = members(family)
        assert known and all(not inspect.isabstract(cls) and issubclass(cls, family) for cls in known.values())
        for name, cls in known.items():
            made, _ = load(small, [f"stages.a.{axis}={name}", *setting(axis, cls)])
            assert isinstance(made, Pipeline), name


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "builtins.eval", "torch.nn.Linear", "Pipeline"])
@pytest.mark.parametrize("spelling", ["{axis}={name}", "{axis}={{class_path: {name}, init_args: {{command: ls}}}}"])
def test_nothing_else_can_be_named(
    small: Path, axis: str, name: str, spelling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by its name, before anything is imported, built or called."""
    for module, function in (("os", "system"), ("subprocess", "Popen")):
        monkeypatch.setattr(f"{module}.{function}", lambda *_, **__: pytest.fail("it was called"))
    assert name in fails(small, "stages.a." + spelling.format(axis=axis, name=name))


def test_classes_of_another_family_cannot_be_named(small: Path) -> None:
    line = fails(small, "stages.a.prior=SDS")
    assert "stages.a.prior" in line and "'SDS' is not one of Builtin, BuiltinLatent, " in line
    assert "is not one of ASD, " in fails(small, "stages.a.objective=Gaussian")
    assert "'Prior'" in fails(small, "stages.a.prior=Prior")  # the base itself is none of its members


def test_strings_in_the_place_of_a_function_are_refused(small: Path) -> None:
    for value in ("print", "builtins.print", "'lambda start: 1'", "3", "null", "[Field]"):
        assert fails(small, f"stages.a.representation={value}").startswith("stages.a.representation: ")


def test_yaml_tags_are_refused(tmp_path: Path) -> None:
    tag = f"prompt: !!python/object/apply:os.mkdir ['{tmp_path}/evil']\n"
    assert fails(written(tmp_path, tag)).startswith("run.yaml: not YAML (line 1)")
    assert not os.path.exists(tmp_path / "evil")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("    steps: 3", "    stepz: 3", "run.yaml: unknown key stages.a.stepz (line 9). Did you mean stages.a.steps?"),
        ("{levels: 2", "{levelz: 2", "run.yaml: unknown key stages.a.representation.levelz (line 4)."
         " Did you mean stages.a.representation.levels?"),
        ("prompt: an owl", "promt: an owl", "run.yaml: unknown key promt (line 1). Did you mean prompt?"),
        ("prior: Gaussian", "prior: Gausian", f"'Gausian' is not one of {', '.join(members(Prior))}."
         " Did you mean 'Gaussian'?"),
        ("prompt: an owl", "prompt: ' '", "the prompt is empty."),
        ("steps: 3", "steps: 0", "steps must be 1 or more (got 0)."),
        ("steps: 3", "steps: [", "run.yaml: not YAML (line "),
        ("steps: 3", "start: 3", "unknown key stages.a.start (line 9)."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert line in fails(written(tmp_path, SMALL.replace(old, new)))


@pytest.mark.parametrize(
    ("key", "value", "rest"),
    [
        ("steps", "abc", "expected a whole number, got 'abc'."),
        ("steps", "3.5", "expected a whole number, got 3.5."),
        ("steps", "'4'", "expected a whole number, got '4'."),
        ("steps", "true", "expected a whole number, got true."),
        ("steps", "null", "expected a whole number, got null."),
        ("clip", "abc", "expected a number or null, got 'abc'."),
        ("weight", "nonsense", f"expected one of {', '.join(WEIGHTS)} or null, got 'nonsense'."),
        ("cameras.elevation_deg", "[1]", "expected [a number, a number], got [1]."),
        ("cameras.elevation_deg", "[a, b]", 'expected [a number, a number], got ["a", "b"].'),
        ("time.high", "abc", "expected a number or one of Ramp, got 'abc'."),
        ("time.high", "[1]", "expected a number or a class (Ramp), got [1]."),
        ("regularizers", "3", "expected keys or null, got 3."),
        ("prior", "[1]", f"expected a class ({', '.join(members(Prior))}), got [1]."),
        ("objective", "{class_path: [1]}", f"expected a class ({', '.join(members(Objective))}), "
         'got {"class_path": [1]}.'),
        ("prior", "{class_path: Gaussian, init_args: 3}", "expected keys, got 3."),
        ("optimizer.lr", "nan", "expected a number, got 'nan'."),
    ],
)  # fmt: skip
def test_values_of_another_type_are_one_line(small: Path, key: str, value: str, rest: str) -> None:
    """The key is named; what stands in the file also has its line."""
    base = [f"stages.a.{part}" for part in ("cameras=OrbitCameras", "time=UniformTime", "optimizer=Adam")]
    assert fails(small, *base, f"stages.a.{key}={value}") == f"stages.a.{key}: {rest}"


def test_values_in_the_file_have_a_line(tmp_path: Path) -> None:
    text = SMALL.replace("steps: 3", "steps: abc")
    wanted = "stages.a.steps (line 9): expected a whole number, got 'abc'."
    assert fails(written(tmp_path, text)) == f"run.yaml: {wanted}"
    assert load(written(tmp_path, text), ["stages.a.steps=2"])[0].stages["a"].steps == 2


def test_what_is_missing_is_named(tmp_path: Path, small: Path) -> None:
    assert fails(written(tmp_path, "seed: 1")) == "run.yaml: missing prompt, stages."
    text = SMALL.replace("    renderer: March\n", "").replace("    prior: Gaussian\n", "")
    assert fails(written(tmp_path, text)) == "run.yaml: stages.a (line 3) needs renderer, prior."
    line = fails(small, "stages.a.time=UniformTime", "stages.a.time.high={class_path: Ramp, init_args: {end: 1}}")
    assert line == "stages.a.time.high needs start, steps."


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"prompt: \xff\xfe")
    assert fails(path) == "run.yaml: cannot be read as UTF-8 text (UnicodeDecodeError)."


@pytest.mark.parametrize("text", ["", "[]", "3", "prompt"])
def test_no_keys_at_all(tmp_path: Path, text: str) -> None:
    assert "run.yaml: expected keys such as prompt and stages" in fails(written(tmp_path, text))


def test_what_the_stage_before_hands_over_is_no_setting(small: Path) -> None:
    assert "unknown key stages.a.representation.start" in fails(small, "stages.a.representation.start=x")


def test_a_key_below_a_value(small: Path) -> None:
    assert fails(small, "stages.a.steps.x=3") == "stages.a.steps.x: 'steps' is a value, it has no keys below it."


def test_recipes_by_name_and_by_path(small: Path) -> None:
    assert {"default", "draft"} <= set(RECIPES)
    assert find_recipe("default").name == "default.yaml" and find_recipe(small) == small
    assert "Did you mean 'default'?" in fails("defalt")


EXTENDING = """\
extends: default
stages:
  nerf:
    objective: CSD
    time: {low: 0.1}
    cameras: {init_args: {size: 32}}
    prior: {folder: elsewhere}
    regularizers:
      opaque: {weight: {end: 9.0}}
      thin: Sparsity
    optimizer: {class_path: Adam, init_args: {final: 0.5}}
"""


def test_a_recipe_over_another(tmp_path: Path) -> None:
    """What is not said is the base's; keys alone change its class, a class that is named has its own defaults."""
    path = written(tmp_path, EXTENDING)
    made, text = load(path, ["stages.nerf.cameras.size=16", "seed=4"])
    base, mine = yaml.safe_load(load("default")[1]), yaml.safe_load(text)
    nerf, theirs = mine["stages"]["nerf"], base["stages"]["nerf"]
    assert "extends" not in mine and mine["prompt"] == base["prompt"] and mine["seed"] == 4
    assert nerf["representation"] == theirs["representation"] and nerf["steps"] == theirs["steps"]
    assert nerf["objective"] == {"class_path": "CSD", "init_args": {"null": 1.0, "negative": 0.0}}
    assert nerf["time"]["init_args"] == {**theirs["time"]["init_args"], "low": 0.1}
    assert nerf["cameras"]["init_args"] == {**theirs["cameras"]["init_args"], "size": 16}
    assert nerf["prior"] == {"class_path": "Builtin", "init_args": {"folder": "elsewhere"}}
    assert list(nerf["regularizers"]) == ["opaque", "sparsity", "thin"]
    opaque, old = (tree["regularizers"]["opaque"]["init_args"]["weight"]["init_args"] for tree in (nerf, theirs))
    assert opaque == {**old, "end": 9.0}
    assert nerf["optimizer"]["init_args"]["lr"] == 0.01 and nerf["optimizer"]["init_args"]["final"] == 0.5
    assert load(written(tmp_path, text))[1] == text == made.resolved
    # One's own file may extend a recipe that extends one itself.
    path.write_text("extends: luciddreamer\nseed: 3\n")
    assert read(path) == {**read("luciddreamer"), "seed": 3}


def test_every_objective_in_the_place_of_the_base_s_has_its_own_defaults(tmp_path: Path) -> None:
    for name in members(Objective):
        tree = {"extends": "default", "stages": {"nerf": {"objective": {"class_path": name}}}}
        found = read(written(tmp_path, yaml.safe_dump(tree)))["stages"]["nerf"]["objective"]
        assert found == {"class_path": name}, name


def test_what_is_wrong_with_extends_is_one_line(tmp_path: Path) -> None:
    line = fails(written(tmp_path, "extends: defalt\nseed: 1\n"))
    assert line.startswith("run.yaml: extends: 'defalt' is not one of ") and "Did you mean 'default'?" in line
    assert fails(written(tmp_path, "extends: [1]\n")).startswith("run.yaml: extends: '[1]' is not one of ")
    assert fails(written(tmp_path, "extends: ../pyproject\n")).startswith("run.yaml: extends: '../pyproject' is not ")
    line = fails(written(tmp_path, "extends: default\nstages:\n  nerf:\n    stepz: 3\n"))
    assert line == "run.yaml: unknown key stages.nerf.stepz (line 4). Did you mean stages.nerf.steps?"
    assert "unknown key extends" in fails("default", "extends=draft")


def test_a_regularizer_can_be_added_on_the_command_line(small: Path) -> None:
    made, _ = load(small, ["stages.a.regularizers.more=Sparsity", "stages.a.regularizers.more.weight=3"])
    assert list(made.stages["a"].regularizers) == ["thin", "more"]
    assert isinstance(made.stages["a"].regularizers["more"], Sparsity)


def constructors() -> list[Callable[..., Any]]:
    return [Pipeline, Stage, *(cls for family in AXES.values() for cls in members(family).values())]


@pytest.mark.parametrize("cls", constructors(), ids=lambda cls: cls.__name__)
def test_constructors_are_the_configuration(cls: type) -> None:
    """Keyword-only and typed; angles in degrees say so."""
    parameters = [p for p in inspect.signature(cls).parameters.values() if p.name != "start"]
    hints = typing.get_type_hints(cls.__init__)
    for p in parameters:
        assert p.kind is p.KEYWORD_ONLY and p.name in hints, p.name
        if any(word in p.name for word in ("elevation", "azimuth", "fov", "angle")):
            assert p.name.endswith("_deg"), p.name


def test_the_same_gaussian(small: Path) -> None:
    """Library and recipe call the same constructor."""
    made, _ = load(small, ["stages.a.prior.std=0.2"])
    assert settings(made.stages["a"].prior) == settings(Gaussian(std=0.2))
