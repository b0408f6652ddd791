"""Look-ups by coordinates: exactly what was asked for, over all days, by the keys of the partitions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, TextClause, text

from storage import known
from storage.coordinates import Coordinates
from storage.known import ScoredBy, known_messages, score_counts, scored_before_digests
from storage.partitions import ensure_days
from storage.writer import BatchRows, MessageRow, ScoreRow
from tests.support.rows import DAY, at, digest_of, message, score, write

DRIFT = ScoredBy("drift", digest_of("drift"))

keys = st.tuples(
    st.sampled_from(["a", "b", 'o"d\\d,{}', "NULL", ""]),
    st.integers(0, 2),
    st.integers(0, 30) | st.sampled_from([4095, 4096, 4097, 9000, 2**40, 2**62]),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(there=st.sets(keys, max_size=30), asked=st.lists(keys, max_size=30))
@example(there={("a", 0, 5)}, asked=[("a", 0, 4), ("a", 0, 6)])
def test_what_is_known_is_what_is_there(
    module_engine: Engine, there: set[tuple[str, int, int]], asked: list[tuple[str, int, int]]
) -> None:
    with module_engine.begin() as connection:
        connection.execute(text("TRUNCATE messages, scores"))
    places = [Coordinates(*key) for key in there]
    days = [DAY + timedelta(days=i % 3) for i in range(len(places))]
    rows = [MessageRow(p, "aa", day, "scored") for p, day in zip(places, days, strict=True)]
    scores = [ScoreRow(p, "drift", 1, 0.1, 0.5, False, probe_digest=DRIFT.digest) for p in places]
    write(module_engine, BatchRows(rows, scores))
    with module_engine.connect() as connection:
        found = known_messages(connection, asked)
        probes = [DRIFT, DRIFT, ScoredBy("other")]
        counts = score_counts(connection, asked, (DAY, DAY + timedelta(days=2)), probes)
    assert sorted(tuple(r[:3]) for r in found) == sorted(there & set(asked))
    of_place = dict(zip(places, days, strict=True))
    assert all(r.day == of_place[Coordinates(r.source, r.partition, r.offset)] for r in found)
    assert counts == {(*key, 0): 1 for key in there & set(asked)}


def test_a_stretch_is_one_range_and_a_jump_cuts_it() -> None:
    offsets = [0, 1, 2, 5, 5 + 4096, 5 + 4096 + 4097]
    ranges = known._ranges([*(("t", 1, o) for o in reversed(offsets)), ("s", 0, 3)])
    assert ranges == {
        "sources": ["s", "t", "t"],
        "partitions": [0, 1, 1],
        "lows": [3, 0, offsets[-1]],
        "highs": [3, offsets[-2], offsets[-1]],
    }


def test_scores_of_other_days_and_probes_are_not_counted(engine: Engine) -> None:
    write(engine, BatchRows([message(0), message(1, day=DAY + timedelta(days=1))], [score(0), score(1)]))
    write(engine, BatchRows([message(0)], [score(0, probe="second")]))
    asked = [("topic", 0, 0), ("topic", 0, 1)]
    with engine.connect() as connection:
        assert score_counts(connection, asked, (DAY, DAY), [DRIFT]) == {at_key(0): 1}
        assert score_counts(connection, asked, (DAY, DAY), [DRIFT, ScoredBy("second", digest_of("second"))]) == {
            at_key(0): 2
        }
        assert score_counts(connection, asked, (DAY, DAY), []) == {}


def test_a_score_is_of_the_digest_that_made_it(engine: Engine) -> None:
    rows = [score(n, probe_digest=digest) for n, digest in ((0, "d1"), (1, "d2"), (2, ""), (3, "d1"), (3, ""))]
    write(engine, BatchRows([message(n) for n in range(4)], rows))
    asked = [("topic", 0, n) for n in range(5)]

    def offsets(*probes: ScoredBy) -> set[int]:
        with engine.connect() as connection:
            counts = score_counts(connection, asked, (DAY, DAY), probes)
        assert set(counts.values()) <= {1}, "of one name"
        return {key[2] for key in counts}

    assert offsets(ScoredBy("drift", "d1")) == {0, 3}
    assert offsets(ScoredBy("drift", "d1", version=1)) == {0, 2, 3}
    assert offsets(ScoredBy("drift", "d1", version=2)) == {0, 3}
    assert offsets(ScoredBy("drift", "d2")) == {1}
    assert offsets(ScoredBy("drift", "d3", version=1)) == {2, 3}
    assert offsets(ScoredBy("drift")) == {2, 3}
    with engine.connect() as connection:
        before = scored_before_digests(connection, [*asked, ("other", 0, 2)])
        assert scored_before_digests(connection, []) == set()
    assert before == {(*at_key(2), "drift", 1), (*at_key(3), "drift", 1)}


def at_key(offset: int) -> tuple[str, int, int, int]:
    place = at(offset)
    return (place.source, place.partition, place.offset, place.sub)


MANY_MESSAGES = """
    INSERT INTO messages (source, partition, "offset", sub, payload_sha256, day, status)
    SELECT 'topic', 0, i, 0, 'aa', CAST(:day AS date) + i / 3000, 'scored' FROM generate_series(0, 17999) AS i
"""
THEIR_SCORES = """
    INSERT INTO scores (source, partition, "offset", sub, probe, probe_digest, probe_version, day, score, threshold,
        flagged)
    SELECT source, partition, "offset", sub, 'drift', 'd', 1, day, 0, 1, false FROM messages
"""


def plan(engine: Engine, statement: TextClause, values: Sequence[object], mode: str) -> list[str]:
    """The scans of a statement as the driver's prepared one has them."""
    names = list(statement.compile().params)
    numbered = str(statement)
    for number, name in enumerate(names, 1):
        numbered = numbered.replace(f":{name}", f"${number}")
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        cursor = psycopg.ClientCursor(raw)
        cursor.execute(f"SET plan_cache_mode = {mode}")
        cursor.execute(f"PREPARE looking_up AS {numbered}")
        cursor.execute(f"EXPLAIN EXECUTE looking_up ({', '.join(['%s'] * len(names))})", values)
        lines = [line for (line,) in cursor.fetchall()]
        cursor.execute("DEALLOCATE looking_up")
        return [line for line in lines if "Scan" in line]


@pytest.mark.parametrize("analysed", [False, True])
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_look_ups_read_no_partition_whole(engine: Engine, analysed: bool, mode: str) -> None:
    ensure_days(engine, [DAY + timedelta(days=n) for n in range(6)], DAY)
    with engine.begin() as connection:
        connection.execute(text(MANY_MESSAGES), {"day": DAY})
        connection.execute(text(THEIR_SCORES))
    if analysed:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE messages, scores"))
    ranges = known._ranges([("topic", 0, 17000 + i) for i in range(200)])
    days: list[object] = [DAY, DAY + timedelta(days=9), ["drift/d"], ["drift/1"]]
    for statement, values in (
        (known._MESSAGES, [*ranges.values()]),
        (known._SCORES, [*ranges.values(), *days]),
        (known._BEFORE_DIGESTS, [*ranges.values()]),
    ):
        scans = plan(engine, statement, values, mode)
        # Whether the default partition, which has never held a row, is read by its key is no matter.
        days_scans = [line for line in scans if "_2026" in line]
        assert len(days_scans) == 6, scans
        assert all("Index" in line and "_pkey" in line for line in days_scans), scans
