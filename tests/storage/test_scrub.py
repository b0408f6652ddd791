"""Attributes of before the allow-list: gone from a database that the schema before filled, whatever interrupts it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from storage import scrub as module
from storage.attributes import ALLOWED_KEYS, MAX_BYTES, allowed
from storage.errors import BusyError
from storage.partitions import ensure_days, utc_today
from storage.schema import messages
from storage.scrub import Needing, Scrubbed, needing, scrub
from storage.writer import BatchRows
from tests.storage.test_migrations import migrate
from tests.support.rows import at, dump, message, stored, write

CANARY = "CANARYTEXT"
TODAY = utc_today()
DAYS = [date(1999, 1, 1), TODAY - timedelta(days=2), TODAY - timedelta(days=1), TODAY]
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
# What senders of before had in their messages: what is left is beside it.
KINDS: list[tuple[Any, Any]] = [
    ({"system": CANARY, "tools": [{"description": CANARY}], "input": [{"content": CANARY}]}, None),
    ({"request": {"prompt": CANARY}, "traceparent": TRACE, "top_p": 0.5}, {"traceparent": TRACE, "top_p": 0.5}),
    ({"status": f"{CANARY} in words", "n": 2, "stream": True}, {"n": 2, "stream": True}),
    ({"team": "x" * 300 + CANARY, "gateway": "kong"}, {"gateway": "kong"}),
    ({"status": {"text": CANARY}, "route": [CANARY], "api": None}, None),
    ({CANARY: 1, "seed": 3}, {"seed": 3}),
    ([CANARY], None),
    (CANARY, None),
    ({"traceparent": TRACE}, {"traceparent": TRACE}),
    (None, None),
]  # fmt: skip
DIRTY = len(KINDS) - 2


def fill_before(engine: Engine) -> None:
    """A row of each kind on each day, as the writer of schema 0006 wrote them, and one whose text is stored."""
    row = text(
        'INSERT INTO messages (source, partition, "offset", payload_sha256, day, status, text, attributes) '
        "VALUES ('topic', :n, :i, 'aa', :day, 'scored', CAST(:text AS jsonb), CAST(:attributes AS jsonb))"
    )
    with engine.begin() as connection:
        for n, day in enumerate(DAYS):
            for i, (attributes, _) in enumerate(KINDS):
                values = {"n": n, "i": i, "day": day, "text": None}
                dumped = json.dumps(attributes) if attributes is not None else None
                connection.execute(row, values | {"attributes": dumped})


def fill_full(engine: Engine) -> None:
    kept = message(99, day=TODAY, text={"messages": [{"content": "kept"}]}, attributes={"system": "kept as well"})
    write(engine, BatchRows([replace(kept, at=at(99, "a"))]))


def left(engine: Engine) -> list[Any]:
    return [row["attributes"] for row in stored(engine, messages)]


@pytest.fixture
def filled(empty_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Brought to head from schema 0006, in which it was filled; pages of few rows."""
    monkeypatch.setattr(module, "BATCH", 3)
    migrate(empty_engine, "0006")
    ensure_days_of_before(empty_engine)
    fill_before(empty_engine)
    migrate(empty_engine, "head")
    assert dump(empty_engine).count(CANARY) >= DIRTY * len(DAYS)
    return empty_engine


def ensure_days_of_before(engine: Engine) -> None:
    """Partitions of two of the days: the other days are in the default one."""
    with engine.begin() as connection:
        for day in DAYS[1:3]:
            connection.execute(
                text(
                    f"CREATE TABLE messages_{day:%Y%m%d} PARTITION OF messages "
                    f"FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
                )
            )


def test_nothing_is_left_of_what_is_not_listed(filled: Engine) -> None:
    fill_full(filled)
    days: list[Scrubbed] = []
    assert needing(filled) == Needing(DIRTY * len(DAYS), complete=True)
    done = scrub(filled, on_day=days.append)
    assert done == days
    assert [(each.day, each.changed) for each in done] == [(day, DIRTY) for day in DAYS]
    assert CANARY not in dump(filled)
    expected = [found for _, found in KINDS] * len(DAYS)
    assert left(filled) == [{"system": "kept as well"}, *expected]
    assert needing(filled) == Needing(0, complete=True)
    assert {each.changed for each in scrub(filled)} == {0}


def test_rows_with_text_go_too_where_that_is_asked(engine: Engine) -> None:
    fill_full(engine)
    assert [each.changed for each in scrub(engine, all_rows=True)] == [1]
    assert left(engine) == [None]
    assert stored(engine, messages)[0]["text"] == {"messages": [{"content": "kept"}]}


def test_days_of_a_range(filled: Engine) -> None:
    done = scrub(filled, since=DAYS[1], until=DAYS[2])
    assert [each.day for each in done] == DAYS[1:3]
    assert needing(filled).rows == 2 * DIRTY
    assert [each.day for each in scrub(filled, until=DAYS[0] - timedelta(days=1))] == []


def test_a_dry_run_changes_nothing(filled: Engine) -> None:
    before = stored(filled, messages)
    assert [each.changed for each in scrub(filled, dry_run=True)] == [DIRTY] * len(DAYS)
    assert stored(filled, messages) == before


def test_keys_of_the_owner_stay_whatever_they_hold(filled: Engine) -> None:
    fill_full(filled)
    assert needing(filled, ["system", "tools", "input"]).rows == (DIRTY - 1) * len(DAYS)
    scrub(filled, keep=["system", "tools", "input"])
    assert left(filled)[1] == KINDS[0][0]
    assert left(filled)[2] == KINDS[1][1]


