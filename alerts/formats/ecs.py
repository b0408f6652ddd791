"""Elastic Common Schema, of the version that `ecs.version` names: an alert of category `intrusion_detection`.

Contract: `event.id` is the notification's idempotency key, `rule.uuid` is left out and the alert's id is a label, since
ECS has no field for a finding's own id. Every field is one of ECS's; the rest is in `labels`, as text.
"""

from __future__ import annotations

from typing import Any

from alerts.senders.base import Notification
from alerts.text import coordinates, summary

VERSION = "9.5.0-dev"
_TYPES = {"alert.opened": "start", "alert.resolved": "end"}
# event.severity is the source's own; these are the numbers that Elastic's detection rules use as risk scores.
_SEVERITIES = {"warning": 47, "error": 73, "critical": 99}
_LABELS = (
    "alert_id",
    "dedup_key",
    "kind",
    "severity",
    "state",
    "conversation_id",
    "score",
    "threshold",
    "units",
    "count",
    "by",
)


def ecs_event(notification: Notification) -> dict[str, Any]:
    """A notification about one event as an ECS document."""
    data = notification.body["data"]
    links = data.get("links", {})
    event: dict[str, Any] = {
        "kind": "alert",
        "category": ["intrusion_detection"],
        "type": [_TYPES.get(notification.event, "change")],
        "id": str(notification.id),
        "action": notification.event,
        "module": "awry",
        "dataset": "awry.alert",
        "provider": "awry",
        "severity": _SEVERITIES[data["severity"]],
        "risk_score": float(_SEVERITIES[data["severity"]]),
    }
    if data.get("opened_at"):
        event["start"] = data["opened_at"]
    if notification.event == "alert.resolved":
        event["end"] = notification.body["timestamp"]
    if "dashboard" in links:
        event["url"] = links["dashboard"]
    rule = {"name": data["rule"], "category": data.get("kind") or "threshold", "ruleset": "awry"}
    if "runbook" in links:
        rule["reference"] = links["runbook"]
    labels = {name: str(data[name]) for name in _LABELS if data.get(name) is not None}
    if data.get("probe"):
        labels["probe"] = data["probe"]
    if data.get("top_message"):
        labels["top_message"] = coordinates(data["top_message"])
        if data["top_message"].get("id"):
            labels["top_message_id"] = data["top_message"]["id"]
    document: dict[str, Any] = {
        "@timestamp": notification.body["timestamp"],
        "ecs": {"version": VERSION},
        "message": summary(data),
        "event": event,
        "rule": rule,
        "labels": labels,
        "observer": {"vendor": "awry", "product": "awry", "type": "llm-monitor"},
    }
    if data.get("tenant"):
        document["organization"] = {"id": data["tenant"]}
    gen_ai = _gen_ai(data)
    return document | ({"gen_ai": gen_ai} if gen_ai else {})


def _gen_ai(data: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if data.get("model"):
        fields["request"] = {"model": data["model"]}
    text = data.get("text") or {}
    if text.get("messages"):
        fields["input"] = {"messages": text["messages"]}
    if text.get("response"):
        fields["output"] = {"messages": [{"role": "assistant", "content": text["response"]}]}
    return fields
