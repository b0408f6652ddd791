"""What holds for every answer and every body, whatever the route.

Contract: ASGI middlewares. `Answers`, the outermost one, adds the headers that keep answers out of caches, and turns
what nobody expected into a 500 that holds no text: nothing is raised to the server, whose log would quote it.
`Bodies` reads a body whole before the routes do: at most 64 KiB (413), within ten seconds (408). Of one that is larger
it reads on for a while without keeping it, since a client that still writes may never read its answer.
"""

from __future__ import annotations

import asyncio

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.web.api.problems import defect, problem, unavailable

LARGEST = 64 * 1024
BODY_SECONDS = 10.0

_HEARD_OUT = 1024 * 1024

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Layer:
    """An ASGI middleware: `http` handles requests over `_app`, and what is no request goes through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.http if scope["type"] == "http" else self._app)(scope, receive, send)

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class Answers(Layer):
    """Headers of all answers; no error gets past it."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def out(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            await self._app(scope, receive, out)
        except Exception as error:
            away = isinstance(error, OperationalError | PoolTimeoutError)
            answer = unavailable(error) if away else defect(error)
            # The server closes the connection of an answer that ends halfway.
            if not started:
                await answer(scope, receive, out)


class Bodies(Layer):
    """Bodies of a reasonable size, in reasonable time."""

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = Headers(scope=scope).get("content-length", "")
        if length.isascii() and length.isdigit() and (len(length) > 9 or int(length) > _HEARD_OUT):
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
        if len(body) > LARGEST:
            await self._refuse(413, scope, receive, send)
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    async def _refuse(self, status: int, scope: Scope, receive: Receive, send: Send) -> None:
        said = {
            413: f"the body is larger than {LARGEST} bytes",
            408: f"the body did not come within {BODY_SECONDS:g} s",
        }
        # What is left of the body is not read, so the connection is of no more use.
        await problem(status, said[status], headers={"Connection": "close"})(scope, receive, send)


async def _read(receive: Receive) -> bytes | None:
    """The body, or a part of it that is too large; None when the client went away."""
    body, size = bytearray(), 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        size += len(part)
        if len(body) <= LARGEST:
            body += part
        if size > _HEARD_OUT or not message.get("more_body", False):
            return bytes(body)
