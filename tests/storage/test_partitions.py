"""Partitions by day: rows are where their day is, whoever makes the partitions and whenever, and are the same rows."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, text

from storage import partitions as made
from storage import schema
from storage.database import connect
from storage.partitions import Days, ensure_ahead, ensure_days, is_partition, partition_day, partition_name, utc_today
from storage.sources import CONFLICT
from storage.writer import AnswerRow, BatchRows, WindowRow, write_batch
from tests.support.at_once import at_once
from tests.support.rows import (
    DAY,
    at,
    counts,
    held,
    message,
    partitions,
    score,
    stored,
    wait_until_blocked,
    write,
)

TODAY = DAY + timedelta(days=2)
NEXT = DAY + timedelta(days=1)
TABLES = [t.name for t in schema.BY_DAY]


def batch(n: int = 3, day: date = DAY, first: int = 0) -> BatchRows:
    """Rows for all tables by day."""
    offsets = range(first, first + n)
    return BatchRows(
        [message(i, f"sha{i}", day=day, message_id=f"m{i}", attributes={"a": [1, "é"]}) for i in offsets],
        [score(i, heads=((0, 1, 0.5),)) for i in offsets],
        [AnswerRow(at(i), "plain", 1) for i in offsets],
        [WindowRow(at(i), "drift", 0, 0, 10, 0.25) for i in offsets],
    )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "_LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(made, "_WAITS", (0.01, 0.01))


@contextmanager
def role(engine: Engine, *grants: str) -> Iterator[Engine]:
    """An engine for a role that owns nothing and has these rights."""
    name = f"worker_{uuid.uuid4().hex[:8]}"

    def run(*statements: str) -> None:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    run(f"CREATE ROLE {name} LOGIN", *(f"GRANT {grant} TO {name}" for grant in grants))
    theirs = connect(engine.url.set(username=name).render_as_string(hide_password=False))
    try:
        yield theirs
    finally:
        theirs.dispose()
        run(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


READ_AND_WRITE = "SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public"


def test_a_row_goes_into_its_days_partition(engine: Engine) -> None:
    assert ensure_days(engine, [DAY, NEXT], TODAY)
    write(engine, batch(3))
    write(engine, batch(2, NEXT, first=10))
    for table in TABLES:
        assert held(engine, table) == {f"{table}_20260301": 3, f"{table}_20260302": 2}


def test_days_far_from_today_stay_in_the_default_partition(engine: Engine) -> None:
    near = [TODAY - timedelta(days=400), TODAY + timedelta(days=8)]
    far = [TODAY - timedelta(days=401), TODAY + timedelta(days=9), date(1970, 1, 1), date(9999, 12, 31), date(1, 1, 1)]
    assert ensure_days(engine, near + far, TODAY)
    for table in TABLES:
        assert partitions(engine, table) == {partition_name(table, day) for day in near}
    for i, day in enumerate(near + far):
        write(engine, batch(1, day, first=i))
    assert held(engine, "scores") == {
        **{partition_name("scores", day): 1 for day in near},
        "scores_default": len(far),
    }
    assert {r["day"] for r in stored(engine, schema.messages)} == {*near, *far}


def test_rows_that_came_before_their_partition_move_into_it(engine: Engine) -> None:
    write(engine, batch(3))
    write(engine, batch(2, NEXT, first=10))
    before = {t.name: stored(engine, t) for t in schema.BY_DAY}
    assert ensure_days(engine, [DAY], TODAY)
    for table in schema.BY_DAY:
        assert held(engine, table.name) == {f"{table.name}_20260301": 3, f"{table.name}_default": 2}
        assert stored(engine, table) == before[table.name]
    assert write(engine, batch(3)).messages == 0


def test_a_partition_has_the_keys_and_rules_of_its_table(engine: Engine) -> None:
    ensure_days(engine, [DAY], TODAY)
    with engine.connect() as connection:
        for table in TABLES:
            rules = [
                sorted(
                    connection.execute(
                        text(
                            "SELECT indexdef FROM pg_indexes WHERE tablename = :name UNION ALL SELECT "
                            "pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = CAST(:name AS regclass)"
                        ),
                        {"name": name},
                    ).scalars()
                )
                for name in (f"{table}_20260301", f"{table}_default")
            ]
            assert [len(r) for r in rules] == [len(rules[0])] * 2, rules
            assert any("PRIMARY KEY" in rule and rule.endswith("day)") for rule in rules[0])
    with pytest.raises(Exception, match="ck_messages_status"):
        write(engine, BatchRows([message(0, status="sent")]))


def test_ensuring_again_changes_nothing(engine: Engine) -> None:
    def tables() -> list[Any]:
        with engine.connect() as connection:
            return sorted(map(tuple, connection.execute(text("SELECT oid, relname, relfilenode FROM pg_class"))))

    ensure_days(engine, [DAY, NEXT], TODAY)
    write(engine, batch())
    before = tables()
    assert ensure_days(engine, [NEXT, DAY, DAY], TODAY)
    assert tables() == before


def test_what_one_table_lacks_is_made(engine: Engine) -> None:
    """As after a worker that died between two tables."""
    ensure_days(engine, [DAY], TODAY)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE answers_20260301"))
    assert ensure_days(engine, [DAY], TODAY)
    assert partitions(engine, "answers") == {"answers_20260301"}


def test_ensuring_ahead(engine: Engine) -> None:
    assert ensure_ahead(engine, 2)
    today = utc_today()
    assert partitions(engine) == {partition_name("messages", today + timedelta(days=n)) for n in range(3)}


def test_many_ensure_the_same_days_at_once(engine: Engine) -> None:
    write(engine, batch(5))
    days = [DAY + timedelta(days=n) for n in range(3)]
    assert at_once([partial(ensure_days, engine, days, TODAY)] * 3) == [True] * 3
    for table in TABLES:
        assert partitions(engine, table) == {partition_name(table, day) for day in days}
        assert held(engine, table) == {f"{table}_20260301": 5}


def test_a_table_that_others_hold_is_left_for_later(engine: Engine, impatient: None) -> None:
    """Somebody's open transaction has written to the default partition."""
    with engine.begin() as connection:
        write_batch(connection, batch())
        assert not ensure_days(engine, [DAY], TODAY)
        assert partitions(engine) == set()
    assert ensure_days(engine, [DAY], TODAY)
    assert held(engine, "messages") == {"messages_20260301": 3}


