"""An OpenAI-compatible endpoint on loopback whose answers a test decides, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.http_server import QuietHandler, serving


@dataclass(frozen=True)
class Said:
    """One answer. `content` is the model's; `body` is sent instead where it is given, `pieces` one after the other."""

    content: str | None = '{"harmful": false, "confidence": 0.9}'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    # Called before anything is sent: waits, or counts.
    before: Callable[[], object] = lambda: None
    pieces: Callable[[Callable[[bytes], object]], object] | None = None

    @property
    def sent(self) -> bytes:
        if self.body is not None:
            return self.body
        choice = {"index": 0, "message": {"role": "assistant", "content": self.content}, "finish_reason": "stop"}
        return json.dumps({"choices": [choice], "usage": {"total_tokens": 321}}).encode()


HARMLESS = Said()
HARMFUL = Said('{"harmful": true, "confidence": 0.8}')


@dataclass
class JudgeServer:
    """What it was asked, and what it says: a list that is used up but for its last, or a function of the request."""

    url: str = ""
    says: list[Said] | Callable[[dict[str, Any]], Said] = field(default_factory=lambda: [HARMLESS])
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def texts(self) -> list[str]:
        """What was asked about, with its delimiters."""
        return [str(request["messages"][-1]["content"]) for request in self.requests]

    def forget(self) -> None:
        """As if it had only just started."""
        self.says = [HARMLESS]
        for heard in (self.requests, self.headers, self.paths):
            heard.clear()

    def answer(self, request: dict[str, Any]) -> Said:
        with self.lock:
            self.requests.append(request)
            if callable(self.says):
                return self.says(request)
            return self.says.pop(0) if len(self.says) > 1 else self.says[0]


@contextmanager
def judge_server(*says: Said) -> Iterator[JudgeServer]:
    """One that says these in order, the last for ever."""
    server = JudgeServer()
    if says:
        server.says = list(says)

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # noqa: N802
            raw = self.rfile.read(int(self.headers["content-length"]))
            server.paths.append(self.path)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            said = server.answer(json.loads(raw))
            said.before()
            sent = said.sent
            try:
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                if said.pieces is not None:
                    self.send_header("connection", "close")
                    self.end_headers()
                    said.pieces(self.wfile.write)
                    self.close_connection = True
                    return
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)
            except OSError:  # it was not waited for
                self.close_connection = True

    with serving(Handler) as address:
        server.url = f"http://{address}/v1"
        yield server
