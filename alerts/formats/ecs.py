"""Elastic Common Schema, of the version that `ecs.version` names: an alert of category `intrusion_detection`.

Contract: `event.id` is the notification's idempotency key, `rule.uuid` is left out and the alert's id is a label, since
ECS has no field for a finding's own id. Techniques that the rule names are in `threat`, its other tags in `tags`. Every
field is one of ECS's; the rest is in `labels`, as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alerts.rules.references import address_of, techniques
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
    rule: dict[str, Any] = {"name": data["rule"], "category": data.get("kind") or "threshold", "ruleset": "awry"}
    if data.get("rule_id"):
        rule["id"] = data["rule_id"]
    labels = {name: str(data[name]) for name in _LABELS if data.get(name) is not None}
    read = [*([links["runbook"]] if "runbook" in links else []), *data.get("references", ())]
    if read:
        # A field of one value.
        rule["reference"] = read[0]
    if read[1:]:
        labels["references"] = " ".join(read[1:])
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
    document |= _catalogued(data.get("tags", ()))
    if data.get("tenant"):
        document["organization"] = {"id": data["tenant"]}
    gen_ai = _gen_ai(data)
    return document | ({"gen_ai": gen_ai} if gen_ai else {})


def _catalogued(tags: Sequence[str]) -> dict[str, Any]:
    """`threat` has one framework: of the catalogues that a rule names, the first; the rest are plain tags."""
    found = techniques(tags)
    if not found:
        return {"tags": list(tags)} if tags else {}
    framework = found[0][0]
    of_it = [(technique, sub) for catalogue, technique, sub in found if catalogue == framework]
    ids, subs = list(dict.fromkeys(t for t, _ in of_it)), list(dict.fromkeys(s for _, s in of_it if s))
    technique: dict[str, Any] = {"id": ids, "reference": [address_of(each) for each in ids]}
    if subs:
        technique["subtechnique"] = {"id": subs, "reference": [address_of(each) for each in subs]}
    used = {sub or technique_id for technique_id, sub in of_it}
    rest = [tag for tag in tags if tag not in used]
    return {"threat": {"framework": framework, "technique": technique}} | ({"tags": rest} if rest else {})


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