def test_a_day_that_its_owner_detached_is_left_alone(engine: Engine) -> None:
    ensure_days(engine, [DAY], TODAY)
    write(engine, batch(2))
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE messages DETACH PARTITION messages_20260301"))
    assert ensure_days(engine, [DAY], TODAY)
    write(engine, batch(1, first=10))
    assert held(engine, "messages") == {"messages_default": 1}


def test_an_owners_own_partition_in_the_way_is_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE march PARTITION OF messages FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')")
        )
    assert not ensure_days(engine, [DAY], TODAY)
    write(engine, batch(2))
    assert held(engine, "messages") == {"march": 2}


@pytest.mark.parametrize("more", [(), ("CREATE ON SCHEMA public",)], ids=["no rights", "not the owner"])
def test_a_role_that_may_not_make_tables_still_writes(engine: Engine, more: tuple[str, ...]) -> None:
    with role(engine, READ_AND_WRITE, *more) as worker:
        assert not ensure_days(worker, [DAY], TODAY)
        days = Days(worker)
        days([utc_today()])
        assert not days.complete
        assert write(worker, batch()).messages == 3
        assert write(worker, batch()).messages == 0
    for table in TABLES:
        assert partitions(engine, table) == set()
        assert held(engine, table) == {f"{table}_default": 3}
    assert ensure_days(engine, [DAY], TODAY)
    assert held(engine, "messages") == {"messages_20260301": 3}


def test_a_role_writes_into_the_partitions_that_the_owner_made(engine: Engine) -> None:
    with role(engine, READ_AND_WRITE) as worker:
        ensure_days(engine, [DAY], TODAY)
        assert ensure_days(worker, [DAY], TODAY)
        write(worker, batch())
    assert held(engine, "scores") == {"scores_20260301": 3}


def test_partitions_are_made_where_the_tables_are(engine: Engine) -> None:
    """The role's own schema comes first in the search path."""
    with engine.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Mine"'))
        connection.execute(text(f"""ALTER DATABASE {engine.url.database} SET search_path = "Mine", public"""))
    engine.dispose()
    assert ensure_days(engine, [DAY], TODAY)
    with engine.connect() as connection:
        where = text("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename LIKE '%\\_20260301'")
        assert connection.execute(where).scalars().all() == ["public"]


@pytest.mark.parametrize("partitioned", [True, False])
def test_redelivery_across_midnight_adds_no_row(engine: Engine, partitioned: bool) -> None:
    """JSON lines have no time of their own: the same line read again tomorrow comes with tomorrow's day."""
    if partitioned:
        ensure_days(engine, [DAY, NEXT], TODAY)
    write(engine, batch(3))
    before = {t.name: stored(engine, t) for t in schema.BY_DAY}
    again = write(engine, batch(3, NEXT))
    assert (again.messages, again.conflicts, again.scores) == (0, frozenset(), ())
    assert {t.name: stored(engine, t) for t in schema.BY_DAY} == before
    # And a new probe's score goes beside the first one's.
    more = replace(batch(3, NEXT), scores=[score(0, probe="second")])
    assert [s.probe for s in write(engine, more).scores] == ["second"]
    assert {r["day"] for r in stored(engine, schema.scores)} == {DAY}


def test_redelivery_of_a_record_with_its_own_day_adds_no_row(engine: Engine) -> None:
    """Kafka's records bring their day; the partition may have been made in between."""
    write(engine, batch(3))
    ensure_days(engine, [DAY], TODAY)
    before = counts(engine)
    assert write(engine, batch(3)).messages == 0
    assert write(engine, batch(5)).messages == 2
    assert counts(engine)["messages"] == before["messages"] + 2


