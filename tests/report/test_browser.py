"""The pages in headless Chromium without a network: no error, nothing fetched, buttons and 3D view do what they say."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dream3d.evaluation.judge import Judge
from dream3d.report import write_comparison, write_report

from .conftest import make

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader --enable-logging=stderr "
    "--virtual-time-budget=15000 --window-size=1280,900 --dump-dom"
).split()

# Runs in the page, behind its own script; what it notes comes back with the page's text.
DRIVER = """
<script>
addEventListener("error", (e) => faults.push(e.message));
addEventListener("securitypolicyviolation", (e) => faults.push(`${e.violatedDirective} ${e.blockedURI}`));
const told = { changed: {} };
const drive = async () => {
  const views = [...document.querySelectorAll("canvas[data-asset]")];
  for (let i = 0; i < 200 && stage.views.length < views.length; i++) await new Promise((go) => setTimeout(go, 20));
  told.views = stage.views.length;
  // Time is virtual here and frames are rare: paint without waiting for one.
  const look = () => { stage.paint(performance.now()); return views.map((canvas) => canvas.toDataURL()); };
  const azimuth = stage.camera.azimuth;
  stage.spinning = true;
  stage.paint(1000);
  stage.paint(1050);
  told.turned = stage.camera.azimuth - azimuth;
  stage.rest();
  let before = look();
  const probe = views[0].getContext("2d").getImageData(0, 0, views[0].width, views[0].height).data;
  told.covered = probe.filter((a, i) => i % 4 === 3 && a > 0).length / (probe.length / 4);
  const step = (name, act) => {
    act();
    const after = look();
    told.changed[name] = after.every((picture, i) => picture !== before[i]);
    before = after;
  };
  step("side", () => document.querySelector('[data-side="90"]').click());
  told.azimuth = stage.camera.azimuth;
  const mode = (name) => [...document.querySelectorAll("[data-mode] button")].find((b) => b.textContent === name);
  for (const name of MODES.slice(1)) step(name, () => mode(name).click());
  step("wireframe", () => document.querySelector("[data-wire]").click());
  step("lit", () => mode("lit").click());
  const light = document.querySelector("[data-light]");
  step("light", () => { light.value = "behind"; light.dispatchEvent(new Event("change")); });
  step("wheel", () => views[0].dispatchEvent(new WheelEvent("wheel", { deltaY: 300, cancelable: true })));
  step("key", () => views[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" })));
  step("reset", () => document.querySelector("[data-home]").click());
  const home = document.querySelector('[data-charts="metrics"]'), canvas = home.querySelector("canvas");
  const drawn = (name, act) => {
    const old = canvas.toDataURL();
    act();
    told.changed[name] = canvas.toDataURL() !== old;
  };
  const box = canvas.getBoundingClientRect();
  const point = (kind, share) => canvas.dispatchEvent(new PointerEvent(kind, {
    clientX: box.left + share * box.width, clientY: box.top + 20, pointerId: 1, bubbles: true }));
  canvas.setPointerCapture = () => {};
  drawn("log", () => home.querySelector("figcaption button").click());
  drawn("hover", () => point("pointermove", 0.5));
  told.reading = home.querySelector(".legend span").textContent;
  drawn("zoom", () => { point("pointerdown", 0.3); point("pointermove", 0.6); point("pointerup", 0.6); });
  told.range = home.charts.range;
  drawn("unzoom", () => canvas.dispatchEvent(new MouseEvent("dblclick")));
  drawn("hide", () => home.querySelector(".legend").querySelectorAll("button").forEach((b) => b.click()));
};
const report = () => {
  told.faults = faults;
  const note = document.createElement("pre");
  note.id = "told";
  note.textContent = JSON.stringify(told);
  document.body.append(note);
};
drive().catch((e) => faults.push(`${e.stack}`)).then(report);
setTimeout(() => { if (!document.getElementById("told")) { faults.push("out of time"); report(); } }, 14000);
</script>
</body>"""


def opened(page: Path, folder: Path) -> dict[str, Any]:
    """What the driver noted, and the browser's console."""
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip("no Chromium here; name one in CHROMIUM")
    driven = folder / "driven.html"
    driven.write_text(page.read_text(encoding="utf-8").replace("</body>", DRIVER), encoding="utf-8")
    words = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run([*words, driven.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert found, (console, done.stderr[-2000:])
    return {**json.loads(html.unescape(found[1])), "console": console}


@pytest.mark.parametrize("runs", [1, 2])
def test_the_page_works(runs: int, tmp_path: Path, reading_judge: Judge) -> None:
    made = [make(tmp_path / "outputs", prompt="a red chair", scale=5.0 + i, lid=bool(i)) for i in range(runs)]
    path = tmp_path / "compare.html"
    page = (
        write_report(made[0], judge=reading_judge) if runs == 1 else write_comparison(made, path, judge=reading_judge)
    )
    told = opened(page, tmp_path)
    assert told["faults"] == [] and told["console"] == []
    assert told["views"] == runs and told["turned"] > 0 and 0.05 < told["covered"] < 0.9
    assert told["azimuth"] == pytest.approx(1.5708, abs=1e-3)
    assert [name for name, changed in told["changed"].items() if not changed] == []
    assert re.fullmatch(r"[\d.]+ @ \d+|– @ \d+", told["reading"])
    assert 0 < told["range"][0] < told["range"][1] < 30
