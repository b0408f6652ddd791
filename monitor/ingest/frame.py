"""The frame around the handling of a request: a token, a refusal as a response, a defect as 500, the time it took.

Contract: `framed` gives a response whatever happens, and its bytes in flight are released then. A request that is
refused is answered before what it holds is released again. A defect is logged by its class, since its text may quote
anything; a client that went away counts as 499. Used by `awry ingest` and `awry score-server`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from monitor.ingest import responses
from monitor.ingest.authorize import authorize
from monitor.ingest.bodies import drain
from monitor.ingest.inflight import Lease
from monitor.ingest.refused import RefusedError
from monitor.telemetry import logs
from monitor.web.auth.cache import TokenCache
from monitor.web.auth.tokens import Scope

Handle = Callable[[Lease], Awaitable[Response]]
Refused = Callable[[int, str, dict[str, str]], Response]


async def framed(
    request: Request,
    route: str,
    lease: Lease,
    tokens: TokenCache,
    scope: Scope,
    handle: Handle,
    count: Callable[[int, float], object],
    refused: Refused = responses.problem,
) -> Response:
    """The response of `handle` to who has a token of that scope. `count` takes its status and the seconds it took;
    `refused` makes the response of a status, a sentence and headers."""
    began = time.perf_counter()
    try:
        try:
            await authorize(request, tokens, scope)
            response = await handle(lease)
        except RefusedError as refusal:
            lease.release()
            response = await _refusal(request, refusal, refused)
    except ClientDisconnect:
        response = Response(status_code=499)
    except Exception as error:  # by class: its text may quote anything
        logs.logger().error("a request failed", route=route, error=type(error).__name__)
        response = refused(500, "internal error", {"Connection": "close"})
    finally:
        lease.release()
    count(response.status_code, time.perf_counter() - began)
    return response


async def _refusal(request: Request, refusal: RefusedError, refused: Refused) -> Response:
    headers = {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.status == 408:
        headers["Connection"] = "close"
    if refusal.drain:
        await drain(request, refusal.drain)
    return refused(refusal.status, refusal.detail, headers)
