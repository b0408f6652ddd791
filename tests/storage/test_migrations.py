"""From one schema to the next and back: every row stays, with its keys, defaults and grants."""

from __future__ import annotations

import uuid
from datetime import date, timedelta
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from storage import database, schema
from storage.head_layouts import layout_id
from storage.partitions import partition_name, utc_today
from storage.sources import CONFLICT, Place, place
from storage.writer import AnswerRow, BatchRows, write_batch
from tests.storage.test_database import differences, rules
from tests.support.rows import at, held, message, partitions, score, stored, write

TABLES = ("messages", "scores", "head_scores", "answers")
# Of messages since 0007, and of both tables since 0008.
NEW_COLUMNS = ("format", "trace_id", "rendered", "notes", "unread", "special_tokens", "partial", "windows")
NEW_OF_MESSAGES = (*NEW_COLUMNS, "unreadable", "second_tokens")
NEW_OF_SCORES = (
    *("shadow", "reading", "turn_scores", "top_turn", "turn_new", "trajectory", "path_length"),
    *("judge", "judge_by", "judge_at", "judge_reason"),
)


def migrate(engine: Engine, revision: str, *, down: bool = False) -> None:
    config = database.migrations()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, revision)


def fill(engine: Engine, days: list[date]) -> None:
    """Rows as the writer of the first schema wrote them, JSON's null among them."""
    with engine.begin() as connection:
        for i, day in enumerate(days):
            values = {"i": i, "day": day}
            for statement in (
                'INSERT INTO messages (source, partition, "offset", payload_sha256, day, status, text, attributes) '
                "VALUES ('topic', 0, :i, 'aa', :day, 'scored', 'null', '{\"a\": null}')",
                'INSERT INTO scores (source, partition, "offset", probe, probe_version, day, score, threshold, flagged)'
                " VALUES ('topic', 0, :i, 'drift', 1, :day, 0.25, 0.5, false)",
                "INSERT INTO head_scores VALUES ('topic', 0, :i, 'drift', 1, 2, :day, 0.125)",
                'INSERT INTO answers (source, partition, "offset", kind, day, tokens, text) '
                "VALUES ('topic', 0, :i, 'plain', :day, 3, 'null')",
            ):
                connection.execute(text(statement.replace('"a":', '"a"\\:')), values)


def contents(engine: Engine) -> dict[str, list[Any]]:
    with engine.connect() as connection:
        return {
            table: list(
                connection.execute(
                    text(f'SELECT to_jsonb(t) FROM {table} AS t ORDER BY source, partition, "offset"')  # noqa: S608
                ).scalars()
            )
            for table in TABLES
        }


def test_rows_survive_the_way_to_partitions_and_back(empty_engine: Engine) -> None:
    today = utc_today()
    near = [today - timedelta(days=400), today - timedelta(days=1), today, today, today + timedelta(days=8)]
    far = [date(1970, 1, 1), today - timedelta(days=401), today + timedelta(days=9), date(9999, 12, 31)]
    migrate(empty_engine, "0001")
    first_rules = rules(empty_engine)
    fill(empty_engine, near + far)
    before = contents(empty_engine)
    assert [len(rows) for rows in before.values()] == [9] * 4
    migrate(empty_engine, "0002")
    after = contents(empty_engine)
    assert after == before
    for table in TABLES:
        assert held(empty_engine, table) == {
            partition_name(table, today - timedelta(days=400)): 1,
            partition_name(table, today - timedelta(days=1)): 1,
            partition_name(table, today): 2,
            partition_name(table, today + timedelta(days=8)): 1,
            f"{table}_default": 4,
        }
    migrate(empty_engine, "0001", down=True)
    assert contents(empty_engine) == before
    assert rules(empty_engine) == first_rules
    assert not any(partitions(empty_engine, table) for table in TABLES)
    migrate(empty_engine, "head")
    assert differences(empty_engine) == []
    now = contents(empty_engine)
    assert {row.pop(name) for row in now["scores"] for name in NEW_OF_SCORES} == {None}
    assert {row.pop("sub") for rows_ in now.values() for row in rows_} == {0}
    assert {row.pop(name) for row in now["messages"] for name in NEW_OF_MESSAGES} == {None}
    assert {row.pop("probe_digest") for name in ("scores", "head_scores") for row in now[name]} == {""}
    heads = [{"layout": layout_id((1,), (2,)), "scores": [0.125]}] * len(now["head_scores"])
    assert [{name: row.pop(name) for name in heads[0]} for row in now["head_scores"]] == heads
    for row in before["head_scores"]:
        assert (row.pop("layer"), row.pop("head"), row.pop("score")) == (1, 2, 0.125)
    assert now == before


