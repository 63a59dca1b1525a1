"""Several runs side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dream3d.checks import InputError
from dream3d.evaluation.judge import Judge, TrainedJudge
from dream3d.report.elements import Markup, joined, page, pairs, section, tag
from dream3d.report.gather import Gathered
from dream3d.report.sections import (
    GENERATOR,
    Shown,
    canvas,
    chart,
    controls,
    facts,
    film,
    image,
    mesh_facts,
    strip,
    warnings,
)
from dream3d.runs import RunFolder, write_atomically


def write_comparison(runs: Sequence[RunFolder], path: Path, *, judge: Judge | None = None) -> Path:
    """Runs side by side on one page: all 3D views share a camera, all charts an axis, and what differs is marked.

    Args:
        runs: two or more.
        path: of the page.
        judge: as in `write_report`.

    Raises:
        InputError: fewer than two runs.
        RunFolderError: a run.json is missing or damaged.
    """
    if len(runs) < 2:
        raise InputError(f"compare: expected two or more runs, got {len(runs)}.")
    judge = judge or TrainedJudge()
    shown = [Shown(run, judge) for run in runs]
    labels = [f"{i}: {_label(one.found)}" for i, one in enumerate(shown, start=1)]
    columns = [_column(one, label, f"asset-{i}") for i, (one, label) in enumerate(zip(shown, labels, strict=True))]
    series = [one.series() for one in shown]
    names = dict.fromkeys(name for lines in series for name in lines)
    charts = [
        chart("metrics", n, [{"label": label, **s[n]} for label, s in zip(labels, series, strict=True) if n in s])
        for n in names
    ]
    assets = {f"asset-{i}": one.found.asset for i, one in enumerate(shown) if one.found.asset}
    body = joined([
        tag("header", tag("h1", f"{len(runs)} runs"), controls() if assets else None),
        tag("div", columns, class_="compare"),
        section("Curves", tag("div", class_="charts", data_charts="metrics") if charts else None),
        section("What differs", _differences(shown, labels)),
    ])  # fmt: skip
    text = page(f"{len(runs)} runs · dream3d", tag("main", body, class_="wide"), charts, assets, GENERATOR)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return path


def _label(found: Gathered) -> str:
    state = found.state
    return f"{found.path.name.partition('@')[0]}, {state.get('prompt', found.name)}, seed {state.get('seed', '?')}"


def _column(one: Shown, label: str, asset: str) -> Markup:
    found = one.found
    return tag(
        "section",
        tag("h2", label),
        tag("div", canvas(asset), class_="viewer") if found.asset else tag("p", "no mesh", class_="note"),
        tag("div", [tag("figure", image(p, s), tag("figcaption", s)) for s, p in found.views.items()], class_="quad"),
        film(found),
        strip(found),
        pairs([*facts(found), *mesh_facts(one)]),
        warnings(one),
    )


def _differences(shown: Sequence[Shown], labels: Sequence[str]) -> Markup | None:
    """A row for each key of the configurations whose values are not all the same."""
    flat = [flattened(one.found.config) for one in shown]
    keys = dict.fromkeys(key for tree in flat for key in tree)
    rows = [
        tag("tr", tag("th", key), [tag("td", tree.get(key, "–")) for tree in flat])
        for key in keys
        if len({tree.get(key) for tree in flat}) > 1 and key != "out"
    ]
    return tag("table", tag("tr", tag("th", ""), [tag("th", x) for x in labels]), rows) if rows else None


def flattened(tree: object, at: str = "") -> dict[str, str]:
    """Keys joined by dots, as on the command line; lists are one value."""
    if not isinstance(tree, dict):
        return {at: json.dumps(tree, ensure_ascii=False, default=str)}
    found: dict[str, str] = {}
    for key, value in tree.items():
        place = at if key == "init_args" else f"{at}.{key}" if at else str(key)
        found |= flattened(value, place.removesuffix(".class_path"))
    return found
