"""One deadline for a whole HTTP exchange, and what a Retry-After header asks for.

Contract: a pool of httpcore2 with a `DeadlineBackend` raises its TimeoutException once the deadline is over, whatever
the exchange is at, also where the other side sends byte by byte (the time limits of httpcore2 are of one read). Knows
nothing of what is sent. Imports nothing of awry, so that every package may import it.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore2


class DeadlineBackend(httpcore2.NetworkBackend):
    """Gives every stream the deadline of the exchange that runs now, which `start` sets.

    `addresses(host, port)` says where to connect to, in the order in which it is tried; by default the system resolves
    the name. What it raises is raised by the exchange.
    """

    def __init__(self, addresses: Callable[[str, int], Sequence[str]] = lambda host, _port: [host]) -> None:
        self._addresses = addresses
        self._end = 0.0
        self._real = httpcore2.SyncBackend()

    def start(self, seconds: float) -> None:
        """From now on, so many seconds for all that is done."""
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until the deadline. Raises httpcore2.ReadTimeout when it is over."""
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise httpcore2.ReadTimeout("the deadline is over")
        return seconds

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline counts
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        failure: Exception = httpcore2.ConnectError("no address")
        for address in self._addresses(host, port):
            try:
                stream = self._real.connect_tcp(address, port, self.left, local_address, socket_options)
            except httpcore2.ConnectError as error:
                failure = error
            else:
                return _Stream(stream, self)
        raise failure

    def connect_unix_socket(self, path: str, timeout: Any = None, socket_options: Any = None) -> Any:
        raise NotImplementedError


class _Stream(httpcore2.NetworkStream):
    """A stream whose reads and writes end at the deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, backend: DeadlineBackend) -> None:
        self._stream = stream
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, self._backend.left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, self._backend.left)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._backend.left), self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def seconds_of(retry_after: str | None) -> float | None:
    """A Retry-After header, in seconds from now; None where it is missing or no time."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)
