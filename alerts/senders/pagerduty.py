"""PagerDuty Events v2: one incident a group of alerts, by its dedup key.

Contract: news of firing alerts triggers; any other news acknowledges once no alert of the group is open, and resolves
once none is open or acknowledged. Which alerts those are was counted when the page was made (`data.group.standing`),
and pages of a group go out in order. A trigger that is repeated meets the same incident.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from alerts.delivery.grouping import news_of
from alerts.destinations import PAGERDUTY
from alerts.senders.base import Event
from alerts.senders.http import Poster
from alerts.text import summary, title

Action = Literal["trigger", "acknowledge", "resolve"]
PATH = "/v2/enqueue"
_SUMMARY_LENGTH = 1024
_KEY_LENGTH = 255


class PagerDutySender:
    """Speaks for one service, by its integration's routing key."""

    def __init__(self, poster: Poster, routing_key: str) -> None:
        self._poster = poster
        self._routing_key = routing_key

    def send(self, event: Event) -> None:
        data = event.body["data"]
        action = _action(event)
        if action is None:
            return
        body: dict[str, Any] = {
            "routing_key": self._routing_key,
            "event_action": action,
            "dedup_key": _key(str(data.get("group", {}).get("key") or data["dedup_key"])),
        }
        if action == "trigger":
            body |= _details(event, data)
        self._poster.post(json.dumps(body).encode())


def address(base: str) -> str:
    """Where events go; the base is a setting, for the EU and for tests."""
    return (base or PAGERDUTY).rstrip("/") + PATH


def _action(event: Event) -> Action | None:
    if news_of(event.event) == "firing":
        return "trigger"
    group = event.body["data"].get("group")
    if group is None:  # the page is about one alert
        return {"alert.acknowledged": "acknowledge", "alert.resolved": "resolve"}.get(event.event)  # type: ignore[return-value]
    if group["standing"]["open"]:
        return None
    return "acknowledge" if group["standing"]["acknowledged"] else "resolve"


def _details(event: Event, data: dict[str, Any]) -> dict[str, Any]:
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
            "timestamp": event.body["timestamp"],
            "component": data.get("probe") or data["rule"],
            "group": data.get("tenant") or "",
            "class": data["rule"],
            "custom_details": {**details, "page": str(event.id)},
        },
    }


def _key(key: str) -> str:
    """PagerDuty takes 255 characters; a longer key keeps its beginning and a hash of all of it."""
    key = f"awry:{key}"
    if len(key) <= _KEY_LENGTH:
        return key
    return key[: _KEY_LENGTH - 17] + ":" + hashlib.sha256(key.encode()).hexdigest()[:16]
