"""Who is let in to the viewer, decided from the head of each request. Standard library only.

Whoever sees the page can stop the run, so: only this machine, unless a host was asked for; from elsewhere only with the
token of the address that was printed, which becomes a cookie. A web page of others, open in the same browser, could
otherwise reach the server as well: browsers let any page open web sockets, and a name can be made to point here (DNS
rebinding). Hence `Origin` must be the server itself, and without a token `Host` must be a name of this machine.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import final
from urllib.parse import parse_qs, urlsplit

from dream3d.checks import InputError

COOKIE = "dream3d_viewer"
NAMES = ("localhost", "127.0.0.1", "::1")
"""What this machine is called by browsers on it."""
HEADERS = {
    # The page brings everything along; nothing that it shows may make it fetch more.
    "Content-Security-Policy": (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
        "frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Answer:
    """What is sent instead of the page."""

    status: HTTPStatus
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only.

    Raises:
        InputError: there is no such host.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host: '{host}' is no address of this machine ({error}).") from None
    return all(ipaddress.ip_address(str(address[4][0]).partition("%")[0]).is_loopback for address in found)


@final
class Door:
    """Lets requests in or answers them.

    Args:
        host: address that the server listens on.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.token = None if is_loopback(host) else secrets.token_urlsafe(24)

    def address(self, port: int) -> str:
        """What the user opens."""
        host = socket.gethostname() if self.host in ("0.0.0.0", "::", "") else self.host
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/" + (f"?token={self.token}" if self.token else "")

    def answer(self, target: str, headers: Mapping[str, str], *, upgrade: bool) -> Answer | None:
        """None lets the request in.

        Args:
            target: path and query.
            headers: by name, lower case.
            upgrade: whether it opens a web socket.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return Answer(HTTPStatus.FORBIDDEN, "another page is not let in\n")
        try:
            name, port = urlsplit(f"//{host}").hostname, urlsplit(f"//{host}").port
        except ValueError:
            return Answer(HTTPStatus.BAD_REQUEST, "what host?\n")
        if self.token is None:
            known = name in (*NAMES, self.host.lower())
            return None if known else Answer(HTTPStatus.FORBIDDEN, "open it under the address that was printed\n")
        cookie = f"{COOKIE}_{port or 80}"  # cookies know no ports: two viewers on one machine need two names
        if self._fits(_cookie(headers.get("cookie", ""), cookie)):
            return None
        if not self._fits(parse_qs(urlsplit(target).query).get("token", [""])[-1]):
            return Answer(HTTPStatus.UNAUTHORIZED, "open the address that was printed; it ends in ?token=...\n")
        if upgrade:
            return None
        # The address goes on without the token, which would stay in the history and in pictures of the screen.
        value = f"{cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax"
        return Answer(HTTPStatus.SEE_OTHER, "", {"Location": "/", "Set-Cookie": value, "Cache-Control": "no-store"})

    def _fits(self, token: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "replace"), (self.token or "").encode())


def _cookie(text: str, name: str) -> str:
    try:
        found = SimpleCookie(text).get(name)
    except CookieError:
        return ""
    return found.value if found else ""
