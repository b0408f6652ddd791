"""A provider's API on loopback: it records what a client sends and answers as it is told.

`with recording(answer) as api:` gives `api.url` and `api.bodies` (the JSON of each request, in order). The answer is an
object (sent as JSON) or a string (sent as server-sent events).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.http_server import QuietHandler, serving


@dataclass
class Recorded:
    """Where to send requests, and those that came."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def recording(answer: Any) -> Iterator[Recorded]:
    """Serve one answer until the end of the block."""
    recorded = Recorded("")

    class Handler(QuietHandler, BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            recorded.bodies.append(json.loads(self.rfile.read(length)))
            recorded.paths.append(self.path)
            body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "text/event-stream" if isinstance(answer, str) else "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as address:
        recorded.url = f"http://{address}"
        yield recorded
