"""Migration 0014: a row a head becomes an array a message; every score survives both ways, whatever card it is of."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from storage.database import transact, upgrade
from storage.errors import SchemaError
from storage.partitions import ensure_ahead, utc_today
from storage.tenant_access import TABLES, open_tables
from storage.writer import BatchRows
from tests.storage.test_database import differences, rules
from tests.storage.test_migrations import migrate
from tests.support.rows import counts, heads_of, held, message, partitions, score, write

COLUMNS = 'source, partition, "offset", sub, probe, probe_digest, layer, head, day, score'
INSERT = f"INSERT INTO head_scores ({COLUMNS}) VALUES ('topic', 0, :n, 0, :p, :d, :l, :h, :day, :s)"  # noqa: S608
TODAY = utc_today()
# One of each day has a partition, the others are in the default one.
DAYS = (TODAY, TODAY - timedelta(days=1), date(1970, 1, 1), date(9999, 12, 31))


def fill(engine: Engine) -> list[tuple[Any, ...]]:
    """Rows as schemas of before have them: (offset, probe, digest, layer, head, score)."""
    found: list[tuple[Any, ...]] = []
    with engine.begin() as connection:
        for day in DAYS[:2]:
            for table in ("messages", "scores", "head_scores"):
                bounds = f"FROM ('{day}') TO ('{day + timedelta(days=1)}')"
                connection.execute(text(f"CREATE TABLE {table}_{day:%Y%m%d} PARTITION OF {table} FOR VALUES {bounds}"))
        for n in range(12):
            rows = [("heads", "d1", layer, head, layer / 10 - head) for layer in (0, 20, 3) for head in (11, 2, 0)]
            # A digest that is unknown, and messages of one probe that have other heads.
            rows += [("heads", "", 5, head, 0.1 * n) for head in range(1 + n % 3)]
            rows += [("one", "d2", 7, 7, (0.3, 1e39, -1e300, 1e-300, -0.0, float("inf"))[n % 6])]
            found += [(n, *row) for row in rows]
            for probe, digest, layer, head, value in rows:
                values = {"p": probe, "d": digest, "l": layer, "h": head, "s": value}
                connection.execute(text(INSERT), {"n": n, "day": DAYS[n % 4], **values})
    return sorted(found)


def rows(engine: Engine) -> list[tuple[Any, ...]]:
    query = 'SELECT "offset", probe, probe_digest, layer, head, score FROM head_scores ORDER BY 1, 2, 3, 4, 5'
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def as_real(value: float) -> Any:
    """What is left of it in 32 bits, in its shortest digits."""
    outside = {1e39: 3.4028235e38, -1e300: -3.4028235e38, 1e-300: 0.0}
    return outside[value] if value in outside else pytest.approx(value, rel=1e-6)


def test_every_score_is_carried_and_back(empty_engine: Engine) -> None:
    migrate(empty_engine, "0013")
    before_rules = rules(empty_engine)
    before = fill(empty_engine)
    assert rows(empty_engine) == before
    upgrade(empty_engine)
    assert differences(empty_engine) == []
    query = text(
        'SELECT h."offset", h.probe, h.probe_digest, e.layer, e.head, CAST(CAST(e.score AS text) AS float8) '
        "FROM head_scores AS h JOIN head_layouts AS l ON l.id = h.layout "
        "CROSS JOIN unnest(l.layers, l.heads, h.scores) AS e (layer, head, score) ORDER BY 1, 2, 3, 4, 5"
    )
    wanted = [(*row[:5], as_real(row[5])) for row in before]
    with empty_engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(query)] == wanted
        # Of d1, of the unknown digest's three sets of heads, of d2.
        assert connection.execute(text("SELECT count(*) FROM head_layouts")).scalar_one() == 5
        storage = text(
            "SELECT DISTINCT attstorage FROM pg_attribute WHERE attname = 'scores' AND attrelid IN "
            "(SELECT relid FROM pg_partition_tree('head_scores'))"
        )
        assert [
            each.decode() if isinstance(each, bytes) else each for each in connection.execute(storage).scalars()
        ] == ["e"]
    assert len(heads_of(empty_engine)) == len(before)
    assert counts(empty_engine)["head_scores"] == 36
    assert held(empty_engine, "head_scores") == {f"head_scores_{day:%Y%m%d}": 9 for day in DAYS[:2]} | {
        "head_scores_default": 18
    }
    migrate(empty_engine, "0013", down=True)
    assert rules(empty_engine) == before_rules
    assert rows(empty_engine) == wanted
    assert partitions(empty_engine, "head_scores") == {f"head_scores_{day:%Y%m%d}" for day in DAYS[:2]}


def test_what_was_written_before_and_after_is_told_alike(empty_engine: Engine) -> None:
    migrate(empty_engine, "0013")
    with empty_engine.begin() as connection:
        for head in (1, 0):
            values = {"n": 0, "day": TODAY, "p": "drift", "d": "d1", "l": 2, "h": head, "s": head / 4}
            connection.execute(text(INSERT), values)
    upgrade(empty_engine)
    assert ensure_ahead(empty_engine)
    write(
        empty_engine,
        BatchRows([message(1, day=TODAY)], [score(1, probe_digest="d1", heads=((2, 0, 0.0), (2, 1, 0.25)))]),
    )
    found = [(row["layer"], row["head"], row["score"]) for row in heads_of(empty_engine)]
    assert found == [(2, 0, 0.0), (2, 1, 0.25)] * 2
    with empty_engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM head_layouts")).scalar_one() == 1


def test_grants_and_policies_stay(empty_engine: Engine) -> None:
    migrate(empty_engine, "0013")
    upgrade_to = text(
        "SELECT has_table_privilege('awry_reader', 'head_scores', 'SELECT'), "
        "has_table_privilege('awry_reader', 'head_layouts', 'SELECT'), "
        "has_table_privilege('awry_tenant', 'head_layouts', 'SELECT'), "
        "has_table_privilege('awry_tenant', 'head_layouts', 'INSERT')"
    )
    fill(empty_engine)
    upgrade(empty_engine)
    assert "head_scores" in TABLES
    with empty_engine.connect() as connection:
        assert tuple(connection.execute(upgrade_to).one()) == (True, True, True, False)
        assert open_tables(connection) == []
        policies = text("SELECT polname FROM pg_policy WHERE polrelid = CAST('head_scores' AS regclass) ORDER BY 1")
        assert connection.execute(policies).scalars().all() == ["awry_all", "awry_tenant"]


def test_a_worker_of_before_is_refused_and_nothing_of_its_batch_stays(empty_engine: Engine) -> None:
    upgrade(empty_engine)

    def as_before(connection: Any) -> None:
        connection.execute(text("INSERT INTO locks VALUES (4711)"))
        values = {"n": 0, "day": TODAY, "p": "drift", "d": "d1", "l": 2, "h": 1, "s": 0.5}
        connection.execute(text(INSERT), values)

    with pytest.raises(SchemaError, match="42703"):
        transact(empty_engine, as_before)
    with empty_engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM locks WHERE key = 4711")).scalar_one() == 0


def test_a_view_of_ones_own_on_the_columns_leaves_everything_as_it_was(empty_engine: Engine) -> None:
    migrate(empty_engine, "0013")
    before = fill(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text("CREATE VIEW mine AS SELECT layer, avg(score) FROM head_scores GROUP BY layer"))
    with pytest.raises(Exception, match="view mine depends on"):
        upgrade(empty_engine)
    assert rows(empty_engine) == before


def test_a_server_with_too_few_locks_is_refused_before_anything_changes(empty_engine: Engine) -> None:
    migrate(empty_engine, "0013")
    room = "current_setting('max_locks_per_transaction')::int * current_setting('max_connections')::int"
    with empty_engine.connect() as connection:
        number = 1 + connection.execute(text(f"SELECT {room}")).scalar_one() // 8
    days = [date(2020, 1, 1) + timedelta(days=n) for n in range(number)]
    for first in range(0, number, 100):
        with empty_engine.begin() as connection:
            for day in days[first : first + 100]:
                bounds = f"FROM ('{day}') TO ('{day + timedelta(days=1)}')"
                connection.execute(
                    text(f"CREATE TABLE head_scores_{day:%Y%m%d} PARTITION OF head_scores FOR VALUES {bounds}")
                )
    with pytest.raises(RuntimeError, match=r"set max_locks_per_transaction = \d+ in postgresql.conf"):
        migrate(empty_engine, "0014")
    assert len(partitions(empty_engine, "head_scores")) == number


def test_a_day_without_heads_and_an_empty_database(empty_engine: Engine) -> None:
    migrate(empty_engine, "0013")
    migrate(empty_engine, "0014")
    migrate(empty_engine, "0013", down=True)
    with empty_engine.begin() as connection, pytest.raises(ProgrammingError):
        connection.execute(text("SELECT layout FROM head_scores"))
    upgrade(empty_engine)
    write(empty_engine, BatchRows([message(0)], [score(0, heads=((1, 2, 0.5),))]))
    assert [row["score"] for row in heads_of(empty_engine)] == [0.5]
