"""A made-up alert, to see whether a destination takes alerts: it opens and is resolved."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from alerts.delivery.channel import Courier
from alerts.destinations import Destination
from alerts.senders.base import Event


def trial_events(one: Destination, courier: Courier, now: datetime) -> list[Event]:
    """What the destination would get of an alert that opens and is resolved."""
    alert_id = str(uuid.uuid4())
    return [_event(one, courier, alert_id, name, now) for name in ("alert.opened", "alert.resolved")]


def _event(one: Destination, courier: Courier, alert_id: str, name: str, now: datetime) -> Event:
    at = now.isoformat(timespec="seconds")
    data: dict[str, Any] = {
        "alert_id": alert_id,
        "dedup_key": f"trial:{one.name}",
        "rule": "trial",
        "kind": "threshold",
        "state": "open" if name == "alert.opened" else "resolved",
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
    links = courier.links.of(data)
    if courier.refresh is not None:
        firing = name == "alert.opened"
        ends = now + courier.refresh * 4 if firing else now
        entry = {**data, "firing": firing, "starts_at": at, "ends_at": ends.isoformat(), "links": links}
        return Event(uuid.uuid4(), one.name, name, {"alerts": [entry]}, 1, now)
    body = {"type": name, "timestamp": at, "data": data | ({"links": links} if links else {})}
    return Event(uuid.uuid4(), one.name, name, body, 1, now)
