"""A visitor without a browser: he speaks the page's protocol."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest


class Visitor:
    """Has the page open.

    Args:
        connection: web socket.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def _send(self, kind: str, **content: Any) -> None:
        import msgspec

        self.connection.send(msgspec.msgpack.encode({"type": kind, **content}))

    def look(self, distance: float = 3.0) -> None:
        """Tell where he stands, at the front; before that he counts for nothing."""
        upright = (0.0, 1.0, 0.0, 0.0)  # OpenCV: y down, forward to -Z
        self._send(
            "ViewerCameraMessage", wxyz=upright, position=(0.0, 0.0, distance), fov=0.7, near=0.01, far=100.0,
            look_at=(0.0, 0.0, 0.0), up_direction=(0.0, 1.0, 0.0), image_height=300, image_width=400,
        )  # fmt: skip

    def press(self, button: Any) -> None:
        """Click a button of the panel."""
        self._send("GuiUpdateMessage", uuid=button._impl.uuid, updates={"value": True})


@contextmanager
def visiting(address: str, headers: Mapping[str, str] = {}) -> Iterator[Visitor]:  # noqa: B006
    import viser
    from websockets.sync.client import connect

    parts = urlsplit(address)
    target = f"ws://{parts.netloc}/" + (f"?{parts.query}" if parts.query else "")
    settings: dict[str, Any] = {"max_size": None, "compression": None, "additional_headers": dict(headers)}
    with connect(target, subprotocols=[f"viser-v{viser.__version__}"], **settings) as connection:  # pyright: ignore
        yield Visitor(connection)


def get(address: str, target: str = "/", **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of a page."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    try:
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


@pytest.fixture
def viser() -> Any:
    return pytest.importorskip("viser", reason="the viewer is an extra: pip install 'dream3d[viewer]'")
