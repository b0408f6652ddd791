"""The alerts that are not resolved, as inhibition sees them."""

from __future__ import annotations

from sqlalchemy import Connection, select

from alerts.routing.inhibition import LiveAlert
from alerts.routing.matchers import LABELS, labels_of
from storage.schema import alerts

_COLUMNS = [alerts.c.id, alerts.c.dedup_key, *(alerts.c[name] for name in LABELS if name in alerts.c)]


def live_alerts(connection: Connection) -> list[LiveAlert]:
    """All of them; a silenced or acknowledged one inhibits, too."""
    query = select(*_COLUMNS).where(alerts.c.state != "resolved")
    return [LiveAlert(row["id"], row["dedup_key"], labels_of(row)) for row in connection.execute(query).mappings()]
