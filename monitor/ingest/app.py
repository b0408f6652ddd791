"""The routes of `awry ingest`: who may send, what is read, when 2xx is answered.

Contract: every POST needs a token of scope `ingest`, on loopback too; `/healthz`, `/readyz` and `/metrics` are open.
2xx means that every record of the request is safe (`monitor.ingest.sinks`). After anything else the client may send the
whole request again: repeats are possible, loss is not. 429 and 503 have Retry-After. A record is the body as it came,
decoded; it has no key, and the headers content-type, awry_format (where it is known), traceparent (where the request
has one) and awry_received_at.

Does not know what is in a message: formats are recognised by the worker that reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from monitor.ingest import responses
from monitor.ingest.bodies import DRAIN_BYTES, read_body
from monitor.ingest.frame import Handle, Refused, framed
from monitor.ingest.inflight import InFlight, Lease
from monitor.ingest.otlp import split_request
from monitor.ingest.record import OutRecord
from monitor.ingest.refused import RefusedError
from monitor.ingest.sinks import Sink
from monitor.ingest.splitting import split
from monitor.ingest.storing import format_of, headers_of, media_type_of, store
from monitor.telemetry import health, metrics
from monitor.web.auth.cache import TokenCache

_OTLP_TYPES = (responses.PROTOBUF, responses.JSON)


@dataclass(frozen=True)
class Limits:
    """Bytes and seconds, as the settings of the same names (ingest_...)."""

    max_request_bytes: int
    max_bytes: int
    body_seconds: float
    ack_seconds: float


class Receiver:
    """Requests into a sink. Of one event loop."""

    def __init__(self, sink: Sink, tokens: TokenCache, limits: Limits) -> None:
        self._sink = sink
        self._tokens = tokens
        self._limits = limits
        self._held = InFlight(limits.max_bytes)

    async def traces(self, request: Request) -> Response:
        return await self._otlp(request, "traces")

    async def logs(self, request: Request) -> Response:
        return await self._otlp(request, "logs")

    async def litellm(self, request: Request) -> Response:
        return await self._messages(request, "litellm", lambda: "litellm")

    async def ingest(self, request: Request) -> Response:
        return await self._messages(request, "ingest", lambda: format_of(request))

    async def _otlp(self, request: Request, signal: str) -> Response:
        media_type = media_type_of(request)

        async def handle(lease: Lease) -> Response:
            if media_type not in _OTLP_TYPES:
                raise RefusedError(415, f"Content-Type: use one of {', '.join(_OTLP_TYPES)}", drain=DRAIN_BYTES)
            body = await self._body(request, lease)
            headers = headers_of(request, media_type, f"otlp-{signal}")
            values = split_request(body, media_type == responses.JSON)
            await store([OutRecord(value, headers) for value in values], lease, self._sink, self._limits.ack_seconds)
            return responses.exported(media_type)

        def refused(status: int, detail: str, headers: dict[str, str]) -> Response:
            shown = media_type if media_type in _OTLP_TYPES else responses.JSON
            return responses.otlp_error(shown, status, detail, headers)

        return await self._framed(request, signal, handle, refused)

    async def _messages(self, request: Request, route: str, named: Callable[[], str | None]) -> Response:
        async def handle(lease: Lease) -> Response:
            format_ = named()
            media_type = media_type_of(request)
            values = split(await self._body(request, lease), media_type)
            if not values:
                raise RefusedError(400, "the body is empty")
            stored_type = responses.PROTOBUF if media_type == responses.PROTOBUF else responses.JSON
            headers = headers_of(request, stored_type, format_)
            records = [OutRecord(value, headers) for value in values]
            await store(records, lease, self._sink, self._limits.ack_seconds)
            return responses.accepted(len(values))

        return await self._framed(request, route, handle, _problem_of(route))

    async def _framed(self, request: Request, route: str, handle: Handle, refused: Refused) -> Response:
        def count(status: int, seconds: float) -> None:
            metrics.INGEST_REQUESTS.labels(route, str(status)).inc()
            metrics.INGEST_SECONDS.labels(route).observe(seconds)

        return await framed(request, route, self._held.lease(), self._tokens, "ingest", handle, count, refused)

    async def _body(self, request: Request, lease: Lease) -> bytes:
        limits = self._limits
        return await read_body(request, lease, max_bytes=limits.max_request_bytes, seconds=limits.body_seconds)


def _problem_of(route: str) -> Refused:
    def refused(status: int, detail: str, headers: dict[str, str]) -> Response:
        # LiteLLM tries nothing again below 500.
        return responses.problem(503 if route == "litellm" and status == 429 else status, detail, headers)

    return refused


def make_app(receiver: Receiver, sink: Sink) -> Starlette:
    """Everything that the address of `awry ingest` serves."""
    app = Starlette(
        routes=[
            *health.routes(live=lambda: None, ready=lambda: sink.trouble),
            Route("/v1/traces", receiver.traces, methods=["POST"]),
            Route("/v1/logs", receiver.logs, methods=["POST"]),
            Route("/v1/litellm", receiver.litellm, methods=["POST"]),
            Route("/v1/ingest", receiver.ingest, methods=["POST"]),
        ],
        exception_handlers={404: _not_found, 405: _not_found},
    )
    app.router.redirect_slashes = False
    return app


async def _not_found(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    routes = "POST /v1/traces, /v1/logs, /v1/litellm or /v1/ingest"
    return responses.problem(status, f"there is {routes}", {"Allow": "POST"} if status == 405 else {})
