"""The whole way with a client that shares no code with awry: kcat writes messages and reads verdicts and dead letters.

What it reads must be what the tables say.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from monitor.service.policy import Policy, Tally
from monitor.service.worker import Worker
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.source import KafkaSource
from monitor.stream.sinks import Outputs
from monitor.stream.sinks.kafka import TopicSink, connect_producer
from monitor.stream.wire import WireMessage
from storage import schema
from tests.conftest import needs_program
from tests.support.rows import stored
from tests.support.stream.kafka import new_topic, read, unique
from tests.support.stream.kafka_fixtures import Open
from tests.support.stream.stub_scorer import NAME, THRESHOLD, StubScorer, score_of

KCAT = needs_program("kcat", "apt-get install kcat")
CANARY = "CANARYTEXT"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Streams:
    """The test's topic with its verdicts and dead letters, as kcat sees them."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self.cluster, self.topic = cluster, topic
        self.verdicts, self.dead = new_topic(cluster, 2), new_topic(cluster, 2)

    def write(self, lines: Sequence[tuple[str | None, bytes]], *options: str | bytes) -> None:
        """(key, payload) in order; `options` are kcat's own."""
        given = b"".join((key or "").encode() + b"|" + payload + b"\n" for key, payload in lines)
        command = [KCAT, "-P", "-b", self.cluster.bootstrap, "-t", self.topic, "-K", "|", *options]
        subprocess.run(command, input=given, check=True, timeout=60)

    def read(self, topic: str) -> list[dict[str, Any]]:
        """Everything in a topic; payloads are JSON, headers a dict."""
        command = [KCAT, "-C", "-q", "-b", self.cluster.bootstrap, "-t", topic, "-o", "beginning", "-e", "-J"]
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)
        return [_opened(json.loads(line)) for line in done.stdout.splitlines()]

    def work(self, engine: Engine) -> Tally:
        """One worker, from the beginning to the end of the topic."""
        producer = connect_producer(self.cluster)
        outputs = Outputs(
            verdicts=TopicSink(producer, self.verdicts, "verdicts_out"),
            dead_letters=TopicSink(producer, self.dead, "dead_letters_out"),
        )
        policy = Policy((NAME,), "tiny", batch_messages=8, dead_letter_limit=1.0)
        source = KafkaSource(
            self.cluster, [self.topic], unique("group"), start_from="earliest", until_end=True, max_bytes=1000
        )
        try:
            with closing(source):
                return Worker(source, Failing(), engine, policy, outputs=outputs).run()
        finally:
            producer.close(timeout=10)


def _opened(record: dict[str, Any]) -> dict[str, Any]:
    headers = record.get("headers", [])
    return {
        **record,
        "headers": dict(zip(headers[::2], headers[1::2], strict=True)),
        "payload": json.loads(record["payload"]),
    }


class Failing(StubScorer):
    """Breaks on messages whose id says so."""

    def prepare(self, messages: Sequence[WireMessage]) -> list[Any]:
        return list(messages)

    def score(self, messages: Sequence[WireMessage]) -> list[Any]:
        return [
            type(o)("failed", reason="scoring failed: RuntimeError") if (m.id or "").startswith("breaks") else o
            for m, o in zip(messages, super().score(messages), strict=True)
        ]


@pytest.fixture
def streams(cluster: Cluster, topic: str) -> Streams:
    return Streams(cluster, topic)


def message(message_id: str, **more: Any) -> bytes:
    return json.dumps({"id": message_id, "prompt": CANARY, **more}).encode()


def place(row: dict[str, Any]) -> tuple[int, int]:
    return row["partition"], row["offset"]


def rows(engine: Engine) -> dict[tuple[int, int], dict[str, Any]]:
    return {place(r): r for r in stored(engine, schema.messages)}


def test_verdicts_say_what_the_tables_say(streams: Streams, engine: Engine) -> None:
    ids = [f"m{n}" for n in range(30)]
    streams.write([(one, message(one, tenant="shop")) for one in ids])
    assert streams.work(engine).by_status == {"scored": 30}
    kept, scores = rows(engine), {place(r): r for r in stored(engine, schema.scores)}
    verdicts = streams.read(streams.verdicts)
    assert sorted(v["payload"]["id"] for v in verdicts) == sorted(ids)
    for record in verdicts:
        said = record["payload"]
        row, score = kept[place(said)], scores[place(said)]
        assert (said["id"], said["source"], said["status"]) == (row["message_id"], streams.topic, row["status"])
        assert said["scores"] == {NAME: round(score["score"], 6)} == {NAME: round(score_of(said["id"]), 6)}
        assert said["decision"] == ("flag" if score["flagged"] else "pass")
        assert score["flagged"] == (score_of(said["id"]) > THRESHOLD)
        assert (record["key"], record["headers"]) == (said["id"], {"content-type": "application/json"})
        assert CANARY not in json.dumps(record)
    assert {v["payload"]["decision"] for v in verdicts} == {"flag", "pass"}


