"""Recipes: YAML that writes down constructor calls. Read, checked, overridden, built.

A class is named by its short name, and only concrete members of the family that a parameter asks for may be named:
every name is looked up in that family's subclasses before anything is imported or built. Values are then checked
against the constructors' types by jsonargparse. Every error is one line.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import yaml

from dream3d.checks import Dream3DError, InputError, did_you_mean, one_of
from dream3d.pipeline import Pipeline
from dream3d.recipes import Tree, extended, find_recipe, parsed, spelt_out

FAMILIES = (
    "dream3d.representations",
    "dream3d.renderers",
    "dream3d.densify",
    "dream3d.materials",
    "dream3d.lights",
    "dream3d.priors",
    "dream3d.guidance",
    "dream3d.regularizers",
    "dream3d.cameras",
    "dream3d.backgrounds",
    "dream3d.stage",
    "dream3d.export",
)
"""Where members of families live."""


def load(recipe: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> tuple[Pipeline, str]:
    """Build the pipeline of a recipe.

    Args:
        recipe: name of a recipe, or a YAML file.
        overrides: "a.b=value", applied in order; values are YAML. `init_args` may be left out of the path. Naming
            another class replaces the old one's arguments altogether.

    Returns:
        the pipeline, and the resolved configuration as YAML, which gives the same pipeline again.

    Raises:
        InputError: one line: which key, what was expected, what came.
    """
    path = find_recipe(recipe)
    tree, text = parsed(path)
    tree = extended(tree, path.name)
    for override in overrides:
        key, _, value = override.partition("=")
        _override(tree, key.split("."), _value(value), key)
    keys = {tuple(override.partition("=")[0].split(".")) for override in overrides}
    tree = _Reader(path.name, text, keys).constructor(Pipeline, tree, ())
    pipeline, full = _build(tree)
    resolved = _dump(full)
    pipeline.resolved = resolved
    return pipeline, resolved


def checked(made: Callable[..., Any], file: Path) -> Tree:
    """What a YAML file writes down of one constructor's call, as values for `load`'s overrides.

    Raises:
        InputError: as `load`: which key on which line, what was expected, what came.
    """
    tree, text = parsed(file)
    return _Reader(file.name, text, set()).constructor(made, tree, ())


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        return text


def _override(tree: Tree, path: list[str], value: Any, key: str) -> None:
    for name in path[:-1]:
        if "init_args" not in path and "class_path" in tree:
            tree = tree.setdefault("init_args", {})
        below = spelt_out(tree.get(name))
        if isinstance(below, dict):
            tree[name] = below
        if below is None:
            below = tree[name] = {}
        if not isinstance(below, dict):
            raise InputError(f"{key}: '{name}' is a value, it has no keys below it.")
        tree = below
    last = path[-1]
    if "class_path" in tree and last not in ("class_path", "init_args"):
        tree = tree.setdefault("init_args", {})
    if last == "class_path" and value != tree.get("class_path"):
        tree.pop("init_args", None)
    tree[last] = value


def families_in(annotation: Any) -> list[type]:
    """The abstract bases that a parameter's type mentions, directly or as a value of a dict or a callable's result."""
    if isinstance(annotation, type) and inspect.isabstract(annotation):
        return [annotation]
    if isinstance(annotation, type) and annotation.__module__.startswith("dream3d."):
        return [annotation]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, UnionType):
        return [found for arg in args if arg is not NoneType for found in families_in(arg)]
    if origin is Callable or origin is typing.get_origin(Callable[[], None]):
        return families_in(args[-1])
    return []


def members(base: type) -> dict[str, type]:
    """The concrete classes of a family, by short name."""
    for module in FAMILIES:
        loaded = importlib.import_module(module)
        for name in getattr(loaded, "__all__", ()):
            getattr(loaded, name)  # families may export lazily
    found: dict[str, type] = {}
    queue = [base]
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        if not inspect.isabstract(cls) and cls.__module__.startswith("dream3d."):
            found[cls.__name__] = cls
    return dict(sorted(found.items()))


MISFIT = object()
"""What `fitted` returns for a value of another type."""


def plain_types(annotation: Any) -> list[Any]:
    """The alternatives of a type that are no class of a family: numbers, text, lists, None."""
    union = typing.get_origin(annotation) in (typing.Union, UnionType)
    options = typing.get_args(annotation) if union else (annotation,)
    return [option for option in options if not families_in(option)]


def fitted(annotation: Any, value: Any) -> Any:
    """A value as its type wants it, or MISFIT. Numbers written as text are not numbers; a whole number is a float."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if origin is typing.Literal:
        return value if any(value == arg and type(value) is type(arg) for arg in args) else MISFIT
    if origin in (tuple, list):
        return _fitted_items(origin, args, value)
    if annotation is float:
        # YAML 1.1 reads 1e-3, without a dot, as text.
        if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
            return float(value)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else MISFIT
    if annotation is None or annotation is NoneType:
        return None if value is None else MISFIT
    return value if type(value) is annotation else MISFIT


