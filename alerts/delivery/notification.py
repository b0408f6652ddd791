"""What a page says: made once, when its events are folded, and sent as it is on every try.

Contract: `make_page` gives `type`, `timestamp` and `data` of the gravest of the folded events, `data.links`, and, where
events are grouped, `data.group`: its key, how many alerts and events the page is about, the other alerts by gravity (at
most MOST_OTHERS, `left_out` counts the rest), and `standing`, how many alerts of the group are open, acknowledged and
silenced by now. In a grouped page about firing alerts the count, the score and the top messages are those of the
moment, since the group waited for them. There is no prompt text in it, unless the destination asks for the text of the
top message and it was stored.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select

from alerts.delivery.grouping import news_of
from alerts.links import Links
from alerts.rules.model import SEVERITIES
from storage.schema import alerts, messages, outbox

MOST_OTHERS = 20
_BRIEF = (
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
class Folded:
    """One event of a page, as its transaction left it."""

    alert_id: uuid.UUID
    event: str
    body: dict[str, Any]


def make_page(
    connection: Connection,
    events: Sequence[Folded],
    destination: str,
    group_key: str,
    *,
    grouped: bool,
    links: Links,
    include_text: bool,
) -> dict[str, Any]:
    """The body of a page about these events."""
    latest = {one.alert_id: one for one in events}
    ranked = sorted(latest.values(), key=_gravity, reverse=True)
    head = ranked[0]
    page = copy.deepcopy(head.body)
    data: dict[str, Any] = page["data"]
    if grouped:
        current = _current(connection, [one.alert_id for one in ranked[: MOST_OTHERS + 1]])
        if news_of(head.event) == "firing":
            _refresh(data, current.get(head.alert_id))
        data["group"] = {
            "key": group_key,
            "alerts": len(ranked),
            "events": len(events),
            "others": [_brief(one, current.get(one.alert_id)) for one in ranked[1 : MOST_OTHERS + 1]],
            "left_out": max(0, len(ranked) - 1 - MOST_OTHERS),
            "standing": standing(connection, destination, group_key),
        }
    found = links.of(data)
    if found:
        data["links"] = found
    text = _text(connection, data.get("top_message")) if include_text else None
    if text is not None:
        data["text"] = text
    return page


def standing(connection: Connection, destination: str, group_key: str) -> dict[str, int]:
    """Alerts of a group that this destination was told of, by state; those resolved are left out."""
    told = select(outbox.c.alert_id).where(outbox.c.destination == destination, outbox.c.group_key == group_key)
    query = (
        select(alerts.c.state, func.count())
        .where(alerts.c.id.in_(told), alerts.c.state != "resolved")
        .group_by(alerts.c.state)
    )
    counts = {state: int(n) for state, n in connection.execute(query)}
    return {state: counts.get(state, 0) for state in ("open", "acknowledged", "silenced")}


def _gravity(one: Folded) -> tuple[int, float]:
    data = one.body["data"]
    return SEVERITIES.index(data["severity"]), float(data["score"])


def _current(connection: Connection, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, RowMapping]:
    columns = (alerts.c.id, alerts.c.count, alerts.c.top_score, alerts.c.top_message, alerts.c.last_seen_at)
    rows = connection.execute(select(*columns).where(alerts.c.id.in_(ids))).mappings()
    return {row["id"]: row for row in rows}


def _refresh(data: dict[str, Any], row: RowMapping | None) -> None:
    if row is not None:
        data |= {"count": row["count"], "score": round(row["top_score"], 6), "top_message": row["top_message"]}
        data["last_seen_at"] = row["last_seen_at"].isoformat(timespec="seconds")


def _brief(one: Folded, row: RowMapping | None) -> dict[str, Any]:
    data = dict(one.body["data"])
    _refresh(data, row)
    return {"event": one.event} | {name: data.get(name) for name in _BRIEF}


def _text(connection: Connection, message: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the owner chose to store of a message, else None."""
    if not message:
        return None
    query = select(messages.c.text).where(
        messages.c.source == message["source"],
        messages.c.partition == message["partition"],
        messages.c.offset == message["offset"],
        messages.c.text.is_not(None),
    )
    found = connection.execute(query.limit(1)).scalar()
    return dict(found) if found else None
