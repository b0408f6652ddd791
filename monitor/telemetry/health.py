"""`/metrics` for Prometheus, `/healthz` and `/readyz` for liveness and readiness probes.

Contract: within `serving("HOST:PORT", live=..., ready=...)` a server of its own answers them; `routes` are the same for
an application that serves more. `live` and `ready` give None when all is well, else a short reason without prompt text,
which becomes the body of a 503; one that raises gives its error's class. Both are called in threads, while the worker
runs: they must return soon. An address that cannot be had is a SettingsError that names the fix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from monitor.telemetry.http_server import bind, format_address, parse_address, running
from monitor.telemetry.metrics import BUILD_INFO, REGISTRY

Check = Callable[[], str | None]

_STOP_SECONDS = 2
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class HealthServer:
    """A running server; `address` is its real HOST:PORT."""

    address: str


@contextmanager
def serving(listen: str, *, live: Check, ready: Check) -> Iterator[HealthServer]:
    """Serve on `listen` ('HOST:PORT'; port 0 picks a free one) until the block ends."""
    host, port = parse_address(listen)
    listener = bind(host, port)
    address = format_address(host, listener.getsockname()[1])
    BUILD_INFO.labels(version("awry")).set(1)
    app = Starlette(routes=routes(live=live, ready=ready), exception_handlers={404: _refuse, 405: _refuse})
    app.router.redirect_slashes = False
    with running(app, listener, name="health", stop_seconds=_STOP_SECONDS, server_header="awry"):
        yield HealthServer(address)


def routes(*, live: Check, ready: Check) -> list[Route]:
    """The three routes. Starlette runs plain functions in threads, so that a slow check delays no other request."""

    def metrics(request: Request) -> Response:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        try:
            return _response(200, encode(REGISTRY), media_type)
        except Exception as error:  # by class: its text may quote anything
            return _response(500, f"{type(error).__name__}\n".encode())

    def healthz(_: Request) -> Response:
        return _checked(live)

    def readyz(_: Request) -> Response:
        return _checked(ready)

    return [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]


def _checked(check: Check) -> Response:
    try:
        reason = check()
    except Exception as error:  # by class: its text may quote anything
        reason = type(error).__name__
    return _response(200, b"ok\n") if reason is None else _response(503, f"{reason}\n".encode("utf-8", "replace"))


async def _refuse(request: Request, _: Exception) -> Response:
    if request.method in ("GET", "HEAD"):
        return _response(404, b"there is /metrics, /healthz and /readyz\n")
    return _response(405, b"GET or HEAD\n", Allow="GET, HEAD")


def _response(status: int, body: bytes, media_type: str = _TEXT, **headers: str) -> Response:
    return Response(body, status, headers={"Content-Type": media_type, "Cache-Control": "no-store", **headers})
