"""`dream3d config`: list the recipes, print one to start from, or check one."""

from __future__ import annotations

import argparse
from pathlib import Path

from dream3d.commands.base import Parser, UsageError, add_common, assignment, choice, say, say_json, table
from dream3d.recipes import find_recipe, headline, recipes

ABOUT = "List the recipes, show one with its comments, or check a configuration file."
EXAMPLE = "dream3d config show draft > mine.yaml"

ACTIONS = ("show", "list", "validate")


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    actions = choice("config", ACTIONS)
    add("action", nargs="?", type=actions, default="show", help="show, list or validate (default: show)")
    add("recipe", nargs="?", metavar="RECIPE", help="name of a recipe, or a YAML file (show: default)")
    add("--set", type=assignment, action="append", metavar="KEY=VALUE", help="set any key; --KEY VALUE does the same")
    add("--full", action="store_true", help="show every key with its value, resolved, without comments")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    if args.action == "validate" and args.recipe is None:
        raise UsageError("config validate needs RECIPE, a YAML file. See: dream3d config --help")
    if args.action == "list":
        about = {name: headline(name) for name in recipes()}
        for line in table(list(about.items())):
            say(line)
        if args.json:
            say_json(about)
        return 0
    name = args.recipe or "default"
    if name.endswith((".yaml", ".yml")) and not Path(name).is_file():
        raise UsageError(f"config: no file {name}.")
    path = find_recipe(name)
    if args.action == "show" and not args.full and not args.overrides:
        say(path.read_text(encoding="utf-8").rstrip())
        return 0

    from dream3d import config

    _, resolved = config.load(path, args.overrides)
    if args.action == "show":
        say(resolved.rstrip())
        return 0
    if not args.quiet:
        say(f"{path} is a valid configuration")
    if args.json:
        say_json({"file": str(path), "valid": True})
    return 0
