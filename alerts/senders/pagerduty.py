"""PagerDuty Events v2: one incident for each group of alerts, by its dedup key.

Contract: a notification about firing alerts triggers; any other acknowledges once no alert of the group is open, and
resolves once none is open or acknowledged. The alerts were counted when the notification was formed
(`data.group.standing`), and the notifications of a group are sent in order. A repeated trigger updates the same
incident.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from alerts.destinations import PAGERDUTY
from alerts.senders.base import Notification, kind_of_event
from alerts.senders.http import Poster
from alerts.text import summary, title

Action = Literal["trigger", "acknowledge", "resolve"]
PATH = "/v2/enqueue"
_SUMMARY_LENGTH = 1024
_KEY_LENGTH = 255


class PagerDutySender:
    """Sends to one PagerDuty service, by its integration's routing key."""

    def __init__(self, poster: Poster, routing_key: str) -> None:
        self._poster = poster
        self._routing_key = routing_key

    def send(self, notification: Notification) -> None:
        data = notification.body["data"]
        action = _action(notification)
        if action is None:
            return
        body: dict[str, Any] = {
            "routing_key": self._routing_key,
            "event_action": action,
            "dedup_key": _key(str(data.get("group", {}).get("key") or data["dedup_key"])),
        }
        if action == "trigger":
            body |= _details(notification, data)
        self._poster.post(json.dumps(body).encode())


def address(base: str) -> str:
    """The URL for events; the base is configurable, for the EU and for tests."""
    return (base or PAGERDUTY).rstrip("/") + PATH


def _action(notification: Notification) -> Action | None:
    if kind_of_event(notification.event) == "firing":
        return "trigger"
    group = notification.body["data"].get("group")
    if group is None:  # not grouped: the notification is about one alert
        return {"alert.acknowledged": "acknowledge", "alert.resolved": "resolve"}.get(notification.event)  # type: ignore[return-value]
    if group["standing"]["open"]:
        return None
    return "acknowledge" if group["standing"]["acknowledged"] else "resolve"


def _details(notification: Notification, data: dict[str, Any]) -> dict[str, Any]:
    details = {name: value for name, value in data.items() if name not in ("links", "text")}
    links = data.get("links", {})
    return {
        "client": "awry",
        **({"client_url": links["dashboard"]} if "dashboard" in links else {}),
        "links": [{"href": url, "text": name} for name, url in links.items()],
        "payload": {
            "summary": summary(data)[:_SUMMARY_LENGTH],
            "source": title(data.get("model") or "awry"),
            "severity": data["severity"],
            "timestamp": notification.body["timestamp"],
            "component": data.get("probe") or data["rule"],
            "group": data.get("tenant") or "",
            "class": data["rule"],
            "custom_details": {**details, "page": str(notification.id)},
        },
    }


def _key(key: str) -> str:
    """At most PagerDuty's 255 characters; a longer key is its beginning and a hash of the whole."""
    key = f"awry:{key}"
    if len(key) <= _KEY_LENGTH:
        return key
    return key[: _KEY_LENGTH - 17] + ":" + hashlib.sha256(key.encode()).hexdigest()[:16]
