"""The page as an application: routes, who may see them, and the headers that keep it to itself.

Contract: every page reads in one transaction that ends before it is written out. A page that is not there, or may not
be seen, is an answer in words with its status; a defect is a 500 that names the error's class, since its text may quote
a row. Nothing is loaded from elsewhere: no fonts, no scripts, no frames.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
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

from alerts.links import Links
from alerts.errors import AlertsError, UnknownAlertError
from alerts.lifecycle.states import STATES
from monitor.web.api.pagination import CursorError
from monitor.web.auth.authenticate import Holders, Wait
from monitor.web.auth.rate_limit import Limiter
from monitor.web.ui import formatting, views
from monitor.web.ui.access import COOKIE, Access, Viewer, actor, from_here, local_path, remember
from monitor.web.ui.forms import ACTIONS
from storage.writer import Coordinates, clean

_HERE = Path(__file__).parent
# Seconds between two looks of the page at itself.
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
_LARGEST_FORM = 16_384
_BIGINT, _INTEGER = 2**63 - 1, 2**31 - 1


def make_page(engine: Engine, links: Links, *, free: bool, limiter: Limiter | None = None) -> Starlette:
    """The application. `free`: it listens on loopback only, and may be read there without a token.

    `limiter` is the API's where both are served, so that an address has one count of wrong tokens.
    """
    page = _Page(engine, links, Access(Holders(engine, limiter or Limiter()), free=free))
    return Starlette(
        routes=[
            Route("/", page.now),
            Route("/alerts", page.alerts),
            Route("/alerts/{alert_id:uuid}", page.alert),
            Route("/alerts/{alert_id:uuid}/{action}", page.act, methods=["POST"]),
            Route("/messages/{source:path}/{partition:int}/{offset:int}", page.message),
            Route("/probes", page.probes),
            Route("/probes/{name:path}", page.probe),
            Route("/sign-in", page.sign_in, methods=["GET", "POST"]),
            Route("/sign-out", page.sign_out, methods=["POST"]),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_with_headers)],
        exception_handlers={
            HTTPException: page.problem,
            AlertsError: page.refused,
            OperationalError: page.away,
            PoolTimeoutError: page.away,
            Exception: page.problem,
        },
    )


async def _with_headers(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if getattr(request.state, "stale", False):
        # Else each look of the page at itself would count as one more wrong token.
        response.delete_cookie(COOKIE)
    return response


class _Page:
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
            raise HTTPException(400, f"state: there are {', '.join(STATES)}")
        try:
            return await self._read(request, "alerts.html", lambda c: views.alerts(c, request.query_params))
        except CursorError:
            raise HTTPException(400, "cursor: follow the link to older alerts from the first page again") from None

    async def alert(self, request: Request) -> Response:
        return await self._alert(request, None)

    async def _alert(self, request: Request, refusal: str | None, status: int = 200) -> Response:
        def found(connection: Any) -> dict[str, Any] | None:
            one = views.alert(connection, request.path_params["alert_id"], self._links)
            return {**one, "refusal": refusal} if one is not None else None

        return await self._read(request, "alert.html", found, "there is no such alert", status)

    async def message(self, request: Request) -> Response:
        asked = request.path_params
        if asked["partition"] > _INTEGER or asked["offset"] > _BIGINT:
            raise HTTPException(404, "no message has such coordinates")
        at = Coordinates(clean(asked["source"]), asked["partition"], asked["offset"])
        return await self._read(
            request, "message.html", lambda c: views.message(c, at), "awry has seen no message at these coordinates"
        )

    async def probes(self, request: Request) -> Response:
        return await self._read(request, "probes.html", views.probes)

    async def probe(self, request: Request) -> Response:
        name = clean(request.path_params["name"])
        missing = "no worker has loaded a probe of this name"
        return await self._read(request, "probe.html", lambda c: views.probe(c, name), missing)

    async def act(self, request: Request) -> Response:
        viewer = await self._viewer(request)
        if not from_here(request):
            raise HTTPException(403, "the form was not sent from this page; open the alert here and send it again")
        if not viewer.may_act:
            why = "this token reads only" if viewer.name else "sign in first"
            raise HTTPException(403, f"{why}; awry token create NAME --scope act makes a token that may change alerts")
        alert_id, name = request.path_params["alert_id"], request.path_params["action"]
        if name not in ACTIONS:
            raise HTTPException(404, f"there is no such action; there are {', '.join(ACTIONS)}")
        form = await _form(request)

        def change() -> None:
            with self._engine.begin() as connection:
                ACTIONS[name](connection, alert_id, actor(request, viewer), form)

        try:
            await run_in_threadpool(change)
        except UnknownAlertError:
            raise HTTPException(404, "there is no such alert") from None
        except AlertsError as error:
            # Somebody else was quicker, as a rule: what the alert is now is shown with the reason.
            return await self._alert(request, str(error), 409)
        return RedirectResponse(f"/alerts/{alert_id}", 303)

    async def sign_in(self, request: Request) -> Response:
        if request.method == "GET":
            values = {"wrong": False, "next": _next(request)}
            return self._write(request, "sign_in.html", await self._viewer(request), values)
        if not from_here(request):
            raise HTTPException(403, "the form was not sent from this page")
        form = await _form(request)
        back, secret = local_path(form.get("next", "/")), form.get("token", "").strip()
        holder = await run_in_threadpool(self._access.holder, secret, request) if secret else None
        if isinstance(holder, Wait):
            raise HTTPException(429, str(holder), headers={"Retry-After": str(holder.seconds)})
        if holder is None:
            viewer = await self._viewer(request)
            return self._write(request, "sign_in.html", viewer, {"wrong": True, "next": back}, 401)
        response = RedirectResponse(back, 303)
        remember(response, request, secret)
        return response

    async def sign_out(self, request: Request) -> Response:
        if not from_here(request):
            raise HTTPException(403, "the form was not sent from this page")
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
        find: Callable[[Any], dict[str, Any] | None],
        missing: str = "",
        status: int = 200,
    ) -> Response:
        viewer = await self._viewer(request)
        if not viewer.may_read:
            return RedirectResponse(f"/sign-in?next={quote(_path(request.url))}", 303)

        def found() -> dict[str, Any] | None:
            with self._engine.connect() as connection:
                return find(connection)

        values = await run_in_threadpool(found)
        if values is None:
            raise HTTPException(404, missing)
        return self._write(request, template, viewer, values, status)

    def _write(
        self, request: Request, template: str, viewer: Viewer, values: dict[str, Any], status: int = 200
    ) -> Response:
        at = datetime.now(UTC)
        common = {
            "viewer": viewer,
            "here": request.url.path,
            "path": _path(request.url),
            "at": at,
            "refresh": REFRESH,
            "ago": lambda moment: formatting.ago(moment, at),
            "changed": formatting.changed,
        }
        return HTMLResponse(self._templates.get_template(template).render(**common, **values), status)

    async def problem(self, request: Request, error: Exception) -> Response:
        """A status in words; a defect by its class, since its text may quote a row."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        said = str(error.detail) if isinstance(error, HTTPException) else type(error).__name__
        viewer = Viewer(None, False, False)
        response = self._write(request, "problem.html", viewer, {"status": status, "said": said}, status)
        response.headers.update(getattr(error, "headers", None) or {})
        return response

    async def refused(self, request: Request, error: Exception) -> Response:
        """What awry refuses on purpose."""
        return await self.problem(request, HTTPException(400, str(error)))

    async def away(self, request: Request, error: Exception) -> Response:  # noqa: ARG002 - by its class alone
        """The database cannot be asked."""
        why = "the database does not answer, or is too busy; alerts go out as before, as soon as it is back"
        return await self.problem(request, HTTPException(503, why))


async def _form(request: Request) -> dict[str, str]:
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > _LARGEST_FORM:
        raise HTTPException(413, f"the form is larger than {_LARGEST_FORM} bytes")
    async with request.form(max_files=0, max_fields=20) as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


def _next(request: Request) -> str:
    return local_path(request.query_params.get("next", "/"))


def _path(url: URL) -> str:
    return url.path + (f"?{url.query}" if url.query else "")
