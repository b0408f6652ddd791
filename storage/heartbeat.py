"""A worker's heartbeat: one row a process, renewed every few seconds, which rules on the monitor itself read.

Contract: `write_heartbeat` runs in the caller's transaction and sets the times by the database's clock. Rows of workers
without a heartbeat for a month are deleted when another worker starts.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from datetime import timedelta

from sqlalchemy import Connection, delete, func
from sqlalchemy.dialects.postgresql import insert

from storage.coordinates import clean
from storage.schema import workers

MAX_AGE = timedelta(days=30)
# In the place of a lag's unit: the worker stopped at the end of its source, and nothing is waiting.
ENDED = "ended"


@dataclass(frozen=True)
class Heartbeat:
    """A worker at this moment. `lag` is in the source's unit, None when it cannot be known."""

    id: uuid.UUID
    name: str
    source: str
    lag: int | None = None
    lag_unit: str | None = None
    oldest_seconds: float | None = None


def write_heartbeat(connection: Connection, heartbeat: Heartbeat, *, stored: bool) -> None:
    """Renew a worker's row; `stored`: it has stored new messages since the last time."""
    values = asdict(heartbeat) | {"name": clean(heartbeat.name), "source": clean(heartbeat.source)}
    row = insert(workers).values(values | {"stored_at": func.now() if stored else None})
    renewed: dict[str, object] = {name: values[name] for name in ("lag", "lag_unit", "oldest_seconds")}
    renewed |= {"seen_at": func.now()} | ({"stored_at": func.now()} if stored else {})
    connection.execute(row.on_conflict_do_update(index_elements=[workers.c.id], set_=renewed))


def delete_old_heartbeats(connection: Connection) -> int:
    """Number of rows deleted."""
    return int(connection.execute(delete(workers).where(workers.c.seen_at < func.now() - MAX_AGE)).rowcount)
