"""What each page shows: questions to the tables, in one read-only transaction a page. Nothing here changes a row."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection

from alerts.links import Links
from alerts.lifecycle.enqueue import top_messages
from alerts.lifecycle.states import STATES, moves
from alerts.rules.model import SEVERITIES
from monitor.web.api.pagination import alert_page
from monitor.web.ui import cards, charts
from storage.queries.alerts import active_silences, alert_by_id, alert_deliveries, alert_history
from storage.queries.details import histogram, message_detail
from storage.queries.messages import live_alert_counts, outbox_counts
from storage.queries.overview import known_probes, last_hour, latest_scores, live_alerts, recent_workers
from storage.writer import Coordinates

LATEST = 300
_LISTED = 100
_TOP = 20
FILTERED = ("state", "severity", "rule", "probe", "tenant", "model")


def now(connection: Connection) -> dict[str, Any]:
    """Alerts that want somebody, the last hour in numbers, the latest scores of every probe."""
    live = live_alert_counts(connection)
    return {
        "alerts": live_alerts(connection, _LISTED),
        "live": sum(live.values()),
        "open": {severity: live.get(("open", severity), 0) for severity in reversed(SEVERITIES)},
        "hour": last_hour(connection),
        "workers": recent_workers(connection),
        "deliveries": outbox_counts(connection),
        "silences": active_silences(connection),
        "probes": [
            {"name": p["name"], "scored_at": p["scored_at"], "chart": chart}
            for p in known_probes(connection)
            if (chart := charts.timeline(latest_scores(connection, p["name"], LATEST))) is not None
        ],
    }


def alerts(connection: Connection, asked: Mapping[str, str]) -> dict[str, Any]:
    """A page of alerts of any state, the last opened first; `asked` are columns and what they must be, and the cursor.
    Raises CursorError."""
    wanted = {name: asked[name] for name in FILTERED if asked.get(name)}
    found, cursor = alert_page(connection, wanted, _LISTED, asked.get("cursor") or None)
    older = f"/alerts?{urlencode({**wanted, 'cursor': cursor})}" if cursor else None
    return {"alerts": found, "older": older, "asked": wanted, "states": STATES}


def alert(connection: Connection, alert_id: uuid.UUID, links: Links) -> dict[str, Any] | None:
    """One alert: what it is, its messages with the highest scores, what was done about it, who was told."""
    row = alert_by_id(connection, alert_id)
    if row is None:
        return None
    return {
        "alert": row,
        "links": links.of({**row, "alert_id": alert_id}),
        "messages": top_messages(connection, alert_id, _TOP),
        "history": alert_history(connection, alert_id),
        "deliveries": alert_deliveries(connection, alert_id),
        "moves": moves(row["state"]),
    }


def message(connection: Connection, at: Coordinates) -> dict[str, Any] | None:
    """One message: its scores by probe and head, its alerts, its answers before and after mitigation."""
    found = message_detail(connection, at)
    if found is None:
        return None
    by_probe: dict[str, list[dict[str, Any]]] = {}
    for row in found.heads:
        by_probe.setdefault(row["probe"], []).append(row)
    return {"found": found, "heads": {name: charts.head_map(rows) for name, rows in by_probe.items()}}


def probes(connection: Connection) -> dict[str, Any]:
    """Every probe that a worker has loaded."""
    return {"probes": [{**p, "facts": cards.short(p["card"])} for p in known_probes(connection)]}


def probe(connection: Connection, name: str) -> dict[str, Any] | None:
    """One probe: its card, its latest scores, and those of the last day against its calibration."""
    found = next((p for p in known_probes(connection) if p["name"] == name), None)
    if found is None:
        return None
    card, counts = found["card"], histogram(connection, name, found["version"])
    return {
        "probe": found,
        "facts": cards.full(card),
        "chart": charts.timeline(latest_scores(connection, name, LATEST)),
        "distribution": charts.distribution(counts, cards.quantiles(card), cards.threshold(card)),
    }
