"""Who is let in."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from dream3d.checks import InputError
from dream3d.viewer.door import Door, is_loopback

HERE, THERE = "127.0.0.1:8080", "192.0.2.7:8080"


def status(door: Door, target: str = "/", *, upgrade: bool = False, **headers: str) -> HTTPStatus | None:
    answer = door.answer(target, headers, upgrade=upgrade)
    return answer and answer.status


def test_what_is_this_machine() -> None:
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and is_loopback("::1") and is_loopback("127.8.9.1")
    assert not is_loopback("0.0.0.0") and not is_loopback("::")
    with pytest.raises(InputError, match="--host: 'no such host' is no address"):
        is_loopback("no such host")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"host": HERE}, None),
        ({"host": "localhost:8080", "origin": "http://localhost:8080"}, None),
        ({"host": "[::1]:8080"}, None),
        ({"host": HERE, "origin": "http://evil.example"}, HTTPStatus.FORBIDDEN),
        ({"host": HERE, "origin": "null"}, HTTPStatus.FORBIDDEN),
        ({"host": HERE, "origin": "http://localhost:8080"}, HTTPStatus.FORBIDDEN),
        ({"host": "evil.example:8080"}, HTTPStatus.FORBIDDEN),
        ({"host": "evil.example:8080", "origin": "http://evil.example:8080"}, HTTPStatus.FORBIDDEN),
        ({"host": "127.0.0.1.evil.example"}, HTTPStatus.FORBIDDEN),
        ({"host": ""}, HTTPStatus.FORBIDDEN),
        ({"host": "[::1"}, HTTPStatus.BAD_REQUEST),
        ({"host": "127.0.0.1:port"}, HTTPStatus.BAD_REQUEST),
        ({}, HTTPStatus.FORBIDDEN),
    ],
    ids=str,
)
@pytest.mark.parametrize("upgrade", [False, True])
def test_pages_of_others_do_not_reach_the_viewer(headers: dict[str, str], expected: Any, upgrade: bool) -> None:
    door = Door("127.0.0.1")
    assert door.token is None and door.address(8080) == "http://127.0.0.1:8080/"
    assert status(door, upgrade=upgrade, **headers) == expected


def test_from_elsewhere_only_with_the_token() -> None:
    door = Door("0.0.0.0")
    assert (
        door.token is not None and len(door.token) >= 32 and door.address(8080).endswith(f":8080/?token={door.token}")
    )
    assert Door("0.0.0.0").token != door.token
    for upgrade in (False, True):
        for target in (
            "/",
            "/?token=",
            "/?token=guess",
            f"/?tok={door.token}",
            f"/?token={door.token}x",
            "/?token=\udce4",
        ):
            assert status(door, target, upgrade=upgrade, host=THERE) == HTTPStatus.UNAUTHORIZED, target
        assert status(door, upgrade=upgrade, host=THERE, cookie=f"dream3d_viewer_8080={door.token}") is None
        for cookie in ("dream3d_viewer_8080=", "dream3d_viewer_8081=" + door.token, "a=b; c", "\x00"):
            assert status(door, upgrade=upgrade, host=THERE, cookie=cookie) == HTTPStatus.UNAUTHORIZED
        stolen = {"host": THERE, "origin": "http://evil.example", "cookie": f"dream3d_viewer_8080={door.token}"}
        assert status(door, upgrade=upgrade, **stolen) == HTTPStatus.FORBIDDEN


def test_the_token_becomes_a_cookie_and_leaves_the_address() -> None:
    door = Door("0.0.0.0")
    answer = door.answer(f"/?token={door.token}", {"host": THERE}, upgrade=False)
    assert answer is not None and answer.status == HTTPStatus.SEE_OTHER and answer.headers["Location"] == "/"
    assert answer.headers["Set-Cookie"] == f"dream3d_viewer_8080={door.token}; Path=/; HttpOnly; SameSite=Lax"
    assert door.answer(f"/?token={door.token}", {"host": THERE}, upgrade=True) is None
