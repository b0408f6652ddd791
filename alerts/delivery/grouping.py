"""Notification grouping: group_by, group_wait and group_interval decide which events go out together, and when.

Contract: `next_group(events, policy, now, last)` gets the pending events of one group in the order in which they
happened, and returns the events of the next notification, or the time at which to ask again. Pure: no clock, no
database. A notification has one kind of events (alerts that fire, were acknowledged, were resolved, other), never
overtakes an earlier event of one of its alerts, and drops none. A group that was quiet for `interval` seconds, or is
new, is notified of at once. What fires within `wait` seconds after that is the next notification, then one comes every
`interval` seconds, unless an alert is more severe than the last notification was: that waits for others for `wait`
seconds. Acknowledgements do not wait: they stop an escalation. After a clock was set back, nothing waits for it to
reach the old time again.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from alerts.rules.keys import MAX_CHARACTERS, joined
from alerts.rules.model import max_severity
from alerts.senders.base import EventKind, kind_of_event

# Events in one notification, at most; the rest is in the next one.
MAX_EVENTS = 1000
# An event that is later than this was written before the clock was set back: its age is unknown.
_AHEAD = timedelta(minutes=1)


@dataclass(frozen=True)
class Policy:
    """How a destination's events are grouped. No `by`: a notification an event. `whole`: all pending events are one
    notification, at once."""

    by: tuple[str, ...] = ()
    wait: float = 0.0
    interval: float = 0.0
    whole: bool = False

    def group_key(self, data: Mapping[str, Any]) -> str:
        """What the alerts of a group have in common, readable, as pagers show it; at most 255 characters."""
        if self.whole:
            return "*"
        if not self.by:
            return str(data["dedup_key"])[:MAX_CHARACTERS]
        return joined([str(data[name]) if data.get(name) else None for name in self.by])


@dataclass(frozen=True)
class PendingEvent:
    """One event in the outbox that is in no notification yet. `severity` is its alert's at that moment."""

    id: uuid.UUID
    alert_id: uuid.UUID
    event: str
    severity: str
    created_at: datetime

    @property
    def kind(self) -> EventKind:
        return kind_of_event(self.event)


@dataclass(frozen=True)
class LastNotification:
    """The group's last notification about firing alerts; `after_quiet`: it was sent at once, since none had been."""

    formed_at: datetime
    severity: str
    after_quiet: bool = False


def next_group(
    events: Sequence[PendingEvent], policy: Policy, now: datetime, last: LastNotification | None = None
) -> tuple[Sequence[PendingEvent], datetime | None]:
    """(the events of the next notification, None), or (none, when to ask again). No events: (none, None)."""
    if not events:
        return (), None
    if policy.whole:
        return events, None
    if not policy.by:
        return events[:1], None
    not_yet: list[datetime] = []
    for kind in dict.fromkeys(event.kind for event in events):
        members = _in_order(events, kind)
        if members:
            ready = _ready_at(members, kind, policy, now, last)
            if ready <= now:
                return members, None
            not_yet.append(ready)
    return (), min(not_yet)


def _in_order(events: Sequence[PendingEvent], kind: EventKind) -> list[PendingEvent]:
    """The events of this kind that overtake no other event of their alert."""
    members, blocked = [], set()
    for event in events:
        if event.kind != kind:
            blocked.add(event.alert_id)
        elif event.alert_id not in blocked:
            members.append(event)
    return members


def _ready_at(
    members: Sequence[PendingEvent], kind: EventKind, policy: Policy, now: datetime, last: LastNotification | None
) -> datetime:
    first = min(event.created_at for event in members)
    if first > now + _AHEAD:
        return now
    if kind in ("acknowledged", "other"):
        return first
    wait, interval = timedelta(seconds=policy.wait), timedelta(seconds=policy.interval)
    if kind != "firing":
        return first + wait
    if last is None or last.formed_at > now + _AHEAD or is_quiet(last.formed_at, first, policy):
        return first
    if more_severe(members, last.severity):
        return first + wait
    of_burst = last.after_quiet and first <= last.formed_at + wait
    return last.formed_at + (wait if of_burst else max(wait, interval))


def is_quiet(before: datetime, after: datetime, policy: Policy) -> bool:
    """Whether so much time without a notification is between two moments that the next one goes at once."""
    return after - before >= timedelta(seconds=max(policy.wait, policy.interval))


def more_severe(members: Sequence[PendingEvent], severity: str) -> bool:
    """Whether one of them is more severe than `severity`."""
    return any(max_severity(event.severity, severity) != severity for event in members)
