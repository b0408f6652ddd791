"""Another log is another source: no two payloads share coordinates, none is lost, none counts twice."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from storage import schema
from storage.coordinates import Coordinates
from storage.database import connect
from storage.sources import Place, lock_streams, place
from storage.writer import BatchRows, MessageRow, write_batch
from tests.conftest import url_of
from tests.support.at_once import at_once
from tests.support.rows import DAY, message, stored, write

# Two files that were read under one name: offsets of their lines.
FILES = {"a": (0, 10, 20), "b": (5, 15, 25)}


def record(offset: int, log: str | None = "first", sha256: str | None = None, stream: str = "traffic") -> Place:
    return Place(stream, 0, offset, log, sha256 or f"{log}-{offset}")


def store(engine: Engine, records: list[Place]) -> list[str]:
    """Place and write records as a worker does; their source names."""
    with engine.begin() as connection:
        lock_streams(connection, ((r.stream, r.partition) for r in records))
        placed = place(connection, records)
        rows = [
            MessageRow(Coordinates(name, r.partition, r.offset), r.payload_sha256, DAY, "scored")
            for name, r in zip(placed.names, records, strict=True)
        ]
        assert not write_batch(connection, BatchRows(rows), placed.known).conflicts
        return placed.names


def test_the_first_log_has_the_streams_name_and_the_next_ones_numbers(engine: Engine) -> None:
    assert store(engine, [record(0), record(1)]) == ["traffic", "traffic"]
    assert store(engine, [record(0, "second"), record(1), record(0, "third")]) == ["traffic@2", "traffic", "traffic@3"]
    assert [(r["name"], r["stream"], r["log"]) for r in stored(engine, schema.sources)] == [
        ("traffic", "traffic", "first"),
        ("traffic@2", "traffic", "second"),
        ("traffic@3", "traffic", "third"),
    ]


def test_a_redelivery_is_the_same_message_whatever_came_between(engine: Engine) -> None:
    first = [record(n) for n in range(5)]
    store(engine, first)
    store(engine, [record(n, "second") for n in range(5)])
    assert store(engine, first) == ["traffic"] * 5
    assert store(engine, [record(n, "second") for n in range(5)]) == ["traffic@2"] * 5
    assert len(stored(engine, schema.messages)) == 10


def test_equal_payloads_of_two_logs_are_two_messages(engine: Engine) -> None:
    store(engine, [record(0, "first", "same")])
    assert store(engine, [record(0, "second", "same")]) == ["traffic@2"]
    assert len(stored(engine, schema.messages)) == 2


def test_content_that_changed_under_a_log_gets_a_name_and_the_rest_stays(engine: Engine) -> None:
    """A partition that was truncated: other messages at offsets that were there before."""
    store(engine, [record(n) for n in range(4)])
    assert store(engine, [record(2, sha256="other"), record(3, sha256="more"), record(4)]) == [
        "traffic@2",
        "traffic@2",
        "traffic",
    ]
    assert store(engine, [record(2), record(2, sha256="other"), record(5)]) == ["traffic", "traffic@2", "traffic"]
    assert len(stored(engine, schema.messages)) == 8


def test_a_name_that_another_stream_has_is_not_taken(engine: Engine) -> None:
    store(engine, [record(0, "odd", stream="traffic@2"), record(0)])
    assert store(engine, [record(0, "second")]) == ["traffic@3"]


def test_without_a_log_the_stream_is_the_source(engine: Engine) -> None:
    assert store(engine, [record(0, None)]) == ["traffic"]
    assert stored(engine, schema.sources) == []


def test_messages_of_before_belong_to_the_log_that_holds_them(engine: Engine) -> None:
    write(engine, BatchRows([message(n, f"old-{n}") for n in range(3)]))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO sources (name, stream, mixed_until) VALUES ('topic', 'topic', now())"))
    # One of them differs: the topic was made again.
    other = [record(0, "new", stream="topic"), record(1, "new", "old-1", stream="topic")]
    assert store(engine, other) == ["topic@2", "topic"]
    # The log that holds them all takes their name.
    same = [record(n, "same", f"old-{n}", stream="topic") for n in range(3)]
    assert store(engine, [*same, record(9, "same", stream="topic")]) == ["topic"] * 4
    assert len(stored(engine, schema.messages)) == 5


def test_several_files_of_one_name_from_before_are_all_known(engine: Engine) -> None:
    """Whichever is read again first, and takes the name."""
    old = {log: [record(n, log, f"{log}-{n}", stream="topic") for n in place_] for log, place_ in FILES.items()}
    rows = [message(r.offset, r.payload_sha256) for records in old.values() for r in records]
    write(engine, BatchRows(rows))
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO sources (name, stream, mixed_until) VALUES ('topic', 'topic', clock_timestamp())")
        )
    for log, records in old.items():
        assert store(engine, records) == ["topic"] * 3
        assert store(engine, [record(1000, log, f"{log}-new", stream="topic")]) == [
            "topic" if log == "a" else "topic@2"
        ]
    assert len(stored(engine, schema.messages)) == 8


def test_many_workers_agree_on_names(engine: Engine) -> None:
    engines = [connect(url_of(engine)) for _ in range(4)]
    logs = ["first", "second", "third"]
    work = [partial(store, each, [record(n, log) for log in logs for n in range(3)]) for each in engines]
    named = at_once(work)
    for each in engines:
        each.dispose()
    assert all(names == named[0] for names in named)
    assert len(stored(engine, schema.messages)) == 9
    assert len({r["name"] for r in stored(engine, schema.sources)}) == 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    batches=st.lists(
        st.lists(
            st.builds(
                Place,
                st.just("fuzz"),
                st.integers(0, 1),
                st.integers(0, 3),
                st.sampled_from(["a", "b", None]),
                st.sampled_from(["x", "y"]),
            ),
            min_size=1,
            max_size=5,
        ),
        max_size=5,
    )
)
def test_every_payload_of_a_log_has_one_place(module_engine: Engine, batches: list[list[Place]]) -> None:
    with module_engine.begin() as connection:
        connection.execute(text("TRUNCATE messages, sources"))
    where: dict[Place, str] = {}
    for records in batches:
        logged = [r for r in records if r.log is not None]
        for each, name in zip(logged, store(module_engine, logged) if logged else [], strict=True):
            assert where.setdefault(each, name) == name
    places = [(name, r.partition, r.offset) for r, name in where.items()]
    assert len(set(places)) == len(places)
    assert len(stored(module_engine, schema.messages)) == len(where)


@pytest.mark.parametrize("first", ["traffic", "trafic\x00", "t\ud800"])
def test_names_that_postgresql_cannot_hold(engine: Engine, first: str) -> None:
    stream = Coordinates(first, 0, 0).source
    assert store(engine, [record(0, stream=stream)]) == [stream]
