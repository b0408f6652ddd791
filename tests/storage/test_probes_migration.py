"""Migration 0008: probes are known by digest, what was scored before has none, and every row survives both ways."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from probes.card import load_probe, shipped_probes
from storage import schema
from storage.known import ScoredBy
from storage.partitions import ensure_ahead, utc_today
from storage.queries.messages import already_scored
from storage.rollup import roll_up
from storage.writer import BatchRows
from tests.storage.test_database import differences, rules
from tests.storage.test_migrations import fill_before_logs, migrate
from tests.support.rows import at, held, message, score, stored, write

DAYS = 5


def fill_before_digests(engine: Engine) -> None:
    """A filled database of schema 0007: scored messages of several days, windows, heads, probes, rollups."""
    today = utc_today()
    # Its partitions, as that version made them.
    with engine.begin() as connection:
        for table in ("messages", "scores", "head_scores", "answers", "window_scores"):
            for day in (today, today - timedelta(days=1)):
                name, until = f"{table}_{day:%Y%m%d}", day + timedelta(days=1)
                partition = f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{day}') TO ('{until}')"
                connection.execute(text(partition))
        for n in range(DAYS):
            values = {"n": n, "day": today - timedelta(days=n)}
            for statement in (
                'INSERT INTO messages (source, partition, "offset", sub, payload_sha256, day, status) '
                "VALUES ('topic', 0, :n, 0, 'aa', :day, 'scored')",
                'INSERT INTO scores (source, partition, "offset", sub, probe, probe_version, day, score, threshold, '
                "flagged) VALUES ('topic', 0, :n, 0, 'drift', 1, :day, 0.75, 0.5, true)",
                'INSERT INTO head_scores (source, partition, "offset", sub, probe, layer, head, day, score) '
                "VALUES ('topic', 0, :n, 0, 'drift', 1, 2, :day, 0.125)",
                'INSERT INTO window_scores (source, partition, "offset", sub, probe, "window", day, first_token, '
                "tokens, score) VALUES ('topic', 0, :n, 0, 'drift', 0, :day, 0, 9, 0.5)",
            ):
                connection.execute(text(statement), values)
        for statement in (
            "INSERT INTO score_rollups VALUES (60, '2026-03-01 10:00Z', 'drift', 1, 'shop', '', 7, 2, 3.5, 0.75, 0.5)",
            "INSERT INTO score_histograms VALUES ('2026-03-01 10:00Z', 'drift', 1, '', 3, 7)",
            "INSERT INTO head_rollups VALUES ('2026-03-01 10:00Z', 'drift', 1, 1, 2, 7, 1.5, 2, 0.5)",
        ):
            connection.execute(text(statement))
        for name, version, card in (
            *((name, load_probe(name).card.version, stored_card(name)) for name in shipped_probes()),
            ("drift", 1, {}),
            ("drift", 2, {}),
        ):
            connection.execute(
                text("INSERT INTO probes (name, version, safetensors_sha256, card) VALUES (:n, :v, 'sha', :c)"),
                {"n": name, "v": version, "c": json.dumps(card)},
            )


def stored_card(name: str) -> dict[str, Any]:
    """As the version before stored it: what it read of the file, defaults filled in."""
    return load_probe(name).card.model_dump(mode="json")


def rows(engine: Engine, *tables: str) -> dict[str, list[Any]]:
    """Whole rows in the order of the keys of before."""
    with engine.connect() as connection:
        return {
            table: list(
                connection.execute(
                    text(f"SELECT to_jsonb(t) FROM {table} AS t ORDER BY to_jsonb(t)::text")  # noqa: S608
                ).scalars()
            )
            for table in tables
        }


ALL = ("messages", "scores", "head_scores", "window_scores", "score_rollups", "score_histograms", "head_rollups")
BY_PROBE = ALL[1:]


def test_rows_of_before_survive_and_have_no_digest(empty_engine: Engine) -> None:
    migrate(empty_engine, "0007")
    rules_before = rules(empty_engine)
    fill_before_digests(empty_engine)
    before, probes_before = rows(empty_engine, *ALL), rows(empty_engine, "probes")["probes"]
    where = {table: held(empty_engine, table) for table in ALL[:4]}
    migrate(empty_engine, "0008")
    migrate(empty_engine, "head")
    assert differences(empty_engine) == []
    after = rows(empty_engine, *ALL)
    assert {row["probe_digest"] for table in BY_PROBE for row in after[table]} == {""}
    assert {(row["over95"], row["over99"], row["over999"]) for row in after["score_rollups"]} == {(0, 0, 0)}
    for table in ALL:
        assert len(after[table]) == len(before[table])
        for new in after[table] if table != "head_scores" else ():
            assert {name: new[name] for name in before[table][0]} in before[table]
    assert {table: held(empty_engine, table) for table in ALL[:4]} == where
    # The cards' digests are those that this awry computes of the probes' files.
    digests = {(r["name"], r["version"]): r["digest"] for r in stored(empty_engine, schema.probes)}
    for name in shipped_probes():
        assert digests[name, load_probe(name).card.version] == load_probe(name).digest
    assert len(set(digests.values())) == len(digests) == len(shipped_probes()) + 2
    migrate(empty_engine, "0007", down=True)
    assert rules(empty_engine) == rules_before
    assert rows(empty_engine, *ALL) == before
    assert rows(empty_engine, "probes")["probes"] == probes_before


@pytest.mark.parametrize("revision", ["0006", "0007"])
def test_what_was_scored_before_is_known_and_goes_on(empty_engine: Engine, revision: str) -> None:
    migrate(empty_engine, revision)
    if revision == "0006":
        fill_before_logs(empty_engine, [utc_today() - timedelta(days=n) for n in range(DAYS)])
        source, sha = "traffic", "sha0"
    else:
        fill_before_digests(empty_engine)
        source, sha = "topic", "aa"
    migrate(empty_engine, "head")
    assert differences(empty_engine) == []
    place = at(0, source)
    with empty_engine.connect() as connection:
        for probe, known in (
            (ScoredBy("drift", "d1", version=1), True),
            (ScoredBy("drift", "d1"), False),
            (ScoredBy("drift", "d2", version=2), False),
        ):
            assert already_scored(connection, [(place, sha)], [probe]) == ({(place, sha)} if known else set())
    # Partitions of further days are made and filled as before.
    assert ensure_ahead(empty_engine)
    later = score(7, probe_digest="d1")
    batch = BatchRows([message(7, day=utc_today() + timedelta(days=1))], [later])
    assert write(empty_engine, batch).scores == (later,)
    assert f"scores_{utc_today() + timedelta(days=1):%Y%m%d}" in held(empty_engine, "scores")


def test_on_the_way_back_a_message_keeps_its_latest_score_and_rollups_their_sums(empty_engine: Engine) -> None:
    migrate(empty_engine, "head")
    for n, (version, digest) in enumerate(((1, "b"), (1, "a"), (2, "c"))):
        with empty_engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO probes (digest, name, version, safetensors_sha256, card) "
                    "VALUES (:d, 'drift', :v, :s, '{}')"
                ),
                {"d": digest, "v": version, "s": digest},
            )
        row = score(0, 0.1 + n / 10, probe_digest=digest, heads=((1, 1, n / 10),))
        write(empty_engine, BatchRows([message(0)], [row]))
        with empty_engine.begin() as connection:
            back = "UPDATE scores SET created_at = now() - interval '1 hour' + :n * interval '1 second'"
            connection.execute(text(f"{back} WHERE probe_digest = :d"), {"d": digest, "n": n})
    assert roll_up(empty_engine) == 3
    migrate(empty_engine, "0007", down=True)

    def found(query: str) -> list[tuple[Any, ...]]:
        with empty_engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    assert found("SELECT round(score::numeric, 3)::float8 FROM scores") == [(0.3,)]
    assert found("SELECT score FROM head_scores") == [(0.2,)]
    assert found("SELECT n, round(total::numeric, 3)::float8, peak FROM score_rollups WHERE minutes = 5") == [
        (3, 0.6, pytest.approx(0.3))
    ]
    assert found("SELECT version, safetensors_sha256 FROM probes ORDER BY 1") == [(1, "b"), (2, "c")]


@pytest.mark.parametrize("card", [{}, [], {"name": None}, {"identity": 3, "calibration": "none"}])
def test_a_card_that_is_none_gets_a_digest_too(empty_engine: Engine, card: Any) -> None:
    migrate(empty_engine, "0007")
    with empty_engine.begin() as connection:
        for version in (1, 2):
            connection.execute(
                text("INSERT INTO probes VALUES ('odd', :v, 'sha', CAST(:c AS jsonb))"),
                {"v": version, "c": json.dumps(card)},
            )
    migrate(empty_engine, "head")
    assert len({row["digest"] for row in stored(empty_engine, schema.probes)}) == 2
