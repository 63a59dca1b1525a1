"""The server on its port: who gets the page, what the buttons do, what the page says of a run."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dream3d.checks import InputError, MissingError, RunError
from dream3d.control import FILE
from dream3d.pipeline import Pipeline
from dream3d.renderers import Splat
from dream3d.representations import Gaussians
from dream3d.runs import RunFolder
from dream3d.viewer import Viewer
from dream3d.viewer.live import Live
from tests.tiny_runs import pipeline, small_export, stage

from .conftest import Visitor, get, visiting

SAME = ("export/a-teddy-bear.glb", "ckpts/last.ckpt", "metrics.jsonl", "save/progress.mp4", "save/final/views.png")


def until(true: Callable[[], Any]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass")


@pytest.fixture
def viewer(viser: Any) -> Iterator[Viewer]:
    made = Viewer(port=0)
    yield made
    made.close()


def splats(start: Any) -> Gaussians:
    return Gaussians(start, count=60)


def run_of(out: Path, **changes: Any) -> Pipeline:
    """A field, then Gaussians."""
    stages = {"coarse": stage(steps=20), "fine": stage(steps=20, representation=splats, renderer=Splat())}
    return pipeline(out, stages=stages, preview_every=10, export=small_export(), **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody watched."""
    return run_of(tmp_path_factory.mktemp("outputs")).run()


def test_it_listens_on_this_machine_only_and_needs_no_token(viewer: Viewer) -> None:
    assert viewer.door.token is None and viewer.address.startswith("http://127.0.0.1:")
    sockets = [
        s for s in socket.getaddrinfo(socket.gethostname(), urlsplit(viewer.address).port) if s[0] == socket.AF_INET
    ]
    for address in {s[4] for s in sockets if not str(s[4][0]).startswith("127.")}:
        with socket.socket() as probe, pytest.raises(OSError):
            probe.settimeout(2)
            probe.connect(address)
    status, headers, body = get(viewer.address)
    assert status == 200 and b"<html" in body[:500].lower()
    assert headers["content-security-policy"].startswith("default-src 'self' ") and headers["referrer-policy"]
    assert get(viewer.address, "/../../etc/passwd")[0] == 404
    assert get(viewer.address, Host="evil.example")[0] == 403


def test_web_pages_of_others_get_no_socket(viewer: Viewer) -> None:
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus, match="403"), visiting(viewer.address, {"Origin": "http://evil.example"}):
        pass
    own = viewer.address.rstrip("/")
    with visiting(viewer.address, {"Origin": own}) as visitor:
        assert not viewer.watched()
        visitor.look()
        until(viewer.watched)
    until(lambda: not viewer.watched())


def test_from_elsewhere_a_token_is_required(viser: Any) -> None:
    from websockets.exceptions import InvalidStatus

    viewer = Viewer(host="0.0.0.0", port=0)
    try:
        port = viewer.server.get_port()
        here = f"http://127.0.0.1:{port}/"
        assert viewer.address.endswith(f":{port}/?token={viewer.door.token}")
        assert get(here)[0] == get(here, "/?token=x")[0] == get(here, "/index.html")[0] == 401
        with pytest.raises(InvalidStatus, match="401"), visiting(here):
            pass
        status, headers, _ = get(here, f"/?token={viewer.door.token}")
        cookie = headers["set-cookie"].partition(";")[0]
        assert status == 303 and headers["location"] == "/"
        assert get(here, Cookie=cookie)[0] == 200
        with visiting(here, {"Cookie": cookie}) as visitor:
            visitor.look()
            until(viewer.watched)
    finally:
        viewer.close()


def test_nobody_publishes_the_page(viewer: Viewer) -> None:
    assert viewer.server.request_share_url() is None


def test_a_taken_port_is_said_and_the_next_one_is_found(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    port = viewer.server.get_port()
    with pytest.raises(
        InputError, match=rf"--port {port}: cannot listen there on 127.0.0.1 \(Address already in use\)"
    ):
        Viewer(port=port)
    with pytest.raises(InputError, match="is no address of this machine"):
        Viewer(host="no such host")
    with pytest.raises(InputError, match="cannot listen there on 192.0.2.1"):
        Viewer(host="192.0.2.1")
    monkeypatch.setattr("dream3d.viewer.server.PORT", port)
    other = Viewer()
    assert port < other.server.get_port() < port + 100
    other.close()


def test_without_viser_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "viser", None)
    with pytest.raises(MissingError, match=r"the viewer needs viser .*pip install 'dream3d\[viewer\]'"):
        Viewer(port=0)


