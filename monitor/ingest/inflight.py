"""How many bytes of requests are held at once: the bound on memory.

Contract: a `Lease` is what one request holds; `resize` raises RefusedError (429) where all together would hold more
than `max_bytes`, and changes nothing then. A lease is released when the stream has taken the records or has given them
up, which may be after the response: what Kafka's client still holds is counted. Used from one thread.
"""

from __future__ import annotations

from monitor.ingest.refused import RefusedError
from monitor.telemetry import metrics

RETRY_SECONDS = 1
# Python objects around a record: headers, its future, its place in a batch.
RECORD_BYTES = 1024


class InFlight:
    """All leases of a process."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.bytes = 0

    def lease(self) -> Lease:
        return Lease(self)

    def change(self, by: int) -> None:
        """Raises RefusedError where it grows beyond the limit."""
        if by > 0 and self.bytes + by > self._max_bytes:
            raise RefusedError(
                429, f"too many bytes are in flight; try again in {RETRY_SECONDS} s", retry_after=RETRY_SECONDS
            )
        self.bytes += by
        metrics.INGEST_BYTES_IN_FLIGHT.set(self.bytes)


class Lease:
    """What one request holds."""

    def __init__(self, held: InFlight) -> None:
        self._held = held
        self._bytes = 0

    def resize(self, size: int) -> None:
        self._held.change(size - self._bytes)
        self._bytes = size

    def hand_over(self) -> Lease:
        """A lease for whoever goes on with the bytes; this one holds nothing then."""
        other = Lease(self._held)
        other._bytes, self._bytes = self._bytes, 0
        return other

    def release(self) -> None:
        """May be called again."""
        self.resize(0)
