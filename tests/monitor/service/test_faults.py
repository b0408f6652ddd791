"""Whatever is killed, stopped or delivered again: every message is accounted for exactly once.

The rounds are few here and many in `make chaos`. Workers are processes; their scorer needs no model, since faults are
about everything around it. One round with the real model is in test_stack.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.stream.kafka.embedded import Broker, running
from tests.support.stream import faults
from tests.support.stream.scenario import Audit, Scenario, Sent
from tests.support.stream.servers import OwnPostgres, own_postgres

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def database() -> Iterator[OwnPostgres]:
    with own_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def own_broker(jar_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One to be killed."""
    with running(Broker(tmp_path_factory.mktemp("broker"), jar_folder=jar_folder)) as started:
        yield started


@pytest.fixture
def scenario(own_broker: Broker, database: OwnPostgres, tmp_path: Path) -> Iterator[Scenario]:
    with faults.scenario_of(own_broker, database, tmp_path).running() as made:
        yield made


def right(audit: Audit, sent: int) -> None:
    assert audit.sent == sent
    assert audit.faults == {}


def test_killed_workers(scenario: Scenario) -> None:
    right(faults.kills(scenario, rounds=4, seed=1), 240)


def test_a_broker_that_is_killed_and_comes_back(scenario: Scenario, own_broker: Broker) -> None:
    right(faults.broker_restarts(scenario, own_broker, rounds=1, away_seconds=2), 200)


def test_a_database_that_is_killed_and_comes_back(scenario: Scenario, database: OwnPostgres) -> None:
    right(faults.database_restarts(scenario, database, rounds=2, away_seconds=2), 400)


def test_both_are_away(scenario: Scenario, own_broker: Broker, database: OwnPostgres) -> None:
    right(faults.both_away(scenario, own_broker, database, away_seconds=4), 400)


def test_workers_come_and_go(scenario: Scenario) -> None:
    right(faults.rebalances(scenario, rounds=1), 600)


def test_a_zombie_writes_nothing_twice(scenario: Scenario) -> None:
    right(faults.zombie(scenario), 260)


def test_a_worker_frozen_inside_its_transaction_holds_nobody_up(scenario: Scenario) -> None:
    right(faults.zombie_in_transaction(scenario), 600)


def test_the_whole_topic_once_more_adds_no_row(scenario: Scenario) -> None:
    right(faults.redelivery(scenario), 300)


def test_the_audit_sees_what_it_is_for(scenario: Scenario, database: OwnPostgres) -> None:
    """Rows taken away, added or changed behind the worker's back are found, each as what it is."""
    from sqlalchemy import text

    scenario.produce(60)
    scenario.start_worker(session_seconds=faults.SESSION)
    scenario.wait_stored(60)
    scenario.stop_workers()
    right(scenario.audit(), 60)
    some = next(place for place, sent in scenario.sent.items() if sent.flagged)
    scenario.sent[9, 9] = Sent("never-scored", True, "bank")
    scenario.sent[9, 10] = Sent("never-put-aside", False, "shop")
    with database.engine.begin() as connection:
        row = {"p": some[0], "o": some[1]}
        connection.execute(text('DELETE FROM scores WHERE partition = :p AND "offset" = :o'), row)
        copy = (
            'INSERT INTO messages (source, partition, "offset", sub, payload_sha256, day, status) '
            "SELECT source, partition, \"offset\", sub, 'another', day, status FROM messages "
            'WHERE partition = :p AND "offset" = :o'
        )
        connection.execute(text(copy), row)
        connection.execute(text("UPDATE alerts SET count = count + 1 WHERE tenant = 'shop'"))
    found = scenario.audit().faults
    assert found.keys() == {
        "lost",
        "duplicate_rows",
        "wrong_status",
        "miscounted_alerts",
        "unsaid_verdicts",
        "unsaid_dead_letters",
    }
    assert (found["lost"], found["duplicate_rows"], found["unsaid_dead_letters"]) == (2, 1, 1)
