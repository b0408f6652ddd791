"""Dropping what is older than its owner wants to keep.

Contract: `retain(engine, keep_days)` keeps today and the `keep_days` days before it (UTC). Of what is older it drops
whole partitions, and deletes the rows that had none (those of the default partitions), the rollups of scores made
before, which messages alerts held, the deliveries that are over and whose alert is resolved, resolved alerts without
deliveries, silences that are over, and the audit of alerts and silences that are gone. Tokens of the HTTP API are few
and stay, with their audit. It may run at any time, beside workers and beside itself.

Dropping a partition needs its table for a moment without anybody else. It waits two seconds at most, while writers
wait behind it, then lets them pass and tries again; each partition is a transaction of its own that holds one table,
so a writer never waits in a ring with it. Where a table is not to be had in four tries it raises BusyError: what was
dropped by then stays dropped, and the next run does the rest.

What is dropped is forgotten: a message that is delivered again after that is new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import partial

from sqlalchemy import Connection, Delete, Engine, delete, func, select, text

from storage.partitions import exclusively, home, partition_day, patiently, utc_today
from storage.schema import BY_DAY, ROLLUPS, alert_messages, alerts, api_tokens, audit, outbox, silences


@dataclass
class Dropped:
    """Rows that went: with their whole partition, by its name, and one by one, by their table."""

    partitions: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)


def retain(engine: Engine, keep_days: int, today: date | None = None) -> Dropped:
    """Drop what is older. Raises BusyError, NotAllowedError for a role that does not own the tables, ValueError for
    fewer than one day, and as `transact` does."""
    if keep_days < 1:
        raise ValueError("keep_days: keep at least 1 day")
    first = (today or utc_today()) - timedelta(days=keep_days)
    dropped = Dropped()
    for parent in (t.name for t in BY_DAY):
        for name in patiently(engine, partial(_partitions, parent=parent)):
            day = partition_day(parent, name)
            if day is not None and day < first:
                count = exclusively(engine, partial(_drop, parent=parent, name=name))
                if count is not None:
                    dropped.partitions[name] = count
    for name, statement in _deletions(first):
        deleted = patiently(engine, partial(_delete, statement=statement))
        if deleted:
            dropped.rows[name] = deleted
    return dropped


def _partitions(connection: Connection, parent: str) -> list[str]:
    found = connection.execute(
        text(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
            "WHERE inhparent = CAST(:parent AS regclass) ORDER BY relname"
        ),
        {"parent": parent},
    )
    return list(found.scalars())


def _drop(connection: Connection, parent: str, name: str) -> int | None:
    """Its number of rows; None when somebody else has dropped it meanwhile."""
    if name not in _partitions(connection, parent):
        return None
    partition = f"{home(connection)}.{name}"
    # Counted before the parent is taken, so that nobody waits for the counting.
    count = connection.exec_driver_sql(f"SELECT count(*) FROM {partition}").scalar_one()  # noqa: S608 - our own name
    connection.exec_driver_sql(f"DROP TABLE {partition}")
    return int(count)


def _deletions(first: date) -> Iterator[tuple[str, Delete]]:
    for parent in BY_DAY:
        yield parent.name, delete(parent).where(parent.c.day < first)
    midnight = datetime.combine(first, time(), UTC)
    for rollup in ROLLUPS:
        yield rollup.name, delete(rollup).where(rollup.c.bucket < midnight)
    over = func.coalesce(outbox.c.delivered_at, outbox.c.dead_at)
    resolved = select(alerts.c.id).where(alerts.c.state == "resolved")
    yield "outbox", delete(outbox).where(over < midnight, outbox.c.alert_id.in_(resolved))
    ended = func.coalesce(alerts.c.resolved_at, alerts.c.last_seen_at)
    told = select(outbox.c.id).where(outbox.c.alert_id == alerts.c.id)
    yield "alert_messages", delete(alert_messages).where(alert_messages.c.day < first)
    yield "alerts", delete(alerts).where(alerts.c.state == "resolved", ended < midnight, ~told.exists())
    yield "silences", delete(silences).where(silences.c.ends_at < midnight)
    subjects = ((audit.c.alert_id, alerts), (audit.c.silence_id, silences), (audit.c.token_id, api_tokens))
    about = tuple(column.in_(select(table.c.id)) for column, table in subjects)
    yield "audit", delete(audit).where(audit.c.at < midnight, *(func.coalesce(~known, True) for known in about))


def _delete(connection: Connection, statement: Delete) -> int:
    return int(connection.execute(statement).rowcount)
