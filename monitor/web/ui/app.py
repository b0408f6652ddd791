"""The web pages as a Starlette application: routes, access checks and security headers.

Contract: every page is read in one transaction that ends before rendering. A stored text is shown only when the audit
row of its reading is committed. Errors are pages with a status and a sentence; an unexpected exception is a 500 that
names its class, since its text may quote a row. A session of one tenant has each transaction in that tenant's name
(`monitor.web.auth.tenancy`). Nothing is loaded from other hosts: no fonts, no scripts, no frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
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
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from alerts.errors import AlertsError, UnknownAlertError
from alerts.lifecycle.states import STATES
from alerts.links import Links
from alerts.rules.exceptions import RuleException
from monitor.web.api.evidence import erased_words, place_of, record_reading
from monitor.web.api.pagination import CursorError
from monitor.web.api.problems import UNSERVED, log_unserved, refuse_tenant
from monitor.web.auth.authenticate import Authenticator
from monitor.web.auth.once import OnceLink
from monitor.web.auth.options import DEFAULT, AccessOptions
from monitor.web.auth.rate_limit import Limiter
from monitor.web.auth.refusals import refused
from monitor.web.auth.tenancy import Tenancy, TenantAccessError, TenantRefusedError
from monitor.web.data_as_of import note
from monitor.web.ui import formatting, views
from monitor.web.ui.access import NOBODY, Access, Viewer, actor, address
from monitor.web.ui.forms import ACTIONS
from monitor.web.ui.middleware import PageMiddleware
from monitor.web.ui.sign_in import SignIn
from storage.coordinates import clean
from storage.replica import as_of

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
_FORM_SECONDS = 10.0


def make_ui(
    engine: Engine,
    links: Links,
    *,
    loopback_only: bool,
    limiter: Limiter | None = None,
    options: AccessOptions = DEFAULT,
    once: OnceLink | None = None,
    replica: Engine | None = None,
    exceptions: Sequence[RuleException] = (),
) -> Starlette:
    """The application. `loopback_only`: the server listens on loopback only, so that the pages may be open there
    (`options.page_open`). `once`: a link that signs in once. `exceptions`: those of the rules file, to be shown.

    `limiter` is shared with the API where both are served, so that failures are counted once per address.
    """
    limiter = limiter or Limiter()
    access = Access(Authenticator(engine, limiter), options, loopback_only=loopback_only)
    pages = _Pages(engine, links, access, replica, exceptions)
    sign_in = SignIn(engine, access, options, limiter, render=pages.plain, form=_form, once=once)
    return Starlette(
        routes=[
            Route("/", pages.now),
            Route("/alerts", pages.alerts),
            Route("/alerts/{alert_id:uuid}", pages.alert),
            Route("/alerts/{alert_id:uuid}/{action}", pages.act, methods=["POST"]),
            Route("/messages", pages.messages),
            # Not as integers: Starlette's convertor fails on one of thousands of digits.
            Route("/messages/{source:path}/{partition}/{offset}", pages.message),
            Route("/probes", pages.probes),
            Route("/probes/{name:path}", pages.probe),
            *sign_in.routes(),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(PageMiddleware, headers=_HEADERS, problem=pages.problem)],
        exception_handlers={
            HTTPException: pages.problem,
            AlertsError: pages.alerts_error,
            OperationalError: pages.database_unavailable,
            PoolTimeoutError: pages.database_unavailable,
            TenantRefusedError: pages.tenant_refused,
            TenantAccessError: pages.tenants_unserved,
        },
    )


class _Pages:
    def __init__(
        self,
        engine: Engine,
        links: Links,
        access: Access,
        replica: Engine | None,
        exceptions: Sequence[RuleException],
    ) -> None:
        self._engine = engine
        self._exceptions = exceptions
        self._tenancy = Tenancy(engine, replica=replica)
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
        return await self._read(
            request, "now.html", lambda c: views.now(c, self._exceptions), of_tenant=views.now_of_tenant
        )

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

    async def messages(self, request: Request) -> Response:
        try:
            return await self._read(request, "messages.html", lambda c: views.messages(c, request.query_params))
        except ValueError as error:
            raise HTTPException(400, str(error)) from None

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

        def known(connection: Any) -> dict[str, Any] | None:
            values = views.message(connection, at)
            if values is None and (erased := erased_words(connection, at, None)) is not None:
                raise HTTPException(410, erased)
            return values

        missing = "no message is known at these coordinates"
        of_tenant = partial(views.message, at=at)
        return await self._read(request, "message.html", known, missing, then=recorded, of_tenant=of_tenant)

    async def probes(self, request: Request) -> Response:
        return await self._read(request, "probes.html", views.probes)

    async def probe(self, request: Request) -> Response:
        name = clean(request.path_params["name"])
        missing = "no worker has loaded a probe of this name"
        return await self._read(request, "probe.html", lambda c: views.probe(c, name), missing)

    async def act(self, request: Request) -> Response:
        viewer = await self._viewer(request)
        if not self._access.is_same_origin(request):
            raise HTTPException(403, "the form was sent from another site; open the alert here and send it again")
        if not viewer.may_act:
            refused("scope", address(request), "somebody who may only read")
            why = "the token has the scope read" if viewer.name else "sign in first"
            raise HTTPException(403, f"{why}; awry tokens create NAME --scope act creates one that may change alerts")
        alert_id, name = request.path_params["alert_id"], request.path_params["action"]
        if name not in ACTIONS:
            raise HTTPException(404, f"no such action; use one of {', '.join(ACTIONS)}")
        form = await _form(request)

        def change() -> None:
            with self._tenancy.changing(viewer.tenant) as connection:
                ACTIONS[name](connection, alert_id, actor(request, viewer), form)

        try:
            await run_in_threadpool(change)
        except UnknownAlertError:
            raise HTTPException(404, "there is no such alert") from None
        except AlertsError as error:
            # Usually somebody else was quicker: the alert is shown as it is now, with the reason.
            return await self._alert(request, str(error), 409)
        return RedirectResponse(f"/alerts/{alert_id}", 303)

    async def plain(self, request: Request, template: str, values: dict[str, Any], status: int) -> Response:
        """A page without anything of the database."""
        return self._render(request, template, await self._viewer(request), values, status)

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
        of_tenant: Callable[[Any], dict[str, Any] | None] | None = None,
    ) -> Response:
        """The page of what `view` read, or `of_tenant` for a viewer of one tenant; `then` is called with it and the
        viewer, when the transaction is over."""
        viewer = await self._viewer(request)
        if not viewer.may_read:
            return RedirectResponse(f"/sign-in?next={quote(_path_and_query(request.url))}", 303)

        def read() -> dict[str, Any] | None:
            with self._tenancy.reading(viewer.tenant) as connection:
                shown = as_of(connection)
                note(request, shown)
                values = (of_tenant if of_tenant is not None and viewer.tenant is not None else view)(connection)
                if values is not None:
                    values["replica_as_of"] = shown
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
            # Not the sign-in page itself, whose query may be a link that signs in.
            "path": "/" if request.url.path.startswith("/sign-in") else _path_and_query(request.url),
            "at": now,
            "replica_as_of": None,
            "refresh": REFRESH,
            "ago": lambda moment: formatting.ago(moment, now),
            "changed": formatting.changed,
        }
        return HTMLResponse(self._templates.get_template(template).render(common | values), status)

    async def problem(self, request: Request, error: Exception) -> Response:
        """An error page; an unexpected exception by its class, since its text may quote a row."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = str(error.detail) if isinstance(error, HTTPException) else type(error).__name__
        if status in (404, 405) and detail == HTTPStatus(status).phrase:
            detail = "there is no such page, or not with this method"
        response = self._render(request, "problem.html", NOBODY, {"status": status, "detail": detail}, status)
        response.headers.update(getattr(error, "headers", None) or {})
        return response

    async def alerts_error(self, request: Request, error: Exception) -> Response:
        """An error of `alerts`, whose text is made for people."""
        return await self.problem(request, HTTPException(400, str(error)))

    async def tenant_refused(self, request: Request, error: Exception) -> Response:
        """A row of another tenant's, or a table that is not kept by tenant."""
        refuse_tenant(request, "a session of one tenant")
        return await self.problem(request, HTTPException(403, str(error)))

    async def tenants_unserved(self, request: Request, error: Exception) -> Response:
        """The database cannot hold a session to its tenant."""
        log_unserved(error)
        return await self.problem(request, HTTPException(503, UNSERVED))

    async def database_unavailable(self, request: Request, error: Exception) -> Response:  # noqa: ARG002 - Starlette's signature
        detail = "the database is unavailable or busy; notifications are sent as soon as it is back"
        return await self.problem(request, HTTPException(503, detail))


async def _form(request: Request) -> dict[str, str]:
    length = request.headers.get("content-length", "")
    if not length.isdigit() or len(length) > 9 or int(length) > _MAX_FORM_BYTES:
        raise HTTPException(413, f"the form is larger than {_MAX_FORM_BYTES} bytes")
    try:
        async with asyncio.timeout(_FORM_SECONDS), request.form(max_files=0, max_fields=20) as form:
            return {name: value for name, value in form.items() if isinstance(value, str)}
    except TimeoutError:
        # The rest of it is not read, so the connection cannot be used again.
        detail = f"the form did not arrive within {_FORM_SECONDS:g} s"
        raise HTTPException(408, detail, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the form did not arrive whole") from None


def _path_and_query(url: URL) -> str:
    return url.path + (f"?{url.query}" if url.query else "")
