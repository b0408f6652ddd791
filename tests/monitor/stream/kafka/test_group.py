"""Members of a consumer group: slow ones stay, ill ones give up, and what moves is neither lost nor counted twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from monitor.errors import SourceError
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, running
from monitor.stream.kafka.source import KafkaSource
from monitor.stream.record import Record
from monitor.telemetry import metrics
from tests.support.stream.kafka import committed, grown, new_topic, produce, read, wait_for
from tests.support.stream.kafka_fixtures import Open
from tests.support.stream.source_contract import take

pytestmark = pytest.mark.usefixtures("impatient")
THIRTY = [b"%02d" % n for n in range(30)]
# Heartbeats are a third of it: how soon a member hears of another one.
SESSION = 6.0


def spread(cluster: Cluster, topic: str) -> None:
    """Ten records in each of three partitions."""
    for n in range(3):
        produce(cluster, topic, THIRTY[n * 10 : n * 10 + 10], partition=n)


def partitions(source: KafkaSource) -> set[int]:
    """What the group gave this member, as the client below it knows."""
    return {tp.partition for tp in source._consumer.assignment()}


def of(records: list[Record], wanted: set[int]) -> list[Record]:
    return [r for r in records if r.at.partition in wanted]


def _has_partitions(source: KafkaSource) -> bool:
    return source.trouble is None


def test_to_join_may_take_longer_than_one_poll(
    opened: Open, cluster: Cluster, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A join that one poll did not see to its end is not forgotten by the next one."""
    monkeypatch.setattr("monitor.stream.kafka.source._POLL_SECONDS", 0.001)
    produce(cluster, topic, THIRTY)
    for _ in range(3):
        source = opened("earliest")
        wait_for(partial(_has_partitions, source))
        source.close()


def test_a_batch_may_take_longer_than_the_group_waits_for_a_poll(
    opened: Open, cluster: Cluster, topic: str, group: str
) -> None:
    """The source's thread polls on while the model works, also when no more records fit."""
    spread(cluster, topic)
    lost, again = grown(metrics.REBALANCES.labels("lost")), grown(metrics.REBALANCES.labels("assigned"))
    source = opened("earliest", max_poll_seconds=2.0, session_seconds=SESSION, prefetch_messages=5)
    batch = take(source, 4)
    until = time.monotonic() + 5
    wait_for(lambda: time.monotonic() > until)
    source.commit(batch)
    read(source, 26)
    wait_for(lambda: committed(cluster, group) == {(topic, n): 10 for n in range(3)})
    assert (lost(), again()) == (0, 1)


def test_a_member_that_stalls_gives_its_partitions_up(opened: Open, cluster: Cluster, topic: str) -> None:
    spread(cluster, topic)
    ill = opened("earliest", stall_seconds=1.0)
    batch = take(ill, 5)
    wait_for(lambda: "stall_seconds" in (ill.trouble or ""))
    with pytest.raises(SourceError, match=r"^stall_seconds: no batch was finished for 1 s; "):
        ill.poll(1, 0.0)
    # It left: nobody waits for its session to end.
    assert sorted(r.payload or b"" for r in read(opened(), 30, seconds=20)) == THIRTY
    abandoned = grown(metrics.ABANDONED_MESSAGES)
    ill.commit(batch)
    assert abandoned() == 5


def test_a_source_with_nothing_to_do_does_not_stall(opened: Open, cluster: Cluster, topic: str) -> None:
    source = opened("earliest", stall_seconds=0.5)
    until = time.monotonic() + 1.5
    wait_for(lambda: time.monotonic() > until)
    produce(cluster, topic, THIRTY)
    assert len(read(source, 30)) == 30


def test_a_batch_in_hand_is_waited_for_when_its_partition_moves(
    opened: Open, cluster: Cluster, topic: str, group: str
) -> None:
    spread(cluster, topic)
    abandoned = grown(metrics.ABANDONED_MESSAGES)
    first = opened("earliest", session_seconds=SESSION, revoke_seconds=60.0)
    batch = take(first, 30)
    second = opened(session_seconds=SESSION)
    wait_for(lambda: len(partitions(first)) == 2)
    moved = {0, 1, 2} - partitions(first)
    first.commit(batch)
    wait_for(lambda: partitions(second) == moved)
    produce(cluster, topic, [b"more"], partition=next(iter(moved)))
    assert [r.payload for r in read(second, 1)] == [b"more"]
    wait_for(lambda: sorted(committed(cluster, group).values()) == [10, 10, 11])
    assert abandoned() == 0


def test_a_batch_that_is_not_stored_in_time_goes_to_the_next_owner(
    opened: Open, cluster: Cluster, topic: str, group: str
) -> None:
    spread(cluster, topic)
    first = opened("earliest", session_seconds=SESSION, revoke_seconds=0.2)
    batch = take(first, 30)
    second = opened(session_seconds=SESSION)
    wait_for(lambda: len(partitions(second)) == 1)
    moved, kept = partitions(second), partitions(first)
    redelivered = take(second, 10)
    assert {r.at for r in redelivered} == {r.at for r in of(batch, moved)}
    abandoned = grown(metrics.ABANDONED_MESSAGES)
    first.commit(batch)
    assert abandoned() == 10
    expected = {(topic, n): 10 if n in kept else 0 for n in range(3)}
    wait_for(lambda: committed(cluster, group) == expected)
    second.commit(redelivered)
    wait_for(lambda: set(committed(cluster, group).values()) == {10})


