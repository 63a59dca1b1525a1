"""What a page shows of one run, read from its folder. Whatever is missing or too large is left out and said."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dream3d.checks import InputError
from dream3d.evaluation.assets import read_extras
from dream3d.recipes import parsed
from dream3d.runs import RunFolder

Json = dict[str, Any]

SIDES = ("front", "left", "back", "right")
PIXELS = 512
"""Larger pictures are shown smaller."""
STRIP = 24
"""Previews and looks through the microscope at most, evenly chosen."""
POINTS = 1500
"""Of a curve, at most."""
LARGEST = 24_000_000
"""Bytes of a film or an asset that still goes into the page."""
LARGEST_TEXT = 64_000_000
MAPS = ("basecolor", "normal", "occlusion", "roughness", "metallic")


@dataclass(frozen=True)
class Curves:
    """metrics.csv by columns.

    Attributes:
        stage: of each row.
        step: counted through all stages.
        series: values of each other column; None where the file has none.
    """

    stage: list[str] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    series: dict[str, list[float | None]] = field(default_factory=dict)


@dataclass
class Gathered:
    """One run. Pictures, films and assets are data URIs or base64.

    Attributes:
        path: of the run's folder.
        state: run.json.
        config: config.yaml's keys; empty where it cannot be read.
        config_text: the file.
        command: command.txt.
        priors: name and licence of each.
        curves: metrics.csv.
        views: picture of each side of `SIDES` that there is.
        others: title and picture of what an image plane left.
        turntable: film.
        progress: step and picture.
        microscope: the records of `Microscope`, each with its "picture".
        maps: picture of each of `MAPS` that there is.
        checks: export/check.json.
        judged: evaluation.json.
        validator: the report of Khronos' glTF validator, where somebody put it beside the asset.
        asset: GLB as base64; empty without one.
        asset_path: of the GLB; None without one.
        left_out: in words.
    """

    path: Path
    state: Json
    config: Json = field(default_factory=dict)
    config_text: str = ""
    command: str = ""
    priors: list[dict[str, str]] = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)
    views: dict[str, str] = field(default_factory=dict)
    others: list[tuple[str, str]] = field(default_factory=list)
    turntable: str = ""
    progress: list[tuple[int, str]] = field(default_factory=list)
    microscope: list[Json] = field(default_factory=list)
    maps: dict[str, str] = field(default_factory=dict)
    checks: Json = field(default_factory=dict)
    judged: Json = field(default_factory=dict)
    validator: Json = field(default_factory=dict)
    asset: str = ""
    asset_path: Path | None = None
    left_out: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's two last parts: prompt and time."""
        return "/".join(self.path.parts[-2:])

    @property
    def stages(self) -> dict[str, Json]:
        stages = self.config.get("stages")
        return {str(k): v for k, v in stages.items() if isinstance(v, dict)} if isinstance(stages, dict) else {}


def gather(run: RunFolder) -> Gathered:
    """Read the run's folder.

    Raises:
        RunFolderError: run.json is damaged. Everything else may be missing.
    """
    found = Gathered(run.path, run.state())
    _texts(found, run)
    found.curves = read_curves(run.path / "metrics.csv")
    found.views = {side: p for side in SIDES if (p := picture(run.final / f"{side}.png"))}
    found.others = [(path.name, p) for path in sorted(run.export.glob("*.png"))[:STRIP] if (p := picture(path))]
    found.turntable = _film(run.final / "turntable.mp4", found.left_out)
    previews = chosen(sorted(run.progress.glob("step*.jpg")))
    found.progress = [(step_of(path), p) for path in previews if (p := picture(path))]
    for path in chosen(sorted((run.path / "save" / "microscope").glob("step*.json"))):
        record = read_json(path)
        if record:
            found.microscope.append({**record, "picture": picture(path.with_suffix(".jpg"), pixels=2 * PIXELS)})
    found.maps = _maps(run.export / "textures")
    found.checks, found.judged = read_json(run.export / "check.json"), read_json(run.path / "evaluation.json")
    reports = (read_json(path) for path in sorted(run.export.glob("*validator*.json")))
    found.validator = next(filter(None, reports), {})
    _asset(found, run)
    return found


