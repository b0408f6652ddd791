"""The data of each page: queries in one transaction a page. Nothing here changes a row."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection

from alerts.lifecycle.enqueue import top_messages
from alerts.lifecycle.states import STATES, allowed_actions
from alerts.links import Links
from alerts.rules.model import SEVERITIES
from monitor.web.api.evidence import holds_text, message_at
from monitor.web.api.pagination import alert_page
from monitor.web.ui import cards, charts, transcript
from storage.coordinates import Coordinates
from storage.queries.alerts import active_silences, alert_by_id, alert_deliveries, alert_history, live_alert_counts
from storage.queries.messages import histogram
from storage.queries.outbox import outbox_counts
from storage.queries.overview import known_probes, last_hour, latest_scores, live_alerts, recent_workers

LATEST_SCORES = 300
_ALERTS_PER_PAGE = 100
_TOP_MESSAGES = 20
ALERT_FILTERS = ("state", "severity", "rule", "probe", "tenant", "model")


def now(connection: Connection) -> dict[str, Any]:
    """Unresolved alerts, the last hour in numbers, the latest scores of every probe."""
    live = live_alert_counts(connection)
    return {
        "alerts": live_alerts(connection, _ALERTS_PER_PAGE),
        "live": sum(live.values()),
        "open": {severity: live.get(("open", severity), 0) for severity in reversed(SEVERITIES)},
        "hour": last_hour(connection),
        "workers": recent_workers(connection),
        "deliveries": outbox_counts(connection),
        "silences": active_silences(connection),
        "probes": [
            {"name": p["name"], "scored_at": p["scored_at"], "chart": chart}
            for p in known_probes(connection)
            if (chart := charts.timeline(latest_scores(connection, p["name"], LATEST_SCORES))) is not None
        ],
    }


def alerts(connection: Connection, query: Mapping[str, str]) -> dict[str, Any]:
    """A page of alerts in any state, the newest first; `query` has filters by column, and the cursor. Raises
    CursorError."""
    filters = {name: query[name] for name in ALERT_FILTERS if query.get(name)}
    rows, cursor = alert_page(connection, filters, _ALERTS_PER_PAGE, query.get("cursor") or None)
    older = f"/alerts?{urlencode({**filters, 'cursor': cursor})}" if cursor else None
    return {"alerts": rows, "older": older, "filters": filters, "states": STATES}


def alert(connection: Connection, alert_id: uuid.UUID, links: Links) -> dict[str, Any] | None:
    """One alert: its row, its messages with the highest scores, its history and its notifications."""
    row = alert_by_id(connection, alert_id)
    if row is None:
        return None
    return {
        "alert": row,
        "links": links.of({**row, "alert_id": alert_id}),
        "messages": top_messages(connection, alert_id, _TOP_MESSAGES),
        "history": alert_history(connection, alert_id),
        "deliveries": alert_deliveries(connection, alert_id),
        "actions": allowed_actions(row["state"]),
    }


def message(connection: Connection, at: Coordinates) -> dict[str, Any] | None:
    """One message: its scores by probe, head and window, its alerts, its answers before and after mitigation, its text
    where that is stored."""
    detail = message_at(connection, at)
    if detail is None:
        return None
    by_probe: dict[str, list[dict[str, Any]]] = {}
    for row in detail.heads:
        by_probe.setdefault(row["probe"], []).append(row)
    return {
        "detail": detail,
        "has_text": holds_text(detail),
        "heads": {name: charts.head_map(rows) for name, rows in by_probe.items()},
        "windows": _windows(detail.windows),
        "reading": cards.reading(detail.message),
        "turns": transcript.turns(detail.message["text"]),
        "tools": transcript.tools(detail.message["text"]),
    }


def _windows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The windows of a message by their number: where each begins and ends, and its score by probe."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        window = found.setdefault(row["window"], {"first": row["first_token"], "tokens": row["tokens"], "scores": {}})
        window["scores"][row["probe"]] = row["score"]
    return {"probes": sorted({row["probe"] for row in rows}), "rows": dict(sorted(found.items()))}


def probes(connection: Connection) -> dict[str, Any]:
    """Every probe that a worker has loaded."""
    return {"probes": [{**p, "facts": cards.short(p["card"])} for p in known_probes(connection)]}


def probe(connection: Connection, name: str) -> dict[str, Any] | None:
    """One probe: its card, its latest scores, and those of the last day beside the calibration."""
    row = next((p for p in known_probes(connection) if p["name"] == name), None)
    if row is None:
        return None
    card, counts = row["card"], histogram(connection, name, row["version"])
    return {
        "probe": row,
        "facts": cards.full(card),
        "attacks": cards.attacks(card),
        "chart": charts.timeline(latest_scores(connection, name, LATEST_SCORES)),
        "distribution": charts.distribution(counts, cards.quantiles(card), cards.threshold(card)),
    }
