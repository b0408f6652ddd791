"""A server on loopback that keeps what is posted to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.support.http_server import QuietHandler, serving


@contextmanager
def receiving() -> Iterator[tuple[str, list[bytes]]]:
    """Its address, and the bodies of all posts in order."""
    bodies: list[bytes] = []

    class Handler(QuietHandler, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

    with serving(Handler) as address:
        yield f"http://{address}/", bodies