class _StopError(Exception):
    pass


@pytest.mark.parametrize("pages", [1, 2, 5, 9])
def test_interrupted_and_started_again(filled: Engine, monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    real, calls = module._scrub_page, 0

    def until_then(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > pages:
            raise _StopError
        return real(*arguments, **more)

    monkeypatch.setattr(module, "_scrub_page", until_then)
    with pytest.raises(_StopError):
        scrub(filled)
    halfway = needing(filled).rows
    assert 0 < halfway < DIRTY * len(DAYS), "what was done stays done"
    monkeypatch.setattr(module, "_scrub_page", real)
    assert sum(each.changed for each in scrub(filled)) == halfway
    assert CANARY not in dump(filled)


def test_an_interrupted_page_is_as_it_was(filled: Engine) -> None:
    """The connection breaks in the middle of a page: another run finds all of it."""
    before = needing(filled).rows
    asked = {**module._BEFORE_ALL, "day": DAYS[0], "limit": 3, "all_rows": False, "may_stay": sorted(ALLOWED_KEYS)}
    with filled.connect() as connection:
        assert module._scrub_page(connection, asked, (), dry_run=False).changed == 3
    assert needing(filled).rows == before


@contextmanager
def locked(engine: Engine, statement: str) -> Iterator[None]:
    with engine.connect() as connection:
        connection.execute(text(statement))
        yield
        connection.rollback()


@pytest.mark.slow
def test_it_waits_for_a_locked_row_a_while(filled: Engine) -> None:
    lock = 'SELECT 1 FROM messages WHERE "offset" = 0 FOR UPDATE'
    with locked(filled, lock), pytest.raises(BusyError):
        scrub(filled)
    scrub(filled)
    assert CANARY not in dump(filled)


def test_it_locks_what_it_changes_and_no_other_row(filled: Engine) -> None:
    """Writers of clean rows do not wait."""
    scrub(filled, since=DAYS[1])
    clean = 'SELECT 1 FROM messages WHERE partition = 0 AND "offset" >= 8 FOR UPDATE'
    with locked(filled, clean):
        scrub(filled)
    assert CANARY not in dump(filled)


def test_what_a_worker_wrote_meanwhile_is_not_overwritten(filled: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed message is scored between the reading of a page and its change."""
    real, done = module._scrubbed, threading.Event()
    change = text('UPDATE messages SET attributes = \'{"seed"\\: 7}\', tokens = 5 WHERE partition = 0 AND "offset" = 0')

    def meanwhile(row: Any, keep: Any) -> Any:
        if not done.is_set():
            done.set()
            with filled.begin() as other:
                other.execute(change)
        return real(row, keep)

    monkeypatch.setattr(module, "_scrubbed", meanwhile)
    scrubbed = scrub(filled)
    assert scrubbed[0] == Scrubbed(DAYS[0], len(KINDS) - 1, DIRTY - 1)
    first = stored(filled, messages)[0]
    assert (first["attributes"], first["tokens"]) == ({"seed": 7}, 5)
    assert CANARY not in dump(filled)


def test_rows_that_are_stored_by_the_list_are_not_counted(engine: Engine) -> None:
    """Nor looked at: after the upgrade the count ends at once, however many rows there are."""
    write(engine, BatchRows([message(1, day=TODAY, format="awry", attributes={"system": "kept by privacy full once"})]))
    assert needing(engine) == Needing(0, complete=True)
    assert [each.changed for each in scrub(engine)] == [1]


def test_the_count_is_bounded_by_time(filled: Engine) -> None:
    found = needing(filled, seconds=0)
    assert not found.complete
    assert found.rows <= DIRTY * len(DAYS)


def test_numbers_that_python_cannot_read(engine: Engine) -> None:
    write(engine, BatchRows([message(1, day=TODAY, attributes={"seed": 1}), message(2, day=TODAY)]))
    with engine.begin() as connection:
        change = "UPDATE messages SET attributes = jsonb_build_object('seed', CAST(:n AS numeric)) WHERE \"offset\" = 1"
        connection.execute(text(change), {"n": "1e5000"})
    assert [each.changed for each in scrub(engine)] == [1]
    assert left(engine) == [None, None]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(
    st.dictionaries(st.sampled_from([*sorted(ALLOWED_KEYS)[:20], "system", "mine"]), JSON, min_size=1, max_size=12),
    min_size=1, max_size=4,
), keep=st.sampled_from([(), ("mine",)]))  # fmt: skip
def test_it_leaves_what_the_allow_list_leaves(module_engine: Engine, rows: list[dict[str, Any]], keep: Any) -> None:
    with module_engine.begin() as connection:
        connection.execute(text("DELETE FROM messages"))
    write(module_engine, BatchRows([message(n, day=TODAY, attributes=row) for n, row in enumerate(rows)]))
    before = left(module_engine)
    scrub(module_engine, keep=keep)
    after = left(module_engine)
    assert after == [allowed(each, keep) or None if each else None for each in before]
    assert needing(module_engine, keep) == Needing(0, complete=True)
    for each in after:
        assert len(json.dumps(each)) <= 2 * MAX_BYTES


def test_messages_of_one_record_are_told_apart(engine: Engine) -> None:
    ensure_days(engine, [TODAY])
    rows = [
        replace(message(1, day=TODAY, attributes={"x": CANARY, "seed": n}), at=replace(at(1), sub=n)) for n in range(7)
    ]
    write(engine, BatchRows(rows))
    assert [each.changed for each in scrub(engine)] == [7]
    assert left(engine) == [{"seed": n} for n in range(7)]
