"""`awry serve`: the web pages, the HTTP API below `/api/v1`, `/metrics`, `/healthz` and `/readyz` on one address.

Contract: within `serving("HOST:PORT", ...)` one server runs in a daemon thread; at the end of the block requests in
progress get a few seconds to finish. On a loopback address local users may read the pages; on any other address, and
for every change, a token is needed (`monitor.web.ui.access`). There is no TLS: put it behind a TLS proxy. There is no
access log, since paths and queries may hold names of users.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.routing import Mount

from alerts.links import Links
from monitor.telemetry import health
from monitor.telemetry.http_server import bind, format_address, parse_address, running
from monitor.web.api.app import make_api
from monitor.web.auth.rate_limit import Limiter
from monitor.web.ui.access import is_loopback
from monitor.web.ui.app import make_ui

_STOP_SECONDS = 5


def make_app(engine: Engine, links: Links, ready: health.Check, *, loopback_only: bool) -> Starlette:
    """Everything that one address serves; `loopback_only` as in `monitor.web.ui.app.make_ui`."""
    limiter = Limiter()
    return Starlette(
        routes=[
            *health.routes(live=lambda: None, ready=ready),
            Mount("/api/v1", make_api(engine, limiter)),
            Mount("/", make_ui(engine, links, loopback_only=loopback_only, limiter=limiter)),
        ]
    )


@contextmanager
def serving(listen: str, engine: Engine, links: Links, ready: health.Check) -> Iterator[str]:
    """Answer on `listen` ('HOST:PORT'; port 0 picks a free one) until the block ends; gives the real HOST:PORT."""
    host, port = parse_address(listen)
    listener = bind(host, port)
    app = make_app(engine, links, ready, loopback_only=is_loopback(host))
    with running(app, listener, name="web", stop_seconds=_STOP_SECONDS):
        yield format_address(host, listener.getsockname()[1])
