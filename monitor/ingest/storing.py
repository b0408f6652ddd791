"""From a request to a sink: the headers of its records, and waiting until they are safe.

Contract: `store` returns when all records are safe, and raises RefusedError (503) otherwise: the client may send the
whole request again.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import UTC, datetime

from starlette.requests import Request

from monitor.ingest.bodies import DRAIN_BYTES
from monitor.ingest.inflight import RECORD_BYTES, Lease
from monitor.ingest.record import FORMAT_HEADER, RECEIVED_HEADER, Headers, OutRecord
from monitor.ingest.refused import RefusedError, SinkError, SinkFullError
from monitor.ingest.sinks import Sink
from monitor.stream.formats import names

RETRY_SECONDS = 2
FULL_RETRY_SECONDS = 30
# Beyond the time that the sink has, for one that does not even give up.
_GRACE_SECONDS = 1.0

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[ -~]{0,64})?")


def media_type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def format_of(request: Request) -> str | None:
    """The format that a request names, if it does. Raises RefusedError (400) for one that is none, or other
    parameters."""
    given = request.query_params.multi_items()
    if any(name != "format" for name, _ in given):
        raise RefusedError(400, "there is one parameter, format", drain=DRAIN_BYTES)
    if len(given) > 1:
        raise RefusedError(400, "format: give it once", drain=DRAIN_BYTES)
    known = ("auto", *names())
    if given and given[0][1] not in known:
        raise RefusedError(400, f"format: use one of {', '.join(known)}", drain=DRAIN_BYTES)
    return given[0][1] if given else None


def headers_of(request: Request, media_type: str, format_: str | None) -> Headers:
    """What a record says of its request."""
    received = datetime.now(UTC).isoformat(timespec="milliseconds")
    headers = [("content-type", media_type.encode()), (RECEIVED_HEADER, received.encode())]
    if format_ is not None:
        headers.append((FORMAT_HEADER, format_.encode()))
    traceparent = request.headers.get("traceparent", "")
    if _TRACEPARENT.fullmatch(traceparent):
        headers.append(("traceparent", traceparent.encode()))
    return tuple(headers)


async def store(records: list[OutRecord], lease: Lease, sink: Sink, ack_seconds: float) -> None:
    """Returns when all records are safe; the lease is released when the sink is done with them."""
    if not records:
        return
    lease.resize(sum(len(record.value) + RECORD_BYTES for record in records))
    # It is the sink's, whatever becomes of the request.
    held = lease.hand_over()
    loop = asyncio.get_running_loop()
    safe: asyncio.Future[None] = loop.create_future()

    def finish(error: SinkError | None) -> None:
        held.release()
        if safe.done():
            return
        if error is None:
            safe.set_result(None)
        else:
            safe.set_exception(error)

    def done(error: SinkError | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(finish, error)

    sink.submit(records, done)
    # The sink has its own copy.
    records.clear()
    try:
        await asyncio.wait_for(safe, ack_seconds + _GRACE_SECONDS)
    except SinkFullError as error:
        raise RefusedError(503, str(error), retry_after=FULL_RETRY_SECONDS) from None
    except SinkError as error:
        raise RefusedError(503, str(error), retry_after=RETRY_SECONDS) from None
    except TimeoutError:
        raise RefusedError(503, "no acknowledgement in time", retry_after=RETRY_SECONDS) from None