def test_jsons_null_becomes_null(empty_engine: Engine) -> None:
    migrate(empty_engine, "0001")
    fill(empty_engine, [date(2026, 3, 1)])
    migrate(empty_engine, "0002")
    migrate(empty_engine, "head")
    write(empty_engine, BatchRows([message(1)]))
    with empty_engine.connect() as connection:
        found = connection.execute(text('SELECT text IS NULL, attributes::text FROM messages ORDER BY "offset"')).all()
        answer = connection.execute(text("SELECT text FROM answers")).scalar_one()
    assert [tuple(r) for r in found] == [(True, '{"a": null}'), (True, None)]
    assert answer == "null"


def test_defaults_and_checks_hold_after_the_way_to_partitions(empty_engine: Engine) -> None:
    migrate(empty_engine, "0001")
    migrate(empty_engine, "head")
    batch = BatchRows([message(0)], [score(0)], [AnswerRow(at(0), "plain", 1)])
    write(empty_engine, batch)
    with empty_engine.connect() as connection:
        for column, table in (("ingested_at", "messages"), ("created_at", "scores"), ("created_at", "answers")):
            query = text(f"SELECT now() - {column} < interval '1 hour' FROM {table}")  # noqa: S608
            assert connection.execute(query).scalar_one() is True
    with pytest.raises(IntegrityError, match="ck_answers_kind"), empty_engine.begin() as connection:
        write_batch(connection, BatchRows([message(1)], [], [AnswerRow(at(1), "other", 1)]))


def test_the_newest_days_get_partitions_when_there_are_many(
    empty_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every partition takes locks of the one transaction. Retention deletes the other days' rows one by one."""
    today = utc_today()
    migrate(empty_engine, "0001")
    fill(empty_engine, [today - timedelta(days=n) for n in range(110)])
    migrate(empty_engine, "0002")
    newest = {partition_name("scores", today - timedelta(days=n)) for n in range(100)}
    assert partitions(empty_engine, "scores") == newest
    assert held(empty_engine, "scores") == dict.fromkeys(newest, 1) | {"scores_default": 10}


def test_grants_go_with_the_tables(empty_engine: Engine) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    migrate(empty_engine, "0001")

    def grants() -> list[Any]:
        query = text(
            "SELECT table_name, privilege_type, is_grantable FROM information_schema.role_table_grants "
            "WHERE grantee = :role AND table_name NOT LIKE '%default' ORDER BY 1, 2"
        )
        with empty_engine.connect() as connection:
            return [tuple(r) for r in connection.execute(query, {"role": role})]

    with empty_engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
        connection.execute(text(f"GRANT SELECT, INSERT ON messages TO {role}"))
        connection.execute(text(f"GRANT SELECT ON scores TO {role} WITH GRANT OPTION"))
    try:
        before = grants()
        assert len(before) == 3
        migrate(empty_engine, "0002")
        assert grants() == before
        migrate(empty_engine, "0001", down=True)
        assert grants() == before
    finally:
        with empty_engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))


