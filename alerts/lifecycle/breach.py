"""What a rule's condition being true for one dedup key is, from the flagged scores that it matches.

Contract: pure functions; nothing is read or written.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from alerts.lifecycle.repeats import Group
from alerts.rules.model import Flagged, ThresholdRule, max_severity
from storage.coordinates import clean


@dataclass(frozen=True)
class Repeats:
    """New messages of conversations that a resolved alert has."""

    alert_id: uuid.UUID
    value: float
    limit: float
    messages: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Breach:
    """A rule's condition is true for one dedup key: its severity, its value in `units`, its labels and new messages
    (columns of `alert_messages` without the alert's id, and `evidence`: what decided the score). With `count` 0 there
    are only repeats."""

    dedup_key: str
    rule: str
    kind: str
    severity: str
    value: float
    limit: float
    units: str
    count: int
    probe: str | None = None
    tenant: str | None = None
    model: str | None = None
    conversation_id: str | None = None
    messages: Sequence[dict[str, Any]] = ()
    repeats: Sequence[Repeats] = ()
    reopen_within: timedelta = timedelta()
    # Its first notification waits so long for a judge.
    hold: timedelta = timedelta()


def groups_of(flagged: Sequence[Flagged], rules: Sequence[ThresholdRule]) -> list[Group]:
    """The scores that each rule matches, by dedup key."""
    groups: dict[tuple[int, str], list[Flagged]] = {}
    for score in flagged:
        for number, rule in enumerate(rules):
            if rule.matches(score):
                groups.setdefault((number, clean(rule.dedup_key(score))), []).append(score)
    return [(rules[number], key, group) for (number, key), group in groups.items()]


def severity_of(rule: ThresholdRule, group: Sequence[Flagged]) -> str:
    """The highest of a group's."""
    severity: str = "warning"
    for score in group:
        severity = max_severity(severity, rule.severity_of(score))
    return severity


def breach_of(
    rule: ThresholdRule, key: str, group: Sequence[Flagged], repeats: Mapping[tuple[str, int], uuid.UUID]
) -> Breach:
    """What one group is; `repeats` says which of its scores are repeats, and of which resolved alert."""
    new = [score for i, score in enumerate(group) if (key, i) not in repeats]
    repeated: dict[uuid.UUID, list[Flagged]] = {}
    for i, score in enumerate(group):
        if (key, i) in repeats:
            repeated.setdefault(repeats[key, i], []).append(score)
    first, top = group[0], _highest(rule, new or group)
    return Breach(
        dedup_key=key,
        rule=rule.name,
        kind="threshold",
        severity=severity_of(rule, new),
        value=rule.value_of(top),
        limit=rule.threshold_of(top),
        units=rule.units,
        count=len(new),
        probe=first.probe,
        tenant=clean(first.tenant) if "tenant" in rule.per else None,
        model=clean(first.model) if "model" in rule.per else None,
        conversation_id=clean(first.conversation_id) if "conversation" in rule.per else None,
        messages=_rows(rule, new),
        repeats=[_repeats(rule, alert_id, scores) for alert_id, scores in repeated.items()],
        reopen_within=rule.reopen_within,
        hold=rule.judge_holds if new and all(score.waiting for score in new) else timedelta(),
    )


def _repeats(rule: ThresholdRule, alert_id: uuid.UUID, scores: Sequence[Flagged]) -> Repeats:
    top = _highest(rule, scores)
    return Repeats(alert_id, rule.value_of(top), rule.threshold_of(top), _rows(rule, scores))


def _highest(rule: ThresholdRule, scores: Sequence[Flagged]) -> Flagged:
    return max(scores, key=rule.value_of)


def _rows(rule: ThresholdRule, scores: Sequence[Flagged]) -> list[dict[str, Any]]:
    """Each with the value that the rule measures."""
    today = datetime.now(UTC).date()
    return [
        {
            **asdict(s.coordinates),
            "day": s.day or today,
            "message_id": clean(s.message_id),
            "score": rule.value_of(s),
            "evidence": s.evidence,
        }
        for s in scores
    ]
