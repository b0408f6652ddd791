"""Readings on a real Kafka, with workers that are killed: none lost, none twice, and what is missing is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.stream.kafka.embedded import Broker
from storage import schema
from tests.support.rows import stored
from tests.support.stream import faults
from tests.support.stream.kafka import wait_for
from tests.support.stream.reading_scenario import ReadingScenario
from tests.support.stream.servers import OwnPostgres, own_postgres

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def database() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@pytest.fixture
def scenario(broker: Broker, database: OwnPostgres, tmp_path: Path) -> Iterator[ReadingScenario]:
    plain = faults.scenario_of(broker, database, tmp_path)
    made = ReadingScenario(plain.cluster, plain.engine, tmp_path)
    with made.running():
        yield made


def gaps(scenario: ReadingScenario) -> list[dict[str, Any]]:
    return [row for row in stored(scenario.engine, schema.reading_gaps) if row["filled_at"] is None]


def test_killed_workers_lose_no_reading_and_store_none_twice(scenario: ReadingScenario) -> None:
    audit = faults.kills(scenario, rounds=4, seed=3)
    assert (audit.sent, audit.faults) == (240, {})
    # Over three partitions and several workers the numbers came in another order, and all of them came.
    assert gaps(scenario) == []
    (row,) = stored(scenario.engine, schema.reading_instances)
    assert row["highest"] == len(scenario.published) - 1


def test_what_an_engine_sends_twice_and_what_it_never_sends(scenario: ReadingScenario) -> None:
    scenario.produce(60)
    for _ in range(3):
        next(scenario.numbers)
    scenario.start_worker(session_seconds=faults.SESSION)
    scenario.wait_stored(60)
    scenario.send(*scenario.published[10:30], scenario.record("heartbeat", dropped=4, closed=True))
    wait_for(lambda: [row for row in stored(scenario.engine, schema.reading_instances) if row["state"] == "closed"])
    scenario.stop_workers()
    audit = scenario.audit()
    assert (audit.sent, audit.faults) == (60, {})
    assert sorted((row["kind"], row["readings"]) for row in gaps(scenario)) == [("dropped", 4), ("hole", 3)]