def _texts(found: Gathered, run: RunFolder) -> None:
    try:
        found.config, found.config_text = parsed(run.config) if _fits(run.config, LARGEST_TEXT) else ({}, "")
    except InputError as error:
        found.left_out.append(str(error))
    command = run.path / "command.txt"
    if _fits(command, LARGEST_TEXT):
        found.command = command.read_text(encoding="utf-8", errors="replace").strip()


def _asset(found: Gathered, run: RunFolder) -> None:
    meshes = [path for path in sorted(run.export.glob("*.glb")) if not path.name.endswith(".splats.glb")]
    priors = found.state.get("priors")
    if meshes:
        found.asset_path = meshes[0]
        priors = priors or read_extras(meshes[0]).get("priors")
        size = meshes[0].stat().st_size
        if size <= LARGEST:
            found.asset = base64.b64encode(meshes[0].read_bytes()).decode()
        else:
            found.left_out.append(f"{meshes[0].name} has {size / 1e6:.0f} MB: too large for a page, so no 3D view.")
    if isinstance(priors, list):
        found.priors = [{k: str(p.get(k, "")) for k in ("name", "licence")} for p in priors if isinstance(p, dict)]


def read_json(path: Path) -> Json:
    """The file's object; empty where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if _fits(path, LARGEST_TEXT) else {}
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_curves(path: Path) -> Curves:
    """metrics.csv by columns, thinned to `POINTS` rows. A step that was repeated after a resume counts once, the last
    time."""
    if not _fits(path, LARGEST_TEXT):
        return Curves()
    with path.open(encoding="utf-8", newline="", errors="replace") as file:
        table = list(csv.DictReader(file))
    rows: dict[tuple[str, int], Mapping[str, str]] = {}
    stages: dict[str, int] = {}
    for row in table:
        step = number(row.get("step"))
        if step is not None:
            stage = row.get("stage") or ""
            rows[stage, int(step)] = row
            stages[stage] = max(stages.get(stage, 0), int(step))
    starts, before = {}, 0
    for stage, steps in stages.items():
        starts[stage], before = before, before + steps
    ordered = sorted(rows, key=lambda key: starts[key[0]] + key[1])
    kept = chosen(ordered, POINTS)
    names = [name for name in (table[0] if table else ()) if name not in ("stage", "step", None)]
    return Curves(
        [stage for stage, _ in kept],
        [starts[stage] + step for stage, step in kept],
        {name: [number(rows[key].get(name)) for key in kept] for name in names},
    )


def number(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def chosen(items: Sequence[Any], most: int = STRIP) -> list[Any]:
    """At most so many, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def step_of(path: Path) -> int:
    """Of "step000100.jpg"; 0 where the name says nothing."""
    digits = path.stem.removeprefix("step")
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def picture(path: Path, *, pixels: int = PIXELS) -> str:
    """A picture as data URI: its own bytes, or smaller where a side is longer than `pixels`; empty without one."""
    from PIL import Image

    if not _fits(path, LARGEST_TEXT):
        return ""
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = image.format
            if kind in ("PNG", "JPEG") and (max(image.size) <= pixels or path.parent.name == "progress"):
                return data_uri(data, f"image/{kind.lower()}")
            image.thumbnail((pixels, pixels))
            return _jpeg(image)
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""


def _jpeg(image: Any) -> str:
    data = io.BytesIO()
    image.convert("RGB").save(data, format="JPEG", quality=88)
    return data_uri(data.getvalue(), "image/jpeg")


def _maps(folder: Path) -> dict[str, str]:
    """The material's maps, the packed one taken apart."""
    from PIL import Image

    found = {name: picture(folder / f"{name}.png", pixels=PIXELS // 2) for name in ("basecolor", "normal")}
    try:
        with Image.open(folder / "orm.png") as image:
            image.thumbnail((PIXELS // 2, PIXELS // 2))
            channels = image.convert("RGB").split()
        found |= {name: _jpeg(channel) for name, channel in zip(MAPS[2:], channels, strict=True)}
    except (OSError, ValueError, Image.DecompressionBombError):
        pass
    return {name: found[name] for name in MAPS if found.get(name)}


def _film(path: Path, left_out: list[str]) -> str:
    if not path.is_file():
        return ""
    if not _fits(path, LARGEST):
        left_out.append(f"{path.name} has {path.stat().st_size / 1e6:.0f} MB: too large for a page.")
        return ""
    return data_uri(path.read_bytes(), "video/mp4")


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _fits(path: Path, most: int) -> bool:
    return path.is_file() and path.stat().st_size <= most
