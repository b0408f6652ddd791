"""Read-only queries on notifications in the outbox and on their destinations."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from storage.schema import destinations, outbox

_BY_OUTCOME = (
    func.count().filter(outbox.c.delivered_at.is_(None), outbox.c.dead_at.is_(None)).label("pending"),
    func.count().filter(outbox.c.delivered_at.is_not(None)).label("delivered"),
    func.count().filter(outbox.c.dead_at.is_not(None)).label("dead"),
)


def outbox_counts(connection: Connection) -> dict[str, int]:
    """Deliveries by state: pending, delivered, dead."""
    return dict(connection.execute(select(*_BY_OUTCOME)).mappings().one())


def destination_counts(connection: Connection) -> dict[str, dict[str, int]]:
    """The same by destination; one without any is left out."""
    query = select(outbox.c.destination, *_BY_OUTCOME).group_by(outbox.c.destination)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    return {row.pop("destination"): row for row in rows}


def oldest_pending_seconds(connection: Connection) -> float:
    """Age of the oldest notification that is neither delivered nor given up, nor held on purpose; 0 when there is
    none."""
    waiting = (outbox.c.delivered_at.is_(None), outbox.c.dead_at.is_(None), outbox.c.held_by.is_(None))
    oldest = select(func.min(outbox.c.created_at)).where(*waiting)
    age = func.extract("epoch", func.now() - oldest.scalar_subquery())
    return max(0.0, float(connection.execute(select(age)).scalar() or 0.0))


def destination_states(connection: Connection) -> list[dict[str, Any]]:
    """What the sending loops remember of each destination."""
    query = select(destinations).order_by(destinations.c.name)
    return [dict(row) for row in connection.execute(query).mappings()]
