"""What a worker says of itself, for rules on the monitor: one row a process, renewed every few seconds.

Contract: `report` runs in the caller's transaction and sets the times by the database's clock. Rows of workers that
have said nothing for a month go when another one begins.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from datetime import timedelta

from sqlalchemy import Connection, delete, func
from sqlalchemy.dialects.postgresql import insert

from storage.schema import workers
from storage.writer import clean

KEPT = timedelta(days=30)


@dataclass(frozen=True)
class Presence:
    """A worker at this moment. `lag` is in the source's unit, None when it cannot be known."""

    id: uuid.UUID
    name: str
    source: str
    lag: int | None = None
    lag_unit: str | None = None
    oldest_seconds: float | None = None


def report(connection: Connection, one: Presence, *, stored: bool) -> None:
    """Renew a worker's row; `stored`: it has stored new messages since the last time."""
    values = asdict(one) | {"name": clean(one.name), "source": clean(one.source)}
    made = insert(workers).values(values | {"stored_at": func.now() if stored else None})
    renewed: dict[str, object] = {n: values[n] for n in ("lag", "lag_unit", "oldest_seconds")}
    renewed |= {"seen_at": func.now()} | ({"stored_at": func.now()} if stored else {})
    connection.execute(made.on_conflict_do_update(index_elements=[workers.c.id], set_=renewed))


def forget_old(connection: Connection) -> int:
    """Rows that went."""
    return int(connection.execute(delete(workers).where(workers.c.seen_at < func.now() - KEPT)).rowcount)
