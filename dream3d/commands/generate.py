"""`dream3d generate`: from a prompt to an asset."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dream3d.checks import InputError
from dream3d.commands.base import (
    Parser,
    UsageError,
    add_common,
    add_device,
    add_out,
    assignment,
    choice,
    number,
    require_device,
    say,
    say_json,
    whole,
)
from dream3d.commands.view import add_view, check_view, viewing
from dream3d.recipes import Tree, find_recipe, read, recipe_folder, recipes, spelt_out

ABOUT = "Turn a prompt into a 3D asset."
EXAMPLE = 'dream3d generate "a teddy bear"'

RECIPES = {"standard": "default", "draft": "draft"}
"""Recipe behind each --quality."""

METHODS = {
    "sds": "dreamfusion",
    "sjc": "sjc",
    "vsd": "prolificdreamer",
    "esd": "esd",
    "dsd": "dreampolish",
    "asd": "scaledreamer",
    "csd": "csd",
    "csm": "csm",
    "vpcsm": "vpcsm",
    "ism": "luciddreamer",
    "tsm": "dreamerxl",
    "balanced": "placiddreamer",
    "bootstrapped": "dreamcraft3d",
    "regionsds": "semanticsds",
    "reconstruction": "stabledreamer",
    "multiviewsds": "boostdream",
    "nfsd": "nfsd",
    "sdi": "sdi",
    "hifa": "hifa",
    "dds": "dds",
    "rfds": "rfds",
    "rfdsrev": "rfds_rev",
    "diffinstruct": "diffinstruct",
    "dmd": "dmd",
    "fdivergence": "fdistill",
    "sid": "sid",
    "swiftbrush": "swiftbrush",
}
"""Recipe behind each --guidance: its last stage says what the method is."""

INCOMPLETE = {
    "regionsds": "its regions have prompts of their own; write them: dream3d config show semanticsds > mine.yaml",
    "vpcsm": "it follows a picture as well, so the prior must take one: dream3d config show vpcsm > mine.yaml",
}
"""Methods that a name alone does not make, and why."""

METHOD = ("objective", "time", "weight", "noise", "post")
"""Keys of a stage that belong to the method."""

ANNEALED = ("Ramp", "AnnealedTime", "DreamTime")
"""Classes that count in steps of the run."""

REPRESENTATIONS = {
    "nerf": {"representation": "Field", "renderer": "March"},
    "splats": {"representation": "Gaussians", "renderer": "Splat"},
    "image": {"representation": "Image", "renderer": "Plane"},
}
"""Classes behind each --repr."""

LAYOUT = "compositional"
"""Recipe behind --layout."""

OWN_RECIPES = {"image": "image", "splats": "splats"}
"""Recipes of those whose other settings make no sense for the rest."""

BUILTINS = {"builtin": "Builtin", "builtin-mv": "BuiltinMV", "builtin-latent": "BuiltinLatent"}
"""Classes of the priors that ship, by the names that --prior has for them."""
OUT = "outputs"


def prompt(text: str) -> str:
    """Argument type: a prompt, not empty."""
    if not text.strip():
        raise UsageError("the prompt is empty.")
    return text


def guidance(text: str) -> str:
    """Argument type: a method that needs no more than its name."""
    name = choice("--guidance", METHODS)(text)
    if name in INCOMPLETE:
        raise UsageError(f"--guidance {name}: {INCOMPLETE[name]}")
    return name


def layout(text: str) -> Path:
    """Argument type: a layout file that is there."""
    path = Path(text)
    if path.is_file():
        return path
    known = sorted(p.stem for p in (recipe_folder() / "layouts").glob("*.yaml"))
    if text not in known:
        raise UsageError(f"--layout: no file {text}. Layouts that ship: {', '.join(known)}")
    return recipe_folder() / "layouts" / f"{text}.yaml"


def add_arguments(parser: Parser) -> None:
    parser.add_argument("prompt", nargs="?", type=prompt, metavar="PROMPT", help="what to make, in quotes")
    add = parser.add_argument
    add("--quality", type=choice("--quality", RECIPES), metavar="NAME", help="standard or draft (default: standard)")
    add("--prior", metavar="NAME", help=f"{', '.join(BUILTINS)}, a folder or a hub id (default: builtin)")
    add("--guidance", type=guidance, metavar="NAME", help=f"method, with its paper's settings: {', '.join(METHODS)}")
    add("--repr", type=choice("--repr", REPRESENTATIONS), metavar="NAME", help=f"{', '.join(REPRESENTATIONS)}")
    add("--layout", type=layout, metavar="FILE", help="what is where: several things, each with a prompt of its own")
    add("--negative", metavar="TEXT", help="what to steer away from")
    add("--steps", type=whole("--steps", 1), metavar="N", help="steps of the last stage")
    add("--seed", type=whole("--seed", 0, 2**63 - 1), metavar="N", help="another seed, another object (default: 0)")
    add_device(parser)
    add_out(parser)
    add("--tag", metavar="NAME", help="name of the run's folder, before the time")
    add_export_flags(parser)
    add("--max-minutes", type=number("--max-minutes", 0), metavar="X", help="stop optimising then, and export")
    add("--no-export", action="store_true", help="stop after the optimisation, write no asset")
    add("--config", metavar="FILE", help="a recipe: its name (`dream3d config list`), or a YAML file")
    add("--set", type=assignment, action="append", metavar="KEY=VALUE", help="set any key; --KEY VALUE does the same")
    add_view(parser)
    add("--dry-run", action="store_true", help="print the resolved configuration and stop")
    add_common(parser)
    # What is not given is left to the recipe, which may be that of another run.
    parser.set_defaults(out=None, device=None)


def add_export_flags(parser: Parser) -> None:
    """The flags that say what the asset is like; `export` has them too."""
    group = parser.add_argument_group("asset")
    add = group.add_argument
    add("--faces", type=whole("--faces", 4, 10_000_000), metavar="N", help="triangles at most (default: 20000)")
    add(
        "--texture-size",
        type=whole("--texture-size", 64, 8192),
        metavar="N",
        help="pixels on a side of the textures (default: 1024)",
    )
    add("--iso", type=iso, metavar="X", help="density at which the surface lies, or auto (default: auto)")
    add("--size", type=number("--size", 0.001, 1000), metavar="METRES", help="longest side of the asset")


def iso(text: str) -> float | str:
    """Argument type: a density above 0, or "auto"."""
    if text == "auto":
        return text
    value = number("--iso", 0.0)(text)
    if value == 0:
        raise UsageError("--iso must be more than 0, or auto (got 0).")
    return value


def run(args: argparse.Namespace) -> int:
    check_view(args)
    recipe = _recipe(args)
    require_device(args.device or "auto")
    require_writable(args.out or OUT)

    path = find_recipe(recipe)
    found = overrides(args, read_tree(path))

    from dream3d import config

    pipeline, resolved = config.load(path, found)
    require_device(str(pipeline.device))
    if args.dry_run:
        say(resolved.rstrip())
        return 0
    pipeline.quiet = args.quiet
    with viewing(args, pipeline):
        folder = pipeline.run()
    if args.json:
        files = [str(path) for path in sorted((folder / "export").rglob("*")) if path.is_file()]
        say_json({"run": str(folder), "files": files})
    return 0


def _recipe(args: argparse.Namespace) -> str:
    if args.config is not None:
        if args.quality is not None:
            raise UsageError("--config and --quality exclude each other: both name a recipe.")
        if not Path(args.config).is_file() and args.config not in recipes():
            raise UsageError(f"--config: no file {args.config}. Recipes by name: dream3d config list")
        return args.config
    if args.layout is not None:
        for flag in ("quality", "guidance", "repr"):
            if getattr(args, flag) is not None:
                raise UsageError(f"--layout and --{flag} exclude each other: a layout wants Gaussians and RegionSDS.")
        return LAYOUT
    if args.prompt is None:
        raise UsageError('generate needs a prompt: dream3d generate "a teddy bear"')
    if args.repr in OWN_RECIPES:
        if args.quality is not None:
            raise UsageError(f"--repr {args.repr} and --quality exclude each other: both name a recipe.")
        return OWN_RECIPES[args.repr]
    return RECIPES[args.quality or "standard"]


def require_writable(out: str) -> None:
    """Say now, not after the optimisation, that nothing can be written."""
    nearest = Path(out).expanduser().absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise InputError(f"--out {out}: {nearest} is a file.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: no permission to write in {nearest}.")


def read_tree(path: Path) -> Tree:
    """The recipe as plain values, to see what it picks; what is wrong in it is for `config.load` to say."""
    try:
        return read(path)
    except InputError:
        return {}


def overrides(args: argparse.Namespace, tree: Mapping[str, Any]) -> list[str]:
    """The flags as "a.b=value"; those that the user spelt out in full come last and win."""
    stages = tree.get("stages")
    stages = stages if isinstance(stages, dict) else {}
    found: list[str] = []

    def put(key: str, value: object) -> None:
        # JSON is YAML: a prompt such as "no" or "3: 4" stays text.
        found.append(f"{key}={json.dumps(value, ensure_ascii=False)}")

    for key in ("prompt", "negative", "seed", "device", "out", "tag", "max_minutes"):
        if getattr(args, key) is not None:
            put(key, getattr(args, key))
    if args.layout is not None:
        found += _layout(args, stages)
    if args.steps is not None and stages:
        put(f"stages.{list(stages)[-1]}.steps", args.steps)
    for name, stage in stages.items():
        stage = stage if isinstance(stage, dict) else {}
        changed = _method(args.guidance, stage)
        stages = {**stages, name: {**stage, **changed}}
        for key, value in [*changed.items(), *_stage_choices(args, stages[name]).items()]:
            put(f"stages.{name}.{key}", value)
    for key, value in export_choices(args).items():
        if tree.get("export") is None and "export=" not in "".join(found):
            put("export", "Export")
        put(f"export.{key}", value)
    if args.no_export:
        put("export", None)
    if args.tag is None and "tag" not in tree and stages:
        last = list(stages.values())[-1]
        put("tag", class_of(last, "objective").lower() or "run")
    return [*found, *args.overrides]


def _layout(args: argparse.Namespace, stages: Mapping[str, Any]) -> list[str]:
    """What --layout changes: the parts of all Gaussians that have some, and the prompt where none was given."""
    from dream3d.config import checked
    from dream3d.layouts import Layout, Part, check_parts

    tree = checked(Layout, args.layout)
    found = [] if args.prompt or not tree.get("prompt") else [f"prompt={json.dumps(tree['prompt'])}"]
    changed = False
    for name, stage in stages.items():
        made = spelt_out(stage.get("representation") if isinstance(stage, dict) else None)
        given = made.get("init_args") or {} if isinstance(made, dict) else {}
        if class_of({"made": made}, "made") != "Gaussians" or not given.get("parts"):
            continue
        changed = True
        found.append(f"stages.{name}.representation.parts={json.dumps(tree['parts'])}")
        try:  # now, not when the stage begins
            check_parts({key: Part(**spec["init_args"]) for key, spec in tree["parts"].items()}, given.get("radius", 1))
        except InputError as error:
            raise InputError(f"{args.layout.name}: {error}") from None
    if not changed:
        raise UsageError("--layout: the recipe has no Gaussians with parts; see: dream3d config show compositional")
    return found


def _stage_choices(args: argparse.Namespace, stage: Mapping[str, Any]) -> dict[str, object]:
    """What the flags change in one stage. A class that the recipe picks already keeps the recipe's settings."""
    wanted: dict[str, str] = REPRESENTATIONS[args.repr] if args.repr is not None else {}
    found: dict[str, object] = {key: name for key, name in wanted.items() if class_of(stage, key) != name}
    if args.prior in BUILTINS:
        if class_of(stage, "prior") != BUILTINS[args.prior]:
            found["prior"] = BUILTINS[args.prior]
    elif args.prior is not None:
        from dream3d.priors.hub import opener

        found["prior"] = {"class_path": opener(args.prior), "init_args": {"model": args.prior}}
    objective = stage.get("objective")
    guider = (objective.get("init_args") or {}).get("guider") if isinstance(objective, dict) else None
    if args.negative and isinstance(guider, dict) and class_of({"guider": guider}, "guider") == "CFG":
        found["objective.guider.away"] = "negative"
    return found


