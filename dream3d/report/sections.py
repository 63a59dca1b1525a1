"""What the pages share: a run with what follows from it, and its parts as markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dream3d import __version__
from dream3d.checks import InputError, MissingError
from dream3d.evaluation.judge import Judge
from dream3d.report.elements import Markup, joined, tag
from dream3d.report.gather import SIDES, Gathered, gather
from dream3d.report.measured import Edges, edges_of, matcher_curve
from dream3d.report.remarks import remarks
from dream3d.runs import RunFolder

GENERATOR = f"dream3d {__version__}"
FIRST = ("loss", "opacity", "grad_norm", "matcher", "matched views", "t")
"""Curves that come before the others."""
AZIMUTHS = (0, 90, 180, 270)

Line = dict[str, Any]


class Shown:
    """A run with what follows from it.

    Args:
        run: its folder.
        judge: who looks at the previews; None for nobody.
    """

    def __init__(self, run: RunFolder, judge: Judge | None) -> None:
        self.found: Gathered = gather(run)
        self.edges: Edges | None = edges_of(self.found)
        self.matched: Mapping[int, tuple[float, float]] = {}
        if judge is not None:
            try:
                self.matched = matcher_curve(self.found, judge)
            except (InputError, MissingError) as error:
                self.found.left_out.append(f"no matcher curve: {error}")

    def series(self) -> dict[str, Line]:
        """Curves by their names, each with x and y."""
        curves = self.found.curves
        lines = {name: {"x": curves.step, "y": values} for name, values in curves.series.items()}
        for i, name in enumerate(("matcher", "matched views")):
            if self.matched:
                lines[name] = {"x": list(self.matched), "y": [pair[i] for pair in self.matched.values()]}
        order = {name: i for i, name in enumerate(FIRST)}
        return dict(sorted(lines.items(), key=lambda item: order.get(item[0], len(order))))


def facts(found: Gathered) -> list[tuple[str, object]]:
    state = found.state
    steps, forwards = state.get("steps"), state.get("forwards_per_step")
    seconds, memory = state.get("seconds"), state.get("peak_memory_gb")
    versions = state.get("versions")
    return [
        ("negative", state.get("negative")),
        ("seed", state.get("seed")),
        ("objective", _classes(found, "objective")),
        ("representation", _classes(found, "representation")),
        ("prior", "; ".join(f"{p['name']} ({p['licence']})" for p in found.priors) or _classes(found, "prior")),
        ("steps", _counts(steps)),
        ("predictions a step", _counts(forwards)),
        ("time", duration(seconds) if isinstance(seconds, (int, float)) else None),
        ("peak memory", f"{memory:.2f} GB" if isinstance(memory, (int, float)) else None),
        ("device", " · ".join(filter(None, [str(state.get("device", "")), str(state.get("kernels", ""))]))),
        ("started", state.get("started")),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else None),
    ]


def _counts(value: object) -> str:
    if not isinstance(value, dict):
        return "" if value is None else str(value)
    return ", ".join(f"{name} {count:g}" for name, count in value.items())


def duration(seconds: float) -> str:
    """2 h 05 min, 2 min 29 s, 8.1 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {left} s"


def _classes(found: Gathered, part: str) -> str:
    """Short names of what the stages pick, each once."""
    return ", ".join(dict.fromkeys(filter(None, (picked(stage.get(part)) for stage in found.stages.values()))))


def picked(value: object) -> str:
    """Short name of the class that a configuration's value names; empty for None."""
    if isinstance(value, dict):
        value = value.get("class_path", "")
    return str(value or "").rpartition(".")[2]


def image(uri: str, alt: str) -> Markup:
    return tag("img", src=uri, alt=alt, loading="lazy")


def film(found: Gathered) -> Markup | None:
    if not found.turntable:
        return None
    how = {"autoplay": True, "loop": True, "muted": True, "playsinline": True, "controls": True}
    return tag("video", src=found.turntable, data_turntable=True, **how)


def controls() -> Markup:
    sides = [tag("button", name, data_side=angle) for name, angle in zip(SIDES, AZIMUTHS, strict=True)]
    return joined([
        tag("div", data_mode=True, class_="bar"),
        tag(
            "div", tag("label", "light ", tag("select", data_light=True)),
            tag("label", tag("input", type="checkbox", data_wire=True), " wireframe"),
            tag("label", tag("input", type="checkbox", data_spin=True), " turn"),
            sides, tag("button", "reset", data_home=True), class_="bar",
        ),
    ])  # fmt: skip


def canvas(asset: str) -> Markup:
    return tag("canvas", data_asset=asset, tabindex=0, role="img", aria_label="3D view: drag to turn, wheel to zoom")


def mesh_facts(shown: Shown) -> list[tuple[str, object]]:
    checks, edges = shown.found.checks, shown.edges
    size = checks.get("size")
    textures = checks.get("textures") or {}
    splats = checks.get("splats") if isinstance(checks.get("splats"), dict) else {}
    use = checks.get("uv_use")
    return [
        ("faces", _grouped(checks.get("faces"))),
        ("vertices", _grouped(checks.get("vertices"))),
        ("components", checks.get("components")),
        ("holes", edges.holes if edges else None),
        ("watertight", yes(checks.get("watertight"))),
        ("manifold", yes(checks.get("manifold"))),
        ("UV use", f"{use:.0%}" if isinstance(use, (int, float)) else None),
        ("size", " × ".join(f"{x:.3g}" for x in size) + " m" if isinstance(size, list) else None),
        ("textures", ", ".join(f"{name} {shape[1]} × {shape[0]}" for name, shape in textures.items())),
        ("Gaussians", _grouped((splats or {}).get("gaussians"))),
        ("files", ", ".join(f"{k} {v / 1e6:.2f} MB" for k, v in (checks.get("bytes") or {}).items())),
    ]  # fmt: skip


def _grouped(value: object) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def yes(value: object) -> str | None:
    return None if value is None else "yes" if value else "no"


def strip(found: Gathered) -> Markup | None:
    """The previews in a row."""
    figures = [tag("figure", image(p, f"step {s}"), tag("figcaption", f"step {s}")) for s, p in found.progress]
    return tag("div", figures, class_="strip") if figures else None


def warnings(shown: Shown) -> Markup | None:
    """The remarks as a list."""
    told = remarks(shown.found, shown.edges)
    return tag("ul", [tag("li", line) for line in told], class_="warnings") if told else None


def chart(group: str, title: str, lines: Sequence[Line]) -> dict[str, Any]:
    """What `curves.js` draws in the element of this group."""
    return {"group": group, "title": title, "lines": list(lines)}
