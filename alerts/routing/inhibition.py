"""Inhibition, as Alertmanager's: while an alert of one kind is live, notifications of others are held.

Contract: a rule holds an alert that its `target_matchers` match while another live alert is there that its
`source_matchers` match and that has the same labels of `equal`; two that lack a label have the same. An alert that is
both source and target is not held by another one that is both, so that a rule cannot hold itself. An acknowledged or
silenced source holds, too.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, field_validator

from alerts.routing.matchers import LABELS, Matchers, match_all


class InhibitRule(BaseModel):
    """One rule as it is written in the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source_matchers: Matchers
    target_matchers: Matchers
    equal: tuple[str, ...] = ()

    @field_validator("source_matchers", "target_matchers")
    @classmethod
    def _some(cls, value: Matchers) -> Matchers:
        if not value:
            raise ValueError("write at least one matcher: none matches every alert")
        return value

    @field_validator("equal")
    @classmethod
    def _labels(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in LABELS:
                raise ValueError(f"{name}: no such label; there are {', '.join(LABELS)}")
        return value

    def holds(self, source: Mapping[str, str], target: Mapping[str, str]) -> bool:
        """Whether `source` holds `target`; they are not the same alert."""
        if not match_all(self.target_matchers, target) or not match_all(self.source_matchers, source):
            return False
        both = match_all(self.source_matchers, target) and match_all(self.target_matchers, source)
        return not both and all(source.get(name, "") == target.get(name, "") for name in self.equal)


@dataclass(frozen=True)
class LiveAlert:
    """An alert that is not resolved, by its labels."""

    id: uuid.UUID
    dedup_key: str
    labels: Mapping[str, str]


def inhibitors(
    rules: Sequence[InhibitRule], live: Iterable[LiveAlert], alert_id: uuid.UUID, labels: Mapping[str, str]
) -> list[LiveAlert]:
    """The live alerts that hold this one, by key."""
    wanted = [rule for rule in rules if match_all(rule.target_matchers, labels)]
    if not wanted:
        return []
    found = (s for s in live if s.id != alert_id and any(rule.holds(s.labels, labels) for rule in wanted))
    return sorted(found, key=lambda source: source.dedup_key)