def test_a_view_in_the_way_leaves_everything_as_it_was(empty_engine: Engine) -> None:
    migrate(empty_engine, "0001")
    fill(empty_engine, [date(2026, 3, 1)])
    with empty_engine.begin() as connection:
        connection.execute(text("CREATE VIEW mine AS SELECT tenant FROM messages"))
    before = contents(empty_engine)
    with pytest.raises(Exception, match="view mine depends on table messages"):
        migrate(empty_engine, "0002")
    assert contents(empty_engine) == before
    assert rules(empty_engine)["pk_messages"].endswith("payload_sha256)")


OLD_ALERT = (
    "INSERT INTO alerts (id, dedup_key, rule, probe, severity, state, count, top_score, threshold, first_message, "
    "top_message) VALUES (gen_random_uuid(), 'a', 'threshold', 'drift', 'error', 'open', 3, 1.5, 0.5, '{}', '{}')"
)


def test_alerts_survive_the_way_to_their_lifecycle_and_back(empty_engine: Engine) -> None:
    migrate(empty_engine, "0002")
    before = rules(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text(OLD_ALERT))
        old = dict(connection.execute(text("SELECT * FROM alerts")).mappings().one())
    migrate(empty_engine, "0003")
    with empty_engine.begin() as connection:
        new = dict(connection.execute(text("SELECT * FROM alerts")).mappings().one())
        assert {name: new[name] for name in old} == old
        assert (new["kind"], new["units"], new["reopened"], new["verdict"]) == ("threshold", "class gaps", 0, None)
        # One that the older schema cannot hold.
        without_probe = OLD_ALERT.replace("probe, ", "kind, ").replace("'drift'", "'monitor'").replace("'a'", "'b'")
        connection.execute(text(without_probe))
    migrate(empty_engine, "0002", down=True)
    assert rules(empty_engine) == before
    with empty_engine.connect() as connection:
        assert [dict(r) for r in connection.execute(text("SELECT * FROM alerts")).mappings()] == [old]


def test_rollups_and_the_readers_grants_come_and_go(empty_engine: Engine) -> None:
    def readable() -> set[str]:
        query = "SELECT table_name FROM information_schema.role_table_grants WHERE grantee = 'awry_reader'"
        with empty_engine.connect() as connection:
            return set(connection.execute(text(query)).scalars())

    migrate(empty_engine, "0005")
    assert {"messages", "alerts", "score_rollups", "rollup_state"} <= readable()
    assert not {"audit", "rule_states"} & readable()
    with empty_engine.connect() as connection:
        assert connection.execute(text("SELECT until = '-infinity' FROM rollup_state")).scalars().all() == [True]
        login = connection.execute(text("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'awry_reader'")).scalar_one()
    assert login is False
    migrate(empty_engine, "0004", down=True)
    assert readable() == set()
    migrate(empty_engine, "0005")
    assert "score_rollups" in readable()


def test_tokens_come_and_go_and_are_nobodys_to_read(empty_engine: Engine) -> None:
    migrate(empty_engine, "0005")
    before = rules(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text("INSERT INTO audit (who, via, action) VALUES ('anna', 'cli', 'silence')"))
    migrate(empty_engine, "0006")
    query = text("SELECT DISTINCT grantee FROM information_schema.role_table_grants WHERE table_name = 'api_tokens'")
    with empty_engine.connect() as connection:
        assert connection.execute(query).scalars().all() == [connection.execute(text("SELECT user")).scalar_one()]
        assert [tuple(r) for r in connection.execute(text("SELECT who, token_id FROM audit"))] == [("anna", None)]
    migrate(empty_engine, "0005", down=True)
    assert rules(empty_engine) == before


