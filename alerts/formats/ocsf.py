"""OCSF Detection Finding (class 2004) with the profile `ai_operation`, of the version that `metadata.version` names.

Contract: an alert is one finding, whose `finding_info.uid` is the alert's id: opened creates it, worsened, reopened and
acknowledged update it, resolved closes it. `metadata.uid` is the notification's idempotency key. OCSF's own fields are
used where there are any, everything else is under `unmapped.awry`; unknown values are left out. A prompt's text is
there only where the destination asks for it and it was stored. Techniques that the rule names are in
`finding_info.attacks`, its other tags in `finding_info.tags`.

Does not know: who runs the model. `ai_provider`, which OCSF requires with a model's name, is `unknown`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from alerts.rules.references import address_of, is_owasp, other_tags, techniques
from alerts.senders.base import Notification
from alerts.text import coordinates, summary

VERSION = "1.9.0-dev"
_CLASS, _CATEGORY = 2004, 2
# (activity_id, its name, status_id, its name)
_ACTIVITIES = {
    "alert.opened": (1, "Create", 1, "New"),
    "alert.reopened": (2, "Update", 1, "New"),
    "alert.worsened": (2, "Update", 1, "New"),
    "alert.acknowledged": (2, "Update", 2, "In Progress"),
    "alert.resolved": (3, "Close", 4, "Resolved"),
}
_SEVERITIES = {"warning": (3, "Medium"), "error": (4, "High"), "critical": (5, "Critical")}
# analytic.type_id: a probe is learned, a rule without one is not.
_RULE, _LEARNED = (1, "Rule"), (4, "Learning (ML/DL)")
_UNMAPPED = (
    "dedup_key",
    "kind",
    "conversation_id",
    "score",
    "threshold",
    "units",
    "first_message",
    "top_message",
    "top_messages",
    "by",
)


def detection_finding(notification: Notification) -> dict[str, Any]:
    """A notification about one event as a Detection Finding."""
    data = notification.body["data"]
    activity, activity_name, status, status_name = _ACTIVITIES.get(notification.event, (2, "Update", 1, "New"))
    if activity == 2 and data.get("state") == "acknowledged":
        status, status_name = 2, "In Progress"
    severity, severity_name = _SEVERITIES[data["severity"]]
    at = _milliseconds(notification.body["timestamp"])
    finding = {
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": _CATEGORY,
        "category_name": "Findings",
        "class_uid": _CLASS,
        "class_name": "Detection Finding",
        "type_uid": _CLASS * 100 + activity,
        "type_name": f"Detection Finding: {activity_name}",
        "time": at,
        "severity_id": severity,
        "severity": severity_name,
        "status_id": status,
        "status": status_name,
        "message": summary(data),
        "count": data["count"],
        "is_alert": True,
        "metadata": _metadata(notification, data),
        "finding_info": _finding_info(data, at),
        "unmapped": {"awry": {name: data[name] for name in _UNMAPPED if data.get(name) is not None}},
    }
    if data.get("opened_at"):
        finding["start_time"] = _milliseconds(data["opened_at"])
    if data.get("model"):
        finding["ai_model"] = {"ai_provider": "unknown", "name": data["model"]}
    if data.get("top_message"):
        finding["evidences"] = [_evidence(data["top_message"])]
    if data.get("top_message") or data.get("text"):
        finding["message_context"] = _message_context(data)
    runbook = data.get("links", {}).get("runbook")
    read = [*([runbook] if runbook else []), *data.get("references", ())]
    if read:
        finding["remediation"] = {
            "desc": "the rule's runbook" if runbook else "the rule's references",
            "references": read,
        }
    return finding


def _metadata(notification: Notification, data: dict[str, Any]) -> dict[str, Any]:
    metadata = {
        "version": VERSION,
        "uid": str(notification.id),
        "correlation_uid": data["dedup_key"],
        "event_code": notification.event,
        "product": {"name": "awry", "vendor_name": "awry", "feature": {"name": data["rule"]}},
        "profiles": ["ai_operation"],
    }
    return metadata | ({"tenant_uid": data["tenant"]} if data.get("tenant") else {})


def _finding_info(data: dict[str, Any], at: int) -> dict[str, Any]:
    type_id, type_name = _LEARNED if data.get("probe") else _RULE
    finding_info: dict[str, Any] = {
        "uid": data["alert_id"],
        "title": f"{data['rule']}: {data['probe']}" if data.get("probe") else data["rule"],
        "modified_time": at,
        "analytic": {"name": data.get("probe") or data["rule"], "type_id": type_id, "type": type_name},
    }
    for name, source in (
        ("first_seen_time", "opened_at"),
        ("created_time", "opened_at"),
        ("last_seen_time", "last_seen_at"),
    ):
        if data.get(source):
            finding_info[name] = _milliseconds(data[source])
    if data.get("rule_id"):
        finding_info |= _rule(data)
    if data.get("tags"):
        finding_info |= _catalogued(data["tags"])
    links = data.get("links", {})
    return finding_info | ({"src_url": links["dashboard"]} if "dashboard" in links else {})


def _rule(data: dict[str, Any]) -> dict[str, Any]:
    """The rule with its id: what decided where there is no probe, else beside it."""
    rule = {"name": data["rule"], "uid": data["rule_id"], "type_id": _RULE[0], "type": _RULE[1]}
    return {"related_analytics": [rule]} if data.get("probe") else {"analytic": rule}


def _catalogued(tags: Sequence[str]) -> dict[str, Any]:
    attacks = [
        {"technique": _technique(technique)} | ({"sub_technique": _technique(sub)} if sub else {})
        for _, technique, sub in techniques(tags)
    ]
    rest = other_tags(tags)
    named = {"owasp_llm": [t for t in rest if is_owasp(t)], "tags": [t for t in rest if not is_owasp(t)]}
    listed = [{"name": name, "values": values} for name, values in named.items() if values]
    return ({"attacks": attacks} if attacks else {}) | ({"tags": listed} if listed else {})


def _technique(uid: str) -> dict[str, str]:
    return {"uid": uid, "src_url": address_of(uid)}


def _evidence(message: dict[str, Any]) -> dict[str, Any]:
    return {"name": "top message", "uid": coordinates(message), "data": message}


def _message_context(data: dict[str, Any]) -> dict[str, Any]:
    message, text = data.get("top_message") or {}, data.get("text") or {}
    context: dict[str, Any] = {"ai_role_id": 0}
    if message.get("id"):
        context["uid"] = message["id"]
    if text.get("messages"):
        context["prompt_text"] = "\n".join(f"{turn['role']}: {turn['content']}" for turn in text["messages"])
    if text.get("response"):
        context["response_text"] = str(text["response"])
    return context


def _milliseconds(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).timestamp() * 1000)
