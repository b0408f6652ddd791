"""One ASGI application on one address, in a daemon thread: pages and API of `awry serve`, health of every process.

Contract: `parse_address` takes HOST:PORT apart, `bind` gives a listening socket; an address that cannot be had is a
SettingsError that names the fix. Within `running(app, listener, ...)` uvicorn serves it. There is no access log, since
paths may hold names of users, and X-Forwarded-* is left to the application (`monitor.web.server`). A client
that does not send the whole of its headers within REQUEST_SECONDS of their first byte loses its connection, and so
does one whose body takes longer than `body_seconds`.

There are never more connections than `max_connections`, and fewer than the process may have files open: over that, the
one that has kept us waiting for the longest for the rest of its request goes; where none does, the new one goes.

There is neither TLS nor a password: listen on loopback, or behind a proxy that has them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from monitor.errors import MonitorError, SettingsError

REQUEST_SECONDS = 10.0
# More than the API's own limit, which answers 408.
BODY_SECONDS = 15.0
MAX_CONNECTIONS = 512
# Files that a process opens beside its clients: database, Kafka, logs, spool, libraries.
_OWN_FILES = 64
EXAMPLE = "127.0.0.1:9464"

_START_SECONDS = 30.0
# After the graceful shutdown, for uvicorn's own loop to end.
_JOIN_SECONDS = 5.0
_REFUSALS = {
    errno.EADDRINUSE: "is taken by another process; choose another port, or port 0 for a free one",
    errno.EADDRNOTAVAIL: f"is not an address of this machine; write one of its own, for example {EXAMPLE}",
    errno.EACCES: "may not be used by this user; choose a port from 1024 on",
}


def parse_address(listen: str) -> tuple[str, int]:
    """HOST:PORT taken apart. SettingsError names the fix."""
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number or too large, a bracket that is not closed
        host, port = None, None
    if not host or port is None or parts.netloc != listen or "@" in listen:
        raise SettingsError(f"listen: {listen!r} is not HOST:PORT; write for example {EXAMPLE}, or [::1]:9464")
    return host, port


def format_address(host: str, port: int) -> str:
    """HOST:PORT, brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on this address; port 0 takes a free one. SettingsError names the fix."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError):  # UnicodeError: a label that no name may have
        raise SettingsError(f"listen: the host {host!r} is not known; write for example {EXAMPLE}") from None
    # asyncio sets TCP_NODELAY only where the protocol is named: else each response waits 40 ms for its client.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A port that was just left may be taken again; one that is in use may not be shared.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        why = _REFUSALS.get(error.errno or 0, f"cannot be used ({type(error).__name__}); write for example {EXAMPLE}")
        raise SettingsError(f"listen: {format_address(host, port)} {why}") from None
    return listener


@contextmanager
def running(
    app: ASGIApp,
    listener: socket.socket,
    *,
    name: str,
    stop_seconds: int,
    server_header: str | None = None,
    max_connections: int = MAX_CONNECTIONS,
    body_seconds: float = BODY_SECONDS,
) -> Iterator[None]:
    """Serve in a thread called `name` until the block ends; requests in progress then get `stop_seconds` to finish."""
    config = uvicorn.Config(
        app,
        http=_limited(connections_at_most(max_connections), body_seconds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[("Server", server_header)] if server_header else None,
        timeout_graceful_shutdown=stop_seconds,
        proxy_headers=False,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_error)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name=name, daemon=True)
    thread.start()
    try:
        _wait_for_start(server, thread)
        yield
    finally:
        server.should_exit = True
        thread.join(stop_seconds + _JOIN_SECONDS)
        listener.close()


def _wait_for_start(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise MonitorError("listen: the server did not start")
        time.sleep(0.005)


def connections_at_most(wanted: int) -> int:
    """`wanted`, or what the limit of open files of this process leaves for clients."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    # A quarter at least: with so few files that nothing is left, some requests fail rather than all.
    return max(1, min(wanted, max(soft - _OWN_FILES, soft // 4)))


class _Protocol(H11Protocol):
    """uvicorn's, which would wait for ever for the first request of a connection, and for the rest of any request."""

    max_connections = MAX_CONNECTIONS
    body_seconds = BODY_SECONDS

    _begun: float | None = None
    _body_timer: asyncio.TimerHandle | None = None
    # Since when the client owes us the rest of a request; None while it waits for us.
    waiting_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.waiting_since = self.loop.time()
        self._close_after(self.loop.time())
        if len(self.connections) > self.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_body_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._begun is None:
            self._begun = self.loop.time()
        before = self.conn.their_state
        super().data_received(data)  # stops the timer
        state = self.conn.their_state
        if state is not h11.IDLE:  # the headers are complete
            self._begun = None
        elif before is not h11.IDLE:  # the rest of a body whose response was sent: the next request has yet to begin
            self._begun = None
            self._close_after(self.loop.time())
        elif self.timeout_keep_alive_task is None:
            self._close_after(self._begun)
        self._note_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note_waiting()

    def _note_waiting(self) -> None:
        if self.conn.their_state is not h11.SEND_BODY:
            self._stop_body_timer()
        elif self._body_timer is None:
            self._body_timer = self.loop.call_later(self.body_seconds, self.transport.close)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self.waiting_since = None
        elif self.waiting_since is None:
            self.waiting_since = self.loop.time()

    def _make_room(self) -> None:
        """Close whoever has owed us the rest of a request for the longest: another one, as long as there is one."""
        waiting = [
            (other.waiting_since, id(other), other)
            for other in self.connections
            if isinstance(other, _Protocol)
            and other is not self
            and other.waiting_since is not None
            and not other.transport.is_closing()
        ]
        closing = sum(other.transport.is_closing() for other in self.connections)
        if len(self.connections) - closing > self.max_connections:
            (min(waiting)[2] if waiting else self).transport.close()

    def _close_after(self, begun: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_at(begun + REQUEST_SECONDS, self.timeout_keep_alive_handler)

    def _stop_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None


def _limited(connections: int, seconds: float) -> type[_Protocol]:
    """A protocol of a server with these limits."""

    class Limited(_Protocol):
        max_connections = connections
        body_seconds = seconds

    return Limited


def _is_error(record: logging.LogRecord) -> bool:
    """uvicorn also warns of each request that is no HTTP: a scanner would fill the log."""
    return record.levelno >= logging.ERROR
