"""What is done to a running stack, each as one function that ends with the audit: a few rounds in the tests, many in
`make chaos`. The workers' scorer needs no model (`stub`); everything else is the service's own and real.
"""

from __future__ import annotations

import random
import signal
import time
from functools import partial
from pathlib import Path

from sqlalchemy import text

from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker
from tests.support.stream.kafka import wait_for
from tests.support.stream.scenario import Audit, Scenario
from tests.support.stream.servers import OwnPostgres

# A killed member is missed after this long; short, so that rounds are.
SESSION = 2.0


def _stored(scenario: Scenario, goal: int) -> bool:
    return scenario.stored() >= min(goal, len(scenario.sent))


def kills(scenario: Scenario, rounds: int, seed: int, each: int = 60) -> Audit:
    """kill -9 of the worker at random points, while messages keep coming."""
    draw = random.Random(seed)
    for n in range(rounds):
        scenario.produce(each, seed + n)
        worker = scenario.start_worker(delay=0.003, session_seconds=SESSION, batch_messages=draw.choice((3, 10, 40)))
        goal = scenario.stored() + draw.randrange(1, each)
        wait_for(partial(_stored, scenario, goal), 90)
        time.sleep(draw.uniform(0, 0.2))
        worker.kill()
        worker.wait()
    return _finish(scenario)


def broker_restarts(scenario: Scenario, broker: Broker, rounds: int, away_seconds: float) -> Audit:
    """The broker killed and started again while a worker reads and writes."""
    scenario.start_worker(delay=0.003, session_seconds=SESSION)
    for n in range(rounds):
        scenario.produce(150, n)
        wait_for(lambda: scenario.stored() > 150 * n + 20, 90)  # noqa: B023 - waited for within the round
        broker.kill()
        time.sleep(away_seconds)
        broker.start()
    scenario.produce(50)
    return _finish(scenario)


def database_restarts(scenario: Scenario, database: OwnPostgres, rounds: int, away_seconds: float) -> Audit:
    """PostgreSQL killed and started again while transactions are in hand."""
    scenario.start_worker(delay=0.002, batch_messages=10, session_seconds=SESSION)
    for n in range(rounds):
        scenario.produce(200, n)
        wait_for(lambda: scenario.stored() > 200 * n + 20, 90)  # noqa: B023
        database.kill()
        time.sleep(away_seconds)
        database.start()
    return _finish(scenario)


def both_away(scenario: Scenario, broker: Broker, database: OwnPostgres, away_seconds: float) -> Audit:
    """Broker and database down at once; the same worker goes on afterwards."""
    worker = scenario.start_worker(delay=0.002, session_seconds=SESSION)
    scenario.produce(300)
    wait_for(lambda: scenario.stored() > 30, 90)
    database.kill()
    broker.kill()
    time.sleep(away_seconds)
    broker.start()
    database.start()
    scenario.produce(100, 1)
    wait_for(lambda: scenario.stored() == len(scenario.sent), 180)
    assert worker.poll() is None, "the worker did not live through it"
    return _finish(scenario)


def rebalances(scenario: Scenario, rounds: int) -> Audit:
    """1 -> 3 -> 1 workers under load."""
    scenario.start_worker(delay=0.005, session_seconds=SESSION)
    for n in range(rounds):
        scenario.produce(600, n)
        wait_for(lambda: scenario.stored() > 600 * n + 20, 90)  # noqa: B023
        more = [scenario.start_worker(delay=0.005, session_seconds=SESSION) for _ in range(2)]
        scenario.wait_members(3)
        before = scenario.stored()
        wait_for(lambda: scenario.stored() >= min(before + 60, len(scenario.sent)), 90)  # noqa: B023
        for worker in more:
            worker.send_signal(signal.SIGTERM)
        for worker in more:
            assert worker.wait(60) == 0
    return _finish(scenario)


def zombie(scenario: Scenario) -> Audit:
    """A worker stopped past its session with a batch in hand, its partitions taken over, then resumed."""
    stopped = scenario.start_worker(delay=0.02, batch_messages=20, session_seconds=SESSION, max_poll_seconds=3.0)
    scenario.produce(200)
    wait_for(lambda: scenario.stored() > 0, 60)
    stopped.send_signal(signal.SIGSTOP)
    held = scenario.stored()
    assert held < len(scenario.sent), "nothing was in hand: make the worker slower"
    scenario.start_worker(session_seconds=SESSION)
    scenario.wait_stored(len(scenario.sent))
    stopped.send_signal(signal.SIGCONT)
    # It finishes what it had in hand, and is told that its partitions are gone, or gets new ones.
    scenario.produce(60, 1)
    scenario.wait_stored(len(scenario.sent))
    return _finish(scenario)


def zombie_in_transaction(scenario: Scenario) -> Audit:
    """A worker frozen inside its transaction: its rows are locked until the server ends it, then others go on."""
    url = scenario.engine.url.update_query_dict({"options": "-c idle_in_transaction_session_timeout=2s"})
    stopped = scenario.start_worker(
        database_url=url.render_as_string(hide_password=False), batch_messages=5, session_seconds=SESSION
    )
    scenario.produce(600)

    def caught() -> bool:
        stopped.send_signal(signal.SIGSTOP)
        if scenario.writing():
            return True
        stopped.send_signal(signal.SIGCONT)
        assert scenario.stored() < len(scenario.sent), "it was through before it was caught"
        return False

    wait_for(caught, 60)
    scenario.start_worker(session_seconds=SESSION)
    scenario.wait_stored(len(scenario.sent))
    stopped.send_signal(signal.SIGCONT)
    return _finish(scenario)


def redelivery(scenario: Scenario) -> Audit:
    """The whole topic once more, from offset 0, by another group."""
    scenario.produce(300)
    scenario.start_worker(session_seconds=SESSION)
    scenario.wait_stored(len(scenario.sent))
    scenario.stop_workers()
    before = scenario.counts()
    again = scenario.start_worker(group=f"{scenario.name}-again", session_seconds=SESSION)
    wait_for(lambda: scenario.committed(f"{scenario.name}-again") == len(scenario.sent), 60)
    scenario.stop_workers()
    assert again.returncode == 0
    assert scenario.counts() == before
    return scenario.audit()


def _finish(scenario: Scenario) -> Audit:
    """One more worker, if none is left, finishes the stream; then all drain."""
    if not any(p.poll() is None for p in scenario.processes):
        scenario.start_worker(session_seconds=SESSION)
    scenario.wait_stored(len(scenario.sent), 180)
    wait_for(lambda: scenario.committed() == len(scenario.sent), 60)
    scenario.stop_workers()
    assert text_free(scenario)
    return scenario.audit()


def text_free(scenario: Scenario) -> bool:
    """Whether the canary of the prompts is in no log of the workers."""
    from tests.support.stream.scenario import CANARY

    return not any(CANARY in path.read_text() for path in Path(scenario.log_folder).glob("worker-*.log"))


def scenario_of(broker: Broker, database: OwnPostgres, folder: Path) -> Scenario:
    """A fresh topic and fresh tables on these servers."""
    with database.engine.begin() as connection:
        of_readings = "reading_instances, reading_gaps, reading_partials"
        tables = f"messages, scores, head_scores, answers, alerts, alert_messages, outbox, {of_readings}"
        connection.execute(text(f"TRUNCATE {tables}"))
    folder.mkdir(parents=True, exist_ok=True)
    return Scenario(Cluster(broker.address), database.engine, folder)
