"""The recipes that ship, and what a recipe's file says: plain values, before any class is looked up.

Neither torch nor the package's own classes are imported here: the command line reads recipes before it loads them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dream3d.checks import InputError, one_of

Tree = dict[str, Any]


def recipe_folder() -> Path:
    """Where the recipes are: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def recipes() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe, by name ("default") or path."""
    path = Path(recipe)
    return path if path.is_file() else recipe_folder() / f"{one_of('recipe', str(recipe), recipes())}.yaml"


def headline(name: str) -> str:
    """What a recipe that ships says of itself: its first line, a comment."""
    with (recipe_folder() / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").rstrip()


def read(recipe: str | Path) -> Tree:
    """A recipe as plain values: its own over those of the recipe that it extends.

    `extends: default` names a recipe that ships. Keys below keys are joined, anything else takes the place of the
    base's. Where a class is named nothing of the base's class stays, and what is not set has the defaults of the class;
    keys without a class change settings of the base's class, and `init_args` may be left out of the way to them.

    Raises:
        InputError: one line: no such recipe, not YAML, not keys.
    """
    path = find_recipe(recipe)
    return extended(parsed(path)[0], path.name)


def last_stage(recipe: str | Path) -> str:
    """Name of the recipe's last stage."""
    return list(read(recipe)["stages"])[-1]


def parsed(path: Path) -> tuple[Tree, str]:
    """A file's keys as they stand there, and its text.

    Raises:
        InputError: one line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}: cannot be read as UTF-8 text ({type(error).__name__}).") from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise InputError(f"{path.name}: not YAML{where}: {getattr(error, 'problem', error)}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path.name}: expected keys such as prompt and stages, got {type(tree).__name__}.")
    return tree, text


def extended(tree: Tree, file: str) -> Tree:
    """The keys of a file called `file`, with those of the recipe that it extends; without `extends`."""
    base = tree.pop("extends", None)
    if base is None:
        return tree
    name = one_of(f"{file}: extends", str(base), recipes())
    return _joined(read(recipe_folder() / f"{name}.yaml"), tree)


def _joined(base: Tree, tree: Tree) -> Tree:
    """Two trees' keys; the second wins."""
    if "class_path" in base and not {"class_path", "init_args"} & set(tree):
        return {**base, "init_args": _joined(base.get("init_args") or {}, tree)}
    joined = dict(base)
    for key, value in tree.items():
        below = spelt_out(base.get(key))
        keys = isinstance(value, dict) and "class_path" not in value and isinstance(below, dict)
        joined[key] = _joined(below, value) if keys else value
    return joined


def spelt_out(value: Any) -> Any:
    """A class that is only named ("SDS") as keys; anything else as it is."""
    return {"class_path": value} if isinstance(value, str) and re.fullmatch(r"[A-Z]\w*", value) else value