def test_another_payload_on_another_day_is_a_failed_row(engine: Engine) -> None:
    ensure_days(engine, [DAY, NEXT], TODAY)
    write(engine, batch(1))
    other = BatchRows([message(0, "other", day=NEXT)], [score(0, 3.0)])
    first, again = write(engine, other), write(engine, other)
    assert (first.messages, first.conflicts, first.scores) == (1, frozenset({at(0)}), ())
    assert (again.messages, again.conflicts, again.scores) == (0, frozenset({at(0)}), ())
    rows = {r["payload_sha256"]: r for r in stored(engine, schema.messages)}
    assert (rows["other"]["status"], rows["other"]["reason"], rows["other"]["day"]) == ("failed", CONFLICT, DAY)
    assert counts(engine)["scores"] == 1


@pytest.mark.parametrize("sha256", ["sha0", "other"])
def test_two_writers_at_once_with_midnight_between_them(engine: Engine, sha256: str) -> None:
    """No key spans the days: the second writer must wait for what the first one has not committed yet."""
    ensure_days(engine, [DAY, NEXT], TODAY)
    later = BatchRows([message(0, sha256, day=NEXT)], [score(0)])
    results: list[Any] = []
    second = threading.Thread(target=lambda: results.append(write(engine, later)))
    with engine.begin() as connection:
        write_batch(connection, batch(1))
        second.start()
        wait_until_blocked(engine)
    second.join()
    (written,) = results
    assert written.scores == ()
    assert written.conflicts == (frozenset() if sha256 == "sha0" else {at(0)})
    assert {r["day"] for r in stored(engine, schema.messages)} == {DAY}
    assert counts(engine)["scores"] == 1


def test_writers_of_the_same_rows_in_other_orders_do_not_block_each_other_for_ever(engine: Engine) -> None:
    barrier = threading.Barrier(2)
    errors: list[Exception] = []

    def writer(backwards: bool) -> None:
        for i in range(15):
            rows = batch(40, first=i * 40)
            for part in (rows.messages, rows.scores, rows.answers):
                part.sort(key=lambda row: row.at, reverse=backwards)
            barrier.wait()
            try:
                write(engine, rows)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=writer, args=(backwards,)) for backwards in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert counts(engine)["messages"] == counts(engine)["scores"] == 600


class TestDays:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[set[date]]:
        """What the database was asked for."""
        found: list[set[date]] = []

        def ensure(engine: Engine, days: Any, today: date | None = None) -> bool:
            found.append(set(days))
            return ensure_days(engine, days, today)

        monkeypatch.setattr(made, "ensure_days", ensure)
        return found

    def test_each_day_is_asked_for_once(self, engine: Engine, asked: list[set[date]]) -> None:
        today = utc_today()
        days = Days(engine)
        for _ in range(2):
            days([today, today])
            days([today, today - timedelta(days=1)])
        days([])
        assert asked == [{today}, {today - timedelta(days=1)}]
        assert days.complete
        assert len(partitions(engine)) == 2

    def test_far_days_are_neither_asked_for_nor_kept(self, engine: Engine, asked: list[set[date]]) -> None:
        days = Days(engine)
        days([date(1970, 1, 1) + timedelta(days=n) for n in range(1000)])
        assert asked == []
        assert days._seen == set()

    def test_memory_is_bounded_as_time_goes_by(self, empty_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(made, "ensure_days", lambda *_: True)
        days = Days(empty_engine)
        for n in range(1500):
            day = DAY + timedelta(days=n)
            monkeypatch.setattr(made, "utc_today", lambda day=day: day)
            days([day])
        assert len(days._seen) <= 409
        assert DAY + timedelta(days=1499) in days._seen

    def test_a_day_that_was_too_far_ahead_is_asked_for_when_it_is_near(
        self, engine: Engine, asked: list[set[date]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        days, day = Days(engine), TODAY + timedelta(days=9)
        monkeypatch.setattr(made, "utc_today", lambda: TODAY)
        days([day])
        assert asked == []
        monkeypatch.setattr(made, "utc_today", lambda: NEXT + timedelta(days=2))
        days([day])
        assert asked == [{day}]

    def test_a_refusal_is_tried_again_after_a_pause(
        self, engine: Engine, asked: list[set[date]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        today = utc_today()
        with role(engine, READ_AND_WRITE) as worker:
            days = Days(worker)
            days([today])
            days([today])
            assert (len(asked), days.complete) == (1, False)
            monkeypatch.setattr(days, "_not_before", 0.0)
            ensure_days(engine, [today])
            days([today])
            assert (len(asked), days.complete) == (2, True)


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("messages_20260301", DAY),
        ("messages_default", None),
        ("messages_2026030", None),
        ("messages_202603011", None),
        ("messages_20261399", None),
        ("messages_archive", None),
        ("head_messages_20260301", None),
    ],
)
def test_the_day_of_a_partition(name: str, day: date | None) -> None:
    assert partition_day("messages", name) == day


def test_names_of_partitions() -> None:
    for table in TABLES:
        assert is_partition(f"{table}_default")
        assert is_partition(partition_name(table, DAY))
        assert not is_partition(table)
    assert not is_partition("alerts_20260301")
