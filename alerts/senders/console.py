"""Prints alerts, one line each: for a first look and for containers whose logs are shipped."""

from __future__ import annotations

import sys

from alerts.senders.base import Event
from alerts.text import printable


class ConsoleSender:
    """One line an event on standard output."""

    def send(self, event: Event) -> None:
        data = event.body["data"]
        line = (
            f"{event.body['timestamp']} {data['severity'].upper():8} {event.event} {data['dedup_key']} "
            f"count={data['count']} score={data['score']:.2f} threshold={data['threshold']:.2f} id={data['alert_id']}"
        )
        sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()
