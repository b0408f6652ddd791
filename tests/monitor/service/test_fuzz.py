"""Whatever is in a topic: no crash, and every record is a row; what is no message is a dead letter too.

What prompts say is in no output, log, metric or table. Clocks may jump.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import generate_latest
from sqlalchemy import Engine

from monitor.service import worker as worker_module
from monitor.service.batch_rows import Outcome
from monitor.service.policy import Policy, Tally
from monitor.service.worker import Worker
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.source import KafkaSource
from monitor.stream.sinks import Outputs
from monitor.stream.sinks.kafka import TopicSink, connect_producer
from monitor.stream.wire import WireMessage
from monitor.telemetry import logs, metrics
from storage import schema
from tests.support.rows import counts, dump, stored
from tests.support.stream.kafka import new_topic, produce, unique
from tests.support.stream.scenario import CANARY, read_all
from tests.support.stream.stub_scorer import NAME, StubScorer

FIELDS = (
    "id",
    "prompt",
    "messages",
    "response",
    "model",
    "tenant",
    "user",
    "conversation_id",
    "timestamp",
    "attributes",
    "extra",
    "",
    "\x00",
    "\ud800",
)


class Breaking(StubScorer):
    """The model breaks on messages that hold the word; its error would quote them."""

    def prepare(self, messages: Any) -> Any:
        return list(messages)

    def score(self, messages: Any) -> list[Outcome]:
        found = super().score(messages)
        return [
            Outcome("failed", reason="scoring failed: RuntimeError") if _breaks(m) else one
            for m, one in zip(messages, found, strict=True)
        ]


def _breaks(message: WireMessage) -> bool:
    return any("BREAKS" in turn["content"] for turn in message.turns)


def run(cluster: Cluster, topic: str, engine: Engine, **more: Any) -> tuple[Tally, str, str]:
    """One worker from the beginning to the end of a topic; the names of its output topics."""
    verdicts, dead = new_topic(cluster, 1), new_topic(cluster, 1)
    producer = connect_producer(cluster)
    source = KafkaSource(cluster, [topic], unique("group"), start_from="earliest", until_end=True, max_bytes=10_000)
    policy = Policy(
        (NAME,),
        "model",
        destinations=("console",),
        batch_messages=256,
        dead_letter_limit=1.0,
        **more,
    )
    outputs = Outputs(verdicts=TopicSink(producer, verdicts, "v"), dead_letters=TopicSink(producer, dead, "d"))
    with closing(source), closing(producer):
        return Worker(source, Breaking(), engine, policy, outputs=outputs).run(), verdicts, dead


def junk(draw: random.Random, depth: int = 0) -> Any:
    """A JSON value of any kind, odd ones more often than life."""
    makers: list[Callable[[], Any]] = [
        lambda: None,
        lambda: draw.choice((True, False)),
        lambda: draw.choice((0, -1, 1 << 63, 10**400, 1.5, float("nan"), float("inf"), -0.0)),
        lambda: "".join(chr(draw.choice((0, 9, 34, 92, 97, 0x202E, 0xD800, 0xFFFF, 0x1F600))) for _ in range(5)),
        lambda: draw.choice(("", " ", "user", "2026-01-01", "x" * 600, f"{CANARY} BREAKS")),
    ]
    if depth < 4:
        makers += [
            lambda: [junk(draw, depth + 1) for _ in range(draw.randrange(4))],
            lambda: {draw.choice(FIELDS): junk(draw, depth + 1) for _ in range(draw.randrange(4))},
            lambda: [{"role": draw.choice(("user", "assistant", "", 7)), "content": junk(draw, depth + 1)}],
        ]
    return draw.choice(makers)()


def payloads(number: int, seed: int) -> Iterator[bytes | None]:
    draw = random.Random(seed)
    for n in range(number):
        kind = draw.randrange(10)
        message = {"id": f"m{n}", "tenant": "shop", "prompt": f"{CANARY} {n}"}
        if kind < 3:
            yield json.dumps(message).encode()
        elif kind < 7:
            changed = message | {draw.choice(FIELDS): junk(draw) for _ in range(draw.randrange(1, 4))}
            yield json.dumps(changed).encode("utf-8", "surrogatepass")
        elif kind == 7:
            yield json.dumps(junk(draw)).encode("utf-8", "surrogatepass")
        elif kind == 8:
            whole = bytearray(json.dumps(message).encode())
            whole[draw.randrange(len(whole))] = draw.randrange(256)
            yield bytes(whole)
        else:
            yield draw.choice((None, b"", b"\xff" * 9, b"[" * 5000, draw.randbytes(50), b"{}" * 6000))


@pytest.mark.timeout(300)
def test_ten_thousand_fuzzed_messages(cluster: Cluster, engine: Engine) -> None:
    topic = new_topic(cluster, 3)
    values = list(payloads(10_000, seed=4))
    sent = zip(produce(cluster, topic, values, key=b"key"), values, strict=True)
    # A tombstone is no message.
    places = {place for place, value in sent if value is not None}
    assert len(places) > 9_000
    tally, verdicts, dead = run(cluster, topic, engine)
    # A JSON array is as many messages as it has elements.
    rows = {(r["partition"], r["offset"], r["sub"]): r for r in stored(engine, schema.messages)}
    assert {place[:2] for place in rows} == places
    assert sum(tally.by_status.values()) == len(rows) >= len(places)
    assert not [r["reason"] for r in rows.values() if "reader failed" in (r["reason"] or "")]
    assert tally.by_status.keys() == {"scored", "invalid", "failed", "skipped"}
    letters = {
        (line["partition"], line["offset"], line.get("sub", 0)): line for line in map(_value, read_all(cluster, dead))
    }
    assert letters.keys() == {place for place, r in rows.items() if r["status"] in ("invalid", "failed")}
    assert all(line["reason"] for line in letters.values())
    said = {
        (line["partition"], line["offset"], line.get("sub", 0)) for line in map(_value, read_all(cluster, verdicts))
    }
    assert said == rows.keys()
    scored = {(r["partition"], r["offset"], r["sub"]) for r in stored(engine, schema.scores)}
    assert scored == {place for place, r in rows.items() if r["status"] == "scored"}


def _value(record: Any) -> dict[str, Any]:
    found = json.loads(record.value)
    assert isinstance(found, dict)
    return found


def test_what_prompts_say_is_nowhere(cluster: Cluster, engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    topic = new_topic(cluster, 1)
    values = [
        json.dumps({"id": "good", "tenant": "shop", "prompt": CANARY}).encode(),
        json.dumps({"id": "breaks", "prompt": f"{CANARY} BREAKS"}).encode(),
        json.dumps({"id": "both", "prompt": CANARY, "messages": []}).encode(),
        json.dumps({"id": "big", "prompt": CANARY * 3000}).encode(),
        CANARY.encode(),
        f'{{"id": "cut", "prompt": "{CANARY}'.encode(),
    ]
    headers = [("trace", CANARY.encode()), ("traceparent", b"00-1-2-01")]
    produce(cluster, topic, values, key=CANARY.encode(), headers=headers)
    tally, verdicts, dead = run(cluster, topic, engine)
    assert tally.by_status == {"scored": 2, "failed": 1, "invalid": 2, "skipped": 1}
    for name, number in ((verdicts, 6), (dead, 3)):
        records = read_all(cluster, name)
        assert len(records) == number
        assert not [r for r in records if CANARY in f"{r.key!r} {r.value!r} {r.headers!r}"]
    assert CANARY not in generate_latest(metrics.REGISTRY).decode()
    assert CANARY not in dump(engine)
    said = capfd.readouterr()
    assert CANARY not in said.out + said.err
    assert "beginning" in said.err


def test_clocks_may_jump(cluster: Cluster, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record's day is its own timestamp's, whatever the worker's clock says, so that the key holds."""
    # Kafka itself refuses times more than an hour ahead unless told otherwise.
    topic = new_topic(cluster, 1, message_timestamp_after_max_ms=str(2**63 - 1))
    today = datetime.now(UTC).replace(hour=12)
    times = [
        today,
        today - timedelta(days=3),
        today + timedelta(days=2),
        datetime(1970, 1, 2, tzinfo=UTC),
        datetime(2150, 1, 1, tzinfo=UTC),
        today - timedelta(days=1),
    ]
    for n, when in enumerate(times):
        value = json.dumps({"id": f"m{n}", "prompt": "hello", "timestamp": "1999-01-01"}).encode()
        produce(cluster, topic, [value], timestamp_ms=int(when.timestamp() * 1000))
    run(cluster, topic, engine)
    days = [r["day"] for r in stored(engine, schema.messages)]
    assert days == [when.date() for when in times]
    before, held = counts(engine), dump(engine, without=("workers",))
    for jump in (timedelta(days=40), timedelta(days=-40)):
        monkeypatch.setattr(worker_module, "datetime", _shifted(jump))
        again, _, _ = run(cluster, topic, engine)
        assert (again.known, again.messages) == (6, 6)
    assert (counts(engine), dump(engine, without=("workers",))) == (before, held)
    assert days[3] == date(1970, 1, 2)


def _shifted(jump: timedelta) -> type[datetime]:
    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + jump

    return Shifted
