"""Before any route: whose request is it, and may they? A route that is forgotten here is closed, not open.

Contract: an ASGI middleware. Every path but the description itself needs a good token; methods that change something
need the scope `act`. Below it `request.state.holder` and `request.state.actor` say who it is. What a wrong token gets
is the same whether it never was one, has expired or was revoked.
"""

from __future__ import annotations

from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from alerts.lifecycle.audit import Actor
from monitor.web.api.envelope import Layer
from monitor.web.api.problems import problem
from monitor.web.auth.authenticate import Holders, Wait
from monitor.web.auth.rate_limit import Limiter

OPEN = "/openapi.json"
_READING = ("GET", "HEAD", "OPTIONS")


class Gate(Layer):
    """Lets in who may."""

    def __init__(self, app: ASGIApp, engine: Engine, limiter: Limiter) -> None:
        super().__init__(app)
        self._holders = Holders(engine, limiter)
        self._limiter = limiter

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _path(scope) != OPEN:
            refused = await run_in_threadpool(self._refusal, scope)
            if refused is not None:
                await refused(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer where it ends here; else the request knows its holder."""
        client = scope.get("client")
        address = str(client[0]) if client else "unknown"
        secret = _bearer(Headers(scope=scope).get("authorization"))
        if secret is None:
            return _stranger("send a token: Authorization: Bearer awry_...; awry token create makes one")
        found = self._holders.find(secret, address)
        if found is None:
            return _stranger("this token is not good, or no longer; awry token list says which are")
        if isinstance(found, Wait):
            return _slow_down(str(found), found.seconds)
        wait = self._limiter.spend(found.id)
        if wait is not None:
            return _slow_down(f"this token asks too often; try again in {wait} s", wait)
        if scope["method"] not in _READING and not found.may_act:
            return problem(403, "this token may only read; create one with --scope act")
        scope.setdefault("state", {}).update(holder=found, actor=Actor(found.name, "api", address))
        return None


def _path(scope: Scope) -> str:
    """Below what it is mounted on."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _bearer(header: str | None) -> str | None:
    scheme, _, secret = (header or "").strip().partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def _stranger(detail: str) -> Response:
    return problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


def _slow_down(detail: str, wait: int) -> Response:
    return problem(429, detail, headers={"Retry-After": str(wait)})