def _fitted_items(origin: Any, args: tuple[Any, ...], value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return MISFIT
    endless = origin is list or (len(args) == 2 and args[1] is Ellipsis)
    wanted = [args[0]] * len(value) if endless else list(args)
    if len(wanted) != len(value):
        return MISFIT
    items = [fitted(arg, item) for arg, item in zip(wanted, value, strict=True)]
    return MISFIT if any(item is MISFIT for item in items) else items


WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}


def in_words(options: list[Any]) -> str:
    """Types in a user's words: "a number or null"."""
    found = []
    for option in options:
        origin, args = typing.get_origin(option), typing.get_args(option)
        if origin is typing.Literal:
            found.append("one of " + ", ".join(map(str, args)))
        elif origin is tuple and Ellipsis not in args:
            found.append(f"[{', '.join(in_words([arg]) for arg in args)}]")
        elif origin in (tuple, list):
            found.append(f"a list, each {in_words([args[0]])}")
        elif origin is dict:
            found.append("keys")
        else:
            found.append(WORDS.get(option, getattr(option, "__name__", str(option))))
    return " or ".join(found)


def shown(value: Any) -> str:
    """A value as it stood in the YAML, not too long."""
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Reader:
    """Checks keys, values and class names of a tree against constructors; knows where each came from."""

    def __init__(self, file: str, text: str, overridden: set[tuple[str, ...]]) -> None:
        self.file = file
        self.root = yaml.compose(text)
        self.overridden = {tuple(n for n in key if n not in ("class_path", "init_args")) for key in overridden}

    def constructor(self, cls: Callable[..., Any], values: Any, where: tuple[str, ...]) -> Tree:
        """Arguments of a constructor, with full class paths."""
        if not isinstance(values, dict):
            raise self.wrong(where, "keys", values)
        parameters = inspect.signature(cls).parameters
        hints = typing.get_type_hints(cls.__init__ if isinstance(cls, type) else cls)
        # Keyword-only parameters are configuration; what is handed over in code (`start`) is not.
        known = [n for n, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY]
        result: Tree = {}
        for key, value in values.items():
            here = (*where, str(key))
            if key not in known:
                nearest = did_you_mean_key(where, key, known)
                raise InputError(f"{self.source(here)}unknown key {self.place(here)}.{nearest}")
            result[key] = self.value(hints.get(key, Any), value, here)
        missing = [n for n in known if parameters[n].default is inspect.Parameter.empty and n not in values]
        if missing:
            place = f"{self.place(where)} needs" if where else "missing"
            raise InputError(f"{self.source(where)}{place} {', '.join(missing)}.")
        return result

    def value(self, annotation: Any, value: Any, where: tuple[str, ...]) -> Any:
        """A value with every class in it resolved."""
        if isinstance(value, dict):
            for option in (annotation, *typing.get_args(annotation)):
                if typing.get_origin(option) in (dict, Mapping):
                    inner = typing.get_args(option)[1]
                    return {k: self.value(inner, v, (*where, str(k))) for k, v in value.items()}
        families, plain = families_in(annotation), plain_types(annotation)
        for option in plain:
            if (made := fitted(option, value)) is not MISFIT:
                return made
        if not families:
            raise self.wrong(where, in_words(plain), value)
        if families[0].__name__ == "Stage":
            return self.constructor(families[0], value, where)
        return self.member(families, [option for option in plain if option is not NoneType], value, where)

    def member(self, families: list[type], plain: list[Any], value: Any, where: tuple[str, ...]) -> Tree:
        """A class of one of the families with its arguments; `plain` is what else might have stood there."""
        known = {name: cls for family in families for name, cls in members(family).items()}
        spec = {"class_path": value} if isinstance(value, str) else value
        if len(known) == 1 and isinstance(spec, dict) and "class_path" not in spec:
            spec = {"class_path": next(iter(known)), "init_args": spec}  # there is nothing to choose
        name = spec.get("class_path") if isinstance(spec, dict) else None
        if not isinstance(name, str):
            wanted = [in_words([option]) for option in plain]
            raise self.wrong(where, " or ".join([*wanted, f"a class ({', '.join(known)})"]), value)
        extra = [str(key) for key in spec if key not in ("class_path", "init_args")]
        if extra:
            raise InputError(
                f"{self.source(where)}unknown key {self.place((*where, extra[0]))}: put it below init_args."
            )
        prefix, _, short = name.rpartition(".")
        if short in known and prefix == known[short].__module__:
            name = short
        if plain and name not in known:
            raise self.wrong(where, f"{in_words(plain)} or one of {', '.join(known)}", name)
        cls = known[one_of(f"{self.source(where)}{self.place(where)}", name, known)]
        arguments = self.constructor(cls, spec.get("init_args") or {}, where)
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}

    def wrong(self, where: tuple[str, ...], wanted: str, value: Any) -> InputError:
        """The error for a value of another type."""
        return InputError(f"{self.source(where)}{self.place(where)}: expected {wanted}, got {shown(value)}.")

    def source(self, where: tuple[str, ...]) -> str:
        """ "run.yaml: ", or nothing for what came from the command line."""
        return "" if self.given(where) else f"{self.file}: "

    def given(self, where: tuple[str, ...]) -> bool:
        """Whether a key or one above it was set on the command line."""
        return any(where[:i] in self.overridden for i in range(1, len(where) + 1))

    def place(self, where: tuple[str, ...]) -> str:
        """ "optim.steps (line 3)"; no line for what came from the command line."""
        key, node, found = ".".join(where), self.root, None
        for name in where:
            node, found = _child(node, name)
            if node is None:
                return key
        return f"{key} (line {found.start_mark.line + 1})" if found and not self.given(where) else key


