"""The report of one run."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dream3d.evaluation.judge import Judge, TrainedJudge
from dream3d.report.elements import Markup, joined, page, pairs, section, tag
from dream3d.report.gather import Gathered
from dream3d.report.measured import view_prompts
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
    picked,
    strip,
    warnings,
    yes,
)
from dream3d.runs import RunFolder, write_atomically

REPORT = "report.html"
PARTS = ("representation", "renderer", "prior", "objective", "time", "cameras", "noise", "optimizer", "post")


def write_report(run: RunFolder, *, judge: Judge | None = None) -> Path:
    """Make the run's report.html anew; the same folder gives the same bytes.

    Args:
        run: finished or not.
        judge: whose opinion of the previews becomes a curve; None takes the packaged one.

    Raises:
        RunFolderError: run.json is missing or damaged.
    """
    shown = Shown(run, judge or TrainedJudge())
    found = shown.found
    body = joined([_head(shown), _sides(found), _viewer(shown, "asset-0"), *_sections(shown)])
    assets = {"asset-0": found.asset} if found.asset else {}
    prompt = str(found.state.get("prompt", found.name))
    text = page(f"{prompt} · dream3d", tag("main", body), _charts(shown), assets, GENERATOR)
    write_atomically(run.path / REPORT, text)
    return run.path / REPORT


def _sections(shown: Shown) -> list[Markup | None]:
    found = shown.found
    maps = [tag("figure", image(p, name), tag("figcaption", name)) for name, p in found.maps.items()]
    looks = [_look(record) for record in found.microscope]
    config = found.config_text and tag("details", tag("summary", "config.yaml"), tag("pre", found.config_text))
    return [
        section("Progress", strip(found)),
        section("Curves", tag("div", class_="charts", data_charts="metrics") if shown.series() else None),
        section(
            "Guidance microscope",
            tag("p", LOOK, class_="note") if looks else None,
            tag("div", class_="charts", data_charts="microscope") if looks else None,
            looks,
        ),
        section("Material", tag("div", maps, class_="row maps") if maps else None),
        section("Judge", _verdict(found.judged)),
        section("glTF validator", _validator(found.validator)),
        section("Recipe", _recipe(found), config),
        section("Repeat it", _repeat(found)),
    ]  # fmt: skip


LOOK = (
    "The same cameras and the same noise each time; only t follows the run. Clean pictures are what the prior believes "
    "behind the noise, without and with guidance; the gradient is w(t) times the residual, bright where it is long."
)


def _sides(found: Gathered) -> Markup | None:
    told = view_prompts(str(found.state.get("prompt", ""))) if found.views else {}
    views = [
        tag("figure", image(uri, side), tag("figcaption", tag("b", side), ": ", told.get(side, "")))
        for side, uri in found.views.items()
    ]
    turning = film(found)
    others = [tag("figure", image(uri, name), tag("figcaption", name)) for name, uri in found.others]
    shown = [*views, turning and tag("figure", turning, tag("figcaption", tag("b", "turntable"))), *others]
    return section("Four sides", tag("div", shown, class_="row views") if any(shown) else None)


def _viewer(shown: Shown, asset: str) -> Markup | None:
    known = pairs(mesh_facts(shown))
    view = tag("div", canvas(asset), controls(), class_="viewer") if shown.found.asset else None
    if view is None and known is None:
        return None
    missing = tag("p", "There is no mesh to turn.", class_="note")
    return section("Asset", tag("div", view or missing, tag("div", known), class_="two"))


def _look(record: Mapping[str, Any]) -> Markup:
    title = f"{record.get('stage', '')} · step {record.get('step', '')}"
    if "reason" in record:
        return tag("figure", tag("h3", title), tag("p", record["reason"], class_="note"), class_="microscope")
    levels = ", ".join(f"{t:.3f}" for t in record.get("t", []))
    kinds = (("norm of", "norms"), ("cosine of", "cosines"))
    numbers = [(f"{kind} {name} ", value) for kind, key in kinds for name, value in record.get(key, {}).items()]
    return tag(
        "figure",
        tag("h3", f"{title} · t = {levels}"),
        tag("div", [tag("span", name) for name in record.get("tiles", [])], class_="tiles"),
        image(record["picture"], title) if record.get("picture") else None,
        tag("p", [tag("span", name, tag("b", _short(value)), " ") for name, value in numbers], class_="numbers"),
        class_="microscope",
    )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) and math.isfinite(value) else "–"


def _head(shown: Shown) -> Markup:
    state, found = shown.found.state, shown.found
    status = str(state.get("status", "unknown"))
    return tag(
        "header",
        tag("h1", state.get("prompt", found.name)),
        tag("p", tag("span", status, class_="status" if status == "done" else "status bad"), " ", found.name),
        pairs(facts(found)),
        warnings(shown),
    )


def _verdict(judged: Mapping[str, Any]) -> Markup | None:
    keys = ("judged_as", "looks_like", "top1", "top5", "similarity", "janus", "view_error_deg", "color")
    return joined([
        pairs([(key.replace("_", " "), yes(v) if isinstance(v := verdict.get(key), bool) else v) for key in keys])
        for verdict in judged.get("assets") or []
    ]) or None  # fmt: skip


def _validator(report: Mapping[str, Any]) -> Markup | None:
    issues = report.get("issues")
    if not isinstance(issues, dict):
        return None
    rows = [(kind, str(issues.get(f"num{kind.title()}", 0))) for kind in ("errors", "warnings", "infos")]
    messages = issues.get("messages") or []
    lines = [tag("li", f"{m.get('code')} {m.get('pointer', '')}: {m.get('message')}") for m in messages[:20]]
    return joined([pairs(rows), tag("ul", lines) if lines else None])


def _recipe(found: Gathered) -> Markup | None:
    if not found.stages:
        return None
    head = tag("tr", tag("th", ""), [tag("th", name) for name in found.stages])
    rows = [
        tag("tr", tag("th", part), [tag("td", picked(stage.get(part)) or "–") for stage in found.stages.values()])
        for part in PARTS
    ]
    return tag("table", head, rows)


def _repeat(found: Gathered) -> Markup | None:
    config = shlex.quote("/".join([*found.path.parts[-3:], "config.yaml"]))
    lines = [found.command, f"dream3d generate --config {config}" if found.config else ""]
    text = "\n".join(dict.fromkeys(filter(None, lines)))
    return joined([tag("pre", text, id="command"), tag("button", "copy", data_copy="command")]) if text else None


def _charts(shown: Shown) -> list[dict[str, Any]]:
    charts = [chart("metrics", name, [{"label": name, **line}]) for name, line in shown.series().items()]
    records = [r for r in shown.found.microscope if "reason" not in r]
    steps = [r.get("step", 0) for r in records]
    for title, key in (("norms of the terms", "norms"), ("cosines between the terms", "cosines")):
        names = dict.fromkeys(name for r in records for name in r.get(key, {}))
        lines = [{"label": name, "x": steps, "y": [r.get(key, {}).get(name) for r in records]} for name in names]
        charts += [chart("microscope", title, lines)] if lines else []
    return charts
