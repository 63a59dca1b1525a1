"""What is wrong with a run, in words, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable

from dream3d.report.gather import Gathered
from dream3d.report.measured import Edges

EMPTY, FULL = 0.01, 0.9
"""Mean opacity under which nothing, and over which everything is there."""
LOOKS, ALONG = 3, 0.02
"""Looks through the microscope, and the cosine of residual and text under which all of them are worth a word."""
SPIKE = 100
"""Times its median from which a gradient's norm is worth a word."""


def remarks(found: Gathered, edges: Edges | None) -> list[str]:
    """The warnings, the gravest first."""
    parts: list[Callable[[], list[str]]] = [
        lambda: _ending(found),
        lambda: _training(found),
        lambda: _guidance(found),
        lambda: _mesh(found, edges),
        lambda: _judged(found),
        lambda: list(found.left_out),
    ]
    return [line for part in parts for line in part()]


def _ending(found: Gathered) -> list[str]:
    status, reason = found.state.get("status"), found.state.get("reason")
    if status in ("failed", "interrupted"):
        return [f"the run {'failed' if status == 'failed' else 'was interrupted'}: {reason or 'no reason was noted'}"]
    return []


def _training(found: Gathered) -> list[str]:
    curves, told = found.curves, []
    opacity = [(s, v) for s, v in zip(curves.step, curves.series.get("opacity", []), strict=False) if v is not None]
    low = next((step for step, value in opacity if value < EMPTY), None)
    if low is not None:
        end = " and came back" if opacity[-1][1] >= EMPTY else ": the field is empty; lower the sparsity or the rate"
        told.append(f"opacity fell under 1 % at step {low}{end}.")
    if opacity and opacity[-1][1] > FULL and found.asset_path:
        told.append(f"opacity ends at {opacity[-1][1]:.0%}: the object fills the picture; raise the sparsity.")
    for name in ("loss", "grad_norm"):
        values = curves.series.get(name, [])
        holes = [step for step, value in zip(curves.step, values, strict=False) if value is None]
        if holes and len(holes) < len(values):
            more = f" and {len(holes) - 1} more" if holes[1:] else ""
            told.append(f"{name} was not finite at step {holes[0]}{more}.")
    norms = sorted(v for v in curves.series.get("grad_norm", []) if v)
    if norms and norms[-1] > SPIKE * norms[len(norms) // 2]:
        told.append(f"the gradient's norm rose to {norms[-1]:.3g}, {norms[-1] / norms[len(norms) // 2]:.0f} times its "
                    "median: a smaller clip or learning rate steadies it.")  # fmt: skip
    return told


def _guidance(found: Gathered) -> list[str]:
    told = [f"the microscope saw nothing at step {r['step']}: {r['reason']}" for r in found.microscope if "reason" in r]
    cosines = [r["cosines"].get("residual · text") for r in found.microscope if isinstance(r.get("cosines"), dict)]
    # Descent along the residual follows the prediction, so a prompt that is heeded gives the two one direction.
    if len(cosines) >= LOOKS and all(value is not None and value < ALONG for value in cosines):
        told.append("at no look does the residual point along the text's direction: the prompt has hardly a say.")
    return told[:3]


def _mesh(found: Gathered, edges: Edges | None) -> list[str]:
    checks, told = found.checks, []
    if edges is not None and edges.holes:
        told.append(f"the surface has {edges.holes} hole{'s' if edges.holes > 1 else ''}.")
    elif checks.get("watertight") is False:
        told.append("the surface is not watertight.")
    if edges is not None and edges.crowded:
        told.append(f"{edges.crowded} edges have more than two faces: slicers and booleans may stumble over them.")
    if (checks.get("components") or 0) > 1:
        told.append(f"the surface is in {checks['components']} pieces.")
    use = checks.get("uv_use")
    if isinstance(use, float) and use < 0.2:
        told.append(f"the UV atlas uses {use:.0%} of its texture: its charts are small; fewer faces use it better.")
    issues = found.validator.get("issues")
    if isinstance(issues, dict) and issues.get("numErrors"):
        told.append(f"the glTF validator finds {issues['numErrors']} errors.")
    return told


def _judged(found: Gathered) -> list[str]:
    told = []
    for verdict in found.judged.get("assets") or []:
        if verdict.get("janus"):
            told.append("the judge sees more than one front (Janus): try a multi-view prior or the Perp-Neg recipe.")
        if verdict.get("top1") == 0:
            told.append(f"the judge recognises the prompt from no side; it looks like {verdict.get('looks_like')}.")
    return told
