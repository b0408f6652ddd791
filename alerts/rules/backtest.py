"""What rules would have done: stored scores run through them again, in memory, in the order in which they were stored.

Contract: `rehearse(engine, rules, since, every)` gives one `Rehearsed` a threshold or rate rule. No alert is live when
it begins and nobody acknowledges, silences or resolves any; a page is an alert that opens, reopens or gets graver, told
to one destination. Scores that were stored together count as one batch, as they did; rate rules look every `every`.
Scores of probes in shadow, and replayed ones, are kept apart: `would_page` is what they would have paged. A message
that names no model has none here, where its worker had a name for it. Rules on the monitor itself are not rehearsed:
the tables do not hold what they looked at.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import Engine, and_, func, select, true

from alerts.rules.hysteresis import Held, Limits, step
from alerts.rules.model import SEVERITIES, Flagged, RateRule, Rules, ThresholdRule, worse
from alerts.rules.patterns import matches
from alerts.rules.queries import Subject, subject_key
from storage.schema import messages, scores


@dataclass(frozen=True)
class Stored:
    """One score as it is stored."""

    at: datetime
    flagged: Flagged
    passed: bool
    shadow: bool


@dataclass
class Rehearsed:
    """What one rule would have done. `messages` are flagged ones that it concerned; `keys` counts pages by key."""

    name: str
    kind: str
    shadow: bool
    messages: int = 0
    alerts: int = 0
    resolved: int = 0
    keys: Counter[str] = field(default_factory=Counter)
    would_page: int = 0

    @property
    def pages(self) -> int:
        return self.keys.total()


@dataclass
class _Alert:
    """An alert of a rehearsal."""

    live: bool = False
    severity: str = SEVERITIES[0]
    seen: datetime | None = None
    resolved: datetime | None = None


def rehearse(engine: Engine, rules: Rules, since: timedelta, every: timedelta) -> tuple[int, list[Rehearsed]]:
    """Number of scores that were read, and what each rule would have done with them."""
    parts = [_Threshold(rule) for rule in rules.threshold] + [_Rate(rule, every) for rule in rules.rate]
    number = 0
    for at, batch in groupby(stored_scores(engine, rules, since), key=lambda s: s.at):
        found = list(batch)
        number += len(found)
        for part in parts:
            part.take(at, found)
    with engine.connect() as connection:
        now = connection.execute(select(func.now())).scalar_one()
    for part in parts:
        part.end(now)
    return number, [part.found for part in parts]


def stored_scores(engine: Engine, rules: Rules, since: timedelta) -> Iterator[Stored]:
    """Scores in the order in which they were stored; calm ones only where a rule counts them."""
    calm = any(rule.of is not None for rule in rules.rate)
    names = ("source", "partition", "offset", "day")
    same = and_(*(scores.c[n] == messages.c[n] for n in names), messages.c.status.in_(("scored", "truncated")))
    query = (
        select(scores, messages.c.tenant, messages.c.model, messages.c.conversation_id, messages.c.message_id)
        .join_from(scores, messages, same)
        .where(scores.c.created_at > func.now() - since, true() if calm else scores.c.flagged)
        .order_by(scores.c.created_at, scores.c.source, scores.c.partition, scores.c.offset, scores.c.probe)
    )
    with engine.connect() as connection:
        for r in connection.execution_options(yield_per=2000).execute(query):
            place = (r.source, r.partition, r.offset)
            one = Flagged(r.probe, r.score, r.threshold, r.tenant, r.model, place, r.message_id, r.conversation_id)
            yield Stored(r.created_at, one, r.flagged, bool(r.shadow))


class _Threshold:
    """A threshold rule: alerts by key, of live and of shadow probes."""

    def __init__(self, rule: ThresholdRule) -> None:
        self._rule = rule
        self._alerts: dict[tuple[bool, str], _Alert] = {}
        self.found = Rehearsed(rule.name, "threshold", rule.shadow)

    def take(self, at: datetime, batch: Iterable[Stored]) -> None:
        groups: dict[tuple[bool, str], str] = {}
        for one in batch:
            if one.passed and self._rule.concerns(one.flagged):
                key = (one.shadow, self._rule.dedup_key(one.flagged))
                severity: str = self._rule.severity_of(one.flagged)
                groups[key] = worse(groups.get(key, severity), severity)
                self.found.messages += not one.shadow
        for key, severity in groups.items():
            alert = self._alerts.setdefault(key, _Alert())
            self._quiet(key, alert, at)
            _sighted(self.found, key, alert, severity, at, self._rule.reopen_within)

    def end(self, now: datetime) -> None:
        """What has been quiet for long by now is over."""
        for key, alert in self._alerts.items():
            self._quiet(key, alert, now)

    def _quiet(self, key: tuple[bool, str], alert: _Alert, at: datetime) -> None:
        after = self._rule.resolve_after
        if alert.live and after is not None and alert.seen is not None and at - alert.seen > after:
            _resolved(self.found, key, alert, alert.seen + after)


class _Rate:
    """A rate rule: a window of (time, flagged) a group, looked at in steps."""

    def __init__(self, rule: RateRule, every: timedelta) -> None:
        self._rule, self._every = rule, every
        self._limits = Limits(rule.limit, rule.clear_limit, rule.for_, rule.clear_for)
        self._windows: dict[tuple[bool, str], deque[tuple[datetime, bool]]] = {}
        self._held: dict[tuple[bool, str], Held] = {}
        self._alerts: dict[tuple[bool, str], _Alert] = {}
        self._next: datetime | None = None
        self.found = Rehearsed(rule.name, "rate", rule.shadow)

    def take(self, at: datetime, batch: Iterable[Stored]) -> None:
        self._look_until(at)
        for one in batch:
            key = self._key(one)
            if key is not None:
                self._windows.setdefault(key, deque()).append((at, one.passed))
                self.found.messages += one.passed and not one.shadow

    def end(self, now: datetime) -> None:
        """The looks that are left until now."""
        self._look_until(now)

    def _key(self, one: Stored) -> tuple[bool, str] | None:
        whose = {"tenant": one.flagged.tenant, "model": one.flagged.model}
        for patterns, name in (
            (self._rule.probe, one.flagged.probe),
            *((getattr(self._rule, part), name) for part, name in whose.items()),
        ):
            if not matches(patterns, name):
                return None
        if "conversation" in self._rule.per and one.flagged.conversation_id is None:
            return None
        subject = Subject(one.flagged.probe, **whose, conversation_id=one.flagged.conversation_id)
        return one.shadow, subject_key(self._rule, subject)

    def _look_until(self, at: datetime) -> None:
        """All looks before a time; where nothing is in any window, none is needed."""
        while self._next is not None and self._next < at and self._windows:
            self._look(self._next)
            self._next += self._every
        if self._next is None or self._next < at:
            self._next = at + self._every

    def _look(self, now: datetime) -> None:
        for key, window in list(self._windows.items()):
            while window and window[0][0] <= now - self._rule.window:
                window.popleft()
            of = self._rule.of
            recent = window if of is None else list(window)[-of:]
            value = float(sum(passed for _, passed in recent))
            held = self._held.pop(key, None)
            after, event = step(held, value, self._every.total_seconds() if held else 0.0, self._limits)
            alert = self._alerts.setdefault(key, _Alert())
            if event == "fired" or (after == Held("firing") and alert.live):
                _sighted(self.found, key, alert, self._rule.grade(value), now, self._rule.reopen_within)
            if event == "cleared":
                _resolved(self.found, key, alert, now)
            if after is not None:
                self._held[key] = after
            elif not window:
                del self._windows[key]


def _sighted(
    found: Rehearsed, key: tuple[bool, str], alert: _Alert, severity: str, at: datetime, reopen_within: timedelta
) -> None:
    shadow, name = key
    graver = worse(alert.severity, severity) != alert.severity
    if not alert.live:
        again = alert.resolved is not None and at - alert.resolved < reopen_within
        found.alerts += not again and not shadow
        alert.severity = severity
    elif graver:
        alert.severity = severity
    if not alert.live or graver:
        if shadow:
            found.would_page += 1
        else:
            found.keys[name] += 1
    alert.live, alert.seen = True, at


def _resolved(found: Rehearsed, key: tuple[bool, str], alert: _Alert, at: datetime) -> None:
    alert.live, alert.resolved = False, at
    found.resolved += not key[0]
