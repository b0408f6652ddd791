"""A small HTTP server beside the loop: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever restarts awry.

Contract: within `serving("HOST:PORT", live=..., ready=...)` the server answers from daemon threads. `live` and `ready`
give None when all is well, else a short reason without prompt text, which becomes the body of a 503; one that raises
gives its error's class. Both are called from the server's threads, while the loop runs: they look, and never wait.
An address that cannot be had is a SettingsError that names the fix. There is no access log.

There is neither TLS nor a password: listen on loopback, or behind something that has them.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from importlib.metadata import version
from socketserver import TCPServer, ThreadingMixIn
from urllib.parse import urlsplit

from prometheus_client.exposition import choose_encoder

from monitor.errors import SettingsError
from monitor.telemetry.metrics import BUILD_INFO, REGISTRY

Check = Callable[[], str | None]

_EXAMPLE = "127.0.0.1:9464"
_TEXT = "text/plain; charset=utf-8"
_REFUSALS = {
    errno.EADDRINUSE: "is taken by another process; choose another port, or port 0 for a free one",
    errno.EADDRNOTAVAIL: f"is not an address of this machine; write one of its own, for example {_EXAMPLE}",
    errno.EACCES: "may not be used by this user; choose a port from 1024 on",
}


@dataclass(frozen=True)
class HealthServer:
    """A running server; `address` is its real HOST:PORT."""

    address: str


@contextmanager
def serving(listen: str, *, live: Check, ready: Check) -> Iterator[HealthServer]:
    """Answer on `listen` ('HOST:PORT'; port 0 picks a free one) until the block ends."""
    host, port = parse_address(listen)
    BUILD_INFO.labels(version("awry")).set(1)
    server = _Server(bind(host, port), {"/healthz": live, "/readyz": ready})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="health", daemon=True)
    thread.start()
    try:
        yield HealthServer(written_address(host, server.server_address[1]))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def parse_address(listen: str) -> tuple[str, int]:
    """HOST:PORT taken apart. SettingsError names the fix."""
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number or too large, a bracket that is not closed
        host, port = None, None
    if not host or port is None or parts.netloc != listen or "@" in listen:
        raise SettingsError(f"listen: {listen!r} is not HOST:PORT; write for example {_EXAMPLE}, or [::1]:9464")
    return host, port


def written_address(host: str, port: int) -> str:
    """HOST:PORT, brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(host: str, port: int) -> socket.socket:
    """A socket on this address that does not listen yet. SettingsError names the fix."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError):  # UnicodeError: a label that no name may have
        raise SettingsError(f"listen: the host {host!r} is not known; write for example {_EXAMPLE}") from None
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port that was just left may be taken again; one that is in use may not be shared.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        why = _REFUSALS.get(error.errno or 0, f"cannot be used ({type(error).__name__}); write for example {_EXAMPLE}")
        raise SettingsError(f"listen: {written_address(host, port)} {why}") from None
    return found


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True

    def __init__(self, bound: socket.socket, checks: dict[str, Check]) -> None:
        self.checks = checks
        self.address_family = bound.family
        super().__init__(bound.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.server_address = bound.getsockname()
        self.server_activate()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away; the handler answers for everything else."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "awry"
    sys_version = ""
    # A client that sends nothing gives its thread back.
    timeout = 10

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(*metrics_answer(self.headers.get("Accept", "")))
        elif path in self.server.checks:
            self._answer(*check_answer(self.server.checks[path]))
        else:
            self._answer(404, _TEXT, b"there is /metrics, /healthz and /readyz\n")

    do_HEAD = do_GET  # noqa: N815 - the name that the library looks for

    def __getattr__(self, name: str) -> Callable[[], None]:
        # The library looks for do_METHOD and would call any other method unimplemented (501).
        if name.startswith("do_"):
            return lambda: self._answer(405, _TEXT, b"GET or HEAD\n", allow="GET, HEAD")
        raise AttributeError(name)

    def _answer(self, status: int, kind: str, body: bytes, *, allow: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if allow is not None:
            self.send_header("Allow", allow)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No access log: probes and scrapes come every few seconds."""


def metrics_answer(accept: str) -> tuple[int, str, bytes]:
    """Status, content type and body of /metrics."""
    encode, kind = choose_encoder(accept)
    try:
        return 200, kind, encode(REGISTRY)
    except Exception as error:
        return 500, _TEXT, f"{type(error).__name__}\n".encode()


def check_answer(check: Check) -> tuple[int, str, bytes]:
    """Status, content type and body of a check."""
    try:
        reason = check()
    except Exception as error:  # by class: its text may quote anything
        reason = type(error).__name__
    return (200, _TEXT, b"ok\n") if reason is None else (503, _TEXT, f"{reason}\n".encode("utf-8", "replace"))
