"""A topic that is deleted and made again is another log: read from its beginning, never taken for the one before."""

from __future__ import annotations

from contextlib import closing

import pytest
from sqlalchemy import Engine

from monitor.service.policy import Policy, Tally
from monitor.service.worker import Worker
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.source import KafkaSource
from monitor.stream.kafka.topic_ids import TopicIds
from monitor.stream.sinks import Outputs
from monitor.stream.sinks.kafka import TopicSink, connect_producer
from monitor.telemetry import metrics
from storage import schema
from tests.support.rows import counts, stored
from tests.support.stream.kafka import add_partitions, committed, grown, new_topic, produce, read, recreate, wait_for
from tests.support.stream.kafka_fixtures import Open
from tests.support.stream.scenario import read_all
from tests.support.stream.stub_scorer import NAME, StubScorer, score_of

pytestmark = pytest.mark.usefixtures("impatient")

FLAGGED = [f"m{n}" for n in range(200) if score_of(f"m{n}") > 0.8][:20]
PASSED = [f"m{n}" for n in range(200) if score_of(f"m{n}") < 0.7][:20]


def messages(ids: list[str]) -> list[bytes]:
    return [b'{"id": "%s", "prompt": "hello"}' % each.encode() for each in ids]


def work(cluster: Cluster, topic: str, group: str, engine: Engine, verdicts: str) -> Tally:
    """One worker from the group's offsets to the end of the topic."""
    source = KafkaSource(cluster, [topic], group, start_from="earliest", until_end=True)
    producer = connect_producer(cluster)
    with closing(source), closing(producer):
        outputs = Outputs(verdicts=TopicSink(producer, verdicts, "verdicts_out"))
        return Worker(source, StubScorer(), engine, Policy((NAME,), "model"), outputs=outputs).run()


def test_a_topic_made_again_is_watched(cluster: Cluster, topic: str, group: str, engine: Engine) -> None:
    verdicts = new_topic(cluster, 1)
    produce(cluster, topic, messages(PASSED), partition=0)
    work(cluster, topic, group, engine, verdicts)
    recreate(cluster, topic)
    produce(cluster, topic, messages(FLAGGED), partition=0)
    tally = work(cluster, topic, group, engine, verdicts)
    assert tally.by_status == {"scored": 20}
    rows = stored(engine, schema.messages)
    assert [(r["source"], r["message_id"]) for r in rows] == [
        *((topic, each) for each in PASSED),
        *((f"{topic}@2", each) for each in FLAGGED),
    ]
    assert sum(r["flagged"] for r in stored(engine, schema.scores)) == 20
    assert [a["count"] for a in stored(engine, schema.alerts)] == [20]
    said = read_all(cluster, verdicts)
    assert len(said) == 40
    again = work(cluster, topic, f"{group}-again", engine, verdicts)
    assert (again.known, counts(engine)["messages"]) == (20, 40)


def test_a_topic_made_again_while_it_is_read(opened: Open, cluster: Cluster, topic: str, group: str) -> None:
    """The new log is shorter than the position, then longer: it is read whole either way."""
    rewound = grown(metrics.RECREATED_LOGS)
    produce(cluster, topic, messages(PASSED), partition=0)
    source = opened("earliest")
    before = read(source, 20)
    wait_for(lambda: committed(cluster, group)[topic, 0] == 20)
    recreate(cluster, topic)
    produce(cluster, topic, messages(FLAGGED) * 2, partition=0)
    after = read(source, 40, seconds=60)
    assert [r.at.offset for r in after] == list(range(40))
    assert len({r.log for r in before} | {r.log for r in after}) == 2
    assert len({r.log for r in after}) == 1
    assert rewound() >= 1
    wait_for(lambda: committed(cluster, group).get((topic, 0)) == 40)


def test_offsets_that_count_in_a_topic_that_is_gone(
    opened: Open, cluster: Cluster, topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that came after the deletion: the new topic's first messages are not skipped."""
    produce(cluster, topic, messages(FLAGGED), partition=0)
    gone = TopicIds._metadata

    def of_another(self: TopicIds, topic: str) -> str:
        return gone(self, topic)[:-4] + "0000"

    with monkeypatch.context() as patched:
        patched.setattr(TopicIds, "_metadata", of_another)
        first = opened("earliest")
        read(first, 20)
        wait_for(lambda: committed(cluster, group)[topic, 0] == 20)
        first.close()
    again = opened()
    assert [r.at.offset for r in read(again, 20)] == list(range(20))


def test_an_added_partition_is_no_new_log(opened: Open, cluster: Cluster, topic: str) -> None:
    produce(cluster, topic, messages(PASSED), partition=0)
    source = opened("earliest")
    before = read(source, 20)
    add_partitions(cluster, topic, 4)
    produce(cluster, topic, messages(FLAGGED[:1]), partition=0)
    assert {r.log for r in before} == {r.log for r in read(source, 1)}


def test_tombstones_are_no_messages(cluster: Cluster, topic: str, group: str, engine: Engine) -> None:
    """As a compacted topic has them: they are counted apart, and stop nobody."""
    skipped = grown(metrics.TOMBSTONES)
    first, second = messages(PASSED[:2])
    produce(cluster, topic, [first, *[None] * 150, second], key=b"key")
    tally = work(cluster, topic, group, engine, new_topic(cluster, 1))
    assert (tally.by_status, tally.messages, tally.known) == ({"scored": 2}, 152, 0)
    assert (counts(engine)["messages"], skipped()) == (2, 150)
    assert sum(committed(cluster, group).values()) == 152