def fill_before_logs(engine: Engine, days: list[date]) -> None:
    """A filled database of schema 0006: scored messages, an invalid one, a conflict, an alert with its message."""
    with engine.begin() as connection:
        for i, day in enumerate(days):
            values = {"i": i, "day": day, "sha": f"sha{i}"}
            for statement in (
                'INSERT INTO messages (source, partition, "offset", payload_sha256, day, status, message_id) '
                "VALUES ('traffic', 0, :i, :sha, :day, 'scored', 'm' || :i)",
                'INSERT INTO scores (source, partition, "offset", probe, probe_version, day, score, threshold, flagged)'
                " VALUES ('traffic', 0, :i, 'drift', 1, :day, 0.75, 0.5, true)",
            ):
                connection.execute(text(statement), values)
        for statement in (
            'INSERT INTO messages (source, partition, "offset", payload_sha256, day, status, reason) '
            "VALUES ('traffic', 0, 100, 'parts', :day, 'invalid', 'messages[0].content: not a string')",
            'INSERT INTO messages (source, partition, "offset", payload_sha256, day, status, reason) '
            "VALUES ('traffic', 0, 0, 'refused', :day, 'failed', :conflict)",
            'INSERT INTO messages (source, partition, "offset", payload_sha256, day, status) '
            "VALUES ('another', 3, 0, 'aa', :day, 'scored')",
        ):
            connection.execute(text(statement), {"day": days[0], "conflict": CONFLICT})
        connection.execute(text(OLD_ALERT))
        connection.execute(
            text(
                'INSERT INTO alert_messages (alert_id, source, partition, "offset", day, score) '
                "SELECT id, 'traffic', 0, 0, :day, 0.75 FROM alerts"
            ),
            {"day": days[0]},
        )


def test_messages_of_before_logs_keep_their_coordinates_and_are_known(empty_engine: Engine) -> None:
    today = utc_today()
    migrate(empty_engine, "0006")
    before = rules(empty_engine)
    fill_before_logs(empty_engine, [today - timedelta(days=n) for n in range(5)])
    migrate(empty_engine, "0007")
    assert [(r["name"], r["stream"], r["log"]) for r in stored(empty_engine, schema.sources)] == [
        ("another", "another", None),
        ("traffic", "traffic", None),
    ]
    migrate(empty_engine, "head")
    again = [Place("traffic", 0, n, "topic-id", f"sha{n}") for n in range(5)]
    with empty_engine.begin() as connection:
        placed = place(connection, [*again, Place("traffic", 0, 200, "topic-id", "new")])
    assert set(placed.names) == {"traffic"}
    assert {key[2] for key in placed.known} == set(range(5))
    # The topic was made again before the upgrade: none of its messages is taken for one of before.
    with empty_engine.begin() as connection:
        other = place(connection, [Place("another", 3, 0, "other-id", "bb"), Place("another", 3, 1, "other-id", "cc")])
    assert other.names == ["another@2", "another@2"]
    migrate(empty_engine, "0006", down=True)
    assert rules(empty_engine) == before
    with empty_engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM messages")).scalar_one() == 8


@pytest.mark.parametrize(("before", "after"), [("0006", "0007"), ("0007", "0008")])
def test_a_server_with_too_few_locks_is_refused_before_anything_changes(
    empty_engine: Engine, before: str, after: str
) -> None:
    migrate(empty_engine, before)
    setting = "current_setting('{}')::int"
    with empty_engine.connect() as connection:
        room = connection.execute(
            text(f"SELECT {setting.format('max_locks_per_transaction')} * {setting.format('max_connections')}")
        ).scalar_one()
    # A partition of messages has seven indexes.
    days = [date(2020, 1, 1) + timedelta(days=n) for n in range(1 + room // 14)]
    for first in range(0, len(days), 50):
        with empty_engine.begin() as connection:
            for day in days[first : first + 50]:
                end = day + timedelta(days=1)
                connection.execute(
                    text(
                        f"CREATE TABLE {partition_name('messages', day)} PARTITION OF messages "
                        f"FOR VALUES FROM ('{day}') TO ('{end}')"
                    )
                )
    found = rules(empty_engine)
    with pytest.raises(RuntimeError, match=r"set max_locks_per_transaction = \d+ in postgresql.conf"):
        migrate(empty_engine, after)
    assert rules(empty_engine) == found
