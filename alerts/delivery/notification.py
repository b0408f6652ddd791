"""The body of a notification: made once, when its events are grouped, and sent unchanged on every attempt.

Contract: `notification_body` gives `type`, `timestamp` and `data` of the most severe of the events, what its rule says
of itself (`rule_id`, `tags`, `references`), `data.links`, and, where events are grouped, `data.group`: its key, how
many alerts and events there are, the other alerts by severity (at most MAX_OTHERS, `left_out` counts the rest), and
`standing`, how many alerts of the group are open, acknowledged and silenced by now. In a grouped notification about
firing alerts the count, the score and the top messages are those of the moment, since the group waited. There is no
prompt text in it, unless the destination asks for the text of the top message and it was stored.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select

from alerts.links import Links
from alerts.rules.model import SEVERITIES
from alerts.senders.base import kind_of_event
from storage.schema import alerts, messages, outbox

MAX_OTHERS = 20
_OTHERS_FIELDS = (
    "alert_id",
    "dedup_key",
    "rule",
    "severity",
    "probe",
    "tenant",
    "model",
    "count",
    "score",
    "threshold",
    "units",
)


@dataclass(frozen=True)
class AlertEvent:
    """One event, with the body that it was enqueued with."""

    alert_id: uuid.UUID
    event: str
    body: dict[str, Any]


def notification_body(
    connection: Connection,
    events: Sequence[AlertEvent],
    destination: str,
    group_key: str,
    *,
    grouped: bool,
    links: Links,
    include_text: bool,
) -> dict[str, Any]:
    """The body of a notification about these events."""
    latest = {event.alert_id: event for event in events}
    ranked = sorted(latest.values(), key=_severity_and_score, reverse=True)
    head = ranked[0]
    body = copy.deepcopy(head.body)
    data: dict[str, Any] = body["data"]
    data |= links.about(data["rule"])
    if grouped:
        rows = _alert_rows(connection, [event.alert_id for event in ranked[: MAX_OTHERS + 1]])
        if kind_of_event(head.event) == "firing":
            _update_from_row(data, rows.get(head.alert_id))
        data["group"] = {
            "key": group_key,
            "alerts": len(ranked),
            "events": len(events),
            "others": [_other(event, rows.get(event.alert_id)) for event in ranked[1 : MAX_OTHERS + 1]],
            "left_out": max(0, len(ranked) - 1 - MAX_OTHERS),
            "standing": live_alerts_by_state(connection, destination, group_key),
        }
    urls = links.of(data)
    if urls:
        data["links"] = urls
    text = _stored_text(connection, data.get("top_message")) if include_text else None
    if text is not None:
        data["text"] = text
    return body


def live_alerts_by_state(connection: Connection, destination: str, group_key: str) -> dict[str, int]:
    """Of the alerts of a group that this destination was notified of, how many are in each state but `resolved`."""
    notified = select(outbox.c.alert_id).where(
        outbox.c.destination == destination, outbox.c.group_key == group_key, outbox.c.held_by.is_(None)
    )
    query = (
        select(alerts.c.state, func.count())
        .where(alerts.c.id.in_(notified), alerts.c.state != "resolved")
        .group_by(alerts.c.state)
    )
    counts = {state: int(n) for state, n in connection.execute(query)}
    return {state: counts.get(state, 0) for state in ("open", "acknowledged", "silenced")}


def _severity_and_score(event: AlertEvent) -> tuple[int, float]:
    data = event.body["data"]
    return SEVERITIES.index(data["severity"]), float(data["score"])


def _alert_rows(connection: Connection, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, RowMapping]:
    columns = (alerts.c.id, alerts.c.count, alerts.c.top_score, alerts.c.top_message, alerts.c.last_seen_at)
    rows = connection.execute(select(*columns).where(alerts.c.id.in_(ids))).mappings()
    return {row["id"]: row for row in rows}


def _update_from_row(data: dict[str, Any], row: RowMapping | None) -> None:
    if row is not None:
        data |= {"count": row["count"], "score": round(row["top_score"], 6), "top_message": row["top_message"]}
        data["last_seen_at"] = row["last_seen_at"].isoformat(timespec="seconds")


def _other(event: AlertEvent, row: RowMapping | None) -> dict[str, Any]:
    data = dict(event.body["data"])
    _update_from_row(data, row)
    return {"event": event.event} | {name: data.get(name) for name in _OTHERS_FIELDS}


def _stored_text(connection: Connection, message: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The text of a message, where the privacy setting let it be stored, else None."""
    if not message:
        return None
    query = select(messages.c.text).where(
        messages.c.source == message["source"],
        messages.c.partition == message["partition"],
        messages.c.offset == message["offset"],
        messages.c.sub == (message.get("sub") or 0),
        messages.c.text.is_not(None),
    )
    text = connection.execute(query.limit(1)).scalar()
    return dict(text) if text else None
