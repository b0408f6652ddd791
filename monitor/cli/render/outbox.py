"""Notifications and destinations as a table, and as a JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from monitor.cli.render.tables import print_line, print_table, utc

if TYPE_CHECKING:
    from alerts.delivery.admin import OutboxEntry


def outbox_document(
    entries: Sequence[OutboxEntry], destinations: Sequence[Mapping[str, Any]], events: Mapping[str, int]
) -> dict[str, Any]:
    """What `awry outbox list --json` prints."""
    return {
        "notifications": [asdict(entry) for entry in entries],
        "destinations": [dict(destination) for destination in destinations],
        "events": dict(events),
    }


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
                row["last_error"] or "",
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
