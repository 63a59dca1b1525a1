"""The page in headless Chromium without a network: it shows a run of another process, and its buttons drive it."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dream3d.checks import RunFolderError
from dream3d.renderers import March
from dream3d.runs import RunFolder, find
from dream3d.splat_files import write_splats
from dream3d.viewer import Viewer
from tests.tiny_runs import small_field

from .test_models import some_splats

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader --disable-background-networking "
    "--window-size=1280,900 --remote-debugging-port=0"
).split()
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
RUN = """
import sys
from pathlib import Path
from tests.tiny_runs import pipeline, small_export, stage
pipeline(Path(sys.argv[1]), stages={"nerf": stage(steps=100000)}, export=small_export(), preview_every=10).run()
"""


class Browser:
    """Chromium, driven by its debugging protocol.

    Args:
        folder: for its profile.
    """

    def __init__(self, folder: Path) -> None:
        from websockets.sync.client import connect

        program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.skip("no Chromium here; name one in CHROMIUM")
        words = [program, *FLAGS, OFFLINE, f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = until(lambda: (folder / "DevToolsActivePort").read_text().split("\n")[0])
        pages = until(lambda: [p for p in self._pages(port) if p["type"] == "page"])
        self.socket = connect(pages[0]["webSocketDebuggerUrl"], max_size=None, origin=None)
        self.numbers, self.events = itertools.count(1), []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    @staticmethod
    def _pages(port: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            return json.load(answer)

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self.socket.recv(timeout=120))
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]
            self.events.append(told)

    def script(self, text: str) -> Any:
        return self("Runtime.evaluate", expression=text, returnByValue=True)["result"].get("value")

    def press(self, label: str) -> None:
        find = f"[...document.querySelectorAll('button')].find(b => b.textContent.trim() === {json.dumps(label)})"
        until(lambda: self.script(f"{find} !== undefined"))
        self.script(f"{find}.click()")

    def picture(self, path: Path) -> np.ndarray:
        data = base64.b64decode(self("Page.captureScreenshot")["data"])
        path.write_bytes(data)
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def faults(self) -> list[str]:
        """Errors on the console, and exceptions."""
        said = []
        for event in self.events:
            about = event["params"]
            error = about.get("type") == "error" or about.get("entry", {}).get("level") == "error"
            if event["method"] == "Runtime.exceptionThrown" or error:
                said.append(json.dumps(about))
        return said

    def asked(self) -> set[str]:
        """Addresses that were fetched, without what the page carries in itself."""
        told = [(e["method"], e["params"]) for e in self.events]
        found = [about["request"]["url"] for method, about in told if method == "Network.requestWillBeSent"]
        found += [about["url"] for method, about in told if method == "Network.webSocketCreated"]
        return {url for url in found if not url.startswith(("data:", "blob:"))}

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=30)


def until(made: Callable[[], Any], seconds: float = 300) -> Any:
    """What a function returns, once it is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := made():
                return found
        except (OSError, RunFolderError):
            pass
        time.sleep(0.1)
    raise AssertionError("it did not come to pass")


@pytest.fixture
def browser(viser: Any, tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path / "profile")
    yield made
    made.close()


@pytest.fixture
def viewer(viser: Any) -> Iterator[Viewer]:
    made = Viewer(port=0)
    yield made
    made.close()


def middle(picture: np.ndarray) -> float:
    """How dark the middle of the window is, 0 to 255."""
    height, width = picture.shape[:2]
    return 255 - float(picture[height // 3 : height // 2, width * 2 // 5 : width * 3 // 5].mean())


def test_a_run_is_watched_and_driven(browser: Browser, viewer: Viewer, tmp_path: Path) -> None:
    out = tmp_path / "outputs"
    words = [sys.executable, "-c", RUN, str(out)]
    process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        run: RunFolder = until(lambda: find("latest", out))
        viewer.follow(run, lambda run: (March(samples=24), small_field()))
        browser("Page.navigate", url=viewer.address)
        until(lambda: run.state().get("status") == "running")
        browser.press("Pause")
        until(lambda: run.state()["status"] == "paused")
        until(lambda: "paused" in browser.script("document.body.innerText"))
        until(lambda: viewer.page.shown == "as trained")  # from the checkpoint that it saved
        time.sleep(3)
        assert middle(browser.picture(tmp_path / "paused.png")) > 3
        browser.press("Go on")
        until(lambda: run.state()["status"] == "running")
        browser.press("Stop and export")
        until(lambda: run.state()["status"] == "stopped")
        assert process.wait(timeout=120) == 0 and list(run.export.glob("*.glb"))
        until(lambda: "stopped as asked" in browser.script("document.body.innerText"))
        until(lambda: viewer.page.shown == "asset")
        time.sleep(3)
        assert middle(browser.picture(tmp_path / "stopped.png")) > 10
    finally:
        process.terminate()
    assert browser.faults() == []
    assert browser.asked() == {viewer.address}


def test_a_splat_file_is_shown(browser: Browser, viewer: Viewer, tmp_path: Path) -> None:
    write_splats(some_splats(3000), tmp_path / "a.ply")
    viewer.show_file(tmp_path / "a.ply")
    browser("Page.navigate", url=viewer.address)
    until(viewer.watched)
    time.sleep(4)
    assert middle(browser.picture(tmp_path / "splats.png")) > 20
    assert "a.ply" in browser.script("document.body.innerText")
    assert browser.faults() == []
    assert browser.asked() == {viewer.address}
