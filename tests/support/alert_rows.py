"""A receiver on loopback, and alerts made in code."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sqlalchemy import Engine, func, select, update

from alerts.lifecycle.lifecycle import Opened, record
from alerts.rules.model import Flagged
from storage.schema import alerts, outbox

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SENDERS = ("pager", "siem")


def flagged(
    offset: int = 0,
    value: float = 0.6,
    *,
    probe: str = "drift",
    tenant: str | None = "shop",
    model: str | None = "smol",
    threshold: float = 0.5,
) -> Flagged:
    return Flagged(probe, value, threshold, tenant, model, ("topic", 0, offset), f"m{offset}")


def open_alerts(engine: Engine, found: Sequence[Flagged], destinations: Sequence[str] = ("pager",)) -> list[Opened]:
    with engine.begin() as connection:
        return record(connection, found, destinations)


def all_alerts(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(alerts).order_by(alerts.c.opened_at)))


def all_outbox(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(outbox).order_by(outbox.c.created_at, outbox.c.destination)))


def set_state(engine: Engine, state: str) -> None:
    with engine.begin() as connection:
        connection.execute(update(alerts).values(state=state))


def make_due(engine: Engine) -> None:
    """As if the waits were over."""
    with engine.begin() as connection:
        connection.execute(update(outbox).values(due_at=func.now() - timedelta(seconds=1)))


def wait_of(row: Any) -> float:
    """Seconds until the row is due."""
    return float((row.due_at - datetime.now(UTC)).total_seconds())


@dataclass
class Reply:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    # Written instead of an answer, a byte each `drip` seconds where that is given.
    raw: bytes | None = None
    drip: float = 0.0


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers with `replies` in order, the last one for ever, and keeps what it got."""

    url: str = ""
    replies: list[Reply] = field(default_factory=lambda: [Reply()])
    received: list[Received] = field(default_factory=list)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A real HTTP server on loopback."""
    state = Receiver()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with lock:
                headers = {k.lower(): v for k, v in self.headers.items()}
                state.received.append(Received(self.path, headers, body))
                reply = state.replies[min(len(state.received), len(state.replies)) - 1]
            time.sleep(reply.seconds)
            try:
                if reply.raw is not None:
                    self._write_raw(reply.raw, reply.drip)
                    return
                self.send_response(reply.status)
                for name, value in {"content-length": "0", **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
            except (BrokenPipeError, ConnectionResetError):
                pass  # the sender did not wait

        def _write_raw(self, raw: bytes, drip: float) -> None:
            self.close_connection = True
            for chunk in (raw[i : i + 1] for i in range(len(raw))) if drip else (raw,):
                self.wfile.write(chunk)
                self.wfile.flush()
                time.sleep(drip)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
