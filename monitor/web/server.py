"""`awry serve`: the page, the HTTP API below `/api/v1`, `/metrics`, `/healthz` and `/readyz` on one address.

Contract: within `serving("HOST:PORT", ...)` one server answers from a daemon thread; the block's end lets requests in
hand finish for a few seconds. On a loopback address whoever is on this machine may read the page; on any other, and for
every change, tokens are asked for (`monitor.web.ui.access`). There is no TLS: put it behind something that has it.
There is no access log, since addresses may be asked for with names of users in them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from alerts.links import Links
from monitor.errors import MonitorError
from monitor.telemetry import health
from monitor.web.api.app import make_api
from monitor.web.auth.rate_limit import Limiter
from monitor.web.ui.access import is_loopback
from monitor.web.ui.app import make_page

_START_SECONDS = 30.0
_STOP_SECONDS = 5


def make_app(engine: Engine, links: Links, ready: health.Check, *, free: bool) -> Starlette:
    """All that one address serves; `free` as in `monitor.web.ui`."""

    def metrics(request: Request) -> Response:
        status, kind, body = health.metrics_answer(request.headers.get("accept", ""))
        return Response(body, status, headers={"Content-Type": kind, "Cache-Control": "no-store"})

    def checked(path: str, check: health.Check) -> Route:
        def answer(_: Request) -> Response:
            status, kind, body = health.check_answer(check)
            return Response(body, status, headers={"Content-Type": kind, "Cache-Control": "no-store"})

        return Route(path, answer)

    limiter = Limiter()
    return Starlette(
        routes=[
            Route("/metrics", metrics),
            checked("/healthz", lambda: None),
            checked("/readyz", ready),
            Mount("/api/v1", make_api(engine, limiter)),
            Mount("/", make_page(engine, links, free=free, limiter=limiter)),
        ]
    )


@contextmanager
def serving(listen: str, engine: Engine, links: Links, ready: health.Check) -> Iterator[str]:
    """Answer on `listen` ('HOST:PORT'; port 0 picks a free one) until the block ends; gives the real HOST:PORT."""
    host, port = health.parse_address(listen)
    bound = health.bind(host, port)
    app = make_app(engine, links, ready, free=is_loopback(host))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
        # A proxy's word on who asks is not taken: nothing says which proxy may be believed.
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="web", daemon=True)
    thread.start()
    try:
        until = time.monotonic() + _START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > until:
                raise MonitorError("listen: the server did not start")
            time.sleep(0.02)
        yield health.written_address(host, bound.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(_STOP_SECONDS + 5)
        bound.close()
