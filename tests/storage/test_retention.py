"""Retention drops exactly what is older, beside writers, and says what went."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text

from storage import partitions as made
from storage import schema
from storage.database import transact
from storage.errors import BusyError, NotAllowedError
from storage.partitions import ensure_days, partition_name
from storage.retention import retain
from storage.writer import write_batch
from tests.storage.test_partitions import READ_AND_WRITE, TABLES, batch, impatient, role  # noqa: F401 - a fixture
from tests.support.at_once import at_once
from tests.support.rows import DAY, counts, held, message, partitions, stored, write

TODAY = DAY + timedelta(days=5)


def days_from(first: int, last: int) -> list[date]:
    return [TODAY + timedelta(days=n) for n in range(first, last + 1)]


def fill(engine: Engine, days: list[date], each: int = 2) -> None:
    for n, day in enumerate(days):
        write(engine, batch(each, day, first=100 * n))


def test_exactly_the_older_days_go(engine: Engine) -> None:
    near = days_from(-5, 1)
    far = [date(1, 1, 1), date(1970, 1, 1), TODAY - timedelta(days=500), TODAY + timedelta(days=9), date(9999, 12, 31)]
    ensure_days(engine, near, TODAY)
    fill(engine, near + far)
    older = [day for day in near + far if day < TODAY - timedelta(days=3)]
    younger = {t.name: [r for r in stored(engine, t) if r["day"] not in older] for t in schema.BY_DAY}
    dropped = retain(engine, 3, TODAY)
    assert dropped.partitions == {partition_name(table, day): 2 for table in TABLES for day in near[:2]}
    assert dropped.rows == dict.fromkeys(TABLES, 6)
    for table in schema.BY_DAY:
        assert stored(engine, table) == younger[table.name]
        assert partitions(engine, table.name) == {partition_name(table.name, day) for day in near[2:]}
        assert held(engine, table.name)[f"{table.name}_default"] == 4
    again = retain(engine, 3, TODAY)
    assert (again.partitions, again.rows) == ({}, {})


def test_the_last_day_that_is_kept(engine: Engine) -> None:
    ensure_days(engine, days_from(-2, 0), TODAY)
    retain(engine, 1, TODAY)
    assert partitions(engine) == {"messages_20260305", "messages_20260306"}


@pytest.mark.parametrize("days", [0, -1])
def test_everything_is_never_dropped(engine: Engine, days: int) -> None:
    fill(engine, [TODAY])
    with pytest.raises(ValueError, match="keep_days: keep at least 1 day"):
        retain(engine, days, TODAY)
    assert counts(engine)["messages"] == 2


def test_tables_that_are_not_ours_stay(engine: Engine) -> None:
    ensure_days(engine, [DAY], TODAY)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE messages DETACH PARTITION messages_20260301"))
        connection.execute(text("CREATE TABLE scores_20200101 (a int)"))
    retain(engine, 1, TODAY)
    with engine.connect() as connection:
        for name in ("messages_20260301", "scores_20200101"):
            assert connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar_one() is not None


def test_what_was_dropped_is_new_when_it_comes_again(engine: Engine) -> None:
    ensure_days(engine, [DAY], TODAY)
    write(engine, batch(2))
    retain(engine, 1, TODAY)
    again = write(engine, batch(2))
    assert (again.messages, len(again.scores)) == (2, 2)
    assert retain(engine, 1, TODAY).rows == dict.fromkeys(TABLES, 2)


def alert(engine: Engine, state: str, resolved: datetime | None, last_seen: datetime) -> uuid.UUID:
    values = {
        "id": uuid.uuid4(),
        "dedup_key": str(uuid.uuid4()),
        "rule": "r",
        "probe": "p",
        "severity": "error",
        "state": state,
        "count": 1,
        "top_score": 1.0,
        "threshold": 0.5,
        "first_message": {},
        "top_message": {},
        "opened_at": last_seen,
        "last_seen_at": last_seen,
        "resolved_at": resolved,
    }
    with engine.begin() as connection:
        connection.execute(schema.alerts.insert().values(values))
    return values["id"]  # type: ignore[return-value]


def delivery(engine: Engine, of: uuid.UUID, **ended: datetime) -> uuid.UUID:
    values: dict[str, Any] = {"id": uuid.uuid4(), "alert_id": of, "destination": "d", "event": "e", "body": {}}
    with engine.begin() as connection:
        connection.execute(schema.outbox.insert().values(values | ended))
    return values["id"]  # type: ignore[no-any-return]


def test_deliveries_and_alerts_that_are_over_go(engine: Engine) -> None:
    old = datetime(2026, 3, 2, 23, 59, 59, tzinfo=UTC)
    kept = datetime(2026, 3, 3, tzinfo=UTC)
    gone_alert = alert(engine, "resolved", old, old)
    for ended in ({"delivered_at": old}, {"dead_at": old}):
        delivery(engine, gone_alert, **ended)
    alert(engine, "resolved", None, old)
    still_telling = alert(engine, "resolved", old, old)
    partly_told = alert(engine, "resolved", old, old)
    delivery(engine, partly_told, delivered_at=old)
    is_open = alert(engine, "open", None, old)
    resolved_later = alert(engine, "resolved", kept, old)
    left = {
        delivery(engine, still_telling),
        delivery(engine, partly_told, delivered_at=kept),
        delivery(engine, is_open, delivered_at=old),
        delivery(engine, is_open, dead_at=old),
    }
    assert retain(engine, 3, TODAY).rows == {"outbox": 3, "alerts": 2}
    with engine.connect() as connection:
        assert set(connection.execute(select(schema.outbox.c.id)).scalars()) == left
        assert set(connection.execute(select(schema.alerts.c.id)).scalars()) == {
            still_telling,
            partly_told,
            is_open,
            resolved_later,
        }


def test_what_belongs_to_alerts_goes_with_them(engine: Engine) -> None:
    old = datetime(2026, 3, 2, 23, tzinfo=UTC)
    gone, live = alert(engine, "resolved", old, old), alert(engine, "open", None, old)
    ended, holds = uuid.uuid4(), uuid.uuid4()
    audited: list[dict[str, Any]] = [
        {"action": "gone", "alert_id": gone, "at": old},
        {"action": "live", "alert_id": live, "at": old},
        {"action": "young", "alert_id": gone, "at": datetime(2026, 3, 3, tzinfo=UTC)},
        {"action": "ended", "silence_id": ended, "at": old},
        {"action": "holds", "silence_id": holds, "at": old},
    ]
    with engine.begin() as connection:
        for of, day in ((gone, 2), (live, 2), (live, 3)):
            place = {"source": "t", "partition": 0, "offset": day, "sub": 0, "day": date(2026, 3, day), "score": 1.0}
            connection.execute(schema.alert_messages.insert().values(alert_id=of, **place))
        for silence, end in ((ended, old), (holds, datetime(2026, 3, 9, tzinfo=UTC))):
            values = {"severity": "error", "comment": "", "created_by": "a", "starts_at": old, "ends_at": end}
            connection.execute(schema.silences.insert().values(id=silence, **values))
        for row in audited:
            connection.execute(schema.audit.insert().values({"who": "a", "via": "cli", **row}))
    assert retain(engine, 3, TODAY).rows == {"alert_messages": 2, "alerts": 1, "silences": 1, "audit": 2}
    with engine.connect() as connection:
        left = connection.execute(select(schema.alert_messages.c.alert_id, schema.alert_messages.c.offset)).all()
        assert [tuple(r) for r in left] == [(live, 3)]
        assert set(connection.execute(select(schema.audit.c.action)).scalars()) == {"live", "young", "holds"}
    assert retain(engine, 3, TODAY).rows == {}


def test_writers_write_on_while_old_days_go(engine: Engine) -> None:
    """Every statement of every writer works, nothing young is lost, and everything old goes."""
    old, young = days_from(-12, -4), days_from(-3, 0)
    stop = threading.Event()
    errors: list[Exception] = []
    written = [0, 0]

    def writer(number: int) -> None:
        n = 0
        while not stop.is_set() or n < 5:
            rows = batch(10, young[n % len(young)], first=1_000_000 * (number + 1) + 10 * n)
            try:
                with engine.begin() as connection:
                    write_batch(connection, rows)
            except Exception as error:
                errors.append(error)
                return
            n += 1
            written[number] = 10 * n

    ensure_days(engine, [*old, *young], TODAY)
    fill(engine, old)
    threads = [threading.Thread(target=writer, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        going = dict[str, int]()
        for keep in range(11, 2, -1):
            going |= retain(engine, keep, TODAY).partitions
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert going == {partition_name(table, day): 2 for table in TABLES for day in old}
    for table in schema.BY_DAY:
        with engine.connect() as connection:
            query = select(table.c.day, func.count()).group_by(table.c.day)
            days = {day: int(number) for day, number in connection.execute(query)}
        assert set(days) == set(young)
        assert sum(days.values()) == sum(written)


def test_two_at_once_share_the_work(engine: Engine) -> None:
    days = days_from(-8, 0)
    ensure_days(engine, days, TODAY)
    fill(engine, days)
    first, second = at_once([lambda: retain(engine, 3, TODAY).partitions] * 2)
    assert first | second == {partition_name(table, day): 2 for table in TABLES for day in days[:5]}
    assert not first.keys() & second.keys()


def test_a_long_query_in_the_way_is_named_and_left_alone(engine: Engine, impatient: None) -> None:  # noqa: F811
    ensure_days(engine, days_from(-5, 0), TODAY)
    fill(engine, days_from(-5, 0))
    before = counts(engine)
    with engine.begin() as connection:
        connection.execute(select(schema.messages)).all()
        with pytest.raises(BusyError, match="others hold a table for too long"):
            retain(engine, 1, TODAY)
        assert counts(engine) == before
    assert len(retain(engine, 1, TODAY).partitions) == 4 * len(TABLES)


def test_a_writer_waits_behind_retention_for_a_bounded_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long query holds the table; a writer that comes after retention gets its turn when that gives up waiting."""
    monkeypatch.setattr(made, "_LOCK_TIMEOUT", "300ms")
    monkeypatch.setattr(made, "_WAITS", (0.01,) * 3)
    ensure_days(engine, days_from(-5, 0), TODAY)
    results: list[object] = []

    def retention() -> None:
        try:
            results.append(retain(engine, 1, TODAY))
        except BusyError as error:
            results.append(error)

    with engine.connect() as reader:
        reader.execute(select(schema.messages)).all()
        thread = threading.Thread(target=retention)
        thread.start()
        assert transact(engine, lambda c: write_batch(c, batch(1, TODAY))).messages == 1
        thread.join()
    assert isinstance(results[0], BusyError)


def test_a_role_that_does_not_own_the_tables(engine: Engine) -> None:
    ensure_days(engine, days_from(-5, 0), TODAY)
    with role(engine, READ_AND_WRITE) as worker, pytest.raises(NotAllowedError, match="use the tables' owner"):
        retain(worker, 1, TODAY)
    assert len(partitions(engine)) == 6


def test_rows_without_partitions_are_deleted_while_they_are_mended(engine: Engine) -> None:
    """The writer has touched an old row of the default partition and not committed yet."""
    from storage.writer import BatchRows

    write(engine, BatchRows([message(0, status="failed"), message(1, day=TODAY)]))
    done: list[Any] = []
    with engine.begin() as connection:
        write_batch(connection, BatchRows([message(0)]))
        thread = threading.Thread(target=lambda: done.append(retain(engine, 1, TODAY)))
        thread.start()
    thread.join()
    assert done[0].rows == {"messages": 1}
    assert [r["offset"] for r in stored(engine, schema.messages)] == [1]
