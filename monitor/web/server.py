"""`awry serve`: the web pages, the HTTP API below `/api/v1`, `/metrics`, `/healthz` and `/readyz` on one address.

Contract: within `serving("HOST:PORT", ...)` one server runs in a daemon thread; at the end of the block requests in
progress get a few seconds to finish. Who may read and change is in `options` (`monitor.web.auth.options`). There is no
TLS: put it behind a TLS proxy. X-Forwarded-For and X-Forwarded-Proto are believed from `options.trusted_proxies` alone.
There is no access log, since paths and queries may hold names of users. What is read comes from `replica` where there
is one (`monitor.web.auth.tenancy`); tokens, changes and what is written down of reading are the primary's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from alerts.links import Links
from alerts.rules.exceptions import RuleException
from monitor.telemetry import health
from monitor.telemetry.http_server import bind, format_address, parse_address, running
from monitor.web.api.app import make_api
from monitor.web.auth.once import OnceLink
from monitor.web.auth.options import DEFAULT, AccessOptions
from monitor.web.auth.rate_limit import Limiter
from monitor.web.ui.access import is_loopback
from monitor.web.ui.app import make_ui

_STOP_SECONDS = 5


def make_app(
    engine: Engine,
    links: Links,
    ready: health.Check,
    *,
    loopback_only: bool,
    options: AccessOptions = DEFAULT,
    once: OnceLink | None = None,
    replica: Engine | None = None,
    exceptions: Sequence[RuleException] = (),
) -> ASGIApp:
    """Everything that one address serves; the arguments are those of `monitor.web.ui.app.make_ui`."""
    limiter = Limiter()
    ui = make_ui(
        engine,
        links,
        loopback_only=loopback_only,
        limiter=limiter,
        options=options,
        once=once,
        replica=replica,
        exceptions=exceptions,
    )
    app = Starlette(
        routes=[
            *health.routes(live=lambda: None, ready=ready),
            Mount("/api/v1", make_api(engine, limiter, replica)),
            Mount("/", ui),
        ]
    )
    if not options.trusted_proxies:
        return app
    return ProxyHeadersMiddleware(app, list(options.trusted_proxies))  # type: ignore[arg-type, return-value]


@contextmanager
def serving(
    listen: str,
    engine: Engine,
    links: Links,
    ready: health.Check,
    options: AccessOptions = DEFAULT,
    once: OnceLink | None = None,
    replica: Engine | None = None,
    exceptions: Sequence[RuleException] = (),
) -> Iterator[str]:
    """Answer on `listen` ('HOST:PORT'; port 0 picks a free one) until the block ends; gives the real HOST:PORT."""
    host, port = parse_address(listen)
    listener = bind(host, port)
    app = make_app(
        engine,
        links,
        ready,
        loopback_only=is_loopback(host),
        options=options,
        once=once,
        replica=replica,
        exceptions=exceptions,
    )
    with running(app, listener, name="web", stop_seconds=_STOP_SECONDS):
        yield format_address(host, listener.getsockname()[1])
