"""Which events go out together, and when: a burst is one page.

Contract: `fold(rows, policy, now, last)` gets what waits for one group in the order in which it happened, and says
which rows make the next page, or until when it is too early. Pure: no clock, no database. A page is about one kind of
news (alerts that fire, were acknowledged, were resolved, other), never overtakes earlier news of one of its alerts,
and leaves nothing out for good. Firing alerts wait `wait` seconds for company, and follow the group's last page after
`interval` seconds, unless they are graver than what it said. Acknowledgements do not wait: they stop an escalation.
Nor does anything wait for a time that a clock which was set back has yet to reach again.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from alerts.rules.model import worse

News = Literal["firing", "acknowledged", "resolved", "other"]
_NEWS: dict[str, News] = {
    "alert.opened": "firing",
    "alert.reopened": "firing",
    "alert.worsened": "firing",
    "alert.acknowledged": "acknowledged",
    "alert.resolved": "resolved",
}
# Rows in one page, at most; the rest is in the next one.
MOST_ROWS = 1000
_KEY_LENGTH = 255
# What happened later than this was told by a clock that has been set back since: how long ago it was, nobody knows.
_AHEAD = timedelta(minutes=1)


@dataclass(frozen=True)
class Policy:
    """How a destination's events are grouped. No `by`: a page an event. `whole`: what waits is one page, at once."""

    by: tuple[str, ...] = ()
    wait: float = 0.0
    interval: float = 0.0
    whole: bool = False

    def group_key(self, data: Mapping[str, Any]) -> str:
        """What alerts of one page have in common, readable, as pagers show it; at most 255 characters."""
        if self.whole:
            return "*"
        if not self.by:
            return str(data["dedup_key"])[:_KEY_LENGTH]
        parts = (str(data.get(name) or "-").replace(":", "_") for name in self.by)
        return ":".join(parts)[:_KEY_LENGTH]


@dataclass(frozen=True)
class Waiting:
    """One event that waits. `severity` is its alert's when it happened."""

    id: uuid.UUID
    alert_id: uuid.UUID
    event: str
    severity: str
    created_at: datetime

    @property
    def news(self) -> News:
        return news_of(self.event)


@dataclass(frozen=True)
class LastPage:
    """The group's last page about firing alerts."""

    formed_at: datetime
    severity: str


def news_of(event: str) -> News:
    """What kind of news an event is."""
    return _NEWS.get(event, "other")


def fold(
    rows: Sequence[Waiting], policy: Policy, now: datetime, last: LastPage | None = None
) -> tuple[Sequence[Waiting], datetime | None]:
    """(the rows of the next page, None), or (none, when to ask again). No rows: (none, None)."""
    if not rows:
        return (), None
    if policy.whole:
        return rows, None
    if not policy.by:
        return rows[:1], None
    early: list[datetime] = []
    for news in dict.fromkeys(row.news for row in rows):
        members = _takeable(rows, news)
        if members:
            ready = _ready_at(members, news, policy, now, last)
            if ready <= now:
                return members, None
            early.append(ready)
    return (), min(early)


def _takeable(rows: Sequence[Waiting], news: News) -> list[Waiting]:
    """The rows of this kind that overtake nothing of their own alert's."""
    members, blocked = [], set()
    for row in rows:
        if row.news != news:
            blocked.add(row.alert_id)
        elif row.alert_id not in blocked:
            members.append(row)
    return members


def _ready_at(members: Sequence[Waiting], news: News, policy: Policy, now: datetime, last: LastPage | None) -> datetime:
    first = min(row.created_at for row in members)
    if first > now + _AHEAD:
        return now
    if news in ("acknowledged", "other"):
        return first
    ready = first + timedelta(seconds=policy.wait)
    known = last is not None and last.formed_at <= now + _AHEAD
    if news == "firing" and last is not None and known and not graver(members, last.severity):
        return max(ready, last.formed_at + timedelta(seconds=policy.interval))
    return ready


def graver(members: Sequence[Waiting], severity: str) -> bool:
    """Whether one of them is graver than `severity`."""
    return any(worse(row.severity, severity) != severity for row in members)
