"""What a judge's verdict does: it updates the score's row, and opens alerts or, where a rule says so, resolves them.

Contract: `Recording` is the recorder of `monitor.judge.judging`. The row and what follows from it are one transaction,
and follow once: a verdict that is recorded already changes nothing. `harmful` about a message that its probe did not
flag opens or counts alerts by the threshold rules, as a flagged one would (`alerts.lifecycle.lifecycle`); a probe in
shadow opens none. `harmless` about a flagged one marks the row, and resolves alerts of rules with `judge_resolves`
(`alerts.lifecycle.judged`). `failed` and `not asked` leave the probe's verdict as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import Connection, Engine, func, select

from alerts.lifecycle.audit import Actor, write_audit_row
from alerts.lifecycle.judged import lower, release
from alerts.lifecycle.lifecycle import Opened, record_flagged
from alerts.routing.routing import Destinations
from alerts.rules.model import ThresholdRule
from monitor.judge.judging import Judged, NotAsked, Waiting
from monitor.telemetry import metrics
from storage.database import transact, try_row
from storage.judgements import Waiting as WaitingRow
from storage.judgements import record_judgement, waiting

_SWEEP = 1000


class Recording:
    """Records verdicts of one judge, called `by`, whose host is `host`."""

    def __init__(
        self, engine: Engine, by: str, host: str, destinations: Destinations, rules: Sequence[ThresholdRule]
    ) -> None:
        self._engine = engine
        self._by = by
        self._actor = Actor(f"judge {by}", "rule", host)
        self._destinations = destinations
        self._rules = tuple(rules)

    def record(self, waiting: Waiting, judged: Judged) -> bool:
        """Write one verdict and do what follows. False where the row has one already."""

        def write(connection: Connection) -> tuple[bool, list[Opened]]:
            if not self._write(connection, waiting, judged):
                return False, []
            return True, self._follow(connection, waiting, judged)

        changed, opened = transact(self._engine, write)
        for alert in opened:
            result = "suppressed" if alert.suppressed else "alerted"
            metrics.ALERTS.labels(alert.probe, alert.severity, result).inc()
        return changed

    def leave(self, waiting: Sequence[Waiting], why: NotAsked) -> None:
        """Mark what will not be asked about. One try; a row that the database refuses stays as it is."""
        judged = Judged("not asked", why)
        with self._engine.begin() as connection:
            for each in waiting:
                try_row(connection, partial(self._leave, connection, each, judged))

    def _leave(self, connection: Connection, waiting: Waiting, judged: Judged) -> None:
        self._write(connection, waiting, judged)
        self._follow(connection, waiting, judged)

    def _write(self, connection: Connection, waiting: Waiting, judged: Judged) -> bool:
        score = waiting.score
        by = None if judged.state == "not asked" else self._by
        return record_judgement(
            connection,
            score.coordinates,
            score.probe,
            waiting.digest,
            judged.state,
            by,
            judged.reason,
            datetime.now(UTC),
            day=score.day,
        )

    def _follow(self, connection: Connection, waiting: Waiting, judged: Judged) -> list[Opened]:
        if waiting.shadow:
            return []
        if judged.state == "harmful" and not waiting.flagged:
            return record_flagged(connection, [waiting.score], self._destinations, self._rules)
        if waiting.flagged and judged.state == "harmless":
            lower(connection, waiting.score, self._rules, self._actor)
        elif waiting.flagged:
            release(connection, waiting.score, self._rules)
        return []


def leave_abandoned(engine: Engine, older_than: timedelta) -> int:
    """Mark rows that wait since so long: their text is gone with the worker that had it. Returns how many. A row that
    the database refuses goes on waiting."""
    number = 0
    while True:
        with engine.begin() as connection:
            now: datetime = connection.execute(select(func.now())).scalar_one()
            found = waiting(connection, now - older_than, _SWEEP)
            marked = sum(try_row(connection, partial(_abandon, connection, row, now)) is None for row in found)
        number += marked
        # What is refused would be found again.
        if len(found) < _SWEEP or not marked:
            return number


def _abandon(connection: Connection, row: WaitingRow, now: datetime) -> None:
    record_judgement(connection, row.at, row.probe, row.digest, "not asked", None, "worker stopped", now, day=row.day)


def audit_start(
    engine: Engine, *, by: str, host: str, worker: str, probes: Sequence[str], budget_per_day: int, characters: int
) -> None:
    """Leave a row that says to whom text goes from now on, of which probes' messages, and how much of it."""
    told = {"judge": by, "host": host, "probes": list(probes), "questions_a_day": budget_per_day}
    with engine.begin() as connection:
        write_audit_row(
            connection, Actor("awry run", "cli", worker), "judge", after=told | {"characters_a_message": characters}
        )
