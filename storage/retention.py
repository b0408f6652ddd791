"""Retention: drops what is older than a number of days.

Contract: `retain(engine, keep_days)` keeps today and the `keep_days` days before it (UTC). Of older data it drops whole
partitions, and deletes rows of the default partitions, rollups, links of alerts to messages, finished deliveries of
resolved alerts, resolved alerts without deliveries, expired silences, what is known of engines that publish readings,
and the audit of deleted alerts and silences.
Tokens of the HTTP API are few and stay, with their audit. It may run at any time, beside workers and beside itself.

Dropping a partition needs an exclusive lock on its table. It waits two seconds at most, while writers wait behind it,
then lets them pass and tries again; each partition is dropped in a transaction of its own that locks one table, so
that no deadlock with a writer is possible. When four tries fail it raises BusyError: what was dropped by then stays
dropped, and the next run continues.

A message that was dropped and is delivered again is a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import partial

from sqlalchemy import Connection, Delete, Engine, delete, func, select, text

from storage.locks import delete_unused
from storage.partitions import partition_day, tables_schema, utc_today, with_lock_timeout, with_partition_lock
from storage.schema import (
    BY_DAY,
    ROLLUPS,
    alert_messages,
    alerts,
    api_tokens,
    audit,
    outbox,
    reading_gaps,
    reading_instances,
    reading_partials,
    silences,
)


@dataclass
class Dropped:
    """Number of rows dropped: with whole partitions, by partition, and deleted, by table."""

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
        for name in with_lock_timeout(engine, partial(_partitions, parent=parent)):
            day = partition_day(parent, name)
            if day is not None and day < first:
                count = with_partition_lock(engine, partial(_drop, parent=parent, name=name))
                if count is not None:
                    dropped.partitions[name] = count
    for name, statement in _deletions(first):
        deleted = with_lock_timeout(engine, partial(_delete, statement=statement))
        if deleted:
            dropped.rows[name] = deleted
    with_lock_timeout(engine, delete_unused)
    return dropped


def _partitions(connection: Connection, parent: str) -> list[str]:
    names = connection.execute(
        text(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
            "WHERE inhparent = CAST(:parent AS regclass) ORDER BY relname"
        ),
        {"parent": parent},
    )
    return list(names.scalars())


def _drop(connection: Connection, parent: str, name: str) -> int | None:
    """Its number of rows; None when another process has dropped it meanwhile."""
    if name not in _partitions(connection, parent):
        return None
    partition = f"{tables_schema(connection)}.{name}"
    # Counted before the parent is locked, so that no writer waits for it.
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
    deliveries = select(outbox.c.id).where(outbox.c.alert_id == alerts.c.id)
    yield "alert_messages", delete(alert_messages).where(alert_messages.c.day < first)
    yield "alerts", delete(alerts).where(alerts.c.state == "resolved", ended < midnight, ~deliveries.exists())
    yield "reading_gaps", delete(reading_gaps).where(reading_gaps.c.first_seen_at < midnight)
    yield "reading_partials", delete(reading_partials).where(reading_partials.c.day < first)
    yield "reading_instances", delete(reading_instances).where(reading_instances.c.last_seen_at < midnight)
    yield "silences", delete(silences).where(silences.c.ends_at < midnight)
    subjects = ((audit.c.alert_id, alerts), (audit.c.silence_id, silences), (audit.c.token_id, api_tokens))
    about = tuple(column.in_(select(table.c.id)) for column, table in subjects)
    yield "audit", delete(audit).where(audit.c.at < midnight, *(func.coalesce(~known, True) for known in about))


def _delete(connection: Connection, statement: Delete) -> int:
    return int(connection.execute(statement).rowcount)
