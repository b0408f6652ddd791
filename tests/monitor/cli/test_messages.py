"""`awry messages show`: from the tables where the text is stored, which is recorded, else from its own topic."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, text
from typer.testing import Result

from monitor.stream.kafka.client import Cluster
from storage.coordinates import Coordinates
from storage.partitions import utc_today
from storage.schema import sources
from storage.writer import BatchRows
from tests.conftest import url_of
from tests.storage.test_partitions import role
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.cli import Invoke, invoke, message_of
from tests.support.rows import message, write
from tests.support.stream.kafka import new_topic, produce, recreate

TEXT = {"messages": [{"role": "user", "content": "schön \U0001f600"}], "response": "ja"}
Show = Callable[..., Result]


def keep(engine: Engine, place: Coordinates, stored: Any = TEXT, **more: Any) -> None:
    row = message(0, day=utc_today(), text=stored, message_id="m", **more)
    write(engine, BatchRows([replace(row, at=place)]))


def stands_for(engine: Engine, name: str, stream: str, log: str | None) -> None:
    with engine.begin() as connection:
        connection.execute(insert(sources).values(name=name, stream=stream, log=log))


@pytest.fixture
def show(run: Invoke, tmp_path: Path) -> Show:
    """Without a Kafka, and with a state folder of its own."""
    return lambda place, *more: run("messages", "show", str(place), "--state-dir", tmp_path, *more)


@pytest.fixture
def show_kafka(show: Show, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Show:
    monkeypatch.setenv("AWRY_KAFKA_BOOTSTRAP", cluster.bootstrap)
    return show


@pytest.mark.parametrize(
    "place",
    [Coordinates("topic", 3, 1204), Coordinates("topic", 3, 1204, 7), Coordinates("/var/log/a b.jsonl", 0, 2**40)],
)
def test_a_stored_text_is_shown_without_kafka(engine: Engine, show: Show, place: Coordinates) -> None:
    keep(engine, place, tenant="shop", format="openai.chat", notes=("timestamp: dropped",))
    done = show(place, "--as", "anna")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout) == TEXT
    assert "schön \U0001f600" in done.stdout
    assert done.stderr.startswith(f"awry: {place}, ingested ")
    for line in ("awry: tenant: 'shop'", "awry: format: 'openai.chat'", "awry: note: timestamp: dropped"):
        assert line in done.stderr.splitlines()
    assert "schön" not in done.stderr
    (row,) = audit_rows(engine)
    sub = {"sub": place.sub} if place.sub else {}
    expected = {"source": place.source, "partition": place.partition, "offset": place.offset} | sub
    assert (row.action, row.who, row.via, row.after) == ("message.read", "anna", "cli", {"message": expected})
    assert row.origin
    assert "schön" not in str(row)


def test_the_text_of_a_reading_is_the_gateways(engine: Engine, show: Show) -> None:
    """A reading has none: the message of the same id is shown, and that it was read is recorded."""
    keep(engine, Coordinates("awry.readings", 0, 9), None, tenant="shop", format="reading")
    assert "it holds no text, and no message of its id is stored from elsewhere" in message_of(
        show("awry.readings/0/9")
    )
    keep(engine, Coordinates("gateway", 0, 3), tenant="bank", format="openai.chat")
    assert "no message of its id" in message_of(show("awry.readings/0/9"))
    keep(engine, Coordinates("gateway", 0, 4), tenant="shop", format="openai.chat")
    done = show("awry.readings/0/9", "--as", "anna")
    assert json.loads(done.stdout) == TEXT
    assert "the message with its text is gateway/0/4" in done.stderr
    (row,) = audit_rows(engine)
    assert row.after == {"message": {"source": "gateway", "partition": 0, "offset": 4}}


def test_one_message_of_a_record_is_not_another(engine: Engine, show: Show) -> None:
    keep(engine, Coordinates("topic", 0, 1, 0), {"messages": [{"content": "first"}]})
    keep(engine, Coordinates("topic", 0, 1, 1), {"messages": [{"content": "second"}]})
    assert "second" in show("topic/0/1.1").stdout
    assert "first" in show("topic/0/1").stdout
    assert "kafka_bootstrap: not set" in message_of(show("topic/0/1.2"))


@pytest.mark.parametrize("stored", ["infinity", "10000-01-01 11:59:59+00", "0001-12-31 10:00:00+00 BC"])
def test_a_time_that_python_cannot_hold(engine: Engine, show: Show, stored: str) -> None:
    keep(engine, Coordinates("topic", 0, 1))
    with engine.begin() as connection:
        connection.execute(text("UPDATE messages SET sent_at = CAST(:at AS timestamptz)"), {"at": stored})
    done = show("topic/0/1")
    assert json.loads(done.stdout) == TEXT
    assert "topic/0/1, sent " in done.stderr


def test_no_text_without_its_audit_row(engine: Engine, tmp_path: Path) -> None:
    keep(engine, Coordinates("topic", 0, 1))
    with role(engine, "SELECT ON ALL TABLES IN SCHEMA public") as reader:
        done = invoke("messages", "show", "topic/0/1", "--state-dir", tmp_path, "--database-url", url_of(reader))
    assert "is not shown: the database refuses to record who reads it" in message_of(done)
    assert done.stdout == ""
    assert audit_rows(engine) == []


def test_a_text_that_is_not_stored_is_asked_of_the_topic(engine: Engine, show: Show) -> None:
    keep(engine, Coordinates("topic", 0, 1), None)
    done = show("topic/0/1")
    assert message_of(done).startswith("kafka_bootstrap: not set, and no embedded Kafka runs in ")
    assert "awry: topic/0/1 is known, scored; its text is not stored" in done.stderr
    assert audit_rows(engine) == []


def test_a_file_is_not_asked_of_kafka(engine: Engine, show: Show) -> None:
    stands_for(engine, "chat.jsonl@2", "chat.jsonl", hashlib.sha256(b"line").hexdigest())
    keep(engine, Coordinates("chat.jsonl@2", 0, 77), None)
    said = message_of(show("chat.jsonl@2/0/77"))
    assert said.startswith("coordinates: chat.jsonl@2/0/77 is of a file that awry read as chat.jsonl; ")
    assert said.endswith("it is the line at byte 77 of that file")


def test_a_database_that_is_away_or_behind(empty_engine: Engine, tmp_path: Path) -> None:
    """What the topic keeps can be seen all the same."""
    for url, why in (
        ("postgresql://u:geheim@127.0.0.1:1/x", "database_url: cannot reach"),
        (empty_engine.url.render_as_string(False), "run awry db upgrade"),
    ):
        done = invoke("messages", "show", "topic/0/1", "--state-dir", tmp_path, "--database-url", url)
        assert message_of(done).startswith("kafka_bootstrap: not set")
        assert why in done.stderr
        assert "asking the stream alone" in done.stderr
        assert "geheim" not in done.stderr


def test_no_database_is_made_to_look(tmp_path: Path) -> None:
    assert message_of(invoke("messages", "show", "t/0/0", "--state-dir", tmp_path)).startswith("kafka_bootstrap")
    assert not (tmp_path / "postgres").exists()


@pytest.mark.parametrize("place", ["", "traffic", "traffic/1", "traffic/1/x", "/1/2", "t/1/2.", f"t/0/{'9' * 5000}"])
def test_coordinates_that_are_none(show: Show, place: str) -> None:
    expected = f"coordinates: {place} is not TOPIC/PARTITION/OFFSET, for example traffic/3/1204 or traffic/3/1204.7 ("
    assert message_of(show(place)).startswith(expected)


# From the topic.


def topic_id(cluster: Cluster, topic: str) -> str:
    from monitor.cli.operations.messages import _topic_id

    found = _topic_id(cluster, topic)
    assert found is not None
    return found


def test_a_record_of_the_log_that_was_read(engine: Engine, cluster: Cluster, show_kafka: Show) -> None:
    topic = new_topic(cluster, 1)
    payload = json.dumps({"id": "a", "prompt": "hello"}).encode()
    produce(cluster, topic, [payload])
    stands_for(engine, f"{topic}@2", topic, topic_id(cluster, topic))
    keep(engine, Coordinates(f"{topic}@2", 0, 0, 1), None, sha256=hashlib.sha256(payload).hexdigest())
    done = show_kafka(f"{topic}@2/0/0.1")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["prompt"] == "hello"
    assert "this is the whole record; message 1 of it, counted from 0, is the one asked for" in done.stderr
    assert "another one" not in done.stderr


def test_a_log_that_is_gone_is_said_to_be_gone(engine: Engine, cluster: Cluster, show_kafka: Show) -> None:
    topic = new_topic(cluster, 1)
    produce(cluster, topic, [b'{"prompt": "first"}'])
    first = topic_id(cluster, topic)
    stands_for(engine, topic, topic, first)
    keep(engine, Coordinates(topic, 0, 0), None, sha256=hashlib.sha256(b'{"prompt": "first"}').hexdigest())
    assert "first" in show_kafka(f"{topic}/0/0").stdout
    recreate(cluster, topic, 1)
    produce(cluster, topic, [b'{"prompt": "second"}'])
    done = show_kafka(f"{topic}/0/0")
    said = message_of(done)
    assert said.startswith(f"coordinates: {topic}/0/0 was in a topic {topic} that is gone: its id was {first}, ")
    assert done.stdout == ""


def test_another_record_than_the_stored_one(engine: Engine, cluster: Cluster, show_kafka: Show) -> None:
    """Names of before logs were told apart do not say which topic it was."""
    topic = new_topic(cluster, 1)
    produce(cluster, topic, [b'{"prompt": "second"}'])
    stands_for(engine, topic, topic, None)
    keep(engine, Coordinates(topic, 0, 0), None, sha256=hashlib.sha256(b'{"prompt": "first"}').hexdigest())
    done = show_kafka(f"{topic}/0/0")
    assert "second" in done.stdout
    assert "the record there is another one than the one that is stored" in done.stderr


def test_a_source_that_the_tables_do_not_know_is_a_topic(cluster: Cluster, show_kafka: Show) -> None:
    topic = new_topic(cluster, 1)
    produce(cluster, topic, [b"no json"])
    assert show_kafka(f"{topic}/0/0").stdout == "no json\n"


def test_ids_of_topics_are_uuids(cluster: Cluster) -> None:
    topic = new_topic(cluster, 1)
    assert str(uuid.UUID(topic_id(cluster, topic))) == topic_id(cluster, topic)
