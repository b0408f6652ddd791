"""Notifications and destinations as a table, and as a JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from monitor.cli.render.tables import print_line, print_table, utc

if TYPE_CHECKING:
    from datetime import datetime

    from alerts.delivery.admin import OutboxEntry
    from alerts.routing.routing import Routing


def outbox_document(
    entries: Sequence[OutboxEntry], destinations: Sequence[Mapping[str, Any]], events: Mapping[str, int]
) -> dict[str, Any]:
    """What `awry outbox list --json` prints."""
    return {
        "notifications": [asdict(entry) for entry in entries],
        "destinations": [dict(destination) for destination in destinations],
        "events": dict(events),
    }


def routes_document(routing: Routing, alert: Mapping[str, Any], at: datetime) -> list[dict[str, Any]]:
    """By destination, in order: the routes that lead there, and what would hold a notification then."""
    found = []
    for name, routes in routing.destinations(alert).items():
        held = routing.held(routes, at)
        until = held.until.isoformat() if held is not None and held.until is not None else None
        held_by = held.by if held is not None else None
        found.append({"destination": name, "routes": routes, "held_by": held_by, "until": until})
    return found


def print_routes(document: Sequence[Mapping[str, Any]]) -> None:
    """One line a destination."""
    for row in document:
        held = f"; held: {row['held_by']}" if row["held_by"] else ""
        until = f" until {row['until']}" if row["until"] else ""
        print_line(f"{row['destination']}  by {', '.join(row['routes'])}{held}{until}")


def print_outbox(document: Mapping[str, Any]) -> None:
    """One line a notification, one a destination, and the number of events."""
    print_table(
        ("notification", "destination", "state", "event", "severity", "alert", "events", "tries", "due", "error"),
        (
            (
                str(row["id"])[:8],
                row["destination"],
                row["state"] if row["formed"] else "waiting",
                row["event"],
                row["severity"],
                row["dedup_key"],
                row["events"],
                row["attempts"],
                utc(row["due_at"]) if row["state"] == "pending" else "",
                row["last_error"] or (f"held: {row['held_by']}" if row["held_by"] else ""),
            )
            for row in document["notifications"]
        ),
    )
    for destination in document["destinations"]:
        print_line(f"{destination['name']}: {_health(destination)}")
    print_line("events: " + ", ".join(f"{n} {state}" for state, n in document["events"].items()))


def _health(destination: Mapping[str, Any]) -> str:
    error = destination["last_error"]
    if destination["disabled_at"] is not None:
        return f"disabled since {utc(destination['disabled_at'])} ({error}); awry outbox enable NAME"
    if destination["failures"]:
        return f"{destination['failures']} failures in a row ({error}), next try {utc(destination['held_until'])}"
    return "answers"
