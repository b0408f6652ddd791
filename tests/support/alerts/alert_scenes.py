"""Stored scores of past minutes, rules as TOML, actions on alerts, and time that passes without waiting."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, func, insert, select, text

from alerts.evaluator import Evaluated, evaluate
from alerts.lifecycle import actions
from alerts.lifecycle.actions import Silenced
from alerts.lifecycle.audit import Actor
from alerts.rules.file import parse_rules
from alerts.rules.model import Rules
from storage.partitions import utc_today
from storage.schema import audit, rule_states, workers
from storage.writer import BatchRows, register_probe
from tests.support.alerts.alert_rows import all_alerts, all_outbox, flagged, open_alerts
from tests.support.rows import digest_of, message, score, write

ANNA = Actor("anna", "cli", "laptop")
HOUR = timedelta(hours=1)
# Three flagged messages of a tenant in ten minutes.
BURST = '[[rate]]\nname = "burst"\nflagged = 3\nwindow = "10m"\n'
# Everything that the evaluator and the lifecycle compare with the clock.
_TIMES = {
    "scores": ("created_at",),
    "messages": ("ingested_at",),
    "rule_states": ("evaluated_at",),
    "silences": ("starts_at", "ends_at"),
    "workers": ("seen_at", "stored_at"),
    "alerts": ("opened_at", "last_seen_at", "resolved_at", "silenced_at", "silenced_until"),
}


def rules(toml: str) -> Rules:
    return parse_rules(toml, "rules.toml")


def scored(
    engine: Engine,
    first: int,
    number: int = 1,
    *,
    value: float = 0.9,
    ago: float = 0,
    probe: str = "drift",
    shadow: bool = False,
    status: str = "scored",
    card: dict[str, Any] | None = None,
    probe_digest: str | None = None,
    **names: Any,
) -> None:
    """Messages `first`, `first + 1`, ... with a score each (flagged above 0.5), stored so many seconds ago; the probe
    is registered unless its digest is ''."""
    digest = digest_of(probe) if probe_digest is None else probe_digest
    names = {"tenant": "shop", "model": "smol", **names}
    today = utc_today()
    offsets = range(first, first + number)
    rows = [message(n, f"s{n}", status, day=today, message_id=f"m{n}", **names) for n in offsets]
    found = [score(n, value, probe, shadow=shadow, probe_digest=digest) for n in offsets] if status == "scored" else []
    write(engine, BatchRows(rows, found))
    with engine.begin() as connection:
        if digest:
            register_probe(connection, digest, probe, 1, "hash", card or {})
        for table, column in (("scores", "created_at"), ("messages", "ingested_at")):
            where = '"offset" BETWEEN :first AND :last'
            connection.execute(
                text(f"UPDATE {table} SET {column} = now() - :ago WHERE {where}"),  # noqa: S608 - our own names
                {"ago": timedelta(seconds=ago), "first": first, "last": first + number - 1},
            )


def pass_time(engine: Engine, seconds: float) -> None:
    """As if everything had happened so much earlier; with a negative number, as if the clock was set back."""
    with engine.begin() as connection:
        for table, columns in _TIMES.items():
            changes = ", ".join(f"{column} = {column} - :by" for column in columns)
            connection.execute(text(f"UPDATE {table} SET {changes}"), {"by": timedelta(seconds=seconds)})  # noqa: S608


def look(engine: Engine, found: Rules, destinations: tuple[str, ...] = ("pager",)) -> Evaluated:
    done = evaluate(engine, found, destinations)
    assert done is not None
    assert done.failed == {}
    return done


def audit_rows(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(audit).order_by(audit.c.id)))


def phases(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        return {r.dedup_key: r.phase for r in connection.execute(select(rule_states))}


def in_transaction(engine: Engine, action: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """Call `action` with a connection in a transaction of its own."""
    with engine.begin() as connection:
        return action(connection, *arguments, **more)


def open_one(engine: Engine, **names: Any) -> uuid.UUID:
    (opened,) = open_alerts(engine, [flagged(1, **names)], ("pager", "siem"))
    return opened.alert_id


def silence_matching(
    engine: Engine, lasting: timedelta = HOUR, severity: Any = "critical", **matchers: Any
) -> Silenced:
    silenced = in_transaction(engine, actions.silence, matchers, lasting, ANNA, "planned", severity)
    assert isinstance(silenced, Silenced)
    return silenced


def only_alert(engine: Engine) -> Any:
    """The row of the one alert that there is."""
    (row,) = all_alerts(engine)
    return row


def event_names(engine: Engine, destination: str = "pager") -> list[str]:
    """What was enqueued for a destination, without `alert.`."""
    return [row.event.removeprefix("alert.") for row in all_outbox(engine) if row.destination == destination]


def insert_worker(engine: Engine, **values: Any) -> None:
    row = {"id": uuid.uuid4(), "name": "host:1", "source": "kafka:t", "lag_unit": "messages", **values}
    with engine.begin() as connection:
        connection.execute(insert(workers).values(row))


def seconds_ago(seconds: float) -> Any:
    return func.now() - timedelta(seconds=seconds)
