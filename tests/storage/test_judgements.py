"""A judge's verdict is written once, into the row of one digest's score."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from storage import schema
from storage.judgements import Judgement, record_judgement, waiting
from storage.writer import BatchRows
from tests.support.at_once import at_once
from tests.support.rows import DAY, at, message, score, stored, write

WHEN = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _scored(engine: Engine) -> None:
    rows = [score(0, probe_digest="d1", judge="waiting"), score(0, probe_digest="d2", judge="waiting")]
    rows += [score(1, probe_digest=""), score(2, probe_digest="", judge="not asked")]
    write(engine, BatchRows([message(n) for n in range(3)], rows))


def record(engine: Engine, offset: int, digest: str, verdict: Judgement, by: str = "judge-1", **more: Any) -> bool:
    with engine.begin() as connection:
        return record_judgement(connection, at(offset), "drift", digest, verdict, by, "said so", WHEN, **more)


def judged(engine: Engine) -> list[tuple[int, str, str | None, str | None]]:
    rows = stored(engine, schema.scores)
    return [(r["offset"], r["probe_digest"], r["judge"], r["judge_by"]) for r in rows]


def test_a_verdict_is_of_one_score_and_stays(engine: Engine) -> None:
    assert record(engine, 0, "d1", "harmless", day=DAY)
    assert not record(engine, 0, "d1", "harmful", "judge-2")
    assert not record(engine, 0, "d1", "failed", "judge-2")
    assert judged(engine)[:2] == [(0, "d1", "harmless", "judge-1"), (0, "d2", "waiting", None)]
    row = stored(engine, schema.scores)[0]
    assert (row["judge_reason"], row["judge_at"]) == ("said so", WHEN)
    # The probe's verdict is beside it.
    assert row["flagged"] is True


def test_what_was_not_asked_or_has_none_may_be_judged_later(engine: Engine) -> None:
    assert record(engine, 0, "d1", "not asked")
    assert record(engine, 0, "d1", "harmful")
    assert record(engine, 1, "", "harmful")
    assert record(engine, 2, "", "failed")
    assert not record(engine, 2, "", "harmful")
    assert [r[2] for r in judged(engine)] == ["harmful", "waiting", "harmful", "failed"]


@pytest.mark.parametrize(("offset", "digest", "day"), [(9, "d1", None), (0, "d3", None), (0, "d1", WHEN.date().max)])
def test_a_score_that_is_not_there(engine: Engine, offset: int, digest: str, day: Any) -> None:
    before = judged(engine)
    assert not record(engine, offset, digest, "harmful", day=day)
    assert judged(engine) == before


def test_a_verdict_that_is_none(engine: Engine) -> None:
    verdict: Any = "waiting"
    with pytest.raises(ValueError, match="verdict: 'waiting' is none of harmful, harmless, failed, not asked"):
        record(engine, 0, "d1", verdict)


def test_of_several_at_once_one_writes(engine: Engine) -> None:
    done = at_once([partial(record, engine, 0, "d1", "harmful", f"judge-{n}") for n in range(3)])
    assert sorted(done) == [False, False, True]
    assert judged(engine)[0][3] == f"judge-{done.index(True)}"


def test_what_waits_is_found_by_its_age(engine: Engine) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)

    def found(connection: Connection, before: datetime, limit: int = 9) -> list[tuple[int, str]]:
        return [(each.at.offset, each.digest) for each in waiting(connection, before, limit)]

    with engine.begin() as connection:
        assert found(connection, later) == [(0, "d1"), (0, "d2")]
        assert len(found(connection, later, limit=1)) == 1
        assert found(connection, later - timedelta(days=1)) == []
        each = waiting(connection, later, 1)[0]
        assert (each.probe, each.day, each.score, each.threshold, each.flagged) == ("drift", DAY, 0.9, 0.5, True)
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "EXPLAIN SELECT 1 FROM scores WHERE judge = 'waiting' AND created_at < now() ORDER BY created_at LIMIT 9"
        assert any("waiting" in line or "created_at_idx" in line for (line,) in connection.execute(text(plan)))
    assert record(engine, 0, "d1", "failed")
    with engine.connect() as connection:
        assert found(connection, later) == [(0, "d2")]
