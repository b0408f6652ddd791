"""Who may read the page, and who may change something there.

Contract: reading is free to whoever asks a server that listens on loopback by a loopback name, with no proxy between;
to everybody else, and to change anything, a token of `awry token create` is needed: to read one of any scope, to act
one of scope `act`. The browser holds it in a cookie that scripts cannot read and that other sites' requests do not
carry; a form is taken from this page alone, by the headers in which browsers name where it came from. A name that a
stranger's DNS points at this machine is no loopback name, so a page elsewhere cannot read this one through a browser.
Wrong tokens count against their address, as the API's do (`monitor.web.auth.authenticate`).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from alerts.lifecycle.audit import Actor
from monitor.web.auth.authenticate import Holders, Wait
from monitor.web.auth.tokens import Holder

COOKIE = "awry_token"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@dataclass(frozen=True)
class Viewer:
    """Who looks; `name` is the token's, None without one. `stale`: the browser holds a token that is none any more."""

    name: str | None
    may_read: bool
    may_act: bool
    stale: bool = False


class Access:
    """`free`: the server listens on loopback only."""

    def __init__(self, holders: Holders, *, free: bool) -> None:
        self._holders = holders
        self._free = free

    def viewer(self, request: Request) -> Viewer:
        """Whose request this is."""
        secret = request.cookies.get(COOKIE, "")
        found = self.holder(secret, request) if secret else None
        if isinstance(found, Viewer):
            return found
        return Viewer(None, self._free and _local(request), False, stale=bool(secret) and found is None)

    def holder(self, secret: str, request: Request) -> Viewer | Wait | None:
        """Whose token this is; None where it is nobody's, or not any more."""
        found = self._holders.find(secret, _address(request) or "unknown")
        return Viewer(found.name, True, found.may_act) if isinstance(found, Holder) else found


def actor(request: Request, viewer: Viewer) -> Actor:
    """For the audit."""
    return Actor(viewer.name or "nobody", "page", _address(request))


def from_here(request: Request) -> bool:
    """A form came from this page, not from another site. A browser says so in one of two headers."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


def local_path(path: str) -> str:
    """Where to go after signing in: a path of this server, else its first page."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if plain else "/"


def remember(response: Response, request: Request, secret: str) -> None:
    """Until the browser closes."""
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, secret, httponly=True, samesite="strict", secure=secure, path="/")


def is_loopback(host: str) -> bool:
    """A name or address that only this machine can mean."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _address(request: Request) -> str | None:
    return request.client.host if request.client else None


def _local(request: Request) -> bool:
    if any(name in request.headers for name in _FORWARDED):
        return False
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)
