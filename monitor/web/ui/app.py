"""The web pages as a Starlette application: routes, access checks and security headers.

Contract: every page is read in one transaction that ends before rendering. A stored text is shown only when the audit
row of its reading is committed. Errors are pages with a status and a
sentence; an unexpected exception is a 500 that names its class, since its text may quote a row. Nothing is loaded from
other hosts: no fonts, no scripts, no frames.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import URL
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from alerts.errors import AlertsError, UnknownAlertError
from alerts.lifecycle.states import STATES
from alerts.links import Links
from monitor.web.api.evidence import place_of, record_reading
from monitor.web.api.pagination import CursorError
from monitor.web.auth.authenticate import Authenticator, RetryLater
from monitor.web.auth.rate_limit import Limiter
from monitor.web.ui import formatting, views
from monitor.web.ui.access import COOKIE, Access, Viewer, actor, is_same_origin, local_path, set_cookie
from monitor.web.ui.forms import ACTIONS
from storage.coordinates import clean

_HERE = Path(__file__).parent
# Seconds between two refreshes by live.js.
REFRESH = 10
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_MAX_FORM_BYTES = 16_384


def make_ui(engine: Engine, links: Links, *, loopback_only: bool, limiter: Limiter | None = None) -> Starlette:
    """The application. `loopback_only`: the server listens on loopback only, where pages are read without a token.

    `limiter` is shared with the API where both are served, so that failures are counted once per address.
    """
    pages = _Pages(engine, links, Access(Authenticator(engine, limiter or Limiter()), loopback_only=loopback_only))
    return Starlette(
        routes=[
            Route("/", pages.now),
            Route("/alerts", pages.alerts),
            Route("/alerts/{alert_id:uuid}", pages.alert),
            Route("/alerts/{alert_id:uuid}/{action}", pages.act, methods=["POST"]),
            # Not as integers: Starlette's convertor fails on one of thousands of digits.
            Route("/messages/{source:path}/{partition}/{offset}", pages.message),
            Route("/probes", pages.probes),
            Route("/probes/{name:path}", pages.probe),
            Route("/sign-in", pages.sign_in, methods=["GET", "POST"]),
            Route("/sign-out", pages.sign_out, methods=["POST"]),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_with_headers)],
        exception_handlers={
            HTTPException: pages.problem,
            AlertsError: pages.alerts_error,
            OperationalError: pages.database_unavailable,
            PoolTimeoutError: pages.database_unavailable,
            Exception: pages.problem,
        },
    )


async def _with_headers(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if getattr(request.state, "stale", False):
        # Otherwise each refresh by live.js would count as another invalid token.
        response.delete_cookie(COOKIE)
    return response


class _Pages:
    def __init__(self, engine: Engine, links: Links, access: Access) -> None:
        self._engine = engine
        self._links = links
        self._access = access
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= formatting.FILTERS

    async def now(self, request: Request) -> Response:
        return await self._read(request, "now.html", views.now)

    async def alerts(self, request: Request) -> Response:
        state = request.query_params.get("state")
        if state and state not in STATES:
            raise HTTPException(400, f"state: use one of {', '.join(STATES)}")
        try:
            return await self._read(request, "alerts.html", lambda c: views.alerts(c, request.query_params))
        except CursorError:
            raise HTTPException(400, "cursor: not valid; start again from the first page") from None

    async def alert(self, request: Request) -> Response:
        return await self._alert(request, None)

    async def _alert(self, request: Request, refusal: str | None, status: int = 200) -> Response:
        def values(connection: Any) -> dict[str, Any] | None:
            alert = views.alert(connection, request.path_params["alert_id"], self._links)
            return {**alert, "refusal": refusal} if alert is not None else None

        return await self._read(request, "alert.html", values, "there is no such alert", status)

    async def message(self, request: Request) -> Response:
        path = request.path_params
        try:
            at = place_of(path["source"], path["partition"], path["offset"])
        except ValueError as error:
            raise HTTPException(404, f"coordinates: {error}") from None

        def recorded(values: dict[str, Any], viewer: Viewer) -> dict[str, Any]:
            """Whoever is shown a text is written down first; where that fails, no text is shown."""
            shown = values["has_text"] and request.method == "GET"
            if shown:
                try:
                    record_reading(self._engine, actor(request, viewer), at)
                except DBAPIError:
                    shown = False
            return {**values, "shows_text": shown}

        missing = "no message is known at these coordinates"
        return await self._read(request, "message.html", lambda c: views.message(c, at), missing, then=recorded)

    async def probes(self, request: Request) -> Response:
        return await self._read(request, "probes.html", views.probes)

    async def probe(self, request: Request) -> Response:
        name = clean(request.path_params["name"])
        missing = "no worker has loaded a probe of this name"
        return await self._read(request, "probe.html", lambda c: views.probe(c, name), missing)

    async def act(self, request: Request) -> Response:
        viewer = await self._viewer(request)
        if not is_same_origin(request):
            raise HTTPException(403, "the form was sent from another site; open the alert here and send it again")
        if not viewer.may_act:
            why = "the token has the scope read" if viewer.name else "sign in first"
            raise HTTPException(403, f"{why}; awry tokens create NAME --scope act creates one that may change alerts")
        alert_id, name = request.path_params["alert_id"], request.path_params["action"]
        if name not in ACTIONS:
            raise HTTPException(404, f"no such action; use one of {', '.join(ACTIONS)}")
        form = await _form(request)

        def change() -> None:
            with self._engine.begin() as connection:
                ACTIONS[name](connection, alert_id, actor(request, viewer), form)

        try:
            await run_in_threadpool(change)
        except UnknownAlertError:
            raise HTTPException(404, "there is no such alert") from None
        except AlertsError as error:
            # Usually somebody else was quicker: the alert is shown as it is now, with the reason.
            return await self._alert(request, str(error), 409)
        return RedirectResponse(f"/alerts/{alert_id}", 303)

    async def sign_in(self, request: Request) -> Response:
        if request.method == "GET":
            values = {"invalid": False, "next": _next_path(request)}
            return self._render(request, "sign_in.html", await self._viewer(request), values)
        if not is_same_origin(request):
            raise HTTPException(403, "the form was sent from another site")
        form = await _form(request)
        back, secret = local_path(form.get("next", "/")), form.get("token", "").strip()
        signed_in = await run_in_threadpool(self._access.authenticate, secret, request) if secret else None
        if isinstance(signed_in, RetryLater):
            raise HTTPException(429, str(signed_in), headers={"Retry-After": str(signed_in.seconds)})
        if signed_in is None:
            viewer = await self._viewer(request)
            return self._render(request, "sign_in.html", viewer, {"invalid": True, "next": back}, 401)
        response = RedirectResponse(back, 303)
        set_cookie(response, request, secret)
        return response

    async def sign_out(self, request: Request) -> Response:
        if not is_same_origin(request):
            raise HTTPException(403, "the form was sent from another site")
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE)
        return response

    async def _viewer(self, request: Request) -> Viewer:
        viewer = await run_in_threadpool(self._access.viewer, request)
        request.state.stale = viewer.stale
        return viewer

    async def _read(
        self,
        request: Request,
        template: str,
        view: Callable[[Any], dict[str, Any] | None],
        missing: str = "",
        status: int = 200,
        then: Callable[[dict[str, Any], Viewer], dict[str, Any]] | None = None,
    ) -> Response:
        """The page of what `view` read; `then` is called with it and the viewer, when the transaction is over."""
        viewer = await self._viewer(request)
        if not viewer.may_read:
            return RedirectResponse(f"/sign-in?next={quote(_path_and_query(request.url))}", 303)

        def read() -> dict[str, Any] | None:
            with self._engine.connect() as connection:
                values = view(connection)
            return then(values, viewer) if then is not None and values is not None else values

        values = await run_in_threadpool(read)
        if values is None:
            raise HTTPException(404, missing)
        return self._render(request, template, viewer, values, status)

    def _render(
        self, request: Request, template: str, viewer: Viewer, values: dict[str, Any], status: int = 200
    ) -> Response:
        now = datetime.now(UTC)
        common = {
            "viewer": viewer,
            "here": request.url.path,
            "path": _path_and_query(request.url),
            "at": now,
            "refresh": REFRESH,
            "ago": lambda moment: formatting.ago(moment, now),
            "changed": formatting.changed,
        }
        return HTMLResponse(self._templates.get_template(template).render(**common, **values), status)

    async def problem(self, request: Request, error: Exception) -> Response:
        """An error page; an unexpected exception by its class, since its text may quote a row."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = str(error.detail) if isinstance(error, HTTPException) else type(error).__name__
        if status in (404, 405) and detail == HTTPStatus(status).phrase:
            detail = "there is no such page, or not with this method"
        viewer = Viewer(None, False, False)
        response = self._render(request, "problem.html", viewer, {"status": status, "detail": detail}, status)
        response.headers.update(getattr(error, "headers", None) or {})
        return response

    async def alerts_error(self, request: Request, error: Exception) -> Response:
        """An error of `alerts`, whose text is made for people."""
        return await self.problem(request, HTTPException(400, str(error)))

    async def database_unavailable(self, request: Request, error: Exception) -> Response:  # noqa: ARG002 - Starlette's signature
        detail = "the database is unavailable or busy; notifications are sent as soon as it is back"
        return await self.problem(request, HTTPException(503, detail))


async def _form(request: Request) -> dict[str, str]:
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > _MAX_FORM_BYTES:
        raise HTTPException(413, f"the form is larger than {_MAX_FORM_BYTES} bytes")
    async with request.form(max_files=0, max_fields=20) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


def _next_path(request: Request) -> str:
    return local_path(request.query_params.get("next", "/"))


def _path_and_query(url: URL) -> str:
    return url.path + (f"?{url.query}" if url.query else "")
