"""Alerts, silences and verdicts as tables on a terminal. Names come from outside: they are escaped."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Connection

from alerts.errors import UnknownAlertError
from alerts.lifecycle.enqueue import top_messages
from alerts.rules.backtest import Rehearsed
from alerts.text import printable
from storage.queries.alerts import alert_by_id, alert_deliveries, alert_history

_TOP = 10


def _safe(text: object) -> str:
    return escape(printable(str(text)))


def utc(at: datetime | None) -> str:
    """A time, whatever zone the database's server is in."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}" if at is not None else ""


def _place(message: Mapping[str, Any] | None) -> str:
    return _safe("{source}/{partition}/{offset}".format(**message)) if message else ""


def print_alerts(rows: Iterable[Mapping[str, Any]]) -> None:
    """One line an alert."""
    table = Table(
        "id", "severity", "state", "verdict", "alert", "count", "score", "opened", "last seen", "top message", box=None
    )
    for row in rows:
        table.add_row(
            str(row["id"])[:8],
            row["severity"],
            row["state"],
            row["verdict"] or "",
            _safe(row["dedup_key"]),
            str(row["count"]),
            f"{row['top_score']:.2f}",
            utc(row["opened_at"]),
            utc(row["last_seen_at"]),
            _place(row["top_message"]),
        )
    Console().print(table)


def print_alert(connection: Connection, alert_id: uuid.UUID) -> None:
    """One alert with its messages, its history and its deliveries. Raises UnknownAlertError."""
    row = alert_by_id(connection, alert_id)
    if row is None:
        raise UnknownAlertError(f"alert: {alert_id} is not known; see awry alerts list")
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, title=_safe(row["dedup_key"]), title_justify="left")
    for name, value in _facts(row):
        table.add_row(f"[bold]{name}[/]", value)
    console.print(table)
    messages = Table("score", "message", "coordinates", box=None, title="highest scores", title_justify="left")
    for one in top_messages(connection, alert_id, _TOP):
        messages.add_row(f"{one['score']:.3f}", _safe(one["id"] or ""), _place(one))
    history = Table("when", "who", "from", "what", "before", "after", box=None, title="history", title_justify="left")
    for one in alert_history(connection, alert_id):
        place = f"{one['via']} {one['origin'] or ''}"
        history.add_row(
            utc(one["at"]), _safe(one["who"]), _safe(place), one["action"], _said(one["before"]), _said(one["after"])
        )
    deliveries = Table("when", "event", "to", "tries", "outcome", box=None, title="deliveries", title_justify="left")
    for one in alert_deliveries(connection, alert_id):
        deliveries.add_row(
            utc(one["created_at"]), one["event"], one["destination"], str(one["attempts"]), _outcome(one)
        )
    for part in (messages, history, deliveries):
        if part.row_count:
            console.print()
            console.print(part)


def _facts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    by = {
        "acknowledged": (row["acknowledged_at"], row["acknowledged_by"]),
        "resolved": (row["resolved_at"], row["resolved_by"]),
        "verdict": (row["verdict_at"], row["verdict_by"]),
    }
    facts = [
        ("id", str(row["id"])),
        ("state", row["state"]),
        ("severity", row["severity"]),
        *((name, _safe(row[name])) for name in ("rule", "probe", "tenant", "model", "conversation_id") if row[name]),
        ("measured", f"{row['top_score']:.3f} {row['units']}, limit {row['threshold']:.3f}"),
        ("count", str(row["count"])),
        ("seen", f"{utc(row['opened_at'])} to {utc(row['last_seen_at'])}"),
        ("first message", _place(row["first_message"])),
        ("reopened", str(row["reopened"]) if row["reopened"] else ""),
        ("silenced until", utc(row["silenced_until"]) if row["state"] == "silenced" else ""),
    ]
    for name, (at, who) in by.items():
        said = f"{row['verdict']}, " if name == "verdict" else ""
        facts.append((name, f"{said}{utc(at)} by {_safe(who)}" if at is not None else ""))
    return [(name, value) for name, value in facts if value]


def _said(value: Mapping[str, Any] | None) -> str:
    return _safe(", ".join(f"{name} {value[name]}" for name in sorted(value))) if value else ""


def _outcome(row: Mapping[str, Any]) -> str:
    if row["delivered_at"] is not None:
        return f"sent {utc(row['delivered_at'])}"
    error = _safe(row["last_error"] or "")
    return f"given up: {error}" if row["dead_at"] is not None else f"waits {error}".strip()


def print_silences(rows: Sequence[Mapping[str, Any]]) -> None:
    """One line a silence."""
    table = Table("id", "matches", "up to", "until", "by", "why", box=None)
    for row in rows:
        names = ("dedup_key", "rule", "probe", "tenant", "model")
        matches = ", ".join(f"{name} {row[name]}" for name in names if row[name] is not None)
        table.add_row(
            str(row["id"])[:8],
            _safe(matches),
            row["severity"],
            utc(row["ends_at"]),
            _safe(row["created_by"]),
            _safe(row["comment"]),
        )
    Console().print(table)


def print_precision(counts: Mapping[tuple[str, str | None], Mapping[str | None, int]]) -> None:
    """The share of judged alerts that were right. An authorised test is right: the detector saw what was there."""
    # Heavy, and of no use to the other tables.
    from probes.evaluation import rate

    table = Table(
        "rule",
        "probe",
        "true",
        "authorised test",
        "false",
        "not judged",
        "precision",
        box=None,
        caption="95 % intervals; authorised tests count as right",
        caption_justify="left",
    )
    for (rule, probe), found in counts.items():
        true, test, false = (found.get(name, 0) for name in ("true", "authorised_test", "false"))
        judged = true + test + false
        precision = str(rate(true + test, judged)) if judged else "none judged"
        table.add_row(
            rule, _safe(probe or "-"), str(true), str(test), str(false), str(found.get(None, 0)), escape(precision)
        )
    Console(highlight=False).print(table)


def print_rehearsal(found: Sequence[Rehearsed], since: timedelta) -> None:
    """One line a rule, and their sum."""
    table = Table(
        "rule",
        "kind",
        "mode",
        "flagged",
        "alerts",
        "resolved",
        "pages",
        "a day",
        "busiest",
        "shadow probes",
        box=None,
        caption="pages: alerts opened, reopened or made graver, told to one destination",
        caption_justify="left",
    )
    days = since.total_seconds() / 86400
    for one in found:
        busiest = ", ".join(f"{key} ({n})" for key, n in one.keys.most_common(2))
        table.add_row(
            one.name,
            one.kind,
            "shadow" if one.shadow else "live",
            str(one.messages),
            str(one.alerts),
            str(one.resolved),
            str(one.pages),
            f"{one.pages / days:.1f}",
            _safe(busiest),
            f"{one.would_page} would page" if one.would_page else "",
        )
    live = sum(one.pages for one in found if not one.shadow)
    table.add_row("all live rules", "", "", "", "", "", str(live), f"{live / days:.1f}", "", "")
    Console(highlight=False).print(table)
