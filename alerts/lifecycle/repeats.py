"""Which flagged messages only repeat what an alert was resolved for: the next turns of a conversation.

Each turn of a conversation is sent with its history, so what was flagged once is flagged again with every turn.
A flagged message is a repeat where an alert of its dedup key that was resolved within the rule's `repeat_within` has
a message of the same conversation, at no lower severity, and no live alert of the key has one. A conversation is
(tenant, conversation id); a message without an id repeats nothing. An alert that a judge resolved (`resolved_by`
begins with `judge `) has no repeats: what it called harmless was one turn, and the next one may be another matter.

Contract: `find_repeats` only reads, and costs one short query where no alert of the keys was resolved lately. It looks
at the newest `MAX_TURNS` messages of a conversation id: one that is longer, or shared by tenants, at worst notifies
once more.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, text

from alerts.rules.model import Conversation, Flagged, ThresholdRule, max_severity

MAX_TURNS = 1000

Group = tuple[ThresholdRule, str, Sequence[Flagged]]

_RESOLVED = text("""
    SELECT dedup_key, min(opened_at) AS since FROM alerts
    WHERE dedup_key = ANY(:keys) AND state = 'resolved' AND resolved_at > now() - CAST(:within AS interval)
        AND coalesce(resolved_by, '') NOT LIKE 'judge %'
    GROUP BY dedup_key
""")
# A message may be stored days before its score, when a topic is read again with another probe.
_EARLIER = text(f"""
    SELECT w.key, w.tenant, w.conversation, a.id, a.state = 'resolved' AS resolved, a.resolved_at, max(l.score) AS top
    FROM unnest(CAST(:keys AS text[]), CAST(:tenants AS text[]), CAST(:conversations AS text[]))
        AS w (key, tenant, conversation)
    JOIN alerts AS a ON a.dedup_key = w.key
        AND (a.state <> 'resolved' OR a.resolved_at > now() - CAST(:within AS interval)
            AND coalesce(a.resolved_by, '') NOT LIKE 'judge %')
    CROSS JOIN LATERAL (
        SELECT m.source, m.partition, m."offset", m.sub, m.day, m.tenant FROM messages AS m
        WHERE m.conversation_id = w.conversation AND m.day >= CAST(CAST(:since AS timestamptz) AS date) - 8
        ORDER BY m.ingested_at DESC LIMIT {MAX_TURNS}
    ) AS m
    JOIN alert_messages AS l ON l.alert_id = a.id AND l.source = m.source AND l.partition = m.partition
        AND l."offset" = m."offset" AND l.sub = m.sub AND l.day = m.day
    WHERE m.tenant IS NOT DISTINCT FROM w.tenant
    GROUP BY w.key, w.tenant, w.conversation, a.id
""")  # noqa: S608 - our own number


@dataclass
class _Earlier:
    """The alerts that have a conversation: whether one is live, the one that was resolved last, the highest score."""

    live: bool
    resolved_at: Any
    alert_id: uuid.UUID
    top: float


def find_repeats(connection: Connection, groups: Sequence[Group]) -> dict[tuple[str, int], uuid.UUID]:
    """The resolved alert that each repeat belongs to, by the group's key and the message's place in the group."""
    repeats: dict[tuple[str, int], uuid.UUID] = {}
    for within in sorted({rule.repeat_within for rule, _, _ in groups if rule.repeat_within}):
        same = [(rule, key, group) for rule, key, group in groups if rule.repeat_within == within]
        earlier = _earlier(connection, within, {key: _conversations(group) for _, key, group in same})
        for rule, key, group in same:
            for i, score in enumerate(group):
                found = earlier.get((key, score.conversation)) if score.conversation is not None else None
                if found is not None and not found.live and _no_worse(rule, score, found.top):
                    repeats[key, i] = found.alert_id
    return repeats


def _no_worse(rule: ThresholdRule, score: Flagged, top: float) -> bool:
    before = rule.grade(top - rule.threshold_of(score))
    return max_severity(before, rule.severity_of(score)) == before


def _conversations(group: Sequence[Flagged]) -> set[Conversation]:
    return {score.conversation for score in group if score.conversation is not None}


def _earlier(
    connection: Connection, within: timedelta, conversations: Mapping[str, set[Conversation]]
) -> dict[tuple[str, Conversation], _Earlier]:
    keys = [key for key, found in conversations.items() if found]
    if not keys:
        return {}
    resolved = {row.dedup_key: row.since for row in connection.execute(_RESOLVED, {"keys": keys, "within": within})}
    wanted = [(key, *conversation) for key in resolved for conversation in sorted(conversations[key], key=str)]
    if not wanted:
        return {}
    columns = zip(("keys", "tenants", "conversations"), map(list, zip(*wanted, strict=True)), strict=True)
    since = min(resolved.values())
    found: dict[tuple[str, Conversation], _Earlier] = {}
    for row in connection.execute(_EARLIER, dict(columns) | {"within": within, "since": since}):
        at = (row.key, (row.tenant, row.conversation))
        one = _Earlier(not row.resolved, row.resolved_at, row.id, row.top)
        other = found.get(at)
        if other is not None:
            one.top = max(one.top, other.top)
            one.live = one.live or other.live
            if row.resolved_at is None or (other.resolved_at is not None and other.resolved_at > row.resolved_at):
                one.alert_id, one.resolved_at = other.alert_id, other.resolved_at
        found[at] = one
    return found