def _method(name: str | None, stage: Mapping[str, Any]) -> dict[str, object]:
    """What --guidance changes in one stage: all that belongs to the method is as in its own recipe, where ramps are as
    long as this stage asks. A method that the stage has already keeps the stage's settings."""
    if name is None or class_of(stage, "objective").lower() == name:
        return {}
    theirs = list(read(METHODS[name])["stages"].values())
    at = next(i for i, each in enumerate(theirs) if class_of(each, "objective").lower() == name)
    model, steps = theirs[at], stage.get("steps")
    share = steps / model["steps"] if isinstance(steps, int) else 1.0
    # What only refines an object draws low noise levels; this stage may have to begin with nothing.
    keys = [key for key in METHOD if (key in model or key in stage) and (key != "time" or at == 0)]
    found = {key: _stretched(model.get(key), share) for key in keys}
    # How strong these must be depends on the size of the method's gradients.
    losses = {key: value for key, value in (model.get("regularizers") or {}).items() if key in _losses(stage)}
    if losses:
        found["regularizers"] = {**stage["regularizers"], **_stretched(losses, share)}
    return found


def _losses(stage: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stage's regularizers, by name."""
    there = stage.get("regularizers")
    return there if isinstance(there, dict) else {}


def _stretched(value: Any, share: float) -> Any:
    """A part of a recipe, with ramps for another number of steps."""
    if not isinstance(value, dict):
        return value
    found = {key: _stretched(below, share) for key, below in value.items()}
    if value.get("class_path") in ANNEALED:
        given = found.get("init_args") or {}
        counts = {key: max(1, round(n * share)) for key, n in given.items() if n and key in ("steps", "begin")}
        found["init_args"] = {**given, **counts}
    return found


def class_of(tree: Mapping[str, Any], key: str) -> str:
    """Short name of the class that a recipe picks for a key, or an empty string."""
    value = tree.get(key) if isinstance(tree, dict) else None
    name = value.get("class_path", "") if isinstance(value, dict) else value
    return str(name or "").rpartition(".")[2]


def export_choices(args: argparse.Namespace) -> dict[str, object]:
    """The asset flags that were given, by the names that `Export` has for them."""
    given = {"faces": args.faces, "texture_size": args.texture_size, "size_m": args.size}
    found: dict[str, object] = {key: value for key, value in given.items() if value is not None}
    if args.iso is not None:
        found["iso"] = None if args.iso == "auto" else args.iso
    return found
