"""What stands on the page: a panel with the run's numbers, pictures and buttons, and the 3D scene beside it.

Only what has changed is sent. Texts from a run go into the page escaped.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from dream3d.control import REQUESTS, Request
from dream3d.media import read_pictures
from dream3d.viewer.follow import Curve, Snapshot
from dream3d.viewer.models import FIT, Placed, Points

Shown = Literal["asset", "as trained"]
FIRST = ("loss", "opacity", "grad_norm")
"""Curves that are seen at once; the others are folded away."""
LABELS: dict[Request, str] = {"pause": "Pause", "go": "Go on", "stop": "Stop and export"}
FOV = math.radians(40.0)
"""Of the first view, as of the previews."""
COLOURS = {"running": "#2563eb", "paused": "#b45309", "done": "#15803d", "failed": "#b91c1c", "cut off": "#b91c1c"}


@final
class Page:
    """The page, the same for all visitors; a visitor has a camera of his own.

    Args:
        server: viser's.
        ask: what the buttons do.
        title: of the window.
    """

    def __init__(self, server: Any, ask: Callable[[Request], None], title: str) -> None:
        self._server = server
        self._ask = ask
        self._snapshot = Snapshot()
        self._notice = ""
        self._preview: Path | None = None
        self._curves: dict[str, Any] = {}
        self._sent: dict[str, Curve] = {}
        self._there: dict[Shown, list[Any]] = {}
        self._chosen: Shown | None = None
        self._stage()
        self._panel(title)

    def _stage(self) -> None:
        scene, camera = self._server.scene, self._server.initial_camera
        scene.set_up_direction("+y")
        ground = (0.0, -FIT, 0.0)
        self.grid = scene.add_grid("/grid", 4.0, 4.0, plane="xz", cell_size=0.1, section_size=0.5, position=ground)
        camera.fov = FOV
        camera.position = (1.2, 0.85, 1.15 / math.tan(FOV / 2) * 0.9)
        camera.look_at = (0.0, 0.0, 0.0)

    def _panel(self, title: str) -> None:
        gui = self._server.gui
        # Its button would publish the page through a server of others; `server.py` closes that way as well.
        gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
        gui.set_panel_label(title)
        self.head = gui.add_html("")
        self.bar = gui.add_progress_bar(0.0, visible=False)
        self.buttons: dict[Request, Any] = {name: gui.add_button(LABELS[name], visible=False) for name in REQUESTS}
        for name, button in self.buttons.items():
            button.on_click(partial(self._click, name))
        self.show = gui.add_dropdown("Show", ("asset", "as trained"), visible=False)
        self.show.on_update(lambda _: self._choose(self.show.value))
        self.preview = gui.add_image(
            np.full((24, 96, 3), 255, np.uint8), label="Front, left, back, right", visible=False
        )
        self.first = gui.add_folder("Curves", visible=False)
        self.more = gui.add_folder("More curves", visible=False, expand_by_default=False)

    def _click(self, request: Request, _: Any) -> None:
        self._ask(request)

    def tell(self, notice: str) -> None:
        """A line under the status, until the next one."""
        self._notice = notice
        self._describe()

    def update(self, snapshot: Snapshot) -> None:
        """The panel as the run is now."""
        if snapshot.status != self._snapshot.status:
            self._notice = ""  # it was about what was
        self._snapshot = snapshot
        self._describe()
        if self.bar.value != (value := round(100 * snapshot.done, 1)):
            self.bar.value = value
        paused = snapshot.status == "paused"
        seen = {"pause": snapshot.status == "running", "go": paused, "stop": snapshot.busy}
        for part, visible in [(self.bar, True), *((self.buttons[name], seen[name]) for name in REQUESTS)]:
            if part.visible != visible:
                part.visible = visible
        self._picture(snapshot.preview)
        for name, curve in snapshot.curves.items():
            self._curve(name, curve)

    def _describe(self) -> None:
        told = describe(self._snapshot, self._notice)
        if self.head.content != told:
            self.head.content = told

    def _picture(self, path: Path | None) -> None:
        if path is None or path == self._preview:
            return
        try:
            (pixels,) = read_pictures([path])
        except (OSError, ValueError):  # rewound, or no picture
            return
        self._preview = path
        self.preview.image = pixels
        self.preview.visible = True

    def _curve(self, name: str, curve: Curve) -> None:
        """One chart a curve: their sizes have nothing to do with one another."""
        if self._sent.get(name) == curve:
            return
        self._sent[name] = curve
        finite = [(x, y) for x, y in zip(curve.steps, curve.values, strict=True) if math.isfinite(y)]
        if len(finite) < 2:
            return
        data = tuple(np.array(column, float) for column in zip(*finite, strict=True))
        if name in self._curves:
            self._curves[name].data = data
            return
        folder = self.first if name in FIRST else self.more
        folder.visible = True
        with folder:
            self._curves[name] = self._server.gui.add_uplot(
                data,
                ({"label": "step"}, {"label": name, "stroke": "#2563eb", "width": 1.5, "points": {"show": False}}),
                scales={"x": {"time": False}},
                title=name,
                aspect=2.2,
                order=float(FIRST.index(name)) if name in FIRST else None,
            )

    def show_asset(self, data: bytes, placed: Placed) -> None:
        """A GLB, in the place of the one before."""
        node = self._server.scene.add_glb("/asset", data, scale=placed.scale, position=placed.position)
        self._put("asset", [node])

    def show_points(self, points: Points, placed: Placed | None = None) -> None:
        """Gaussians, in the place of those before."""
        placed = placed or Placed()
        node = self._server.scene.add_gaussian_splats(
            "/gaussians",
            points.centers,
            points.covariances,
            points.rgbs,
            points.opacities,
            scale=placed.scale,
            position=placed.position,
        )
        self._put("as trained", [node])

    def show_pictures(self) -> None:
        """From now on visitors get pictures of what is trained, each from where he looks (`picture`)."""
        self._put("as trained", [])

    @staticmethod
    def picture(client: Any, pixels: np.ndarray | None) -> None:
        """Behind a visitor's scene; None takes it away."""
        client.scene.set_background_image(pixels, format="jpeg", jpeg_quality=85)

    @property
    def shown(self) -> Shown | None:
        """What of the scene is visible."""
        if self._chosen in self._there:
            return self._chosen
        return next((name for name in ("asset", "as trained") if name in self._there), None)

    def _choose(self, name: Shown) -> None:
        self._chosen = name
        self._settle()

    def _put(self, name: Shown, nodes: list[Any]) -> None:
        self._there[name] = nodes
        self._settle()

    def _settle(self) -> None:
        """Make visible what is to be, and say so in the panel."""
        shown = self.shown
        for name, nodes in list(self._there.items()):  # a button may be at it as well
            for node in nodes:
                if node.visible != (name == shown):
                    node.visible = name == shown
        self.grid.visible = shown is None or bool(self._there[shown])  # it would lie over a picture
        self.show.visible = len(self._there) > 1
        if self.show.value != shown and shown is not None:
            chosen, self._chosen = self._chosen, shown
            self.show.value = shown
            self._chosen = chosen


def describe(snapshot: Snapshot, notice: str = "") -> str:
    """The head of the panel, as HTML."""
    lines = [f"<b>{html.escape(snapshot.prompt)}</b>"] if snapshot.prompt else []
    parts = [f'<span style="color:{COLOURS.get(snapshot.status, "inherit")}">{html.escape(snapshot.status)}</span>']
    if snapshot.stage:
        parts.append(html.escape(snapshot.stage))
    if snapshot.steps:
        parts.append(f"step {snapshot.step} of {snapshot.steps}")
    if snapshot.rate > 0:
        left = round((snapshot.steps - snapshot.step) / snapshot.rate)
        parts += [f"{snapshot.rate:.2g} steps/s", f"{left // 3600}:{left % 3600 // 60:02d}:{left % 60:02d} left"]
    lines.append(" · ".join(parts))
    lines += [f'<span style="color:#b45309">{html.escape(word)}</span>' for word in snapshot.words]
    if notice:
        lines.append(f"<i>{html.escape(notice)}</i>")
    body = "".join(f'<div style="margin-bottom:.3em;overflow-wrap:anywhere">{line}</div>' for line in lines)
    return f'<div style="padding:.4em .8em;font-size:.85em;line-height:1.4">{body}</div>'
