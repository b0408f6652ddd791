"""Stored scores of past minutes, rules written as TOML, and time that passes without anybody waiting for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, select, text

from alerts.evaluator import Evaluated, evaluate
from alerts.lifecycle.audit import Actor
from alerts.rules.file import parse_rules
from alerts.rules.model import Rules
from storage.partitions import utc_today
from storage.schema import audit, rule_states
from storage.writer import BatchRows, register_probe
from tests.support.rows import message, score, write

ANNA = Actor("anna", "cli", "laptop")
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
    **names: Any,
) -> None:
    """Messages `first`, `first + 1`, ... with a score each (flagged above 0.5), stored so many seconds ago."""
    names = {"tenant": "shop", "model": "smol", **names}
    today = utc_today()
    offsets = range(first, first + number)
    rows = [message(n, f"s{n}", status, day=today, message_id=f"m{n}", **names) for n in offsets]
    found = [score(n, value, probe, shadow=shadow) for n in offsets] if status == "scored" else []
    write(engine, BatchRows(rows, found))
    with engine.begin() as connection:
        register_probe(connection, probe, 1, "hash", card or {})
        for table, column in (("scores", "created_at"), ("messages", "ingested_at")):
            where = '"offset" BETWEEN :first AND :last'
            connection.execute(
                text(f"UPDATE {table} SET {column} = now() - :ago WHERE {where}"),  # noqa: S608 - our own names
                {"ago": timedelta(seconds=ago), "first": first, "last": first + number - 1},
            )


def pass_time(engine: Engine, seconds: float) -> None:
    """As if everything had happened so much longer ago; with a negative number, as if the clock had gone back."""
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
