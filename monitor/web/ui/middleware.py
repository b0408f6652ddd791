"""The ASGI middleware around every page: response headers, the age of a replica's data, cookies of no use, and
unexpected exceptions.

Contract: no exception gets past it, since the server would log it without class and place, or with its text, which may
quote a row: the log gets class and place, the browser an error page. A client that goes away leaves no line.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.web.api.middleware import HttpMiddleware
from monitor.web.api.problems import log_unexpected
from monitor.web.data_as_of import header_of
from monitor.web.ui.access import forget


class PageMiddleware(HttpMiddleware):
    """`problem` makes the page of an unexpected exception."""

    def __init__(
        self,
        app: ASGIApp,
        headers: Mapping[str, str],
        problem: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        super().__init__(app)
        self._own = headers
        self._problem = problem

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in {**self._own, **header_of(scope)}.items():
                    headers.setdefault(name, value)
                if scope.get("state", {}).get("stale"):
                    # Otherwise each refresh by live.js would count as another invalid secret.
                    taken = Response()
                    forget(taken)
                    for value in taken.headers.getlist("set-cookie"):
                        headers.append("set-cookie", value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass
        except Exception as error:
            log_unexpected(error)
            if not started:
                response = await self._problem(Request(scope), error)
                await response(scope, receive, send_with_headers)
