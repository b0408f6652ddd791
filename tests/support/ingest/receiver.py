"""A receiver that is served on loopback, with a real sink or one that a test steers; requests to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from sqlalchemy import Engine

from monitor.ingest.app import Limits, Receiver, make_app
from monitor.ingest.record import OutRecord
from monitor.ingest.refused import SinkError
from monitor.ingest.sinks import Done, Sink
from monitor.telemetry.http_server import bind, running
from monitor.web.auth.cache import TokenCache
from monitor.web.auth.rate_limit import Limiter

LIMITS = Limits(max_request_bytes=1_000_000, max_bytes=4_000_000, body_seconds=5.0, ack_seconds=5.0)


@dataclass
class HeldSink:
    """Takes everything; says so at once, or when it is told to."""

    name: str = "a list"
    trouble: str | None = None
    error: SinkError | None = None
    hold: bool = False
    records: list[OutRecord] = field(default_factory=list)
    waiting: list[Done] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, records: Sequence[OutRecord], done: Done) -> None:
        with self._lock:
            self.records += records
            if self.hold:
                self.waiting.append(done)
                return
        # As Kafka's client does, from another thread.
        threading.Thread(target=done, args=(self.error,)).start()

    def let_go(self, error: SinkError | None = None) -> None:
        with self._lock:
            waiting, self.waiting = self.waiting, []
        for done in waiting:
            done(error)

    def close(self) -> None:
        return None


@contextmanager
def receiving(
    engine: Engine,
    sink: Sink,
    limits: Limits = LIMITS,
    *,
    keep_seconds: float = 900.0,
    limiter: Limiter | None = None,
    clock: Callable[[], float] | None = None,
) -> Iterator[str]:
    """Its URL, until the block ends."""
    listener = bind("127.0.0.1", 0)
    more: dict[str, Any] = {} if clock is None else {"clock": clock}
    tokens = TokenCache(engine, limiter or Limiter(), keep_seconds=keep_seconds, **more)
    app = make_app(Receiver(sink, tokens, limits), sink)
    try:
        with running(app, listener, name="ingest", stop_seconds=2):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        tokens.close()


def client(url: str, secret: str | None, **headers: str) -> httpx2.Client:
    given = {"Authorization": f"Bearer {secret}"} if secret is not None else {}
    return httpx2.Client(base_url=url, headers=given | headers, timeout=20.0, trust_env=False)
