"""Where lines go: they are there when `write` returns, whatever is in them; an output that takes none is an error."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from sqlalchemy import Engine

from monitor.errors import ClusterError, OutputError, SettingsError
from monitor.service.policy import Policy
from monitor.service.worker import Worker
from monitor.settings import Settings
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, running
from monitor.stream.sinks import Line, Outputs
from monitor.stream.sinks.jsonl import JsonLinesSink
from monitor.stream.sinks.kafka import TopicSink, connect_producer
from monitor.stream.wiring import opened_outputs
from storage import schema
from tests.support import ROOT
from tests.support.rows import stored
from tests.support.stream.kafka import committed, consume, new_topic, produce, wait_for
from tests.support.stream.kafka_fixtures import Open
from tests.support.stream.stub_scorer import NAME, StubScorer

# What a message that is none may have as its id: anything that JSON can write.
ODD_IDS = ["ä€\U0001f600", "\x00\n\t", "half \ud800 a pair", " ", "x" * 512, '"}{']


@pytest.fixture
def sink(cluster: Cluster, topic: str) -> Iterator[TopicSink]:
    producer = connect_producer(cluster)
    yield TopicSink(producer, topic, "verdicts_out")
    producer.close(timeout=10)


def lines(*ids: str | None) -> list[Line]:
    return [Line({"id": one, "n": n}, one) for n, one in enumerate(ids)]


# A topic.


def test_values_keys_and_headers_arrive(sink: TopicSink, cluster: Cluster, topic: str) -> None:
    sink.write([Line({"id": "a", "scores": {"drift": 0.5}}, "a", (("traceparent", b"00-\xff"),)), Line({"b": None})])
    first, second = sorted(consume(cluster, topic, 2), key=lambda r: r.key is None)
    assert (json.loads(first.value), first.key) == ({"id": "a", "scores": {"drift": 0.5}}, b"a")
    assert first.headers == [("content-type", b"application/json"), ("traceparent", b"00-\xff")]
    assert (json.loads(second.value), second.key) == ({"b": None}, None)


def test_a_topic_takes_any_id(sink: TopicSink, cluster: Cluster, topic: str) -> None:
    sink.write(lines(*ODD_IDS))
    records = consume(cluster, topic, len(ODD_IDS))
    assert sorted(json.loads(r.value)["id"] for r in records) == sorted(ODD_IDS)
    assert {r.key for r in records} == {one.encode("utf-8", "replace") for one in ODD_IDS}


def test_lines_of_one_id_keep_their_order(sink: TopicSink, cluster: Cluster, topic: str) -> None:
    sink.write(lines(*["same"] * 50))
    sink.write([])
    assert [json.loads(r.value)["n"] for r in consume(cluster, topic, 50)] == list(range(50))


def test_a_line_that_the_topic_refuses_is_an_error(cluster: Cluster) -> None:
    small = new_topic(cluster, 1, max_message_bytes="300")
    producer = connect_producer(cluster)
    try:
        with pytest.raises(
            OutputError, match=rf"^answers_out: topic {small} took no lines \(MessageSizeTooLargeError\)"
        ):
            TopicSink(producer, small, "answers_out").write([Line({"id": "x" * 512})])
    finally:
        producer.close(timeout=10)


def test_a_broker_that_stays_away_is_an_error(
    tmp_path: Path, jar_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.stream.sinks.kafka._DELIVERY_SECONDS", 3)
    with running(Broker(tmp_path, jar_folder=jar_folder)) as broker:
        cluster = Cluster(broker.address)
        topic = new_topic(cluster, 1)
        patience = {"request_timeout_ms": 1000, "delivery_timeout_ms": 3000, "max_block_ms": 3000}
        producer = KafkaProducer(**cluster.options(), **patience, acks="all", metrics_enabled=False)
        sink = TopicSink(producer, topic, "dead_letters_out")

        def written() -> bool:
            try:
                sink.write(lines("before"))
            except OutputError:  # a broker that has just started may take longer than the patience here
                return False
            return True

        wait_for(written, 60)
        broker.kill()
        with pytest.raises(OutputError, match=rf"^dead_letters_out: topic {topic} took no lines \(\w+Error\)"):
            sink.write(lines("after"))
        producer.close(timeout=1)


# JSON lines.


def test_json_lines_are_appended_and_flushed(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"old": 1}\n')
    sink = JsonLinesSink(str(path), "verdicts_out")
    sink.write([Line({"id": "ä"}, "key", (("header", b"x"),)), Line({"id": "b"})])
    assert path.read_text(encoding="utf-8") == '{"old": 1}\n{"id": "ä"}\n{"id": "b"}\n'
    sink.close()


def test_a_file_takes_any_id(tmp_path: Path) -> None:
    sink = JsonLinesSink(str(tmp_path / "out"), "dead_letters_out")
    sink.write(lines(*ODD_IDS))
    sink.close()
    written = (tmp_path / "out").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in written] == ODD_IDS


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^answers_out: cannot write nowhere/x \(No such file"):
        JsonLinesSink("nowhere/x", "answers_out")


def test_a_new_file_is_its_owners_alone_and_one_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "there").touch(0o644)
    (tmp_path / "there").chmod(0o644)
    before = os.umask(0)
    try:
        for name in ("new", "there"):
            JsonLinesSink(str(tmp_path / name), "verdicts_out").close()
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "there")] == [0o600, 0o644]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full (Linux)")
def test_a_full_disk_is_an_error() -> None:
    sink = JsonLinesSink("/dev/full", "verdicts_out")
    with pytest.raises(OutputError, match=r"^verdicts_out: cannot write /dev/full \(No space left on device\)"):
        sink.write(lines("a"))
    # What could not be written is tried once more; else Python 3.13 says so when the file is collected.
    with pytest.raises(OSError, match="No space left on device"):
        sink.close()


_STDOUT = """
import sys
from monitor.stream.sinks import Line
from monitor.stream.sinks.jsonl import JsonLinesSink
sink = JsonLinesSink("-", "verdicts_out")
sink.write([Line({"id": "\\u00e4"}), Line({"id": "\\ud800"})])
sink.close()
print("still open")
"""


@pytest.mark.parametrize(("encoding", "first"), [("utf-8", '{"id": "ä"}'), ("ascii", '{"id": "\\u00e4"}')])
def test_standard_output_stays_open(encoding: str, first: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STDOUT],
        cwd=ROOT,
        env={"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.decode(encoding).splitlines() == [first, '{"id": "\\ud800"}', "still open"]


# From settings.


def settings(cluster: Cluster, **more: Any) -> Settings:
    return Settings(kafka_bootstrap=cluster.bootstrap, **more)


def test_outputs_are_what_the_settings_say(
    cluster: Cluster, topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers"
    chosen = settings(
        cluster, verdicts_out=f"kafka:{topic}", mitigate="all", answers_out=str(answers), dead_letters_out="-"
    )
    with opened_outputs(chosen) as outputs:
        for sink, name in ((outputs.verdicts, "v"), (outputs.answers, "a"), (outputs.dead_letters, "d")):
            assert sink is not None
            sink.write([Line({"id": name})])
    assert [r.value for r in consume(cluster, topic, 1)] == [b'{"id":"v"}']
    assert answers.read_text() == '{"id": "a"}\n'
    assert capsys.readouterr().out == '{"id": "d"}\n'


def test_without_settings_json_lines_have_no_outputs(tmp_path: Path) -> None:
    with opened_outputs(Settings(source="traffic.jsonl")) as outputs:
        assert outputs == Outputs()
    assert list(tmp_path.iterdir()) == []


def test_a_topics_dead_letters_have_a_topic_beside_it(cluster: Cluster, topic: str) -> None:
    cluster.create_topics([f"{topic}.dead-letters"], 1)
    with opened_outputs(settings(cluster, source=f"kafka:{topic}")) as outputs:
        assert outputs.verdicts is outputs.answers is None
        assert outputs.dead_letters is not None
        outputs.dead_letters.write([Line({"id": "d"})])
    assert [r.value for r in consume(cluster, f"{topic}.dead-letters", 1)] == [b'{"id":"d"}']


def test_dead_letters_may_be_switched_off(cluster: Cluster, topic: str) -> None:
    with opened_outputs(settings(cluster, source=f"kafka:{topic}", dead_letters_out="none")) as outputs:
        assert outputs == Outputs()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"verdicts_out": "kafka:nothing-such"}, "verdicts_out: there is no topic nothing-such"),
        ({"mitigate": "all", "answers_out": "kafka:nothing-such"}, "answers_out: there is no topic nothing-such"),
        ({"dead_letters_out": "kafka:nothing-such"}, "dead_letters_out: there is no topic nothing-such"),
        ({"source": "kafka:also-nothing"}, "dead_letters_out: there is no topic also-nothing.dead-letters"),
    ],
)
def test_a_topic_that_is_not_there_is_named_before_anything_is_written(
    cluster: Cluster, more: dict[str, str], named: str
) -> None:
    with pytest.raises(ClusterError, match=f"^{named} at .*create it first"), opened_outputs(settings(cluster, **more)):
        pytest.fail("there is an output that cannot be written")


def test_a_topic_without_a_cluster_names_the_setting(tmp_path: Path) -> None:
    alone = Settings(verdicts_out="kafka:t", state_dir=tmp_path)
    with pytest.raises(SettingsError, match=r"^kafka_bootstrap: not set, and no embedded Kafka runs"):
        opened_outputs(alone).__enter__()


# In a worker.


class Refusing:
    """Takes nothing."""

    def write(self, lines: Sequence[Line]) -> None:
        if lines:
            raise OutputError("dead_letters_out: full")

    def close(self) -> None:
        return None


@pytest.mark.parametrize("output", ["dead_letters", "verdicts"])
def test_a_batch_that_cannot_be_put_out_is_neither_stored_nor_committed(
    opened: Open, cluster: Cluster, topic: str, group: str, engine: Engine, output: str
) -> None:
    def run(payloads: list[bytes], outputs: Outputs) -> None:
        produce(cluster, topic, payloads, partition=0)
        worker = Worker(
            source, StubScorer(), engine, Policy((NAME,), "tiny"), outputs=outputs, on_batch=lambda *_: worker.stop()
        )
        worker.run()

    source = opened("earliest")
    run([b'{"id": "first", "prompt": "x"}'], Outputs())
    with pytest.raises(OutputError, match="dead_letters_out: full"):
        run([b'{"id": "second", "prompt": "x"}', b"{broken"], Outputs(**{output: Refusing()}))
    source.close()
    assert [r["message_id"] for r in stored(engine, schema.messages)] == ["first"]
    assert committed(cluster, group)[topic, 0] == 1
