"""Protobuf read by hand gives what OpenTelemetry's own classes hold, and its work is bounded."""

from __future__ import annotations

import json
import struct
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.stream.formats import otlp_protobuf
from monitor.stream.parse import parse
from monitor.stream.wire import Invalid, WireMessage
from tests.monitor.stream.formats.test_otlp import INTEGER, SAID, one
from tests.support.stream.renderings_otlp import RENDERINGS, TRACE, Conversation, logs, present_attributes, traces


def test_text_that_is_not_utf8_does_not_cost_the_batch() -> None:
    payload = traces(present_attributes(Conversation([{"role": "user", "content": "abcXYZdef"}], "a"), strings=True))
    message = one(payload.SerializeToString().replace(b"XYZ", b"\xff\xfe\xfd"))
    assert message.turns[0]["content"] == "abc���def"


def test_json_that_begins_with_a_line_feed_is_json() -> None:
    for length in range(90, 160):
        body = json.dumps({"prompt": "x" * (length - 14)}).encode()
        assert one(b"\n" + body).format == "awry"
        assert one(b"\n{\n" + body[1:]).format == "awry"


def test_logs_and_traces_are_told_apart_without_a_name() -> None:
    assert set(otlp_protobuf.decode(RENDERINGS["log records"](SAID))) == {"resourceLogs"}
    assert set(otlp_protobuf.decode(RENDERINGS["span events"](SAID))) == {"resourceSpans"}


def test_a_header_may_name_them() -> None:
    payload = RENDERINGS["log records"](SAID)
    (message,) = parse(payload, [("awry_format", b"otlp-logs")])
    assert isinstance(message, WireMessage)
    # What the records are counts more.
    assert parse(payload, [("awry_format", b"otlp-traces")]) == [message]
    (named,) = parse(b'{"prompt": "Hello"}', [("awry_format", b"otlp")])
    assert isinstance(named, Invalid)
    assert named.reason == "otlp: neither resourceSpans nor resourceLogs"
    (broken,) = parse(b"\x12\x03abc", [("Content-Type", b"application/x-protobuf")])
    assert isinstance(broken, Invalid)


def chunk(field: int, body: bytes) -> bytes:
    """A message under a field of protobuf."""
    size, length = len(body), b""
    while True:
        length += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
        size >>= 7
        if not size:
            return bytes([field << 3 | 2]) + length + body


def nest(levels: int) -> bytes:
    value = chunk(1, b"deep")
    for _ in range(levels):
        value = chunk(5, chunk(1, value))
    return value


HOSTILE = {
    "empty spans": chunk(1, chunk(2, chunk(2, b"") * (2 << 20))),
    "empty resources": chunk(1, b"") * (2 << 20),
    "empty attributes": chunk(1, chunk(2, chunk(2, chunk(1, TRACE) + chunk(9, b"") * (2 << 20)))),
    "an array of nothing": chunk(
        1,
        chunk(2, chunk(2, chunk(1, TRACE) + chunk(9, chunk(1, b"k") + chunk(2, chunk(5, chunk(1, b"") * (2 << 20)))))),
    ),
    "unknown fields": chunk(1, chunk(2, chunk(2, chunk(1, TRACE) + b"\xb8\x3e\x01" * (1 << 20)))),
    "empty spans in JSON": b'{"resourceSpans": [{"scopeSpans": [{"spans": [' + b"{}," * (1 << 20) + b"{}]}]}]}",
    "empty attributes in JSON": b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": ['
    + b"{}," * (1 << 20)
    + b"{}]}]}]}]}",
    "deep values": chunk(
        1, chunk(2, chunk(2, chunk(1, TRACE) + chunk(9, chunk(1, b"gen_ai.input.messages") + chunk(2, nest(5000)))))
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_work_on_hostile_requests_is_bounded(name: str) -> None:
    payload = HOSTILE[name]
    started = time.process_time()
    found = parse(payload)
    assert time.process_time() - started < 8, "seconds"
    assert all(isinstance(each, Invalid) for each in found)


def test_deep_json_is_refused_not_raised() -> None:
    deep = '{"arrayValue": {"values": [' * 300 + '{"stringValue": "x"}' + "]}}" * 300
    span = '{"attributes": [{"key": "gen_ai.input.messages", "value": ' + deep + "}]}"
    payload = '{"resourceSpans": [{"scopeSpans": [{"spans": [' + span + "]}]}]}"
    (found,) = parse(payload.encode())
    assert isinstance(found, Invalid | WireMessage)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | INTEGER,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_values_are_those_of_opentelemetrys_own_classes(value: Any) -> None:
    decoded = otlp_protobuf.decode(traces({"key": value}).SerializeToString())
    assert decoded["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"] == {"key": value}


@given(st.floats(allow_nan=False))
def test_numbers_are_those_of_opentelemetrys_own_classes(number: float) -> None:
    decoded = otlp_protobuf.decode(logs(("e", {"n": number}, b"\x00\x01")).SerializeToString())
    (record,) = decoded["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert struct.pack("<d", record["attributes"]["n"]) == struct.pack("<d", number)
    assert record["body"] == {"stringValue": "AAE="}
