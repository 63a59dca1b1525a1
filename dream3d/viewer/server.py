"""The server behind the page, and the thread that keeps the page as the run is."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, final

from dream3d.checks import Dream3DError, InputError, MissingError, RunError
from dream3d.control import Request, ask
from dream3d.renderers.base import Renderer
from dream3d.representations.base import Representation
from dream3d.representations.gaussians import Gaussians
from dream3d.runs import RunFolder
from dream3d.viewer.door import HEADERS, Door
from dream3d.viewer.follow import Follower, Snapshot
from dream3d.viewer.models import camera_at, draw, points, read_glb, read_points
from dream3d.viewer.page import LABELS, Page

LOG = logging.getLogger(__name__)
PORT, TRIES = 8080, 100
EVERY = 0.5
"""Seconds between two looks at the run, while somebody looks at the page."""
RELOAD = 3.0
"""Seconds that a browser may take to load the page again."""
PIXELS = 160
"""Height of the pictures that visitors get of what is trained."""

Restore = Callable[[RunFolder], tuple[Renderer, Representation]]
"""Makes what the newest checkpoint holds, and what draws it."""


def require_viser() -> Any:
    """The package `viser`, which only the viewer needs.

    Raises:
        MissingError: it is not installed.
    """
    try:
        import viser
    except ImportError as error:
        raise MissingError(f"the viewer needs viser ({error}). Install it: pip install 'dream3d[viewer]'") from None
    return viser


@final
class Viewer:
    """A page that shows a run or a file. Nothing is read, drawn or sent while nobody has it open.

    Args:
        host: address to listen on. On another than this machine's own the address of the page has a token.
        port: to listen on, 0 for any; None is 8080, or the next that is free.

    Attributes:
        address: what to open.
        live: whether what is trained comes from the training itself (`live.Live`), so no checkpoint is read.

    Raises:
        MissingError: viser is not installed.
        InputError: no such address, or the port is taken.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int | None = None) -> None:
        viser = require_viser()
        self.door = Door(host)
        self.live = False
        with _hung(self.door) as hung, contextlib.redirect_stdout(io.StringIO()):
            self.server = _private(viser)(host=host, port=_free(host, port), label="dream3d", verbose=False)
        if not hung.is_set():  # another version of viser: rather no page than one that anybody may open
            self.close()
            raise RunError(f"viser {viser.__version__} does not let the viewer guard its door. Install viser 1.1.1.")
        self.address = self.door.address(self.server.get_port())
        self.page = Page(self.server, self._request, "dream3d")
        self._follower: Follower | None = None
        self._restore: Restore | None = None
        self._read: dict[str, tuple[str, int]] = {}
        self._trained: tuple[Renderer, Representation] | None = None
        self._version = 0
        self._drawn: dict[int, tuple[int, float]] = {}
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="dream3d-viewer", daemon=True)
        self._thread.start()

    def follow(self, run: RunFolder, restore: Restore | None = None) -> None:
        """Show a run from now on.

        Args:
            run: its folder.
            restore: opens its checkpoints; without it what is trained is shown only if `live`.
        """
        if self._follower is None or self._follower.run.path != run.path:
            self._follower = Follower(run)
        self._restore = restore

    def show_file(self, path: Path) -> None:
        """Show a .glb, .ply, .spz or .splat file.

        Raises:
            InputError: it is none.
        """
        if path.suffix.lower() == ".glb":
            self.page.show_asset(*read_glb(path))
        else:
            self.page.show_points(*read_points(path))
        self.page.update(Snapshot(status=path.name))
        self.page.bar.visible = False

    def watched(self) -> bool:
        """Whether somebody has the page open."""
        return bool(self.server.get_clients())

    def refresh(self) -> None:
        """Look at the run and bring the page up to date."""
        if self._follower is None:
            return
        with self._lock:
            snapshot = self._follower.look()
            self.page.update(snapshot)
            if snapshot.asset is not None and self._is_new("asset", snapshot.asset):
                self.attempt(partial(self._open_asset, snapshot.asset))
            if self.live:
                return
            if self._restore is not None and snapshot.checkpoint and self._is_new("checkpoint", snapshot.checkpoint):
                self.attempt(self._open_checkpoint)
            if self._trained is not None:
                self.attempt(partial(self.draw, *self._trained))

    def offer(self, renderer: Renderer, representation: Representation) -> bool:
        """`trained`, unless nobody looks or the page is being brought up to date: a training does not wait for it.

        Returns:
            whether it was shown.
        """
        if not self.watched() or not self._lock.acquire(blocking=False):
            return False
        try:
            self.attempt(lambda: self.trained(renderer, representation))
        finally:
            self._lock.release()
        return True

    def trained(self, renderer: Renderer, representation: Representation) -> None:
        """Show what is trained as it is now: Gaussians themselves, of all else pictures from where visitors look.

        It is the caller's: nothing of it is kept, and no random number is drawn.
        """
        self._version += 1
        if isinstance(representation, Gaussians):
            self.page.show_points(points(representation.to_splats()))
        else:
            self.page.show_pictures()
            self.draw(renderer, representation)

    def draw(self, renderer: Renderer, representation: Representation) -> None:
        """Pictures for the visitors that have moved or have an old one."""
        clients = self.server.get_clients()
        self._drawn = {key: value for key, value in self._drawn.items() if key in clients}
        wanted = self.page.shown == "as trained" and not isinstance(representation, Gaussians)
        for key, client in clients.items():
            camera = client.camera
            now = (self._version, camera.update_timestamp) if wanted else (-1, 0.0)
            if self._drawn.get(key, (-1, 0.0)) == now:
                continue
            self._drawn[key] = now
            view = camera_at(camera.wxyz, camera.position, camera.fov, camera.aspect, PIXELS) if wanted else None
            self.page.picture(client, None if view is None else draw(renderer, representation, view))

    def stay(self) -> None:
        """Return when nobody has the page open any more, and has not come back either."""
        gone = 0.0
        while gone < RELOAD:
            gone = 0.0 if self.watched() else gone + EVERY
            self._closed.wait(EVERY)

    def wait(self) -> None:
        """Until Ctrl-C."""
        while not self._closed.wait(3600):
            pass

    def close(self) -> None:
        """Stop the server; visitors see that it is gone."""
        if hasattr(self, "_closed"):
            self._closed.set()
            self._thread.join(timeout=5)
        with contextlib.redirect_stdout(io.StringIO()):  # it says so, whoever reads our output
            self.server.stop()

    def _keep(self) -> None:
        while not self._closed.wait(EVERY):
            if self.watched():
                self.attempt(self.refresh)

    def attempt(self, act: Callable[[], Any]) -> None:
        """What cannot be shown is told on the page, and the rest goes on."""
        try:
            act()
        except Dream3DError as error:
            self.page.tell(str(error))
        except OSError as error:
            self.page.tell(f"{error.filename}: {error.strerror}")
        except Exception as error:  # the thread must outlive whatever a folder of others holds
            LOG.warning("viewer: %s: %s", type(error).__name__, error)
            self.page.tell(f"{type(error).__name__}: {error}")

    def _is_new(self, what: str, path: Path) -> bool:
        """Whether a file is another than at the last time that this was asked."""
        try:
            mark = (str(path), path.stat().st_mtime_ns)
        except OSError:
            return False
        before, self._read[what] = self._read.get(what), mark
        return before != mark

    def _open_asset(self, path: Path) -> None:
        self.page.show_asset(*read_glb(path))

    def _open_checkpoint(self) -> None:
        assert self._follower is not None and self._restore is not None
        renderer, representation = self._restore(self._follower.run)
        self._trained = renderer, representation
        self.trained(renderer, representation)

    def _request(self, request: Request) -> None:
        if self._follower is None:
            return
        follower = self._follower

        def now() -> None:
            ask(follower.run, request)
            self.page.tell(f"asked: {LABELS[request].lower()}")

        self.attempt(now)


