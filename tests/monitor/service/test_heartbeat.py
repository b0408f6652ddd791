"""A worker's heartbeat: what is written and when, and that neither database nor source stops it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, update

from monitor.service import heartbeat
from monitor.service.heartbeat import HeartbeatWriter
from monitor.stream.jsonl import JsonLines
from probes.model.load import ChatModel
from storage.heartbeat import ENDED, MAX_AGE
from storage.schema import workers
from tests.support.stream.worker import lines, make_probe, run_worker, wire


def rows(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(workers).order_by(workers.c.started_at)))


def source(folder: Path) -> JsonLines:
    return JsonLines(str(lines(folder / "t", [wire("m")])), name="stream", max_bytes=4096)


def test_a_heartbeat_says_when_the_worker_last_stored(engine: Engine, tmp_path: Path) -> None:
    writer = HeartbeatWriter(engine, source(tmp_path))
    assert writer.write()
    (first,) = rows(engine)
    assert (first.source, first.lag_unit, first.stored_at) == ("stream", "bytes", None)
    writer.stored()
    assert writer.write()
    assert writer.write()
    (last,) = rows(engine)
    assert first.seen_at < last.stored_at < last.seen_at
    assert last.started_at == first.started_at


def test_it_is_written_while_the_worker_is_busy_and_at_its_end(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_EVERY_SECONDS", 0.05)
    writer = HeartbeatWriter(engine, source(tmp_path))
    with writer.beating():
        until = time.monotonic() + 20
        while not rows(engine) or rows(engine)[0].seen_at == rows(engine)[0].started_at:
            assert time.monotonic() < until
            time.sleep(0.02)
        writer.stored()
    (last,) = rows(engine)
    assert last.stored_at is not None
    time.sleep(0.15)
    assert rows(engine) == [last]


def test_only_who_read_to_the_end_and_stopped_as_it_should_has_ended(engine: Engine, tmp_path: Path) -> None:
    """One that fails on its last batch, or is stopped before the end, is missed."""
    reading = source(tmp_path)
    with HeartbeatWriter(engine, reading).beating():
        pass
    assert rows(engine)[-1].lag_unit == "bytes"
    while not reading.finished:
        reading.poll(10, 0.01)
    with pytest.raises(ZeroDivisionError), HeartbeatWriter(engine, reading).beating():
        raise ZeroDivisionError
    assert rows(engine)[-1].lag_unit == "bytes"
    with HeartbeatWriter(engine, reading).beating():
        pass
    assert rows(engine)[-1].lag_unit == ENDED


def test_old_rows_are_deleted_when_another_worker_starts(engine: Engine, tmp_path: Path) -> None:
    HeartbeatWriter(engine, source(tmp_path)).write()
    with engine.begin() as connection:
        connection.execute(update(workers).values(seen_at=func.now() - MAX_AGE))
    HeartbeatWriter(engine, source(tmp_path)).write()
    assert len(rows(engine)) == 1


def test_a_database_that_does_not_answer_is_tried_again(engine: Engine, tmp_path: Path) -> None:
    writer = HeartbeatWriter(engine, source(tmp_path))
    writer.stored()
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE workers RENAME TO gone")
    assert not writer.write()
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO workers")
    assert writer.write()
    assert rows(engine)[0].stored_at is not None


def test_a_source_that_changes_while_it_is_read_is_read_again(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a partition is taken away between two looks at it."""
    answers: list[object] = [KeyError("partition"), 7]

    def lag(_: JsonLines) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(JsonLines, "lag", property(lag))
    writer = HeartbeatWriter(engine, source(tmp_path))
    writer.stored()
    assert [writer.write(), writer.write()] == [False, True]
    assert (rows(engine)[0].lag, rows(engine)[0].stored_at is None) == (7, False)


def test_the_worker_writes_heartbeats_and_a_replay_does_not(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    path = lines(tmp_path / "t", [wire("m1"), wire("m2")])
    run_worker(engine, chat, [make_probe(chat)], path, heartbeats=False)
    assert rows(engine) == []
    run_worker(engine, chat, [make_probe(chat, "other")], path)
    (row,) = rows(engine)
    assert (row.source, row.lag, row.lag_unit) == ("stream", None, ENDED)
    assert row.stored_at is not None
