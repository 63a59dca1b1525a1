"""The members of every family in a recipe: all can be named, nothing else can, and each has its own defaults."""

from __future__ import annotations

import inspect
import itertools
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dream3d.config import load, members
from dream3d.pipeline import Pipeline
from dream3d.priors import Prior
from dream3d.stage import Stage
from tests.tiny_recipes import AXES, SMALL, fails, written


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return written(tmp_path, SMALL)


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
