"""The routes over a real socket: what is written, what is answered and when, and what is refused."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from sqlalchemy import Engine

from monitor.ingest.refused import SinkError, SinkFullError
from monitor.telemetry.metrics import REGISTRY
from tests.support.ingest.receiver import LIMITS, HeldSink, client, receiving
from tests.support.stream.kafka import wait_for
from tests.support.web.api import token

ROUTES = ("/v1/traces", "/v1/logs", "/v1/litellm", "/v1/ingest")
PROTOBUF = {"Content-Type": "application/x-protobuf"}
MESSAGE = {"messages": [{"role": "user", "content": "tell me"}], "model": "m"}


def headers_of(sink: HeldSink, n: int = -1) -> dict[str, str]:
    return {name: value.decode() for name, value in sink.records[n].headers}


def spans(number: int = 1, size: int = 10) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    scope = made.resource_spans.add().scope_spans.add()
    for n in range(number):
        scope.spans.add(name="x" * size, start_time_unix_nano=n + 1)
    return made


def test_otlp_in_protobuf(http: httpx2.Client, sink: HeldSink) -> None:
    body = spans().SerializeToString()
    answer = http.post("/v1/traces", content=body, headers=PROTOBUF)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
    assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()
    (record,) = sink.records
    assert record.value == body
    said = headers_of(sink)
    assert (said["content-type"], said["awry_format"]) == ("application/x-protobuf", "otlp-traces")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", said["awry_received_at"])


def test_otlp_in_json(http: httpx2.Client, sink: HeldSink) -> None:
    body = b'{"resourceLogs": [ {} ]}'
    answer = http.post("/v1/logs", content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert (answer.status_code, answer.headers["content-type"], answer.json()) == (200, "application/json", {})
    assert sink.records[0].value == body
    assert headers_of(sink)["awry_format"] == "otlp-logs"


def test_an_empty_otlp_request_is_a_success_and_no_record(http: httpx2.Client, sink: HeldSink) -> None:
    assert http.post("/v1/traces", content=b"", headers=PROTOBUF).status_code == 200
    assert http.post("/v1/logs", content=b"{}", headers={"Content-Type": "application/json"}).status_code == 200
    assert sink.records == []


def test_a_large_otlp_request_is_written_in_pieces(engine: Engine, sink: HeldSink, secret: str) -> None:
    whole = spans(2000, 1000)
    limits = replace(LIMITS, max_request_bytes=8_000_000, max_bytes=32_000_000)
    with receiving(engine, sink, limits) as url, client(url, secret) as http:
        answer = http.post("/v1/traces", content=whole.SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 200
    assert len(sink.records) == 3
    parts = [ExportTraceServiceRequest.FromString(record.value) for record in sink.records]
    assert sum(len(part.resource_spans[0].scope_spans[0].spans) for part in parts) == 2000
    assert max(len(record.value) for record in sink.records) < 1_000_000


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.ZstdCompressor().compress)],
)
def test_compressed_bodies(http: httpx2.Client, sink: HeldSink, encoding: str, compress: Any) -> None:
    for size in (10, 300_000):  # decompressed at once, and in a thread
        body = spans(1, size).SerializeToString()
        answer = http.post(
            "/v1/traces", content=compress(body), headers=PROTOBUF | {"Content-Encoding": encoding.upper()}
        )
        assert answer.status_code == 200
        assert sink.records[-1].value == body


def test_litellm_and_any_other_json(http: httpx2.Client, sink: HeldSink) -> None:
    answer = http.post("/v1/litellm", json=[{"id": "a"}, {"id": "b"}])
    assert (answer.status_code, answer.json()) == (200, {"accepted": 2})
    assert [json.loads(record.value)["id"] for record in sink.records] == ["a", "b"]
    assert headers_of(sink)["awry_format"] == "litellm"
    assert http.post("/v1/ingest", json=MESSAGE).json() == {"accepted": 1}
    assert "awry_format" not in headers_of(sink)
    lines = b'{"id": 1}\n\n["not an object"]\nnot JSON\n'
    answer = http.post("/v1/ingest?format=openai_chat", content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert answer.json() == {"accepted": 3}
    assert [record.value for record in sink.records[-3:]] == [b'{"id": 1}', b'["not an object"]', b"not JSON"]
    assert headers_of(sink)["awry_format"] == "openai_chat"


def test_the_trace_of_a_request_is_kept_if_it_is_one(http: httpx2.Client, sink: HeldSink) -> None:
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    http.post("/v1/ingest", json=MESSAGE, headers={"traceparent": good})
    assert headers_of(sink)["traceparent"] == good
    http.post("/v1/ingest", json=MESSAGE, headers={"traceparent": good + "x" * 5000})
    assert "traceparent" not in headers_of(sink)


def test_success_is_said_when_the_records_are_safe_and_not_before(http: httpx2.Client, sink: HeldSink) -> None:
    sink.hold = True
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(http.post, "/v1/ingest", json=MESSAGE)
        wait_for(lambda: sink.waiting)
        time.sleep(0.3)
        assert not asked.done()
        sink.let_go()
        assert asked.result(5).status_code == 200


@pytest.mark.parametrize(
    ("error", "wait"),
    [(SinkError("Kafka did not acknowledge in time"), "2"), (SinkFullError("the spool is full"), "30")],
)
def test_a_stream_that_takes_nothing_is_503(http: httpx2.Client, sink: HeldSink, error: SinkError, wait: str) -> None:
    sink.error = error
    for route in ROUTES:
        answer = http.post(route, json=MESSAGE)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, wait)
        assert str(error) in answer.text
    answer = http.post("/v1/traces", content=spans().SerializeToString(), headers=PROTOBUF)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/x-protobuf")
    # google.rpc.Status by hand: code UNAVAILABLE, and the message.
    assert answer.content == b"\x08\x0e\x12" + bytes([len(str(error))]) + str(error).encode()


def test_a_stream_that_does_not_answer_is_503_and_its_bytes_stay_counted(
    engine: Engine, sink: HeldSink, secret: str
) -> None:
    sink.hold = True
    limits = replace(LIMITS, ack_seconds=0.2, max_bytes=20_000, max_request_bytes=15_000)
    with receiving(engine, sink, limits) as url, client(url, secret) as http:
        body = b'{"id": "' + b"x" * 12_000 + b'"}'
        assert http.post("/v1/ingest", content=body).status_code == 503
        held = http.post("/v1/ingest", content=body)
        assert (held.status_code, held.headers["retry-after"]) == (429, "1")
        sink.let_go()
        sink.hold = False
        wait_for(lambda: http.post("/v1/ingest", content=body).status_code == 200)


def test_small_records_count_for_what_they_take(engine: Engine, sink: HeldSink, secret: str) -> None:
    limits = replace(LIMITS, max_bytes=1_000_000, max_request_bytes=100_000)
    with receiving(engine, sink, limits) as url, client(url, secret) as http:
        answer = http.post("/v1/ingest", content=b"1\n" * 2000, headers={"Content-Type": "application/x-ndjson"})
        assert answer.status_code == 429
        answer = http.post("/v1/ingest", content=b"1\n" * 11_000, headers={"Content-Type": "application/x-ndjson"})
        assert answer.status_code == 413
        assert sink.records == []
        assert http.post("/v1/ingest", json=MESSAGE).status_code == 200


def test_over_size(http: httpx2.Client, sink: HeldSink) -> None:
    over = b" " * LIMITS.max_request_bytes + b"{}"
    for more in ({}, {"content": over}):
        content = more.get("content", iter([over[:-2], over[-2:]]))  # with its length, and in chunks without
        answer = http.post("/v1/ingest", content=content)
        assert answer.status_code == 413
        assert "1000000 bytes" in answer.json()["detail"]
    answer = http.post("/v1/traces", content=gzip.compress(over), headers=PROTOBUF | {"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/x-protobuf")
    assert answer.elapsed.total_seconds() < LIMITS.body_seconds  # there was nothing more to wait for
    assert sink.records == []
    assert http.post("/v1/ingest", json=MESSAGE).status_code == 200


@pytest.mark.parametrize(
    ("route", "headers", "status"),
    [
        ("/v1/traces", {"Content-Type": "text/plain"}, 415),
        ("/v1/logs", {}, 415),
        ("/v1/ingest", {"Content-Encoding": "br"}, 415),
        ("/v1/ingest", {"Content-Encoding": "gzip, gzip"}, 415),
        ("/v1/ingest", {"Content-Encoding": "gzip"}, 400),
        ("/v1/ingest?format=a%0Ab", {}, 400),
        ("/v1/ingest?format=" + "a" * 50, {}, 400),
        ("/v1/ingest?format=nope", {}, 400),
        ("/v1/ingest?frmat=awry", {}, 400),
        ("/v1/ingest?format=awry&format=awry", {}, 400),
    ],
)
def test_what_cannot_be_read_is_said(
    http: httpx2.Client, sink: HeldSink, route: str, headers: dict[str, str], status: int
) -> None:
    answer = http.post(route, content=b'{"prompt": "a canary"}', headers=headers)
    assert answer.status_code == status, answer.text
    assert "canary" not in answer.text
    assert sink.records == []


def test_blank_bodies_of_messages_are_refused(http: httpx2.Client) -> None:
    assert http.post("/v1/ingest", content=b" \n").status_code == 400


def test_other_paths_and_methods(http: httpx2.Client) -> None:
    assert http.post("/v1/chat/completions", json=MESSAGE).status_code == 404
    assert http.post("/v1/ingest/", json=MESSAGE).status_code == 404
    answer = http.get("/v1/ingest")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_every_route_needs_a_token_of_its_scope(engine: Engine, sink: HeldSink, secret: str) -> None:
    others = {scope: token(engine, scope, scope) for scope in ("read", "act")}
    with receiving(engine, sink) as url:
        for route in ROUTES:
            for given, status in ((None, 401), ("awry_" + "0" * 64, 401), *((one, 403) for one in others.values())):
                with client(url, given) as http:
                    answer = http.post(route, json=MESSAGE)
                    assert answer.status_code == status
                    assert ("www-authenticate" in answer.headers) is (status == 401)
        for wrong in ("Basic " + secret, secret, "Bearer"):
            assert httpx2.post(url + "/v1/ingest", json=MESSAGE, headers={"Authorization": wrong}).status_code == 401
    assert sink.records == []


def test_health_and_metrics_are_open(engine: Engine, sink: HeldSink) -> None:
    with receiving(engine, sink) as url, client(url, None) as http:
        assert http.get("/healthz").text == "ok\n"
        assert http.get("/readyz").status_code == 200
        sink.trouble = "Kafka took no records (KafkaTimeoutError)"
        assert (http.get("/readyz").status_code, http.get("/healthz").status_code) == (503, 200)
        assert "Kafka took no records" in http.get("/readyz").text
        assert "awry_ingest_requests_total" in http.get("/metrics").text


def test_requests_are_counted_by_route_and_code(http: httpx2.Client) -> None:
    def count(code: str) -> float:
        return REGISTRY.get_sample_value("awry_ingest_requests_total", {"route": "ingest", "code": code}) or 0.0

    before = {code: count(code) for code in ("200", "400")}
    http.post("/v1/ingest", json=MESSAGE)
    http.post("/v1/ingest", content=b"")
    assert {code: count(code) - before[code] for code in before} == {"200": 1, "400": 1}
    assert REGISTRY.get_sample_value("awry_ingest_bytes_in_flight") == 0


def raw(url: str, secret: str, start: bytes) -> socket.socket:
    """A connection on which a request has begun."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    made = socket.create_connection((host, int(port)), 20)
    made.sendall(b"POST /v1/ingest HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + secret.encode() + b"\r\n" + start)
    return made


def test_a_slow_body_is_408(engine: Engine, sink: HeldSink, secret: str) -> None:
    with receiving(engine, sink, replace(LIMITS, body_seconds=0.5)) as url:
        with raw(url, secret, b"Content-Length: 20\r\n\r\n{") as slow:
            answer = b""
            while part := slow.recv(4096):  # until it is closed
                answer += part
            assert answer.startswith(b"HTTP/1.1 408")
        # A byte now and then does not keep it open.
        with raw(url, secret, b"Transfer-Encoding: chunked\r\n\r\n") as slow:
            began = time.monotonic()
            found = b""
            slow.settimeout(0.1)
            while not found and time.monotonic() - began < 5:
                try:
                    slow.sendall(b"1\r\n \r\n")
                    found = slow.recv(4096)
                except TimeoutError:
                    continue
            assert found.startswith(b"HTTP/1.1 408")
    assert sink.records == []


def test_a_client_that_goes_away_leaves_nothing_behind(engine: Engine, sink: HeldSink, secret: str) -> None:
    with receiving(engine, sink) as url, client(url, secret) as http:
        raw(url, secret, b"Content-Length: 500000\r\n\r\n{").close()
        wait_for(lambda: REGISTRY.get_sample_value("awry_ingest_bytes_in_flight") == 0)
        assert sink.records == []
        assert http.post("/v1/ingest", json=MESSAGE).status_code == 200


def test_memory_is_bounded_under_a_flood(engine: Engine, sink: HeldSink, secret: str) -> None:
    """Forty requests of 1 MB at once under a limit of 4 MB: each is taken, or told when to come back."""
    sink.hold = True
    body = b'{"id": "' + b"x" * 900_000 + b'"}'
    held: list[float] = []
    patient = replace(LIMITS, body_seconds=60, ack_seconds=60)
    with receiving(engine, sink, patient) as url, ThreadPoolExecutor(40) as pool:

        def send(_: int) -> int:
            with client(url, secret) as http:
                return http.post("/v1/ingest", content=body).status_code

        stop = threading.Event()

        def let_go() -> None:
            while not stop.wait(0.05):
                held.append(REGISTRY.get_sample_value("awry_ingest_bytes_in_flight") or 0)
                sink.let_go()

        letting = threading.Thread(target=let_go)
        letting.start()
        codes = list(pool.map(send, range(40)))
        stop.set()
        letting.join()
        sink.let_go()
    assert set(codes) <= {200, 429}
    assert codes.count(200) == len(sink.records) >= 4
    assert max(held) <= LIMITS.max_bytes