def _private(viser: Any) -> Any:
    """viser's server without its way out: any visitor may ask that to publish the page through a server of others."""

    class Private(viser.ViserServer):
        def request_share_url(self, verbose: bool = True) -> None:
            return None

    return Private


def _free(host: str, port: int | None) -> int:
    """A port that can be had; viser itself would try without end.

    Raises:
        InputError: there is none.
    """
    wanted = range(PORT, PORT + TRIES) if port is None else (port,)
    reason = ""
    for number in wanted:
        try:
            found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            with socket.socket(found[0], found[1]) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(found[4])
                return number
        except OSError as error:
            reason = error.strerror or str(error)
    raise InputError(f"--port {wanted[0]}: cannot listen there on {host} ({reason}). Take another, or 0 for any.")


@contextlib.contextmanager
def _hung(door: Door) -> Iterator[threading.Event]:
    """Meanwhile servers of web sockets are made with a door; viser has no argument for one.

    Yields:
        set once that has happened.
    """
    import websockets.asyncio.server as home
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    hung, make = threading.Event(), home.serve

    def serve(*args: Any, process_request: Callable[..., Any], **settings: Any) -> Any:
        def guarded(connection: Any, request: Any) -> Any:
            upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
            try:
                heads = {name.lower(): value for name, value in request.headers.raw_items()}
                answer = door.answer(request.path, heads, upgrade=upgrade)
            except Exception:
                LOG.exception("viewer: a request that the door cannot read")
                return Response(400, "Bad Request", Headers(), b"")
            if answer is not None:
                body = answer.text.encode()
                heads = {"Content-Type": "text/plain", "Content-Length": str(len(body)), "Connection": "close"}
                return Response(answer.status, answer.status.phrase, Headers({**heads, **answer.headers}), body)
            response = process_request(connection, request)
            if response is not None:
                response.headers.update(HEADERS)
            return response

        hung.set()
        # Its pings would draw from Python's generator of random numbers, which a training in this process seeds.
        return make(*args, process_request=guarded, **{**settings, "ping_interval": None})

    home.serve = serve  # pyright: ignore
    try:
        yield hung
    finally:
        home.serve = make  # pyright: ignore