def test_a_viser_that_takes_no_door_is_not_opened(viser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    class Other:
        def __init__(self, **_: Any) -> None: ...

        def stop(self) -> None:
            closed.append(True)

    monkeypatch.setattr("dream3d.viewer.server._private", lambda _: Other)
    with pytest.raises(RunError, match="does not let the viewer guard its door"):
        Viewer(port=0)
    assert closed == [True]


def test_the_page_follows_a_run_of_another_process(viewer: Viewer, whole: Path) -> None:
    from dream3d.viewer.models import read_glb

    renderer, representation = Splat(), splats(None)
    asked: list[Path] = []

    def restore(run: RunFolder) -> tuple[Splat, Gaussians]:
        asked.append(run.path)
        return renderer, representation

    viewer.follow(RunFolder(whole), restore)
    viewer.refresh()
    page = viewer.page
    assert "a teddy bear" in page.head.content and ">done<" in page.head.content
    assert "step 40 of 40" in page.head.content and page.bar.value == 100 and page.preview.visible
    assert {"loss", "opacity", "grad_norm"} <= set(page._curves) and list(page._curves["loss"].data[0]) == [
        10,
        20,
        30,
        40,
    ]
    assert asked == [whole] and page.shown == "asset" and page.show.visible
    node = page._there["as trained"][0]
    assert not node.visible
    page._choose("as trained")
    assert page.shown == "as trained" and node.visible and page.show.value == "as trained"
    assert read_glb(whole / SAME[0])[0] == page._there["asset"][0].glb_data
    assert not any(button.visible for button in page.buttons.values())
    viewer.refresh()
    assert asked == [whole]  # nothing new, nothing read


def test_what_a_folder_says_is_text(viewer: Viewer, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "x", "sds")
    run.update(status="<i>", prompt="<script>alert(1)</script>", reason="<b>", steps={"<u>": 10})
    (run.export / "a.glb").write_bytes(b"no glb")
    viewer.follow(run)
    viewer.refresh()
    told = viewer.page.head.content
    assert "&lt;script&gt;" in told and "<script" not in told and "<i>" not in told.partition("<i>/")[0]
    assert "expected a GLB" in told


def test_buttons_write_requests(viewer: Viewer, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "a red chair", "sds")
    run.update(status="running", pid=4711, steps={"nerf": 10})
    viewer.follow(run)
    with run.locked(), visiting(viewer.address) as visitor:
        visitor.look()
        viewer.refresh()
        buttons = viewer.page.buttons
        assert {name for name, button in buttons.items() if button.visible} == {"pause", "stop"}
        assert press(visitor, viewer, "pause", run) == {"request": "pause", "pid": 4711}
        run.update(status="paused")
        viewer.refresh()
        assert {name for name, button in buttons.items() if button.visible} == {"go", "stop"}
        assert press(visitor, viewer, "go", run) == {"request": "go", "pid": 4711}
        assert press(visitor, viewer, "stop", run) == {"request": "stop", "pid": 4711}
        until(lambda: "asked: stop and export" in viewer.page.head.content)
        (run.path / FILE).unlink()
    viewer._request("stop")  # the page may be older than the end of the run
    assert "is not running (it is cut off)" in viewer.page.head.content and not (run.path / FILE).exists()


def press(visitor: Visitor, viewer: Viewer, name: Any, run: RunFolder) -> Any:
    (run.path / FILE).unlink(missing_ok=True)
    visitor.press(viewer.page.buttons[name])
    until((run.path / FILE).exists)
    return json.loads((run.path / FILE).read_text())


def test_a_watched_run_has_the_bytes_of_another(viewer: Viewer, tmp_path: Path, whole: Path) -> None:
    """Shown at every step, Gaussians and pictures, to a visitor who moves."""
    shown: list[Live] = []

    def watch(run: RunFolder, name: str) -> Live:
        viewer.follow(run)
        shown.append(Live(viewer, every=1))
        return shown[-1]

    viewer.live = True
    made = run_of(tmp_path)
    made.watch = watch
    with visiting(viewer.address) as visitor:
        visitor.look()
        until(viewer.watched)
        run = made.run()
        viewer.refresh()
    assert [live.shown > 0 for live in shown] == [True, True] and viewer.page.shown == "asset"
    assert set(viewer.page._there) == {"asset", "as trained"}
    for name in SAME:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def test_nothing_is_sent_where_nobody_looks(viewer: Viewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(viewer.server._websock_server.get_message_buffer(), "push", sent.append)
    monkeypatch.setattr(viewer, "refresh", lambda: sent.append("refreshed"))
    live = Live(viewer, every=1)
    made = pipeline(tmp_path)
    made.watch = lambda run, name: live
    viewer.live = True
    made.run()
    assert live.shown == 0 and sent == []


def test_pictures_take_a_tenth_of_the_time_at_most(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, offered = [0.0], []

    def offer(*_: Any) -> bool:
        offered.append(clock[0])
        clock[0] += 2.0
        return True

    monkeypatch.setattr(viewer, "offer", offer)
    monkeypatch.setattr("dream3d.viewer.live.time.monotonic", lambda: clock[0])
    from dream3d.prompts import Prompt
    from dream3d.stage import StageModule
    from tests.tiny_runs import small_field

    live, module = Live(viewer, every=5), StageModule(stage(), Prompt("a bear"), small_field(), seed=0)
    for step in range(1, 201):
        module.step_index = step
        clock[0] += 0.5
        live.on_train_batch_end(None, module, None, None, 0)  # pyright: ignore[reportArgumentType]
    assert 2.0 * len(offered) <= 0.1 * clock[0] + 2.0 and len(offered) >= 4
