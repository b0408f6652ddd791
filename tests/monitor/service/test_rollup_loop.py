"""The rollup loop: it keeps the rollups up to date, reports an error once, and ends with its block."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import Engine, create_engine, text

from monitor.service import rollup_loop
from monitor.service.rollup_loop import rolling_up
from storage.writer import BatchRows, register_probe
from tests.support.rows import digest_of, message, score, write


def rolled(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(
            connection.execute(text("SELECT coalesce(sum(n), 0) FROM score_rollups WHERE minutes = 5")).scalar_one()
        )


def until(done: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_scores_arrive_while_it_runs(engine: Engine) -> None:
    with engine.begin() as connection:
        register_probe(connection, digest_of("drift"), "drift", 1, "hash", {})
    write(engine, BatchRows([message(1)], [score(1)]))
    with engine.begin() as connection:
        connection.execute(text("UPDATE scores SET created_at = now() - interval '1 minute'"))
    said: list[str] = []
    with rolling_up(engine, said.append, every=0.05):
        until(lambda: rolled(engine) == 1)
    assert said == []
    assert not [t for t in threading.enumerate() if t.name == "rollup"]


def test_what_goes_wrong_is_told_once_and_stops_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE rollup_state RENAME TO hidden"))
    said: list[str] = []
    with rolling_up(engine, said.append, every=0.02):
        until(lambda: said)
        time.sleep(0.3)
    assert said == ["dashboards: scores are not rolled up (SchemaError)"]


def test_a_defect_is_told_once_and_does_not_end_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    said: list[str] = []

    def broken(_: Engine) -> int:
        calls.append(1)
        raise KeyError("geheim")

    monkeypatch.setattr(rollup_loop, "roll_up", broken)
    with rolling_up(engine, said.append, every=0.02):
        until(lambda: len(calls) > 2)
    assert said == ["dashboards: scores are not rolled up (KeyError)"]


@pytest.mark.slow
def test_a_database_that_is_away_does_not_delay_the_end() -> None:
    engine = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    started = time.monotonic()
    with rolling_up(engine, lambda _: None):
        time.sleep(0.1)
    assert time.monotonic() - started < 10
