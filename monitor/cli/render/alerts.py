"""Alerts, silences and verdicts as tables. Names come from outside: control characters are escaped."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alerts.text import coordinates
from monitor.cli.render.tables import print_line, print_table, utc

if TYPE_CHECKING:
    from sqlalchemy import Connection

_TOP = 10


def print_alerts(rows: Iterable[Mapping[str, Any]]) -> None:
    """One line an alert."""
    columns = ("id", "severity", "state", "verdict", "alert", "count", "score", "opened", "last seen", "top message")
    print_table(
        columns,
        (
            (
                str(row["id"])[:8],
                row["severity"],
                row["state"] + (" (inhibited)" if row["inhibited_by"] else ""),
                row["verdict"] or "",
                row["dedup_key"],
                row["count"],
                f"{row['top_score']:.2f}",
                utc(row["opened_at"]),
                utc(row["last_seen_at"]),
                _place(row["top_message"]),
            )
            for row in rows
        ),
    )


def alert_details(connection: Connection, alert_id: uuid.UUID) -> dict[str, Any]:
    """One alert with its messages, history and deliveries. Raises UnknownAlertError."""
    from alerts.errors import UnknownAlertError
    from alerts.lifecycle.enqueue import top_messages
    from storage.queries.alerts import alert_by_id, alert_deliveries, alert_history

    row = alert_by_id(connection, alert_id)
    if row is None:
        raise UnknownAlertError(f"alert: {alert_id} is not known; see awry alerts list")
    return {
        "alert": row,
        "messages": top_messages(connection, alert_id, _TOP),
        "history": alert_history(connection, alert_id),
        "deliveries": alert_deliveries(connection, alert_id),
    }


def print_alert(details: Mapping[str, Any]) -> None:
    """One alert, then a table for each of the rest that has rows."""
    alert = details["alert"]
    print_table(("", ""), _facts(alert), title=alert["dedup_key"], header=False)
    messages = [(f"{row['score']:.3f}", row["id"] or "", _place(row)) for row in details["messages"]]
    _print_part("highest scores", ("score", "message", "coordinates"), messages)
    history = [
        (
            utc(row["at"]),
            row["who"],
            f"{row['via']} {row['origin'] or ''}",
            row["action"],
            _changed(row["before"]),
            _changed(row["after"]),
        )
        for row in details["history"]
    ]
    _print_part("history", ("when", "who", "from", "what", "before", "after"), history)
    deliveries = [
        (utc(row["created_at"]), row["event"], row["destination"], row["attempts"], _outcome(row))
        for row in details["deliveries"]
    ]
    _print_part("deliveries", ("when", "event", "to", "tries", "outcome"), deliveries)


def _print_part(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if rows:
        print_line()
        print_table(columns, rows, title=title)


def _place(message: Mapping[str, Any] | None) -> str:
    return coordinates(message) if message else ""


def _facts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("id", str(row["id"])),
        ("state", row["state"]),
        ("severity", row["severity"]),
        *((name, row[name]) for name in ("rule", "probe", "tenant", "model", "conversation_id") if row[name]),
        ("measured", f"{row['top_score']:.3f} {row['units']}, limit {row['threshold']:.3f}"),
        ("count", str(row["count"])),
        ("seen", f"{utc(row['opened_at'])} to {utc(row['last_seen_at'])}"),
        ("first message", _place(row["first_message"])),
        ("reopened", str(row["reopened"]) if row["reopened"] else ""),
        ("inhibited by", ", ".join(str(each)[:8] for each in row["inhibited_by"] or ())),
        ("not resolved", row["held_open"] or ""),
        ("silenced until", utc(row["silenced_until"]) if row["state"] == "silenced" else ""),
    ]
    for name in ("acknowledged", "resolved", "verdict"):
        at, actor = row[f"{name}_at"], row[f"{name}_by"]
        verdict = f"{row['verdict']}, " if name == "verdict" else ""
        facts.append((name, f"{verdict}{utc(at)} by {actor}" if at is not None else ""))
    return [(name, value) for name, value in facts if value]


def _changed(value: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {value[name]}" for name in sorted(value)) if value else ""


def _outcome(row: Mapping[str, Any]) -> str:
    if row["delivered_at"] is not None:
        return f"sent {utc(row['delivered_at'])}"
    error = row["last_error"] or (f"held: {row['held_by']}" if row["held_by"] else "")
    return f"given up: {error}" if row["dead_at"] is not None else f"waits {error}".strip()


def print_silences(rows: Iterable[Mapping[str, Any]]) -> None:
    """One line a silence."""
    print_table(
        ("id", "matches", "up to", "until", "by", "why"),
        (
            (
                str(row["id"])[:8],
                _matches(row),
                row["severity"],
                utc(row["ends_at"]),
                row["created_by"],
                row["comment"],
            )
            for row in rows
        ),
    )


def _matches(row: Mapping[str, Any]) -> str:
    names = ("dedup_key", "rule", "probe", "tenant", "model")
    return ", ".join(f"{name} {row[name]}" for name in names if row[name] is not None)


def precision_rows(counts: Mapping[tuple[str, str | None], Mapping[str | None, int]]) -> list[dict[str, Any]]:
    """The share of judged alerts that were right. An authorised test is right: the detector saw what was there."""
    # Heavy, and of no use to the other tables.
    from probes.evaluation import rate

    rows = []
    for (rule, probe), number in counts.items():
        true, test, false = (number.get(name, 0) for name in ("true", "authorised_test", "false"))
        judged = true + test + false
        rows.append(
            {
                "rule": rule,
                "probe": probe,
                "true": true,
                "authorised_test": test,
                "false": false,
                "not_judged": number.get(None, 0),
                "precision": rate(true + test, judged) if judged else None,
            }
        )
    return rows


def print_precision(rows: Iterable[Mapping[str, Any]]) -> None:
    """One line a rule and probe."""
    counted = ("true", "authorised_test", "false", "not_judged")
    print_table(
        ("rule", "probe", "true", "authorised test", "false", "not judged", "precision"),
        (
            (row["rule"], row["probe"] or "-", *(row[name] for name in counted), row["precision"] or "none judged")
            for row in rows
        ),
        note="95 % intervals; authorised tests count as right",
    )
