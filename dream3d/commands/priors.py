"""`dream3d priors`: which diffusion priors are known, under which licence, and which of them are here."""

from __future__ import annotations

import argparse
from pathlib import Path

from dream3d.commands.base import Parser, add_common, say, say_json, size_of, table

ABOUT = "List the diffusion priors: names for --prior, licences, and whether they are on this machine."
EXAMPLE = "dream3d priors"

WEIGHTS = Path(__file__).parents[1] / "priors" / "weights"
"""Where the package's own priors are, each in the folder of its name; spelt here because their modules load torch."""

BUILTIN = {
    "builtin": ("the built-in prior", "64", "small, knows some 120 objects; the default"),
    "builtin-mv": ("the built-in prior, four views at once", "64", "the views of an object agree"),
    "builtin-latent": ("the built-in prior of latents", "128", "twice the resolution"),
}
"""Title, pixels and note of each."""


def add_arguments(parser: Parser) -> None:
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    rows = found()
    if not args.quiet:
        heads = ("--prior", "what", "pixels", "licence", "here", "note")
        lines = [heads, *((r["id"], r["title"], r["pixels"], r["licence"], r["here"], r["note"]) for r in rows)]
        for line in table(lines):
            say(line)
        from dream3d.priors.known import OPENS

        say(f"\nAny other folder or hub id in diffusers format works too, of these pipelines: {', '.join(OPENS)}.")
    if args.json:
        say_json(rows)
    return 0


def found() -> list[dict[str, str]]:
    """One row a prior, the built-in ones first."""
    from dream3d.priors.known import KNOWN, cached

    rows = []
    for name, (title, pixels, note) in BUILTIN.items():
        folder = WEIGHTS / name
        here = f"in the package, {size_of(_bytes(folder))}" if folder.is_dir() else "missing: reinstall dream3d"
        rows.append(_row(name, title, pixels, "Apache-2.0", here, note))
    for known in KNOWN.values():
        folder = cached(known.model)
        if known.state == "removed" and folder is None:
            here, note = f"removed by its owner in {known.removed}", f"same weights: {known.instead}"
        else:
            here = f"cached, {size_of(_bytes(folder))}" if folder else "not here"
            note = "this version cannot open it yet" if known.state == "later" else known.note
        rows.append(_row(known.model, known.title, str(known.resolution), known.licence, here, note))
    return rows


def _row(model: str, title: str, pixels: str, licence: str, here: str, note: str) -> dict[str, str]:
    return {"id": model, "title": title, "pixels": pixels, "licence": licence, "here": here, "note": note}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
