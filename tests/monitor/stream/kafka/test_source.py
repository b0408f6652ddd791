"""Kafka as a source: the contract of all sources; where a group begins, what it commits, what a record says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kafka import KafkaProducer

from monitor.errors import ClusterError, SourceError
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import free_port
from monitor.stream.kafka.source import KafkaSource
from monitor.stream.kafka.start_offset import StartFrom
from monitor.stream.parse import Parser, read_messages
from monitor.stream.record import Record
from monitor.telemetry import metrics
from tests.support.stream.kafka import (
    add_partitions,
    committed,
    delete_before,
    grown,
    new_topic,
    produce,
    read,
    unique,
    wait_for,
)
from tests.support.stream.kafka_fixtures import Open
from tests.support.stream.source_contract import SourceContract, drain, take

pytestmark = pytest.mark.usefixtures("impatient")

TEN = [b"%d" % n for n in range(10)]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class TestContract(SourceContract):
    @pytest.fixture(autouse=True)
    def _stream(self, cluster: Cluster, topic: str, group: str) -> None:
        self.cluster, self.topic, self.group = cluster, topic, group

    def write(self, payloads: Sequence[bytes]) -> None:
        produce(self.cluster, self.topic, payloads)

    def source(self, *, until_end: bool, max_bytes: int) -> KafkaSource:
        return KafkaSource(
            self.cluster, [self.topic], self.group, start_from="earliest", until_end=until_end, max_bytes=max_bytes
        )


def payloads(records: Sequence[Any]) -> list[bytes]:
    return sorted(r.payload or b"" for r in records)


def millis(when: datetime) -> int:
    return int(when.timestamp() * 1000)


# Where a group begins.


def test_a_group_without_offsets_is_refused_and_told_how_to_begin(opened: Open, topic: str, group: str) -> None:
    source = opened()
    with pytest.raises(SourceError, match=rf"^start_from: group {group} has no offsets on topic {topic}; .*--from"):
        read(source, 1)
    assert "--from" in (source.trouble or "")
    assert not source.finished


@pytest.mark.parametrize(
    ("start_from", "expected"),
    [
        ("earliest", [b"before", b"noon", b"after", b"later"]),
        ("latest", [b"later"]),
        (NOON, [b"noon", b"after", b"later"]),
        (NOON + timedelta(seconds=1), [b"after", b"later"]),
        (datetime(2100, 1, 1, tzinfo=UTC), [b"later"]),
        (datetime(1, 1, 1, tzinfo=UTC), [b"before", b"noon", b"after", b"later"]),
    ],
)
def test_where_it_begins(
    opened: Open, cluster: Cluster, topic: str, group: str, start_from: StartFrom, expected: list[bytes]
) -> None:
    """A time after the last record is the end; what is written later comes whatever its time."""
    for n, name in enumerate([b"before", b"noon", b"after"]):
        produce(cluster, topic, [name], partition=0, timestamp_ms=millis(NOON + timedelta(minutes=n - 1)))
    source = opened(start_from)
    wait_for(lambda: len(committed(cluster, group)) == 3)
    produce(cluster, topic, [b"later"], partition=0, timestamp_ms=millis(NOON))
    assert [r.payload for r in read(source, len(expected))] == expected
    assert source.poll(10, 0.3) == []


def test_where_it_begins_is_decided_once(opened: Open, cluster: Cluster, topic: str, group: str) -> None:
    produce(cluster, topic, [b"before"])
    first = opened("latest")
    wait_for(lambda: len(committed(cluster, group)) == 3)
    first.close()
    produce(cluster, topic, [b"since"])
    assert [r.payload for r in read(opened(), 1)] == [b"since"]


def test_a_group_that_has_offsets_ignores_where_to_begin(opened: Open, cluster: Cluster, topic: str) -> None:
    produce(cluster, topic, TEN, partition=0)
    first = opened("earliest")
    read(first, 4)
    first.close()
    assert [r.payload for r in read(opened("latest"), 6)] == TEN[4:]


def test_a_partition_that_is_added_is_read_from_its_beginning(opened: Open, cluster: Cluster, topic: str) -> None:
    produce(cluster, topic, TEN)
    first = opened("earliest")
    read(first, 10)
    first.close()
    add_partitions(cluster, topic, 4)
    wait_for(lambda: _can_produce(cluster, topic, 3))
    assert [r.at.partition for r in read(opened(), 1)] == [3]


@pytest.mark.parametrize("start_from", ["latest", NOON])
@pytest.mark.parametrize("running", [True, False])
def test_what_is_in_an_added_partition_is_read_wherever_the_group_began(
    opened: Open, cluster: Cluster, topic: str, group: str, start_from: StartFrom, running: bool
) -> None:
    """The group decides once, for the partitions of that time: messages that come before it has seen a new partition
    are not skipped."""
    produce(cluster, topic, TEN, timestamp_ms=millis(NOON - timedelta(days=1)))
    first = opened(start_from)
    wait_for(lambda: len(committed(cluster, group)) == 3)
    if not running:
        first.close()
    add_partitions(cluster, topic, 4)
    wait_for(lambda: _can_produce(cluster, topic, 3))
    source = first if running else opened(start_from)
    assert [(r.at.partition, r.payload) for r in read(source, 1)] == [(3, b"new")]
    assert source.poll(10, 0.5) == []


def test_two_members_that_begin_at_once_agree_on_where(opened: Open, cluster: Cluster, topic: str, group: str) -> None:
    for partition in range(3):
        produce(cluster, topic, TEN, partition=partition)
    sources = [opened("latest"), opened("latest")]
    wait_for(lambda: len(committed(cluster, group)) == 3)
    wait_for(lambda: all(source.trouble is None for source in sources))
    for partition in range(3):
        produce(cluster, topic, [b"since"], partition=partition)
    found: list[Record] = []

    def polled() -> int:
        found.extend(r for source in sources for r in source.poll(100, 0.1))
        return len(found)

    wait_for(lambda: polled() >= 3)
    polled()
    assert [r.payload for r in found] == [b"since"] * 3


def _can_produce(cluster: Cluster, topic: str, partition: int) -> bool:
    """A new partition is there when the broker says so, a moment after it was asked for."""
    try:
        return bool(produce(cluster, topic, [b"new"], partition=partition))
    except AssertionError:  # kafka-python: no such partition
        return False


def test_another_topic_of_a_known_group_needs_to_be_told_too(opened: Open, cluster: Cluster, topic: str) -> None:
    produce(cluster, topic, TEN)
    first = opened("earliest")
    read(first, 10)
    first.close()
    other = new_topic(cluster, 1)
    with pytest.raises(SourceError, match=rf"on topic {other}; choose where to start"):
        read(opened(topics=[topic, other]), 1)


def test_several_topics_are_one_stream(opened: Open, cluster: Cluster, topic: str) -> None:
    other = new_topic(cluster, 2)
    produce(cluster, topic, TEN)
    produce(cluster, other, [b"more"])
    source = opened("earliest", topics=[topic, other], until_end=True)
    records = [r for batch in drain(source) for r in batch]
    assert payloads(records) == sorted([*TEN, b"more"])
    assert {r.at.source for r in records} == {topic, other}
    assert source.name == f"{topic},{other}"


# What is committed.


def test_what_is_stored_is_committed_and_no_more(opened: Open, cluster: Cluster, topic: str, group: str) -> None:
    """As a plain admin client reads it back."""
    produce(cluster, topic, TEN, partition=1)
    source = opened("earliest")
    source.commit(take(source, 4))
    take(source, 3)
    expected = {(topic, 0): 0, (topic, 1): 4, (topic, 2): 0}
    wait_for(lambda: committed(cluster, group) == expected)
    source.close()
    assert committed(cluster, group) == expected
    assert [r.payload for r in read(opened(), 6)] == TEN[4:]


def test_what_was_stored_last_is_committed_on_the_way_out(
    opened: Open, cluster: Cluster, topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.stream.kafka.source._COMMIT_SECONDS", 3600.0)
    produce(cluster, topic, TEN, partition=0)
    source = opened("earliest")
    for _ in range(5):
        read(source, 2)
    source.close()
    assert committed(cluster, group)[topic, 0] == 10


# What a record says.


def test_a_tombstone_is_told_from_an_empty_payload(opened: Open, cluster: Cluster, topic: str) -> None:
    produce(cluster, topic, [None, b""], key=b"k")
    assert [(r.payload, r.size, r.tombstone) for r in read(opened("earliest"), 2)] == [(b"", 0, True), (b"", 0, False)]


def test_headers_come_as_they_are_and_in_order(opened: Open, cluster: Cluster, topic: str) -> None:
    headers = [("traceparent", b"00-a"), ("odd", b"\xff\x00"), ("twice", b"1"), ("twice", b"2"), ("empty", b"")]
    produce(cluster, topic, [b"x"], headers=headers)
    (record,) = read(opened("earliest"), 1)
    assert record.headers == tuple(headers)


@pytest.mark.parametrize(
    ("timestamp_ms", "recorded"),
    [
        (millis(NOON) + 250, NOON + timedelta(milliseconds=250)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (253_402_300_799_000, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (253_402_300_800_000, None),
        (2**62, None),
    ],
)
def test_a_records_time_is_its_own(
    opened: Open, cluster: Cluster, timestamp_ms: int, recorded: datetime | None
) -> None:
    """A producer may write any number; what is no time is None."""
    lenient = new_topic(cluster, 1, message_timestamp_after_max_ms=str(2**63 - 1))
    produce(cluster, lenient, [b"x"], timestamp_ms=timestamp_ms)
    (record,) = read(opened("earliest", topics=[lenient]), 1)
    assert record.recorded == recorded
    assert recorded is None or record.recorded.utcoffset() == timedelta(0)  # type: ignore[union-attr]


def test_the_oldest_is_of_what_is_not_committed(opened: Open, cluster: Cluster, topic: str) -> None:
    for n, partition in enumerate([1, 0, 1]):
        produce(cluster, topic, [b"x"], partition=partition, timestamp_ms=millis(NOON + timedelta(seconds=n)))
    source = opened("earliest")
    first = take(source, 3)
    assert source.oldest == NOON
    source.commit(first)
    assert source.oldest is None


# What goes wrong is told.


def test_a_topic_that_is_not_there(opened: Open) -> None:
    with pytest.raises(ClusterError, match=r"^source: there is no topic nothing-such at 127\.0\.0\.1:\d+; create it"):
        opened("earliest", topics=["nothing-such"])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, r"^kafka_bootstrap: no broker answers at 127\.0\.0\.1:\d+ within 2 s \(security protocol PLAINTEXT\)"),
        ({"security_protocol": "SSL"}, r"^kafka_bootstrap: .*\(security protocol SSL\)"),
        (
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "PLAIN",
                "sasl_username": "u",
                "sasl_password": "geheim",
            },
            r"^kafka_(bootstrap|sasl).*\(security protocol SASL_PLAINTEXT, user u",
        ),
        ({"security_protocol": "SSL", "ssl_ca_file": "/nowhere/ca"}, r"^kafka_ssl_ca_file: cannot read /nowhere/ca$"),
    ],
)
def test_a_cluster_that_cannot_be_spoken_to(
    broker: Any, options: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody there, or somebody who speaks another protocol."""
    monkeypatch.setattr("monitor.stream.kafka.client._BOOTSTRAP_MS", 2000)
    address = broker.address if options else f"127.0.0.1:{free_port()}"
    with pytest.raises(ClusterError, match=named) as found:
        KafkaSource(Cluster(address, **options), ["t"], "g", start_from="earliest")
    assert "geheim" not in str(found.value)


