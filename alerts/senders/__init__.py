"""Destinations: one module each, behind the `Sender` protocol of `base`."""

from __future__ import annotations

from collections.abc import Iterable

from alerts.senders.base import Destination, Sender
from alerts.senders.console import ConsoleSender
from alerts.senders.webhook import WebhookSender


def make_senders(destinations: Iterable[Destination]) -> dict[str, Sender]:
    """A sender for each configured destination, by name."""
    made: dict[str, Sender] = {}
    for one in destinations:
        made[one.name] = (
            ConsoleSender() if one.kind == "console" else WebhookSender(one.url, one.secret.get_secret_value())
        )
    return made
