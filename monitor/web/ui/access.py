"""Access to the web pages: who may read, who may change something, and the cookie that a browser keeps.

Contract: everybody signs in, with a token of `awry tokens create`, by a single sign-on or by the link that a server
prints on its terminal: with any scope to read, with `act` to change anything. Only where `page_open` is `loopback`, and
the server listens on loopback alone, a request from this machine may read without: by a loopback host name, over
HTTP/1.1 and without any header that a proxy adds. No request proves that no proxy passed it on, which is why that has
to be asked for.

The cookie holds the secret of a session (`monitor.web.auth.sessions`), never a token. It is HttpOnly, SameSite=Strict,
or Lax where people come back from a single sign-on; over https it is Secure and its name has the prefix `__Host-`,
which keeps other hosts and ports of plain http from setting it. Forms are accepted from the same origin only, by the
headers Sec-Fetch-Site or Origin. A foreign DNS name that resolves to this machine is no loopback name, which stops DNS
rebinding. Invalid secrets count against their address, as the API's do (`monitor.web.auth.authenticate`).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from alerts.lifecycle.audit import Actor
from monitor.web.auth.authenticate import Authenticator, RetryLater
from monitor.web.auth.options import AccessOptions
from monitor.web.auth.tokens import Principal

COOKIE = "awry_session"
SECURE_COOKIE = f"__Host-{COOKIE}"
# What proxies and CDNs add; no browser sends any of them.
_PROXY_HEADERS = ("forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip")
_PROXY_PREFIXES = ("x-forwarded", "x-original-", "x-proxy", "x-envoy-", "x-amzn-", "x-azure-", "cf-", "fastly-", "cdn-")


@dataclass(frozen=True)
class Viewer:
    """Who sends a request: `name` is None for somebody who is not signed in, `tenant` for who may see all tenants.
    `stale`: the cookie is of no use any more."""

    name: str | None
    may_read: bool
    may_act: bool
    stale: bool = False
    tenant: str | None = None


NOBODY = Viewer(None, False, False)


class Access:
    """`loopback_only`: the server listens on loopback only."""

    def __init__(self, authenticator: Authenticator, options: AccessOptions, *, loopback_only: bool) -> None:
        self._authenticator = authenticator
        self._options = options
        self._open = loopback_only and options.page_open == "loopback"

    def viewer(self, request: Request) -> Viewer:
        """Who sends this request, by its cookie."""
        secret = session_of(request)
        found = self._authenticator.session(secret, address(request)) if secret else None
        if isinstance(found, Principal):
            return Viewer(found.name, True, found.may_act, tenant=found.tenant)
        return Viewer(None, self._open and _is_local(request), False, stale=bool(secret) and found is None)

    def token(self, secret: str, request: Request) -> Principal | RetryLater | None:
        """Who signs in with this token. None: it is invalid, expired or revoked."""
        return self._authenticator.authenticate(secret, address(request))

    def is_same_origin(self, request: Request) -> bool:
        """Whether a form comes from these pages, not from another site: browsers send one of two headers."""
        site = request.headers.get("sec-fetch-site")
        if site is not None:
            return site == "same-origin"
        origin = request.headers.get("origin")
        if origin is None:
            return False
        # A proxy may have changed the Host, so the public address counts as well.
        return urlsplit(origin).netloc == request.headers.get("host") or origin == self._options.public_url

    def is_secure(self, request: Request) -> bool:
        """Whether the browser came by https: by the setting, or as a trusted proxy says."""
        return self._options.secure or request.url.scheme == "https"

    def set_cookie(self, response: Response, request: Request, secret: str) -> None:
        """Keeps the session until the browser closes, or the session ends."""
        secure = self.is_secure(request)
        response.set_cookie(
            SECURE_COOKIE if secure else COOKIE,
            secret,
            httponly=True,
            # Coming back from another site, a browser leaves Strict cookies out of the page that follows.
            samesite="lax" if self._options.oidc is not None else "strict",
            secure=secure,
            path="/",
        )


def session_of(request: Request) -> str:
    """The secret of the cookie, '' without one; the one that only https can set comes first."""
    return request.cookies.get(SECURE_COOKIE) or request.cookies.get(COOKIE, "")


def forget(response: Response) -> None:
    """Takes the cookie back, by either name."""
    response.delete_cookie(SECURE_COOKIE, path="/", secure=True, httponly=True)
    response.delete_cookie(COOKIE, path="/", httponly=True)


def actor(request: Request, viewer: Viewer) -> Actor:
    """For the audit."""
    return Actor(viewer.name or "nobody", "page", address(request))


def address(request: Request) -> str:
    """The client's, by what trusted proxies say."""
    return request.client.host if request.client else "unknown"


def local_path(path: str) -> str:
    """Where to redirect after signing in: a path of this server, else its first page."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if plain else "/"


def is_loopback(host: str) -> bool:
    """Whether a host name or an address always means this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_local(request: Request) -> bool:
    # Browsers speak HTTP/1.1; nginx with nothing configured passes requests on as 1.0.
    if request.scope.get("http_version") == "1.0" or any(map(_of_a_proxy, request.headers.keys())):
        return False
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)


def _of_a_proxy(header: str) -> bool:
    return header.lower() in _PROXY_HEADERS or header.lower().startswith(_PROXY_PREFIXES)
