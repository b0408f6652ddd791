"""What is sampled out when the worker is behind: a row with its reason, the same ones each time, and scored later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from monitor.service.policy import Policy, Tally
from monitor.service.sampling import Sampling
from monitor.service.worker import Worker
from monitor.stream.record import Record
from monitor.telemetry import metrics
from monitor.telemetry.waiting import Waiting
from storage import schema
from storage.coordinates import Coordinates
from storage.known import SAMPLED_OUT
from tests.support.rows import stored
from tests.support.stream.kafka import grown
from tests.support.stream.stub_scorer import NAME, StubScorer

HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)
TIGHT = Sampling(60.0, 0.2, always=frozenset({"bank"}))


class Fixed:
    """A source of these records."""

    name, lag_unit, lag, oldest, trouble = "fixed", "records", None, None, None

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = list(records)

    @property
    def waiting(self) -> dict[str | None, Waiting]:
        return {}

    def poll(self, limit: int, _wait: float) -> list[Record]:
        taken, self._records = self._records[:limit], self._records[limit:]
        return taken

    @property
    def finished(self) -> bool:
        return not self._records

    def commit(self, records: Sequence[Record]) -> None:
        pass

    def close(self) -> None:
        pass


def record(number: int, tenant: str = "shop", at: datetime | None = HOUR_AGO) -> Record:
    payload = json.dumps({"id": f"m{number}", "tenant": tenant, "prompt": f"number {number}"}).encode()
    return Record(Coordinates("fixed", 0, number), payload, len(payload), at)


def work(engine: Engine, records: Sequence[Record], sampling: Sampling) -> Tally:
    return Worker(Fixed(records), StubScorer(), engine, Policy((NAME,), "model", sampling=sampling)).run()


def statuses(engine: Engine) -> dict[str, tuple[str, str | None]]:
    return {row["message_id"]: (row["status"], row["reason"]) for row in stored(engine, schema.messages)}


def test_it_is_off_unless_it_is_set(engine: Engine) -> None:
    assert work(engine, [record(n) for n in range(50)], Policy((NAME,), "model").sampling).by_status == {"scored": 50}


def test_a_share_of_what_waited_too_long_is_scored_and_the_rest_has_its_row(engine: Engine) -> None:
    out, passed = grown(metrics.SAMPLED_OUT), grown(metrics.FAIL_OPEN_MESSAGES.labels("skipped"))
    tally = work(engine, [record(n) for n in range(500)], TIGHT)
    skipped = tally.by_status["skipped"]
    assert 350 < skipped < 450
    assert tally.by_status == {"scored": 500 - skipped, "skipped": skipped}
    found = statuses(engine)
    assert {reason for status, reason in found.values() if status == "skipped"} == {SAMPLED_OUT}
    assert len(found) == 500
    assert (out(), passed()) == (skipped, skipped)
    rows = stored(engine, schema.messages)
    assert all(row["tenant"] == "shop" and row["text_sha256"] for row in rows)
    assert len(stored(engine, schema.scores)) == 500 - skipped


@pytest.mark.parametrize(
    ("tenant", "at"),
    [("bank", HOUR_AGO), ("shop", datetime.now(UTC) + timedelta(days=1)), ("shop", None)],
    ids=["priority", "in time", "no timestamp"],
)
def test_what_is_always_scored(engine: Engine, tenant: str, at: datetime | None) -> None:
    sampling = Sampling(60.0, 0.0, always=TIGHT.always)
    assert work(engine, [record(n, tenant, at) for n in range(20)], sampling).by_status == {"scored": 20}


def test_what_cannot_be_read_is_invalid_all_the_same(engine: Engine) -> None:
    broken = Record(Coordinates("fixed", 0, 1), b"{", 1, HOUR_AGO)
    assert work(engine, [broken], Sampling(60.0, 0.0)).by_status == {"invalid": 1}


def test_delivered_again_it_is_known(engine: Engine) -> None:
    records = [record(n) for n in range(100)]
    work(engine, records, TIGHT)
    before = statuses(engine)
    again = work(engine, records, TIGHT)
    assert (again.by_status, again.known) == ({}, 100)
    assert statuses(engine) == before


def test_once_it_is_off_the_rest_is_scored_and_nothing_twice(engine: Engine) -> None:
    records = [record(n) for n in range(100)]
    skipped = work(engine, records, TIGHT).by_status["skipped"]
    later = work(engine, records, Sampling())
    assert (later.by_status, later.known) == ({"scored": skipped}, 100 - skipped)
    assert set(statuses(engine).values()) == {("scored", None)}
    scores = stored(engine, schema.scores)
    assert len(scores) == len({row["offset"] for row in scores}) == 100
    assert work(engine, records, TIGHT).by_status == {}


def test_a_record_that_comes_again_before_its_first_copy_is_stored_counts_once(engine: Engine) -> None:
    """Kafka delivers it so after a rebalance: both copies pass the look-up before either is in the tables."""
    records = [record(n) for n in range(6)]
    stored_before = grown(metrics.MESSAGES.labels("scored"))
    source = Fixed([*records, *records])
    policy = Policy((NAME,), "model", batch_messages=3)
    tally = Worker(source, StubScorer(0.02), engine, policy).run()
    assert (tally.by_status, tally.messages, tally.known) == ({"scored": 6}, 12, 6)
    assert stored_before() == 6
