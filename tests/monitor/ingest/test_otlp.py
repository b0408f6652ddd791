"""Large OTLP requests as several: the same spans, each with its resource and scope."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson, Parse  # type: ignore[import-untyped,unused-ignore]
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from monitor.ingest.otlp import SPLIT_BYTES, split_request

sizes = st.lists(st.lists(st.lists(st.integers(0, 90), max_size=5), max_size=3), max_size=4)


def traces(shape: list[list[list[int]]]) -> ExportTraceServiceRequest:
    """Spans whose names are so long, by resource and scope."""
    made = ExportTraceServiceRequest()
    for r, scopes in enumerate(shape):
        resource = made.resource_spans.add(schema_url=f"r{r}")
        resource.resource.attributes.add(key="service.name").value.string_value = f"service-{r}"
        for s, spans in enumerate(scopes):
            scope = resource.scope_spans.add(schema_url=f"s{s}")
            scope.scope.name = f"scope-{s}"
            for n, size in enumerate(spans):
                scope.spans.add(name="x" * size, span_id=bytes([r, s, n, 0, 0, 0, 0, 1]), start_time_unix_nano=n + 1)
    return made


def logs(shape: list[list[list[int]]]) -> ExportLogsServiceRequest:
    made = ExportLogsServiceRequest()
    for r, scopes in enumerate(shape):
        resource = made.resource_logs.add(schema_url=f"r{r}")
        resource.resource.dropped_attributes_count = r
        for s, records in enumerate(scopes):
            scope = resource.scope_logs.add()
            scope.scope.name = f"scope-{s}"
            for n, size in enumerate(records):
                scope.log_records.add(time_unix_nano=n + 1).body.string_value = "x" * size
    return made


def flat(request: Any) -> Counter[bytes]:
    """Each span or log record with its resource and scope."""
    found: Counter[bytes] = Counter()
    for resource in request.resource_spans if hasattr(request, "resource_spans") else request.resource_logs:
        for scope in resource.scope_spans if hasattr(resource, "scope_spans") else resource.scope_logs:
            for item in scope.spans if hasattr(scope, "spans") else scope.log_records:
                parts = (resource.resource, scope.scope, item)
                urls = f"{resource.schema_url}|{scope.schema_url}".encode()
                found[b"|".join([*(part.SerializeToString(deterministic=True) for part in parts), urls])] += 1
    return found


@pytest.mark.parametrize("make", [traces, logs])
@given(shape=sizes, limit=st.integers(1, 400))
@settings(max_examples=150)
def test_protobuf_in_pieces_holds_the_same(make: Any, shape: list[list[list[int]]], limit: int) -> None:
    whole = make(shape)
    body = whole.SerializeToString()
    pieces = split_request(body, False, limit)
    assert (pieces == []) is (body == b"")
    assert sum((flat(type(whole).FromString(piece)) for piece in pieces), Counter()) == flat(whole)
    for piece in pieces:
        assert len(piece) <= limit + 40 or sum(flat(type(whole).FromString(piece)).values()) <= 1


@pytest.mark.parametrize("make", [traces, logs])
@given(shape=sizes, limit=st.integers(1, 400))
@settings(max_examples=100)
def test_json_in_pieces_holds_the_same(make: Any, shape: list[list[list[int]]], limit: int) -> None:
    whole = make(shape)
    pieces = split_request(MessageToJson(whole, indent=None).encode(), True, limit)
    assert sum((flat(Parse(piece, type(whole)())) for piece in pieces), Counter()) == flat(whole)


def test_small_ones_stay_as_they_came() -> None:
    body = traces([[[3, 4]]]).SerializeToString()
    assert split_request(body, False) == [body]
    body = json.dumps({"resourceSpans": [{"odd": 1}]}, indent=3).encode()
    assert split_request(body, True) == [body]


def test_nothing_is_no_record() -> None:
    assert split_request(b"", False) == split_request(b"{ }\n".replace(b" ", b""), True) == []


@given(st.binary(min_size=20, max_size=80))
def test_what_is_no_protobuf_stays_whole_or_holds_the_same_bytes(body: bytes) -> None:
    pieces = split_request(body, False, 10)
    assert pieces == [body] or all(isinstance(piece, bytes) and piece for piece in pieces)


@pytest.mark.parametrize(
    "body", [b'{"resourceSpans": 1, "x": "%s"}', b'{"x": "%s"', b"[" * 2_000_000, b'{"resourceSpans":[],"x":"%s"}']
)
def test_json_of_another_form_stays_whole(body: bytes) -> None:
    large = body.replace(b"%s", b"x" * SPLIT_BYTES)
    assert split_request(large, True) == [large]
