"""The data of each page: queries in one transaction a page. Nothing here changes a row."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection

from alerts.lifecycle.enqueue import top_messages
from alerts.lifecycle.states import STATES, allowed_actions
from alerts.links import Links
from alerts.rules.exceptions import RuleException, described
from alerts.rules.model import SEVERITIES
from monitor.web.api import message_pages
from monitor.web.api.evidence import holds_text, message_at
from monitor.web.api.pagination import alert_page
from monitor.web.ui import cards, charts, transcript
from storage.coordinates import Coordinates
from storage.queries.alerts import active_silences, alert_by_id, alert_deliveries, alert_history, live_alert_counts
from storage.queries.messages import histogram, same_message_elsewhere
from storage.queries.outbox import outbox_counts
from storage.queries.overview import Score, known_probes, last_hour, latest_scores, live_alerts, recent_workers
from storage.schema import STATUSES

LATEST_SCORES = 300
_ALERTS_PER_PAGE = 100
_MESSAGES_PER_PAGE = 50
_TOP_MESSAGES = 20
ALERT_FILTERS = ("state", "severity", "rule", "probe", "tenant", "model")


def now(connection: Connection, exceptions: Sequence[RuleException] = ()) -> dict[str, Any]:
    """Unresolved alerts, the last hour in numbers, the latest scores of every probe; the exceptions that hold."""
    holding = [each for each in described(exceptions, datetime.now(UTC)) if each["state"] != "expired"]
    return now_of_tenant(connection) | {
        "exceptions": sorted(holding, key=lambda each: each["until"]),
        "workers": recent_workers(connection),
        "deliveries": outbox_counts(connection),
        "probes": [
            {"name": p["name"], "scored_at": p["scored_at"], "chart": chart}
            for p in known_probes(connection)
            if (chart := charts.timeline(_latest(connection, p))) is not None
        ],
    }


def now_of_tenant(connection: Connection) -> dict[str, Any]:
    """The part of it that is kept by tenant."""
    live = live_alert_counts(connection)
    return {
        "alerts": live_alerts(connection, _ALERTS_PER_PAGE),
        "live": sum(live.values()),
        "open": {severity: live.get(("open", severity), 0) for severity in reversed(SEVERITIES)},
        "hour": last_hour(connection),
        "silences": active_silences(connection),
    }


def alerts(connection: Connection, query: Mapping[str, str]) -> dict[str, Any]:
    """A page of alerts in any state, the newest first; `query` has filters by column, and the cursor. Raises
    CursorError."""
    filters = {name: query[name] for name in ALERT_FILTERS if query.get(name)}
    rows, cursor = alert_page(connection, filters, _ALERTS_PER_PAGE, query.get("cursor") or None)
    older = f"/alerts?{urlencode({**filters, 'cursor': cursor})}" if cursor else None
    return {"alerts": rows, "older": older, "filters": filters, "states": STATES}


def messages(connection: Connection, query: Mapping[str, str]) -> dict[str, Any]:
    """Messages that match the form, the latest first. Raises ValueError, whose words name the field."""
    given = {name: query[name] for name in message_pages.FIELDS if query.get(name)}
    filters = message_pages.filters_of(given)
    after = query.get("cursor") or None
    found, cursor = message_pages.message_page(connection, filters, _MESSAGES_PER_PAGE, after, given=given)
    older = f"/messages?{urlencode({**given, 'cursor': cursor})}" if cursor else None
    return {"found": found, "older": older, "filters": given, "statuses": STATUSES}


def alert(connection: Connection, alert_id: uuid.UUID, links: Links) -> dict[str, Any] | None:
    """One alert: its row, its messages with the highest scores, its history and its notifications."""
    row = alert_by_id(connection, alert_id)
    if row is None:
        return None
    return {
        "alert": row,
        "links": links.of({**row, "alert_id": alert_id}),
        "about": links.about(row["rule"]),
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
    names = _names_of_cards(detail.scores)
    by_probe: dict[str, list[dict[str, Any]]] = {}
    for row in detail.heads:
        by_probe.setdefault(names.get((row["probe"], row["probe_digest"]), row["probe"]), []).append(row)
    return {
        "detail": detail,
        "has_text": holds_text(detail),
        "heads": {name: charts.head_map(rows) for name, rows in by_probe.items()},
        "windows": _windows(detail.windows, names),
        "reading": cards.reading(detail.message),
        "elsewhere": same_message_elsewhere(connection, detail.message),
        "turns": transcript.turns(detail.message["text"]),
        "tools": transcript.tools(detail.message["text"]),
    }


def _names_of_cards(scores: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """What each card is called by (probe, digest): its probe's name, with version and digest where it is not alone."""
    names: dict[tuple[str, str], str] = {}
    for row in scores:
        several = len({each["probe_digest"] for each in scores if each["probe"] == row["probe"]}) > 1
        card = f" version {row['probe_version']}, {row['probe_digest'][:8] or 'digest unknown'}" if several else ""
        names[row["probe"], row["probe_digest"]] = row["probe"] + card
    return names


def _windows(rows: list[dict[str, Any]], names: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """The windows of a message by their number: where each begins and ends, and its score by card."""
    found: dict[int, dict[str, Any]] = {}
    cards_of_rows = set()
    for row in rows:
        window = found.setdefault(row["window"], {"first": row["first_token"], "tokens": row["tokens"], "scores": {}})
        name = names.get((row["probe"], row["probe_digest"]), row["probe"])
        window["scores"][name] = row["score"]
        cards_of_rows.add(name)
    return {"probes": sorted(cards_of_rows), "rows": dict(sorted(found.items()))}


def _latest(connection: Connection, probe: Mapping[str, Any]) -> list[Score]:
    """The latest scores of the card in use; none where it has never scored."""
    if probe["scored_at"] is None:
        return []
    card = (probe["name"], probe["scored_version"], probe["scored_digest"])
    return latest_scores(connection, *card, LATEST_SCORES)


def probes(connection: Connection) -> dict[str, Any]:
    """Every probe that a worker has loaded."""
    return {"probes": [{**p, "facts": cards.short(p["card"])} for p in known_probes(connection)]}


def probe(connection: Connection, name: str) -> dict[str, Any] | None:
    """One probe: the card in use, its latest scores, and those of the last day beside the calibration. Scores of other
    cards of its name are not among them, and where their digest is unknown they are not compared."""
    row = next((p for p in known_probes(connection) if p["name"] == name), None)
    if row is None:
        return None
    card, counts = row["card"], histogram(connection, name, row["digest"])
    return {
        "probe": row,
        "facts": cards.full(card),
        "attacks": cards.attacks(card),
        "chart": charts.timeline(_latest(connection, row)),
        "distribution": charts.distribution(counts, cards.quantiles(card), cards.threshold(card)),
    }
