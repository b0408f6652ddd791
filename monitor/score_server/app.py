"""The routes of `awry score-server`.

Contract: `POST /api/v1/score` takes messages in any format that awry reads (one, an array, or JSON lines) and needs a
token of scope `score`, on loopback too; `/healthz`, `/readyz` and `/metrics` are open. 200 has a verdict for every
message, whatever became of it; a caller that fails closed takes anything but `pass` for a refusal. Refused are: 400 a
body that holds nothing or a wrong parameter, 401 and 403 by token, 408 a slow body, 413 a large one or more messages
than may wait, 415 an encoding, 503 (with Retry-After)
where too many wait or the model took too long. Nothing is stored, unless a sink is given: then what was sent is safe in
it before the response, for the workers to score and store.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from monitor.ingest import responses
from monitor.ingest.bodies import read_body
from monitor.ingest.frame import framed
from monitor.ingest.inflight import InFlight, Lease
from monitor.ingest.record import Headers, OutRecord
from monitor.ingest.refused import RefusedError
from monitor.ingest.sinks import Sink
from monitor.ingest.splitting import split
from monitor.ingest.storing import format_of, headers_of, media_type_of, store
from monitor.score_server.queue import QueueFullError, ScoreQueue, ScoringError, TooManyError
from monitor.score_server.verdict import gravest, verdict_of
from monitor.service.batch_rows import Outcome, ProcessedMessage, parse_record
from monitor.stream.parse import Parser
from monitor.stream.record import Record
from monitor.stream.wire import WireMessage
from monitor.telemetry import health, metrics
from monitor.web.auth.cache import TokenCache
from monitor.web.auth.tokens import Scope
from storage.coordinates import Coordinates

RETRY_SECONDS = 1
PATH = "/api/v1/score"
SCOPE: Scope = "score"


@dataclass(frozen=True)
class Limits:
    """As the settings of the same names (score_..., ingest_...)."""

    max_request_bytes: int
    max_bytes: int
    body_seconds: float
    ack_seconds: float
    score_seconds: float


class Scoring:
    """Requests to one queue. Of one event loop."""

    def __init__(
        self,
        queue: ScoreQueue,
        parser: Parser,
        tokens: TokenCache,
        limits: Limits,
        *,
        shadow: Collection[str] = (),
        sink: Sink | None = None,
    ) -> None:
        self._queue = queue
        self._parser = parser
        self._tokens = tokens
        self._limits = limits
        self._shadow = frozenset(shadow)
        self._sink = sink
        self._held = InFlight(limits.max_bytes)

    async def score(self, request: Request) -> Response:
        """The response to a request, whatever happens; counted and timed."""

        def count(status: int, seconds: float) -> None:
            metrics.SCORE_REQUESTS.labels(str(status)).inc()
            metrics.SCORE_SECONDS.observe(seconds)

        async def handle(lease: Lease) -> Response:
            return await self._answer(request, lease)

        return await framed(request, "score", self._held.lease(), self._tokens, SCOPE, handle, count)

    async def _answer(self, request: Request, lease: Lease) -> Response:
        format_ = format_of(request)
        media_type = media_type_of(request)
        limits = self._limits
        body = await read_body(request, lease, max_bytes=limits.max_request_bytes, seconds=limits.body_seconds)
        values = split(body, media_type)
        if not values:
            raise RefusedError(400, "the body is empty")
        stored_type = responses.PROTOBUF if media_type == responses.PROTOBUF else responses.JSON
        headers = headers_of(request, stored_type, format_)
        processed = await run_in_threadpool(self._parsed, values, headers)
        if not processed:
            raise RefusedError(400, "the body holds no message")
        processed = await self._scored(processed)
        if self._sink is not None:
            await store([OutRecord(value, headers) for value in values], lease, self._sink, limits.ack_seconds)
        verdicts = [verdict_of(each, self._shadow) for each in processed]
        for verdict in verdicts:
            metrics.SCORE_MESSAGES.labels(verdict["decision"]).inc()
        return responses.document({"decision": gravest(verdicts), "messages": verdicts})

    def _parsed(self, values: list[bytes], headers: Headers) -> list[ProcessedMessage]:
        found = []
        for number, value in enumerate(values):
            digest = hashlib.sha256(value).hexdigest()
            record = Record(Coordinates("request", 0, number), value, len(value), None, tuple(headers), digest)
            found += parse_record(record, self._parser)
        return found

    async def _scored(self, processed: list[ProcessedMessage]) -> list[ProcessedMessage]:
        readable = [i for i, each in enumerate(processed) if isinstance(each.parsed, WireMessage)]
        messages = [each.parsed for each in processed if isinstance(each.parsed, WireMessage)]
        try:
            futures = self._queue.submit(messages)
        except TooManyError as error:
            raise RefusedError(413, str(error)) from None
        except (QueueFullError, ScoringError) as error:
            raise RefusedError(503, f"{error}; try again", retry_after=RETRY_SECONDS) from None
        waiting = asyncio.gather(*(asyncio.wrap_future(future) for future in futures))
        try:
            outcomes: list[Outcome] = await asyncio.wait_for(waiting, self._limits.score_seconds)
        except TimeoutError:
            raise RefusedError(
                503, f"not scored within {self._limits.score_seconds:g} s; try again", retry_after=RETRY_SECONDS
            ) from None
        except ScoringError as error:
            raise RefusedError(503, f"{error}; try again", retry_after=RETRY_SECONDS) from None
        for i, outcome in zip(readable, outcomes, strict=True):
            processed[i] = replace(processed[i], outcome=outcome)
        return processed


def make_app(scoring: Scoring, queue: ScoreQueue) -> Starlette:
    """Everything that the address of `awry score-server` serves."""
    app = Starlette(
        routes=[
            *health.routes(live=queue.trouble, ready=queue.trouble),
            Route(PATH, scoring.score, methods=["POST"]),
        ],
        exception_handlers={404: _not_found, 405: _not_found},
    )
    app.router.redirect_slashes = False
    return app


async def _not_found(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return responses.problem(status, f"there is POST {PATH}", {"Allow": "POST"} if status == 405 else {})
