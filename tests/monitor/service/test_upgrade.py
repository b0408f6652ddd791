"""A filled database of the schema before, upgraded, and the same topic again: nothing lost, nothing twice."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Engine, text

from monitor.service.policy import Policy, Tally
from monitor.service.worker import Worker
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.source import KafkaSource
from storage import schema
from storage.partitions import utc_today
from tests.storage.test_migrations import migrate
from tests.support.rows import stored
from tests.support.stream.kafka import produce, recreate
from tests.support.stream.stub_scorer import NAME, THRESHOLD, StubScorer, score_of

pytestmark = pytest.mark.usefixtures("impatient")

PARTS = {"id": "parts", "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}
MESSAGES: list[dict[str, Any]] = [
    *({"id": f"m{n}", "prompt": f"message {n}"} for n in range(20)),
    PARTS,
    {"id": "broke", "prompt": "again"},
]
PAYLOADS = [json.dumps(message).encode() for message in MESSAGES]


def stored_before(engine: Engine, topic: str, places: list[tuple[int, int]]) -> None:
    """The rows that the version before wrote of PAYLOADS: parts were invalid to it, and one message broke its model."""
    with engine.begin() as connection:
        for message, payload, (partition, offset) in zip(MESSAGES, PAYLOADS, places, strict=True):
            status = {"parts": "invalid", "broke": "failed"}.get(str(message["id"]), "scored")
            values: dict[str, Any] = {
                "topic": topic,
                "partition": partition,
                "offset": offset,
                "sha": hashlib.sha256(payload).hexdigest(),
                "day": utc_today(),
                "status": status,
                "id": message["id"],
            }
            connection.execute(
                text(
                    'INSERT INTO messages (source, partition, "offset", payload_sha256, day, status, message_id) '
                    "VALUES (:topic, :partition, :offset, :sha, :day, :status, :id)"
                ),
                values,
            )
            if status == "scored":
                score = score_of(str(message["id"]))
                connection.execute(
                    text(
                        'INSERT INTO scores (source, partition, "offset", probe, probe_version, day, score, threshold, '
                        "flagged) VALUES (:topic, :partition, :offset, :probe, 1, :day, :score, :threshold, :flagged)"
                    ),
                    values | {"probe": NAME, "score": score, "threshold": THRESHOLD, "flagged": score > THRESHOLD},
                )


def work(cluster: Cluster, topic: str, group: str, engine: Engine) -> Tally:
    source = KafkaSource(cluster, [topic], group, start_from="earliest", until_end=True)
    with closing(source):
        return Worker(source, StubScorer(), engine, Policy((NAME,), "model")).run()


def test_a_redelivery_after_the_upgrade(cluster: Cluster, topic: str, group: str, empty_engine: Engine) -> None:
    places = produce(cluster, topic, PAYLOADS, partition=0)
    migrate(empty_engine, "0006")
    stored_before(empty_engine, topic, places)
    migrate(empty_engine, "head")
    produce(cluster, topic, [b'{"id": "new", "prompt": "since"}'], partition=0)
    tally = work(cluster, topic, group, empty_engine)
    # What could not be read or failed then is scored now, in its own row.
    assert (tally.known, tally.by_status) == (20, {"scored": 3})
    rows = stored(empty_engine, schema.messages)
    assert sorted(r["message_id"] for r in rows) == sorted([*(str(m["id"]) for m in MESSAGES), "new"])
    assert {(r["source"], r["status"], r["sub"]) for r in rows} == {(topic, "scored", 0)}
    assert {r["message_id"]: r["format"] for r in rows if r["format"]} == dict.fromkeys(
        ("parts", "broke", "new"), "awry"
    )
    assert len(stored(empty_engine, schema.scores)) == 23
    again = work(cluster, topic, f"{group}-again", empty_engine)
    assert (again.known, again.by_status, len(stored(empty_engine, schema.messages))) == (23, {}, 23)


def test_a_topic_that_was_made_again_before_the_upgrade(
    cluster: Cluster, topic: str, group: str, empty_engine: Engine
) -> None:
    places = produce(cluster, topic, PAYLOADS, partition=0)
    migrate(empty_engine, "0006")
    stored_before(empty_engine, topic, places)
    recreate(cluster, topic)
    produce(cluster, topic, [b'{"id": "o%d", "prompt": "other"}' % n for n in range(30)], partition=0)
    migrate(empty_engine, "head")
    tally = work(cluster, topic, group, empty_engine)
    assert (tally.known, tally.by_status) == (0, {"scored": 30})
    rows = stored(empty_engine, schema.messages)
    assert [r["source"] for r in rows if r["message_id"].startswith("o")] == [f"{topic}@2"] * 30
    assert len(rows) == 52
