"""The ASGI middleware around every route: response headers, authentication, body limits; the outermost first.

Contract: default deny. Every path but the OpenAPI description needs a valid token, methods that change something need
the scope `act`; a new route is closed without doing anything for it. Below `AuthenticationMiddleware`
`request.state.actor` is who asks, and `request.state.principal` what they may. An invalid, an expired and a revoked
token get the same response.

`ResponseMiddleware` keeps responses out of caches, says how old the data of a replica is, and turns an unexpected
exception into a 500 without text: nothing is raised to the server, whose log would quote it. `BodyLimitMiddleware`
reads a whole body before a route does: at most 64 KiB (413), within ten seconds (408). It drains a larger body for a
while without keeping it, since a client that is still writing may never read the response.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alerts.lifecycle.audit import Actor
from monitor.web.api.problems import database_unavailable, internal_error, problem
from monitor.web.auth.authenticate import Authenticator, RetryLater
from monitor.web.auth.rate_limit import Limiter
from monitor.web.auth.refusals import refused
from monitor.web.data_as_of import header_of

OPENAPI_PATH = "/openapi.json"
MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 10.0

_MAX_DRAINED_BYTES = 1024 * 1024
_READ_METHODS = ("GET", "HEAD", "OPTIONS")
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class HttpMiddleware:
    """Base: `http` handles requests before `_app`; other scopes (lifespan, websocket) pass through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.http if scope["type"] == "http" else self._app)(scope, receive, send)

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class ResponseMiddleware(HttpMiddleware):
    """Adds the headers of every response; no exception gets past it."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(_HEADERS | header_of(scope))
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            database = isinstance(error, OperationalError | PoolTimeoutError)
            response = database_unavailable(error) if database else internal_error(error)
            # The server closes the connection of a response that ends halfway.
            if not started:
                await response(scope, receive, send_with_headers)


class AuthenticationMiddleware(HttpMiddleware):
    """Refuses requests without a valid token, over the rate limit, or beyond the token's scope."""

    def __init__(self, app: ASGIApp, engine: Engine, limiter: Limiter) -> None:
        super().__init__(app)
        self._authenticator = Authenticator(engine, limiter)
        self._limiter = limiter

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _path(scope) != OPENAPI_PATH:
            refusal = await run_in_threadpool(self._refusal, scope)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """The response to a request that is refused; None where it may pass, with its actor in the request's state."""
        client = scope.get("client")
        address = str(client[0]) if client else "unknown"
        secret = _bearer_token(Headers(scope=scope).get("authorization"))
        if secret is None:
            return _unauthorized("no token: send Authorization: Bearer awry_...; awry tokens create makes one")
        principal = self._authenticator.authenticate(secret, address)
        if principal is None:
            return _unauthorized("the token is invalid, expired or revoked; see awry tokens list")
        if isinstance(principal, RetryLater):
            return _too_many_requests(str(principal), principal.seconds)
        wait = self._limiter.count_request(principal.id)
        if wait is not None:
            return _too_many_requests(f"too many requests with this token; try again in {wait} s", wait)
        if scope["method"] not in _READ_METHODS and not principal.may_act:
            refused("scope", address, f"{principal.name} has the scope read")
            return problem(403, "the token has the scope read; create one with --scope act")
        scope.setdefault("state", {}).update(actor=Actor(principal.name, "api", address), principal=principal)
        return None


class BodyLimitMiddleware(HttpMiddleware):
    """Refuses bodies that are too large or too slow."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = Headers(scope=scope).get("content-length", "")
        if length.isascii() and length.isdigit() and (len(length) > 9 or int(length) > _MAX_DRAINED_BYTES):
            await self._refuse(413, scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(receive)
        except TimeoutError:
            await self._refuse(408, scope, receive, send)
            return
        if body is None:
            return
        if len(body) > MAX_BODY_BYTES:
            await self._refuse(413, scope, receive, send)
            return
        replayed = False

        async def receive_body() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_body, send)

    async def _refuse(self, status: int, scope: Scope, receive: Receive, send: Send) -> None:
        details = {
            413: f"the body is larger than {MAX_BODY_BYTES} bytes",
            408: f"the body did not arrive within {BODY_SECONDS:g} s",
        }
        # The rest of the body is not read, so the connection cannot be used again.
        await problem(status, details[status], headers={"Connection": "close"})(scope, receive, send)


def _path(scope: Scope) -> str:
    """The path below the mount point."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _bearer_token(header: str | None) -> str | None:
    scheme, _, secret = (header or "").strip().partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def _unauthorized(detail: str) -> Response:
    return problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


def _too_many_requests(detail: str, wait: int) -> Response:
    return problem(429, detail, headers={"Retry-After": str(wait)})


async def _read(receive: Receive) -> bytes | None:
    """The body, or a part of it that is already too large; None when the client disconnected."""
    body, size = bytearray(), 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        size += len(part)
        if len(body) <= MAX_BODY_BYTES:
            body += part
        if size > _MAX_DRAINED_BYTES or not message.get("more_body", False):
            return bytes(body)
