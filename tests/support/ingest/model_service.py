"""A service with OpenAI's and Anthropic's interface on loopback: it always answers ANSWER, as a stream where asked to.

Under `/fail` the answer has status 500.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.http_server import QuietHandler, serving

ANSWER = "In a bread box."
CHAT = {"id": "chatcmpl-1", "created": 1790000000, "model": "m"}
REPLY = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
USAGE = {"input_tokens": 5, "output_tokens": 4}


def _chat(streamed: bool) -> Any:
    if not streamed:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}
        return {**CHAT, "object": "chat.completion", "choices": [choice]}
    deltas = [{"role": "assistant", "content": ANSWER[:5]}, {"content": ANSWER[5:]}]
    chunk = {**CHAT, "object": "chat.completion.chunk"}
    return [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]


def _anthropic(streamed: bool) -> Any:
    if not streamed:
        content = [{"type": "text", "text": ANSWER}]
        return {**REPLY, "content": content, "stop_reason": "end_turn", "usage": USAGE}
    begun: dict[str, Any] = {**REPLY, "content": [], "stop_reason": None, "usage": USAGE}
    deltas = [{"type": "text_delta", "text": text} for text in (ANSWER[:5], ANSWER[5:])]
    return [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE},
        {"type": "message_stop"},
    ]


@contextmanager
def serving_models() -> Iterator[tuple[str, list[str]]]:
    """HOST:PORT of a service with OpenAI's and Anthropic's interface, and the headers of its own that reached it."""
    strange: list[str] = []

    class Handler(QuietHandler, BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            strange.extend(name for name in self.headers if name.lower().startswith("x-awry"))
            streamed = bool(asked.get("stream"))
            answer = _anthropic(streamed) if self.path.endswith("/messages") else _chat(streamed)
            if streamed:
                kinds = [f"event: {each['type']}\n" if "type" in each else "" for each in answer]
                events = zip(kinds, map(json.dumps, answer), strict=True)
                body = "".join(f"{kind}data: {data}\n\n" for kind, data in events) + "data: [DONE]\n\n"
            else:
                body = json.dumps(answer)
            self.send_response(200 if "fail" not in self.path else 500)
            self.send_header("content-type", "text/event-stream" if streamed else "application/json")
            self.send_header("content-length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

    with serving(Handler) as address:
        yield address, strange
