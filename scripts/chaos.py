"""`make chaos`: the faults of test_faults.py, many rounds each, and a table of what was found.

`python -m scripts.chaos [--kills 50] [--seed 1]`. Every cell but the first two must be 0. Takes about 20 minutes
on two cores; the workers' scorer needs no model.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from monitor.settings import default_state_dir
from monitor.stream.kafka.embedded import Broker, running
from tests.support.stream import faults
from tests.support.stream.scenario import Audit, Scenario
from tests.support.stream.servers import OwnPostgres, own_postgres

COLUMNS = (
    ("fault", ""),
    ("rounds", ""),
    ("messages", "sent"),
    ("lost", "lost"),
    ("rows twice", "duplicate_rows"),
    ("scores twice", "duplicate_scores"),
    ("wrong status", "wrong_status"),
    ("alerts twice", "duplicate_alerts"),
    ("alerts miscounted", "miscounted_alerts"),
    ("verdicts missing", "unsaid_verdicts"),
    ("dead letters missing", "unsaid_dead_letters"),
    ("seconds", ""),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="rounds of kill -9")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random points")
    parser.add_argument("--away", type=float, default=60.0, help="seconds that servers stay down")
    given = parser.parse_args()
    console = Console(width=200)
    console.print(f"seed {given.seed}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    table = Table(*(name for name, _ in COLUMNS), box=None)
    wrong = False
    with tempfile.TemporaryDirectory(prefix="awry-chaos-") as folder, own_postgres() as database:
        broker = Broker(Path(folder) / "kafka", jar_folder=default_state_dir() / "kafka" / "jars")
        with running(broker):
            for number, (name, rounds, run) in enumerate(_plan(given, broker, database)):
                scenario = faults.scenario_of(broker, database, Path(folder) / str(number))
                began = time.monotonic()
                with scenario.running():
                    audit = run(scenario)
                cells = [name, str(rounds), *(str(getattr(audit, key)) for _, key in COLUMNS if key)]
                table.add_row(*cells, f"{time.monotonic() - began:.0f}")
                console.print(f"{name}: {audit.faults or 'right'}")
                wrong = wrong or bool(audit.faults)
    console.print(table)
    sys.exit(wrong)


def _plan(
    given: argparse.Namespace, broker: Broker, database: OwnPostgres
) -> list[tuple[str, int, Callable[[Scenario], Audit]]]:
    return [
        ("kill -9 of the worker", given.kills, lambda s: faults.kills(s, given.kills, given.seed)),
        ("broker killed, 5 s away", 5, lambda s: faults.broker_restarts(s, broker, 5, 5)),
        ("PostgreSQL killed, 5 s away", 5, lambda s: faults.database_restarts(s, database, 5, 5)),
        (f"both killed, {given.away:g} s away", 1, lambda s: faults.both_away(s, broker, database, given.away)),
        ("1 -> 3 -> 1 workers", 5, lambda s: faults.rebalances(s, 5)),
        ("worker stopped past its session", 1, faults.zombie),
        ("worker frozen in a transaction", 1, faults.zombie_in_transaction),
        ("whole topic delivered again", 1, faults.redelivery),
    ]


if __name__ == "__main__":
    main()
