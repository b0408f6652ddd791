"""Microseconds that one message costs to read, by format: `python -m benchmarks.parsing`.

A message of about 1 KB (a system turn, a question, an answer, a question) in awry's own JSON and in every other format,
all in one run on one core: CPU time, the best of several rounds. Writes docs/bench-parsing.json.
"""

from __future__ import annotations

import json
import time
import timeit
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import machine
from monitor.stream.parse import parse
from monitor.stream.wire import WireMessage

OUT = Path("docs/bench-parsing.json")
ROUNDS, CALLS = 15, 400
SYSTEM = "You answer the customers of a bakery, in short and friendly sentences."
TURNS = [
    ("user", "Good morning. Which of your shops is open on Sunday, and until when? " * 4),
    ("assistant", "Harbour Street is open from seven to one, and the market hall until noon. " * 4),
    ("user", "Thank you. Could you set aside two loaves of rye bread for me, please? " * 4),
]
ANSWER = "Of course: two loaves of rye bread, at Harbour Street."


def _chat() -> list[dict[str, Any]]:
    return [{"role": "system", "content": SYSTEM}, *({"role": role, "content": text} for role, text in TURNS)]


def _parts() -> list[dict[str, Any]]:
    return [{"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in _chat()]


def _gemini() -> dict[str, Any]:
    roles = {"user": "user", "assistant": "model"}
    return {
        "model": "m",
        "systemInstruction": {"parts": [{"text": SYSTEM}]},
        "contents": [{"role": roles[role], "parts": [{"text": text}]} for role, text in TURNS],
    }


def _spans() -> dict[str, Any]:
    messages = [{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in TURNS]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.conversation.id": "c",
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": SYSTEM}]),
        "gen_ai.input.messages": json.dumps(messages),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": ANSWER}]}]),
    }
    span = {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": "b7ad6b7169203331",
        "name": "chat m",
        "startTimeUnixNano": "1772366400000000000",
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()],
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "gateway"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}


def payloads() -> Iterator[tuple[str, bytes, tuple[tuple[str, bytes | None], ...]]]:
    """(what, payload, headers) of one message in each format."""
    names = {"tenant": "shop", "user": "u-7", "conversation_id": "c", "model": "m"}
    completion = {
        "id": "r-1",
        "created": 1772366400,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 12, "total_tokens": 212},
    }
    request = {"model": "m", "temperature": 0.2, "user": "u-7", "messages": _chat()}
    blocks = {"id": "r-1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
    values: dict[str, Any] = {
        "awry, a prompt": {"id": "m", "prompt": TURNS[0][1] * 3, "timestamp": "2026-03-01T12:00:00Z", **names},
        "awry, turns": {"id": "m", "messages": _chat(), "response": ANSWER, **names},
        "OpenAI chat": request,
        "OpenAI chat, in parts": request | {"messages": _parts()},
        "OpenAI chat with its response": {"request": request, "response": completion},
        "OpenAI Responses": {"model": "m", "instructions": SYSTEM, "input": _chat()[1:]},
        "Anthropic": {"model": "m", "max_tokens": 99, "system": SYSTEM, "messages": _parts()[1:]},
        "Anthropic with its response": {
            "request": {"model": "m", "max_tokens": 99, "system": SYSTEM, "messages": _chat()[1:]},
            "response": blocks,
        },
        "LiteLLM": {
            "id": "r-1",
            "trace_id": "t",
            "call_type": "acompletion",
            "status": "success",
            "model": "m",
            "startTime": 1772366400.5,
            "endTime": 1772366401.5,
            "messages": _chat(),
            "response": completion,
            "metadata": {"user_api_key_team_alias": "shop", "user_api_key_hash": "h"},
            "end_user": "u-7",
            "model_parameters": {"temperature": 0.2},
        },
        "Gemini": _gemini(),
        "OTLP JSON": _spans(),
    }
    for name, value in values.items():
        yield name, json.dumps(value).encode(), ()
    yield "OTLP protobuf", _protobuf(), (("content-type", b"application/x-protobuf"),)


def _protobuf() -> bytes:
    from google.protobuf.json_format import ParseDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = _spans()
    # OTLP's JSON has ids in hex, protobuf's in base 64: any bytes of that length do here.
    for span in spans["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        del span["traceId"], span["spanId"]
    request = ParseDict(spans, ExportTraceServiceRequest())
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.trace_id, span.span_id = bytes(range(16)), bytes(range(8))
    return bytes(request.SerializeToString())


def main() -> None:
    rows = []
    for name, payload, headers in payloads():
        (message,) = parse(payload, headers)
        assert isinstance(message, WireMessage), name
        timer = timeit.Timer(partial(parse, payload, headers), timer=time.process_time)
        microseconds = round(min(timer.repeat(number=CALLS, repeat=ROUNDS)) / CALLS * 1e6, 1)
        rows.append({"what": name, "format": message.format, "bytes": len(payload), "microseconds": microseconds})
        print(f"{name:32} {message.format:18} {len(payload):6} bytes {microseconds:8.1f} us")
    OUT.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
