"""A database's Unix socket over TCP on loopback, for programs that may not open the socket's folder."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine


class _Relay(socketserver.ThreadingTCPServer):
    daemon_threads = True
    target: str


class _Connection(socketserver.BaseRequestHandler):
    server: _Relay

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(self.server.target)
            back = threading.Thread(target=_pass_on, args=(there, self.request), daemon=True)
            back.start()
            _pass_on(self.request, there)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one of the two has gone


@contextmanager
def over_tcp(engine: Engine) -> Iterator[str]:
    """The URL of the same database on 127.0.0.1."""
    folder = engine.url.query["host"]
    with _Relay(("127.0.0.1", 0), _Connection) as relay:
        relay.target = str(Path(str(folder), f".s.PGSQL.{engine.url.port or 5432}"))
        serving = threading.Thread(target=relay.serve_forever, daemon=True)
        serving.start()
        try:
            yield f"postgresql://postgres@127.0.0.1:{relay.server_address[1]}/{engine.url.database}"
        finally:
            relay.shutdown()
            serving.join()
