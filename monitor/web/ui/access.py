"""Access to the web pages: who may read, who may change something.

Contract: on a server that listens on loopback only, a request by a loopback host name and without a proxy may read
without a token. Every other request needs a token of `awry tokens create`: of any scope to read, of scope `act` to
change anything. The browser keeps it in a cookie that is HttpOnly and SameSite=Strict; forms are accepted from the same
origin only, by the headers Sec-Fetch-Site or Origin. A foreign DNS name that resolves to this machine is no loopback
name, which stops DNS rebinding. Invalid tokens count against their address, as the API's do
(`monitor.web.auth.authenticate`).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from alerts.lifecycle.audit import Actor
from monitor.web.auth.authenticate import Authenticator, RetryLater
from monitor.web.auth.tokens import Principal

COOKIE = "awry_token"
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@dataclass(frozen=True)
class Viewer:
    """Who sends a request; `name` is the token's, None without one. `stale`: the cookie holds an invalid token."""

    name: str | None
    may_read: bool
    may_act: bool
    stale: bool = False


class Access:
    """`loopback_only`: the server listens on loopback only, so that local requests may read without a token."""

    def __init__(self, authenticator: Authenticator, *, loopback_only: bool) -> None:
        self._authenticator = authenticator
        self._loopback_only = loopback_only

    def viewer(self, request: Request) -> Viewer:
        """Who sends this request, by its cookie."""
        secret = request.cookies.get(COOKIE, "")
        signed_in = self.authenticate(secret, request) if secret else None
        if isinstance(signed_in, Viewer):
            return signed_in
        may_read = self._loopback_only and _is_local(request)
        return Viewer(None, may_read, False, stale=bool(secret) and signed_in is None)

    def authenticate(self, secret: str, request: Request) -> Viewer | RetryLater | None:
        """None: the token is invalid, expired or revoked."""
        principal = self._authenticator.authenticate(secret, _address(request) or "unknown")
        return Viewer(principal.name, True, principal.may_act) if isinstance(principal, Principal) else principal


def actor(request: Request, viewer: Viewer) -> Actor:
    """For the audit."""
    return Actor(viewer.name or "nobody", "page", _address(request))


def is_same_origin(request: Request) -> bool:
    """Whether a form comes from these pages, not from another site: browsers send one of two headers."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


def local_path(path: str) -> str:
    """Where to redirect after signing in: a path of this server, else its first page."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if plain else "/"


def set_cookie(response: Response, request: Request, secret: str) -> None:
    """Keeps the token until the browser closes."""
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, secret, httponly=True, samesite="strict", secure=secure, path="/")


def is_loopback(host: str) -> bool:
    """Whether a host name or an address always means this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _address(request: Request) -> str | None:
    return request.client.host if request.client else None


def _is_local(request: Request) -> bool:
    if any(name in request.headers for name in _PROXY_HEADERS):
        return False
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)
