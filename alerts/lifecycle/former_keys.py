"""Alerts of before names in keys were escaped: what their rules find them by until they are resolved.

Contract: `keys_in_use` says which of today's keys stand for a former one: those of which an alert is live under it, or
a rate rule is in breach, opened when keys were folded. Only names with `:`, `%` or a single `-`, and keys of more than
255 characters, had another key then; where there are none, nothing is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from alerts.rules.keys import former_key
from alerts.rules.model import Flagged, MonitorRule, RateRule, ThresholdRule
from storage.coordinates import clean
from storage.schema import alerts, rule_states

if TYPE_CHECKING:
    from alerts.lifecycle.repeats import Group
    from alerts.rules.queries import Measured


def with_former_keys(connection: Connection, groups: list[Group]) -> list[Group]:
    """The groups of scores, under the former key where its alert is live."""
    former = {}
    for rule, key, scores in groups:
        old = former_key(rule.name, scores[0].probe, [rule.labels_of(scores[0])[part] for part in rule.per])
        if old is not None:
            former[key] = clean(old)
    if not former:
        return groups
    live = _live(connection, former)
    merged: dict[tuple[str, str], tuple[ThresholdRule, list[Flagged]]] = {}
    for rule, key, scores in groups:
        # Several of today's keys may have been one.
        _, together = merged.setdefault((rule.name, live.get(key, key)), (rule, []))
        together.extend(scores)
    return [(rule, key, scores) for (_, key), (rule, scores) in merged.items()]


def measured_under_former_keys(
    connection: Connection, rule: RateRule | MonitorRule, measured: list[Measured]
) -> list[Measured]:
    """The values of a rate rule, under the former key where its alert is live or the rule in breach; of several values
    under one key the highest counts."""
    if isinstance(rule, MonitorRule):
        return measured
    former = {}
    for value in measured:
        labels = asdict(value.subject) | {"conversation": value.subject.conversation_id}
        old = former_key(rule.name, value.subject.probe, [labels[part] for part in rule.per])
        if old is not None:
            former[value.dedup_key] = clean(old)
    if not former:
        return measured
    found = _live(connection, former) | _in_breach(connection, measured, former)
    highest: dict[str, Measured] = {}
    for value in measured:
        key = found.get(value.dedup_key, value.dedup_key)
        if key not in highest or highest[key].value < value.value:
            highest[key] = type(value)(key, value.subject, value.value)
    return list(highest.values())


def _live(connection: Connection, former: Mapping[str, str]) -> dict[str, str]:
    query = select(alerts.c.dedup_key).where(
        alerts.c.dedup_key.in_(set(former.values())), alerts.c.state != "resolved", alerts.c.former_key
    )
    live = set(connection.execute(query).scalars())
    return {key: old for key, old in former.items() if old in live}


def _in_breach(connection: Connection, measured: list[Measured], former: Mapping[str, str]) -> dict[str, str]:
    """Another subject may have the key today: the state says which one it is of."""
    query = select(rule_states.c.dedup_key, rule_states.c.subject).where(
        rule_states.c.dedup_key.in_(set(former.values()))
    )
    subjects = {row.dedup_key: row.subject for row in connection.execute(query)}
    found = {}
    for value in measured:
        old = former.get(value.dedup_key)
        if old is not None and subjects.get(old) == asdict(value.subject):
            found[value.dedup_key] = old
    return found