def _child(node: Any, name: str) -> tuple[Any, Any]:
    for key, value in getattr(node, "value", ()) if isinstance(node, yaml.MappingNode) else ():
        if key.value == name:
            return value, key
        if key.value == "init_args" and (deeper := _child(value, name))[0] is not None:
            return deeper
    return None, None


def did_you_mean_key(where: tuple[str, ...], key: Any, known: list[str]) -> str:
    """The nearest key, with its path."""
    nearest = did_you_mean(str(key), known)
    match = re.search(r"'(.*)'", nearest)
    return f" Did you mean {'.'.join((*where, match[1]))}?" if match else f" Known here: {', '.join(known)}."


def _build(tree: Tree) -> tuple[Pipeline, Tree]:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Pipeline, None, fail_untyped=False)
    try:
        parsed = parser.parse_object(tree)
        full = yaml.safe_load(parser.dump(parsed, skip_unset=False, skip_validation=True, format="yaml"))
        built = parser.instantiate(parsed) if hasattr(parser, "instantiate") else parser.instantiate_classes(parsed)
    except Dream3DError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, Dream3DError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise InputError(_one_line(str(error))) from error
    return Pipeline(**built.as_dict()) if not isinstance(built, Pipeline) else built, full


def _one_line(message: str) -> str:
    """jsonargparse's several lines about a value, as one."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    key = re.search(r'key "([\w.]+)"', message)
    wanted = [line for line in lines if line.startswith(("Expected", "expected", "Does not validate", "Not a valid"))]
    short = " ".join(wanted[:1] or lines[:1])
    short = re.sub(r"dream3d(\.\w+)+\.(\w+)", r"\2", short).replace(".init_args", "")
    place = key[1].replace(".init_args", "") + ": " if key and key[1] not in short else ""
    return f"config: {place}{short}"[:300]


def _dump(tree: Tree) -> str:
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return re.sub(r"class_path: dream3d(\.\w+)*\.(\w+)", r"class_path: \2", text)