def test_records_that_were_removed_before_they_were_read_are_counted(
    opened: Open, cluster: Cluster, topic: str
) -> None:
    produce(cluster, topic, TEN, partition=0)
    first = opened("earliest")
    read(first, 2)
    first.close()
    delete_before(cluster, topic, 7)
    lost = grown(metrics.FAIL_OPEN_MESSAGES.labels("lost"))
    source = opened()
    assert [r.payload for r in read(source, 3)] == TEN[7:]
    assert lost() == 5
    produce(cluster, topic, [b"more"], partition=0)
    assert [r.payload for r in read(source, 1)] == [b"more"]


def test_a_partition_that_was_emptied_goes_on_at_its_end(opened: Open, cluster: Cluster, topic: str) -> None:
    produce(cluster, topic, TEN, partition=0)
    first = opened("earliest")
    read(first, 2)
    first.close()
    delete_before(cluster, topic, 10)
    lost = grown(metrics.FAIL_OPEN_MESSAGES.labels("lost"))
    source = opened()
    wait_for(lambda: lost() == 8)
    produce(cluster, topic, [b"more"], partition=0)
    assert [r.payload for r in read(source, 1)] == [b"more"]


# How much is held.


@pytest.mark.parametrize(("messages", "size"), [(20, 1_000_000), (200, 2000)])
def test_memory_is_bounded_and_all_arrive(
    opened: Open, cluster: Cluster, topic: str, messages: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By messages, and by bytes once a poll brought too many; a partition that is new may give one more."""
    too_many: list[tuple[int, int, int]] = []
    poll = KafkaSource._poll

    def watched(self: KafkaSource, seconds: float, limit: int) -> Any:
        waiting, held = len(self._in_flight._waiting), self._in_flight._waiting.bytes
        found = poll(self, seconds, limit)
        new = sum(map(len, found.values()))
        if new > (1 if waiting >= messages or held >= size else messages - waiting):
            too_many.append((waiting, held, new))
        return found

    monkeypatch.setattr(KafkaSource, "_poll", watched)
    sent = [b"%096d" % n for n in range(2000)]
    produce(cluster, topic, sent)
    source = opened("earliest", prefetch_messages=messages, prefetch_bytes=size)
    wait_for(lambda: source._in_flight.room() == 0)
    assert payloads(read(source, len(sent), limit=10)) == sent
    assert too_many == []


# Transactions.


def transactional(cluster: Cluster) -> KafkaProducer:
    producer = KafkaProducer(**cluster.options(), transactional_id=unique("tx"), metrics_enabled=False)
    producer.init_transactions()
    return producer


def test_records_of_an_aborted_transaction_do_not_come(opened: Open, cluster: Cluster, topic: str) -> None:
    producer = transactional(cluster)
    for name, end in ((b"kept", producer.commit_transaction), (b"aborted", producer.abort_transaction)):
        producer.begin_transaction()
        producer.send(topic, name, partition=0)
        producer.flush(30)  # an abort would drop what was not sent yet
        end()
    producer.close()
    source = opened("earliest", until_end=True)
    assert [r.payload for batch in drain(source) for r in batch] == [b"kept"]


def test_the_marks_that_transactions_leave_are_no_lag(opened: Open, cluster: Cluster, topic: str) -> None:
    producer = transactional(cluster)
    producer.begin_transaction()
    producer.send(topic, b"x", partition=0)
    producer.commit_transaction()
    producer.close()
    source = opened("earliest")
    read(source, 1)
    wait_for(lambda: source.lag == 0)


# Fairness.


def of(tenant: str, number: int) -> bytes:
    return b'{"tenant": "%s", "prompt": "number %d"}' % (tenant.encode(), number)


def test_a_flood_in_the_same_partition_does_not_delay_anothers_first(
    opened: Open, cluster: Cluster, topic: str, group: str
) -> None:
    flood = [of("flood", n) for n in range(500)]
    produce(cluster, topic, [*flood, of("shop", 0)], partition=0)
    source = opened("earliest", read=lambda record: read_messages(record, Parser()))
    wait_for(lambda: sum(each.records for each in source.waiting.values()) == 501)
    first = source.poll(4, 1.0)
    assert [r.tenant for r in first] == ["flood", "shop", "flood", "flood"]
    assert source.waiting.keys() == {"flood"}
    # The shop's is stored before the flood's: its offset waits.
    source.commit([r for r in first if r.tenant == "shop"])
    source.commit(first[:1])
    wait_for(lambda: committed(cluster, group).get((topic, 0)) == 1)
    source.close()
    assert committed(cluster, group)[topic, 0] == 1
    again = opened()
    rest = read(again, 500)
    assert payloads(rest) == sorted([*flood[1:], of("shop", 0)])


def test_a_flood_in_another_partition_leaves_room(opened: Open, cluster: Cluster, topic: str) -> None:
    """What is read ahead is not all of the flood's, although its partition has far more."""
    produce(cluster, topic, [of("flood", n) for n in range(5000)], partition=0)
    source = opened("earliest", read=lambda record: read_messages(record, Parser()), prefetch_messages=100)
    wait_for(lambda: source._in_flight.room() == 0)
    produce(cluster, topic, [of("shop", 0)], partition=1)
    taken: list[Any] = []
    while not any(r.tenant == "shop" for r in taken):
        taken += source.poll(10, 5.0)
        time.sleep(0.05)  # the model's
        assert len(taken) < 1000
