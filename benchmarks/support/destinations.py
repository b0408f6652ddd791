"""Destinations on loopback, and a clock for their delivery that goes when it is told to."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from alerts.delivery.channel import Channel, make_channel
from alerts.destinations import Destination
from alerts.links import Links

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class FakeClock:
    """The time of a delivery loop; it goes on when told to."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC) + timedelta(seconds=5)

    def __call__(self, _: Connection | None = None) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def to_webhook(url: str, **options: Any) -> Channel:
    """The channel of a webhook on loopback; ungrouped unless told otherwise."""
    values: dict[str, Any] = {
        "name": "pager",
        "kind": "webhook",
        "url": url,
        "secret": SECRET,
        "allow_private": True,
        "group_by": (),
    }
    return configured(**values | options)


def configured(links: Links = Links(), **options: Any) -> Channel:  # noqa: B008 - frozen
    """The channel of a destination as an owner writes it."""
    return make_channel(Destination(**options), links)