def test_what_waits_is_not_given_out_once_its_partition_moved(opened: Open, cluster: Cluster, topic: str) -> None:
    spread(cluster, topic)
    first = opened("earliest", session_seconds=SESSION)
    found = read(first, 3)
    second = opened(session_seconds=SESSION)
    wait_for(lambda: len(partitions(second)) == 1)
    moved = partitions(second)
    rest: list[Record] = []
    while batch := first.poll(10, 0.5):
        first.commit(batch)
        rest += batch
    assert of(rest, moved) == []
    found += rest
    assert Counter(r.payload for r in [*found, *read(second, 30 - len(found))]) == Counter(THIRTY)


@pytest.mark.parametrize("prefetch", [5, 2048])
def test_members_that_come_and_go_share_everything_exactly_once(
    opened: Open, cluster: Cluster, topic: str, group: str, prefetch: int
) -> None:
    """Also while more waits than fits: a member that is full still hears what the group decides."""
    sent = [b"%04d" % n for n in range(300)]
    produce(cluster, topic, sent)
    found: list[bytes] = []
    done = threading.Event()

    def work(source: KafkaSource, most: int) -> None:
        taken = 0
        while taken < most and not done.is_set():
            batch = source.poll(5, 0.1)
            found.extend(r.payload or b"" for r in batch)
            if batch:
                source.commit(batch)
            taken += len(batch)
            done.wait(0.005)
        source.close()

    limits = (1000, 40, 60)
    members = [
        threading.Thread(
            target=work, args=(opened("earliest", session_seconds=SESSION, prefetch_messages=prefetch), most)
        )
        for most in limits
    ]
    for member in members:
        member.start()
    try:
        wait_for(lambda: len(found) >= len(sent), 90)
    finally:
        done.set()
        for member in members:
            member.join(60)
    assert Counter(found) == Counter(sent)
    assert sum(committed(cluster, group).values()) == len(sent)


def test_members_that_begin_together_begin_once(opened: Open, cluster: Cluster, topic: str) -> None:
    """All of them know where to begin; whoever gets a partition first decides it."""
    produce(cluster, topic, THIRTY)
    members = [opened("earliest") for _ in range(3)]
    found: list[Record] = []

    def all_of_them() -> bool:
        for member in members:
            batch = member.poll(10, 0.05)
            member.commit(batch)
            found.extend(batch)
        return len(found) >= 30 and all(len(partitions(m)) == 1 for m in members)

    wait_for(all_of_them)
    assert Counter(r.payload for r in found) == Counter(THIRTY)


# A broker of the module's own, to be hurt; every test leaves it running.


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kafka")


@pytest.fixture(scope="module")
def own(own_folder: Path, jar_folder: Path) -> Iterator[Broker]:
    with running(Broker(own_folder, jar_folder=jar_folder)) as broker:
        yield broker


@pytest.mark.parametrize("more", [2, 10])
def test_a_log_that_lost_its_end_is_read_again_from_there(own: Broker, own_folder: Path, group: str, more: int) -> None:
    """As after a power cut, or when a replica that lagged was elected: other records are at known offsets."""
    cluster = Cluster(own.address)
    topic = new_topic(cluster, 1)
    log = own_folder / "data" / f"{topic}-0" / "00000000000000000000.log"
    produce(cluster, topic, THIRTY[:5])
    size = log.stat().st_size
    produce(cluster, topic, THIRTY[5:10])
    with closing(KafkaSource(cluster, [topic], group, start_from="earliest")) as source:
        read(source, 10)
        wait_for(lambda: committed(cluster, group) == {(topic, 0): 10})
        own.kill()
        with log.open("r+b") as file:
            file.truncate(size)
        own.start()
        new = [b"new %d" % n for n in range(more)]
        produce(cluster, topic, new)
        # How far back it goes is its own to choose; that nothing new is missed is not.
        found: list[bytes | None] = []
        while found[-more:] != new:
            found += [r.payload for r in read(source, 1)]
        assert found in (new, THIRTY[:5] + new)
        wait_for(lambda: committed(cluster, group) == {(topic, 0): 5 + more})


def test_closing_ends_while_the_broker_is_away(own: Broker, group: str) -> None:
    cluster = Cluster(own.address)
    topic = new_topic(cluster, 1)
    produce(cluster, topic, THIRTY)
    source = KafkaSource(cluster, [topic], group, start_from="earliest", session_seconds=SESSION)
    batch = take(source, 30)
    own.kill()
    source.commit(batch)
    source.close()
    assert not source._thread.is_alive()
    own.start()
    with closing(KafkaSource(cluster, [topic], group, session_seconds=SESSION)) as again:
        assert {r.at for r in take(again, 30)} == {r.at for r in batch}


def test_a_broker_that_comes_back_is_read_on(own: Broker, group: str) -> None:
    cluster = Cluster(own.address)
    topic = new_topic(cluster, 3)
    spread(cluster, topic)
    with closing(KafkaSource(cluster, [topic], group, start_from="earliest")) as source:
        first = take(source, 10)
        own.kill()
        own.start()
        source.commit(first)
        produce(cluster, topic, [b"more"])
        found = Counter(r.at for r in [*first, *read(source, 21, seconds=60)])
        assert set(found.values()) == {1}
        wait_for(lambda: sum(committed(cluster, group).values()) == 31)
