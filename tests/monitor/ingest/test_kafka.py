"""The sink into a real broker: what is acknowledged is in the topic, what is not is told in time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource

from monitor.ingest import kafka as module
from monitor.ingest.kafka import KafkaSink, connect_producer
from monitor.ingest.record import OutRecord
from monitor.ingest.refused import SinkError
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, running
from tests.support.ingest.topic import everything
from tests.support.stream.kafka import consume, new_topic, wait_for

HEADERS = (("content-type", b"application/json"), ("awry_format", b"litellm"))


@contextmanager
def sink_on(cluster: Cluster, topic: str, ack_seconds: float = 5.0) -> Iterator[KafkaSink]:
    connect = partial(connect_producer, cluster, topic, ack_seconds=ack_seconds, max_bytes=16_000_000)
    with closing(KafkaSink(connect, cluster, topic, ack_seconds=ack_seconds)) as made:
        yield made


class Asked:
    """What became of one submission."""

    def __init__(self, sink: KafkaSink, values: Sequence[bytes]) -> None:
        self.error: SinkError | None = None
        self.calls = 0
        self._ended = threading.Event()
        sink.submit([OutRecord(value, HEADERS) for value in values], self._done)

    def _done(self, error: SinkError | None) -> None:
        self.error = error
        self.calls += 1
        self._ended.set()

    def result(self, seconds: float = 20.0) -> SinkError | None:
        assert self._ended.wait(seconds), "neither acknowledged nor given up"
        return self.error


def test_records_are_in_the_topic_as_they_came(cluster: Cluster, topic: str) -> None:
    values = [b'{"n": %d}' % n for n in range(50)] + [b"\x00\xff not JSON", b'""']
    with sink_on(cluster, topic) as sink:
        asked = Asked(sink, values)
        assert asked.result() is None
        assert sink.trouble is None
        found = consume(cluster, topic, len(values))
    assert sorted(record.value for record in found) == sorted(values)
    assert {(record.key, tuple(record.headers)) for record in found} == {(None, HEADERS)}
    assert asked.calls == 1


def test_many_threads_share_one_producer(cluster: Cluster, topic: str) -> None:
    with sink_on(cluster, topic) as sink:
        asked: list[Asked] = []
        threads = [
            threading.Thread(target=lambda t=t: asked.append(Asked(sink, [b"%d-%d" % (t, n) for n in range(100)])))
            for t in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [one.result() for one in asked] == [None] * 8
        assert len({record.value for record in consume(cluster, topic, 800)}) == 800


def test_a_record_that_the_topic_does_not_take_becomes_a_note(cluster: Cluster) -> None:
    """Neither lost nor in the way of the others of its request."""
    topic = new_topic(cluster, max_message_bytes="100000")
    large = os.urandom(600_000)  # nothing that compresses
    with sink_on(cluster, topic) as sink:
        assert Asked(sink, [b"before", large, b"after"]).result() is None
        found = {record.value: dict(record.headers) for record in consume(cluster, topic, 3)}
    assert set(found) == {b"before", b"after", b'{"awry_oversize":600000}'}
    assert found[b'{"awry_oversize":600000}']["awry_oversize"] == b"600000"


def test_a_limit_that_was_lowered_is_found_out(cluster: Cluster) -> None:
    topic = new_topic(cluster)
    large = os.urandom(300_000)
    with sink_on(cluster, topic) as sink:
        assert Asked(sink, [large]).result() is None
        change = ConfigResource("TOPIC", topic, {"max.message.bytes": "100000"})
        with closing(KafkaAdminClient(**cluster.options())) as admin:
            admin.alter_configs([change])
        wait_for(lambda: Asked(sink, [large, b"small"]).result() is None and sink._limit == 100_000, 30)
    assert {record.value for record in everything(cluster, topic)} == {b"small", b'{"awry_oversize":300000}', large}


def test_text_over_the_limit_fits_compressed(cluster: Cluster, topic: str) -> None:
    large = b'{"prompt": "' + b"all work and no play " * 200_000 + b'"}'
    with sink_on(cluster, topic) as sink:
        assert Asked(sink, [large]).result() is None
    assert consume(cluster, topic, 1)[0].value == large


@pytest.fixture
def own(tmp_path: Path, jar_folder: Path) -> Iterator[Broker]:
    with running(Broker(tmp_path / "kafka", jar_folder=jar_folder)) as broker:
        yield broker


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_broker_that_is_away_is_told_in_time_and_found_again(own: Broker, how: str) -> None:
    cluster = Cluster(own.address)
    topic = new_topic(cluster)
    with sink_on(cluster, topic, ack_seconds=2.0) as sink:
        wait_for(lambda: Asked(sink, [b"before"]).result() is None, 60)
        getattr(own, how)()
        began = time.monotonic()
        away = [Asked(sink, [b"away-%d" % n]) for n in range(20)]
        errors = [one.result() for one in away]
        assert time.monotonic() - began < 15
        assert all(isinstance(error, SinkError) for error in errors)
        assert sink.trouble is not None
        own.start()
        accepted: list[bytes] = []

        def back() -> bool:
            value = b"back-%d" % len(accepted)
            if Asked(sink, [value]).result() is None:
                accepted.append(value)
            return len(accepted) == 5

        wait_for(back, 60)
        assert sink.trouble is None
        assert {b"before", *accepted} <= {record.value for record in everything(cluster, topic)}
        assert [one.calls for one in away] == [1] * 20


@pytest.mark.slow
def test_a_silent_producer_is_replaced(cluster: Cluster, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen after a broker's restart: batches that are neither sent nor expired, for ever."""
    with sink_on(cluster, topic, ack_seconds=1.0) as sink:
        first = sink._producer
        assert first is not None
        # Its thread stands still, as that one's did.
        go_on = threading.Event()
        monkeypatch.setattr(first._sender, "run_once", lambda: go_on.wait(60))
        began = time.monotonic()
        silent = [Asked(sink, [b"silent"]) for _ in range(3)]
        assert [type(one.result()) for one in silent] == [SinkError] * 3
        assert time.monotonic() - began < 15
        wait_for(lambda: Asked(sink, [b"again"]).result() is None, 30)
        assert sink._producer is not first
        go_on.set()
        assert [one.calls for one in silent] == [1] * 3


@pytest.mark.slow
def test_a_producer_that_does_not_recover_is_replaced(own: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_SECONDS", 1.0)
    cluster = Cluster(own.address)
    topic = new_topic(cluster)
    with sink_on(cluster, topic, ack_seconds=1.0) as sink:
        first = sink._producer
        assert first is not None
        first.close(timeout=0)  # as one in a state that it cannot leave
        wait_for(lambda: Asked(sink, [b"again"]).result() is None, 30)
        assert sink._producer is not first
        assert consume(cluster, topic, 1)[0].value == b"again"
