"""Prints alerts, one line each: for a first look and for containers whose logs are shipped."""

from __future__ import annotations

import sys

from alerts.senders.base import Notification
from alerts.text import printable


class ConsoleSender:
    """One line for each notification on standard output."""

    def send(self, notification: Notification) -> None:
        data = notification.body["data"]
        line = (
            f"{notification.body['timestamp']} {data['severity'].upper():8} {notification.event} {data['dedup_key']} "
            f"count={data['count']} score={data['score']:.2f} threshold={data['threshold']:.2f} id={data['alert_id']}"
        )
        sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()
