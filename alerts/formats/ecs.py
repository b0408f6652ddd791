"""Elastic Common Schema, of the version that `ecs.version` names: an alert of category `intrusion_detection`.

Contract: `event.id` is the event's idempotency key, `rule.uuid` is left out and the alert's id is a label, since ECS
has no place for a finding's own id. Every field is one of ECS's; what has none is in `labels`, as text.
"""

from __future__ import annotations

from typing import Any

from alerts.formats.ocsf import coordinates
from alerts.senders.base import Event
from alerts.text import summary

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


def ecs_event(event: Event) -> dict[str, Any]:
    """One event as an ECS document."""
    data = event.body["data"]
    links = data.get("links", {})
    what: dict[str, Any] = {
        "kind": "alert",
        "category": ["intrusion_detection"],
        "type": [_TYPES.get(event.event, "change")],
        "id": str(event.id),
        "action": event.event,
        "module": "awry",
        "dataset": "awry.alert",
        "provider": "awry",
        "severity": _SEVERITIES[data["severity"]],
        "risk_score": float(_SEVERITIES[data["severity"]]),
    }
    if data.get("opened_at"):
        what["start"] = data["opened_at"]
    if event.event == "alert.resolved":
        what["end"] = event.body["timestamp"]
    if "dashboard" in links:
        what["url"] = links["dashboard"]
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
        "@timestamp": event.body["timestamp"],
        "ecs": {"version": VERSION},
        "message": summary(data),
        "event": what,
        "rule": rule,
        "labels": labels,
        "observer": {"vendor": "awry", "product": "awry", "type": "llm-monitor"},
    }
    if data.get("tenant"):
        document["organization"] = {"id": data["tenant"]}
    gen_ai = _gen_ai(data)
    return document | ({"gen_ai": gen_ai} if gen_ai else {})


def _gen_ai(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if data.get("model"):
        found["request"] = {"model": data["model"]}
    text = data.get("text") or {}
    if text.get("messages"):
        found["input"] = {"messages": text["messages"]}
    if text.get("response"):
        found["output"] = {"messages": [{"role": "assistant", "content": text["response"]}]}
    return found
