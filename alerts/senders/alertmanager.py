"""Alertmanager, API v2: labels identify an alert, annotations describe it.

Contract: a post holds alerts as `alerts.delivery.resend` lists them. Firing ones have an `endsAt` a few intervals
ahead, so that they end by themselves when awry is down; ended ones have the time of their end. Alertmanager accepts the
same alert any number of times, so no idempotency key is needed. Of two alerts with the same labels (one was resolved,
another opened) the later one is sent.
"""

from __future__ import annotations

import json
from typing import Any

from alerts.senders.base import Notification
from alerts.senders.http import Poster
from alerts.text import summary, top_message

# Alerts in one post.
_CHUNK = 200


class AlertmanagerSender:
    """Posts to one Alertmanager; each member of a cluster is a destination of its own."""

    def __init__(self, poster: Poster) -> None:
        self._poster = poster

    def send(self, notification: Notification) -> None:
        # Oldest first: of equal labels, the last one stays.
        to_post = list({_identity(a): a for a in map(_alert, notification.body["alerts"])}.values())
        for start in range(0, len(to_post), _CHUNK):
            self._poster.post(json.dumps(to_post[start : start + _CHUNK]).encode())


def _identity(alert: dict[str, Any]) -> str:
    return json.dumps(alert["labels"], sort_keys=True)


def _alert(entry: dict[str, Any]) -> dict[str, Any]:
    names = ("rule", "kind", "severity", "probe", "tenant", "model", "conversation_id")
    labels = {name: entry[name] for name in names if entry.get(name)}
    annotations = {
        "summary": summary(entry),
        "alert_id": entry["alert_id"],
        "dedup_key": entry["dedup_key"],
        "state": entry["state"],
        "count": str(entry["count"]),
        "score": f"{entry['score']:g}",
        "threshold": f"{entry['threshold']:g}",
        "units": entry["units"],
    }
    message = top_message(entry)
    if message:
        annotations["top_message"] = message
    for name in ("rule_id", "tags", "references"):
        if entry.get(name):
            annotations[name] = entry[name] if isinstance(entry[name], str) else " ".join(entry[name])
    links = entry["links"]
    if "runbook" in links:
        annotations["runbook_url"] = links["runbook"]
    alert = {
        "labels": {"alertname": "awry", **labels},
        "annotations": annotations,
        "startsAt": entry["starts_at"],
        "endsAt": entry["ends_at"],
    }
    return alert | ({"generatorURL": links["dashboard"]} if "dashboard" in links else {})