def test_dead_letters_say_where_and_why_and_quote_nothing(streams: Streams, engine: Engine) -> None:
    bad = {
        "broken": f'{{"id": "broken", "prompt": "{CANARY}'.encode(),
        "nothing": json.dumps({"id": "nothing", "tenant": "shop", "text": CANARY}).encode(),
        "breaks": message("breaks"),
    }
    more = [("empty", message("empty", prompt="")), ("noid", json.dumps({"prompt": CANARY}).encode())]
    streams.write([*bad.items(), *more, ("good", message("good")), ("big", message("big", response=CANARY * 200))])
    assert streams.work(engine).by_status == {"scored": 2, "invalid": 2, "failed": 1, "skipped": 2}
    kept = rows(engine)
    letters = streams.read(streams.dead)
    assert len(letters) == 3
    assert {(r["payload"]["id"], r["payload"]["tenant"]) for r in letters} == {
        (None, None),
        ("nothing", "shop"),
        ("breaks", None),
    }
    made = [r["message_id"] for r in kept.values() if (r["message_id"] or "").startswith(streams.topic)]
    assert made == [f"{streams.topic}/{r['partition']}/{r['offset']}" for r in kept.values() if r["message_id"] in made]
    assert len(made) == 1
    for record in letters:
        said, headers = record["payload"], record["headers"]
        row = kept[place(said)]
        assert (said["status"], said["reason"]) == (row["status"], row["reason"])
        assert (said["id"], said["payload_sha256"]) == (row["message_id"], row["payload_sha256"])
        assert headers["awry_original_topic"] == said["source"] == streams.topic
        assert (headers["awry_original_partition"], headers["awry_original_offset"]) == tuple(map(str, place(said)))
        assert headers["awry_status"] == said["status"]
        assert CANARY not in json.dumps(record)
    found = {r["payload"]["payload_sha256"]: r["headers"]["awry_error"] for r in letters}
    assert found == {
        hashlib.sha256(payload).hexdigest(): error
        for payload, error in zip(bad.values(), ["payload", "payload", "RuntimeError"], strict=True)
    }
    unscored = [
        v["payload"]["status"] for v in streams.read(streams.verdicts) if v["payload"]["decision"] == "unscored"
    ]
    assert sorted(unscored) == ["failed", "invalid", "invalid", "skipped", "skipped"]


def test_a_trace_goes_through(streams: Streams, engine: Engine) -> None:
    streams.write([(None, message("good")), (None, b"{broken")], "-H", f"traceparent={TRACE}", "-H", "other=x")
    streams.work(engine)
    (good,) = [r for r in rows(engine).values() if r["message_id"] == "good"]
    assert good["attributes"] == {"traceparent": TRACE}
    (letter,) = streams.read(streams.dead)
    for record in (*streams.read(streams.verdicts), letter):
        assert record["headers"]["traceparent"] == TRACE
        assert "other" not in record["headers"]


def test_a_cloud_event_fills_in_id_and_time(streams: Streams, engine: Engine) -> None:
    event = ["ce_specversion=1.0", "ce_id=event-1", "ce_time=2026-03-01T12:00:00Z", "ce_source=/gateway", "ce_type=t"]
    streams.write([(None, b'{"prompt": "hello"}')], *[part for header in event for part in ("-H", header)])
    streams.work(engine)
    (row,) = rows(engine).values()
    assert (row["message_id"], row["sent_at"]) == ("event-1", datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert row["attributes"] == dict(header.split("=", 1) for header in event)
    (verdict,) = streams.read(streams.verdicts)
    assert (verdict["key"], verdict["payload"]["id"]) == ("event-1", "event-1")


def test_tombstones_and_headers_without_a_value(streams: Streams, engine: Engine) -> None:
    streams.write([("gone", b"")], "-Z")
    streams.write([("empty", b"")], "-H", "traceparent", "-H", "ce_specversion")
    streams.work(engine)
    (row,) = rows(engine).values()
    assert (row["status"], row["reason"]) == ("invalid", "payload: empty")
    (letter,) = streams.read(streams.dead)
    assert (letter["payload"]["size"], letter["headers"].get("traceparent")) == (0, None)


@pytest.mark.parametrize("codec_of", ["none", "gzip"])
def test_a_header_whose_name_is_no_text_stops_nobody(streams: Streams, engine: Engine, codec_of: str) -> None:
    """Kafka takes any bytes, and one record must not blind the monitor."""
    odd = [part for name in (b"\xff\xfe=\xff", b"\xc3\xa4=\xc3\xa4") for part in (b"-H", name)]
    streams.write([("a", message("before"))])
    streams.write([(one, message(one)) for one in ("odd", "next")], *odd, "-H", f"traceparent={TRACE}", "-z", codec_of)
    streams.write([("a", message("after"))])
    assert streams.work(engine).by_status == {"scored": 4}
    found = {r["message_id"]: (r["payload_sha256"], r["attributes"]) for r in rows(engine).values()}
    for name, trace in (("before", None), ("odd", {"traceparent": TRACE}), ("next", {"traceparent": TRACE})):
        assert found[name] == (hashlib.sha256(message(name)).hexdigest(), trace)


@pytest.mark.parametrize("name", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_records_are_read(streams: Streams, opened: Open, topic: str, name: str) -> None:
    """What producers compress with is not ours to choose."""
    streams.write([(None, message(f"m{n}")) for n in range(50)], "-z", name)
    assert len(read(opened("earliest"), 50)) == 50
