"""Signing in and out: with a token, by a single sign-on, by the link on the server's terminal.

Contract: whichever way somebody comes, a session begins, with an audit row, and the cookie holds its secret. Afterwards
the browser goes to a path of this server. A sign-on that fails is logged and counted; the page says why in words that
quote nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from alerts.lifecycle.audit import Actor
from monitor.web.auth import sessions, sign_ins
from monitor.web.auth.authenticate import RetryLater
from monitor.web.auth.oidc import OidcError, Provider
from monitor.web.auth.once import OnceLink
from monitor.web.auth.options import AccessOptions
from monitor.web.auth.rate_limit import Limiter
from monitor.web.auth.refusals import refused
from monitor.web.auth.sessions import SignedIn
from monitor.web.auth.tokens import Principal, secret_digest
from monitor.web.ui.access import Access, address, forget, local_path, session_of
from storage.errors import BusyError

SIGN_ON = "/sign-in/oidc"
CALLBACK = "/sign-in/oidc/callback"
# Of the browser that goes to the provider: it comes back from another site, so Lax.
BROWSER_COOKIE = "awry_sign_on"

Render = Callable[[Request, str, dict[str, Any], int], Awaitable[Response]]
Form = Callable[[Request], Awaitable[dict[str, str]]]


class SignIn:
    """The routes. `render` makes a page, `form` reads a form; `once` is the link on the terminal, if there is one."""

    def __init__(
        self,
        engine: Engine,
        access: Access,
        options: AccessOptions,
        limiter: Limiter,
        *,
        render: Render,
        form: Form,
        once: OnceLink | None,
    ) -> None:
        self._engine = engine
        self._access = access
        self._options = options
        self._limiter = limiter
        self._render = render
        self._form = form
        self._once = once
        self._provider = Provider(options.oidc) if options.oidc is not None else None

    def routes(self) -> list[Route]:
        own = [
            Route("/sign-in", self.sign_in, methods=["GET", "POST"]),
            Route("/sign-out", self.sign_out, methods=["POST"]),
        ]
        if self._provider is not None:
            own += [Route(SIGN_ON, self.to_provider), Route(CALLBACK, self.from_provider)]
        return own

    async def sign_in(self, request: Request) -> Response:
        if request.method != "POST":
            if self._once is not None and request.method == "GET" and "once" in request.query_params:
                return await self._by_link(request, self._once)
            return await self._page(request, local_path(request.query_params.get("next", "/")))
        if not self._access.is_same_origin(request):
            raise HTTPException(403, "the form was sent from another site")
        form = await self._form(request)
        back, secret = local_path(form.get("next", "/")), form.get("token", "").strip()
        found = await run_in_threadpool(self._access.token, secret, request) if secret else None
        if isinstance(found, RetryLater):
            self._wait(found.seconds)
        if not isinstance(found, Principal):
            return await self._page(request, back, "The token is invalid, expired or revoked.")
        return await self._begin(request, found, "token", back)

    async def sign_out(self, request: Request) -> Response:
        if not self._access.is_same_origin(request):
            raise HTTPException(403, "the form was sent from another site")

        def end() -> None:
            with self._engine.begin() as connection:
                sessions.end(connection, session_of(request), address(request))

        await run_in_threadpool(end)
        response = RedirectResponse("/", 303)
        forget(response)
        return response

    async def to_provider(self, request: Request) -> Response:
        """Send the browser to the provider."""
        self._wait(self._limiter.count_sign_on(address(request)))
        browser = secrets.token_urlsafe(32)
        back = local_path(request.query_params.get("next", "/"))

        def begin() -> str:
            with self._engine.begin() as connection:
                begun = sign_ins.begin(connection, browser, back)
            return self._known_provider().address(begun.state, begun.nonce, begun.verifier)

        try:
            target = await run_in_threadpool(begin)
        except BusyError as error:
            raise HTTPException(503, str(error)) from None
        except OidcError as error:
            return await self._failed(request, error)
        response = RedirectResponse(target, 303)
        response.set_cookie(
            BROWSER_COOKIE,
            browser,
            max_age=int(sign_ins.LASTING.total_seconds()),
            httponly=True,
            samesite="lax",
            secure=self._access.is_secure(request),
            path=CALLBACK,
        )
        return response

    async def from_provider(self, request: Request) -> Response:
        """The browser comes back with a code."""
        query = dict(request.query_params)
        browser, state = request.cookies.get(BROWSER_COOKIE, ""), query.get("state", "")
        self._wait(self._limiter.blocked(address(request)))

        def finish() -> tuple[SignedIn, str]:
            with self._engine.begin() as connection:
                begun = sign_ins.take(connection, browser, state)
            if begun is None:
                raise OidcError("this sign-in is over, or was begun in another browser; begin again")
            provider = self._known_provider()
            return provider.signed_in(provider.identity(query, begun.nonce, begun.verifier)), begun.next

        try:
            who, back = await run_in_threadpool(finish)
        except OidcError as error:
            return await self._failed(request, error)
        response = await self._begin(request, who, "single sign-on", back)
        response.delete_cookie(BROWSER_COOKIE, path=CALLBACK)
        return response

    async def _by_link(self, request: Request, once: OnceLink) -> Response:
        secret = request.query_params["once"]
        if not once.take(secret):
            refused("wrong", address(request), "a link that is used, over or wrong", secret_digest(secret))
            self._limiter.count_failure(address(request))
            return await self._page(
                request, "/", "The link was used already, or is over: it works once, for 10 minutes."
            )
        return await self._begin(request, SignedIn(once.name, "read"), "link on the terminal", "/")

    async def _begin(self, request: Request, who: Principal | SignedIn, how: str, back: str) -> Response:
        def begin() -> str:
            actor = Actor(who.name, "page", address(request))
            with self._engine.begin() as connection:
                return sessions.begin(connection, who, actor, how, self._options.session_lasting)

        secret = await run_in_threadpool(begin)
        response = RedirectResponse(back, 303)
        self._access.set_cookie(response, request, secret)
        return response

    async def _failed(self, request: Request, error: OidcError) -> Response:
        refused("sign-on", address(request), str(error))
        self._limiter.count_failure(address(request))
        return await self._page(request, "/", f"Signing in failed: {error}.")

    async def _page(self, request: Request, back: str, refusal: str | None = None) -> Response:
        values = {"refusal": refusal, "next": back, "sign_on": SIGN_ON if self._provider is not None else None}
        return await self._render(request, "sign_in.html", values, 401 if refusal else 200)

    def _wait(self, seconds: int | None) -> None:
        if seconds is not None:
            raise HTTPException(429, str(RetryLater(seconds)), headers={"Retry-After": str(seconds)})

    def _known_provider(self) -> Provider:
        assert self._provider is not None  # noqa: S101 - for the type checker: without one there is no such route
        return self._provider
