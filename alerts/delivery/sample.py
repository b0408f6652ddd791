"""Sample notifications (`awry outbox test`): an alert that opens and resolves, to see whether a destination works."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from alerts.delivery.channel import Channel
from alerts.delivery.resend import MISSED_RESENDS
from alerts.destinations import Destination
from alerts.senders.base import Notification


def sample_notifications(destination: Destination, channel: Channel, now: datetime) -> list[Notification]:
    """What the destination gets for an alert that opens and is resolved."""
    alert_id = str(uuid.uuid4())
    return [_sample(destination.name, channel, alert_id, event, now) for event in ("alert.opened", "alert.resolved")]


def _sample(destination: str, channel: Channel, alert_id: str, event: str, now: datetime) -> Notification:
    at = now.isoformat(timespec="seconds")
    opened = event == "alert.opened"
    data: dict[str, Any] = {
        "alert_id": alert_id,
        "dedup_key": f"trial:{destination}",
        "rule": "trial",
        "kind": "threshold",
        "state": "open" if opened else "resolved",
        "severity": "warning",
        "probe": "trial",
        "tenant": None,
        "model": None,
        "conversation_id": None,
        "count": 1,
        "score": 0.6,
        "threshold": 0.5,
        "units": "class gaps",
        "top_message": None,
        "opened_at": at,
        "last_seen_at": at,
    }
    links = channel.links.of(data)
    body: dict[str, Any] = {"type": event, "timestamp": at, "data": data | ({"links": links} if links else {})}
    if channel.resend_every is not None:
        ends_at = now + channel.resend_every * MISSED_RESENDS if opened else now
        times = {"firing": opened, "starts_at": at, "ends_at": ends_at.isoformat()}
        body = {"alerts": [{**data, **times, "links": links}]}
    return Notification(uuid.uuid4(), destination, event, body, 1, now)
