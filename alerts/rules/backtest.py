"""Backtest of rules: stored scores run through them again, in memory, in the order in which they were stored.

Contract: `backtest(engine, rules, since, every)` gives one `BacktestResult` for each threshold or rate rule. No alert
is live when it begins and nobody acknowledges, silences or resolves any; a notification is an alert that opens, reopens
or becomes more severe, at one destination. Scores that were stored together count as one batch, as they did; rate
rules are evaluated every `every`. Scores of probes in shadow, and replayed ones, are counted apart: `would_notify`. A
message that names no model has none here, where its worker had a name for it. Rules on the monitor itself are left out:
the tables do not hold what they measured.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import Engine, and_, func, select, true

from alerts.rules.hysteresis import ConditionState, Limits, step
from alerts.rules.model import SEVERITIES, Conversation, Flagged, RateRule, Rules, ThresholdRule, max_severity
from alerts.rules.patterns import matches
from alerts.rules.queries import Subject, subject_key
from storage.coordinates import Coordinates
from storage.schema import messages, scores

# When it was stored, whether it was flagged, and its conversation where those are counted.
_Seen = tuple[datetime, bool, Conversation | None]


@dataclass(frozen=True)
class StoredScore:
    """One score as it is stored."""

    at: datetime
    flagged: Flagged
    passed: bool
    shadow: bool


@dataclass
class BacktestResult:
    """What one rule would have done. `messages`: flagged ones that it matched; `keys`: notifications by dedup key."""

    name: str
    kind: str
    shadow: bool
    messages: int = 0
    alerts: int = 0
    resolved: int = 0
    keys: Counter[str] = field(default_factory=Counter)
    would_notify: int = 0

    @property
    def notifications(self) -> int:
        return self.keys.total()


@dataclass
class _Alert:
    """An alert of the backtest; `conversations`: the highest score over the threshold of each one in it."""

    live: bool = False
    severity: str = SEVERITIES[0]
    last_seen: datetime | None = None
    resolved: datetime | None = None
    conversations: dict[Conversation, float] = field(default_factory=dict)


def backtest(engine: Engine, rules: Rules, since: timedelta, every: timedelta) -> tuple[int, list[BacktestResult]]:
    """Number of scores that were read, and what each rule would have done with them."""
    simulations = [_Threshold(rule) for rule in rules.threshold] + [_Rate(rule, every) for rule in rules.rate]
    number = 0
    for at, scores_then in groupby(stored_scores(engine, rules, since), key=lambda score: score.at):
        batch = list(scores_then)
        number += len(batch)
        for simulation in simulations:
            simulation.add(at, batch)
    with engine.connect() as connection:
        now = connection.execute(select(func.now())).scalar_one()
    for simulation in simulations:
        simulation.end(now)
    return number, [simulation.result for simulation in simulations]


def stored_scores(engine: Engine, rules: Rules, since: timedelta) -> Iterator[StoredScore]:
    """Scores in the order in which they were stored; unflagged ones only where a rule counts them."""
    unflagged = any(rule.of is not None for rule in rules.rate)
    names = ("source", "partition", "offset", "sub", "day")
    same = and_(*(scores.c[n] == messages.c[n] for n in names), messages.c.status.in_(("scored", "truncated")))
    query = (
        select(scores, messages.c.tenant, messages.c.model, messages.c.conversation_id, messages.c.message_id)
        .join_from(scores, messages, same)
        .where(scores.c.created_at > func.now() - since, true() if unflagged else scores.c.flagged)
        .order_by(scores.c.created_at, scores.c.source, scores.c.partition, scores.c.offset)
        .order_by(scores.c.sub, scores.c.probe)
    )
    with engine.connect() as connection:
        for r in connection.execution_options(yield_per=2000).execute(query):
            at = Coordinates(r.source, r.partition, r.offset, r.sub)
            flagged = Flagged(r.probe, r.score, r.threshold, r.tenant, r.model, at, r.message_id, r.conversation_id)
            yield StoredScore(r.created_at, flagged, r.flagged, bool(r.shadow))


class _Threshold:
    """A threshold rule: alerts by key, of live and of shadow probes."""

    def __init__(self, rule: ThresholdRule) -> None:
        self._rule = rule
        self._alerts: dict[tuple[bool, str], _Alert] = {}
        # Conversations of earlier alerts of a key: when their alert was resolved, and the highest score over the
        # threshold.
        self._before: dict[tuple[bool, str], dict[Conversation, tuple[datetime, float]]] = {}
        self.result = BacktestResult(rule.name, "threshold", rule.shadow)

    def add(self, at: datetime, batch: Iterable[StoredScore]) -> None:
        groups: dict[tuple[bool, str], list[Flagged]] = {}
        for score in batch:
            if score.passed and self._rule.matches(score.flagged):
                key = (score.shadow, self._rule.dedup_key(score.flagged))
                groups.setdefault(key, []).append(score.flagged)
                self.result.messages += not score.shadow
        for key, group in groups.items():
            alert = self._alerts.setdefault(key, _Alert())
            self._resolve_quiet(key, alert, at)
            new = [flagged for flagged in group if not self._is_repeat(key, alert, flagged, at)]
            if not new:
                continue
            if not alert.live and not _reopens(alert, at, self._rule.reopen_within) and alert.resolved is not None:
                before = self._before.setdefault(key, {})
                before |= {talk: (alert.resolved, top) for talk, top in alert.conversations.items()}
                alert.conversations = {}
            severity: str = SEVERITIES[0]
            for flagged in new:
                severity = max_severity(severity, self._rule.severity_of(flagged))
                talk, excess = flagged.conversation, flagged.score - flagged.threshold
                if talk is not None:
                    alert.conversations[talk] = max(excess, alert.conversations.get(talk, excess))
            _record_breach(self.result, key, alert, severity, at, self._rule.reopen_within)

    def _is_repeat(self, key: tuple[bool, str], alert: _Alert, flagged: Flagged, at: datetime) -> bool:
        """Whether the worker would have counted it for an alert that was resolved."""
        talk = flagged.conversation
        if talk is None or (alert.live and talk in alert.conversations):
            return False
        earlier = [self._before[key][talk]] if talk in self._before.get(key, ()) else []
        if not alert.live and alert.resolved is not None and talk in alert.conversations:
            earlier.append((alert.resolved, alert.conversations[talk]))
        tops = [top for resolved, top in earlier if at - resolved < self._rule.repeat_within]
        severity, before = self._rule.severity_of(flagged), self._rule.grade(max(tops, default=0.0))
        return bool(tops) and max_severity(before, severity) == before

    def end(self, now: datetime) -> None:
        """Resolve what has been quiet for `resolve_after` by now."""
        for key, alert in self._alerts.items():
            self._resolve_quiet(key, alert, now)

    def _resolve_quiet(self, key: tuple[bool, str], alert: _Alert, at: datetime) -> None:
        after = self._rule.resolve_after
        if alert.live and after is not None and alert.last_seen is not None and at - alert.last_seen > after:
            _resolve(self.result, key, alert, alert.last_seen + after)


class _Rate:
    """A rate rule: a window of (time, flagged, conversation) for each group, evaluated in steps."""

    def __init__(self, rule: RateRule, every: timedelta) -> None:
        self._rule, self._every = rule, every
        self._limits = Limits(rule.limit, rule.clear_limit, rule.for_, rule.clear_for)
        self._windows: dict[tuple[bool, str], deque[_Seen]] = {}
        self._states: dict[tuple[bool, str], ConditionState] = {}
        self._alerts: dict[tuple[bool, str], _Alert] = {}
        self._next: datetime | None = None
        self.result = BacktestResult(rule.name, "rate", rule.shadow)

    def add(self, at: datetime, batch: Iterable[StoredScore]) -> None:
        self._evaluate_until(at)
        for score in batch:
            key = self._key(score)
            if key is not None:
                talk = score.flagged.conversation if self._rule.counted == "conversations" else None
                self._windows.setdefault(key, deque()).append((at, score.passed, talk))
                self.result.messages += score.passed and not score.shadow

    def end(self, now: datetime) -> None:
        """The evaluations that are left until now."""
        self._evaluate_until(now)

    def _key(self, score: StoredScore) -> tuple[bool, str] | None:
        flagged = score.flagged
        labels = {"tenant": flagged.tenant, "model": flagged.model}
        for patterns, name in (
            (self._rule.probe, flagged.probe),
            *((getattr(self._rule, label), name) for label, name in labels.items()),
        ):
            if not matches(patterns, name):
                return None
        if "conversation" in self._rule.per and flagged.conversation_id is None:
            return None
        subject = Subject(flagged.probe, **labels, conversation_id=flagged.conversation_id)
        return score.shadow, subject_key(self._rule, subject)

    def _evaluate_until(self, at: datetime) -> None:
        """All evaluations before a time; while every window is empty, none is needed."""
        while self._next is not None and self._next < at and self._windows:
            self._evaluate(self._next)
            self._next += self._every
        if self._next is None or self._next < at:
            self._next = at + self._every

    def _evaluate(self, now: datetime) -> None:
        for key, window in list(self._windows.items()):
            while window and window[0][0] <= now - self._rule.window:
                window.popleft()
            value = float(_flagged_among_the_last(window, self._rule.of))
            before = self._states.pop(key, None)
            after, event = step(before, value, self._every.total_seconds() if before else 0.0, self._limits)
            alert = self._alerts.setdefault(key, _Alert())
            if event == "fired" or (after == ConditionState("firing") and alert.live):
                _record_breach(self.result, key, alert, self._rule.grade(value), now, self._rule.reopen_within)
            if event == "cleared":
                _resolve(self.result, key, alert, now)
            if after is not None:
                self._states[key] = after
            elif not window:
                del self._windows[key]


def _flagged_among_the_last(window: Iterable[_Seen], of: int | None) -> int:
    """The number of flagged ones; messages of one conversation are one, as new as its newest."""
    units: dict[Conversation | int, bool] = {}
    for n, (_, passed, talk) in enumerate(window):
        unit = n if talk is None else talk
        # Taken out and put back: it is the newest now.
        units[unit] = units.pop(unit, False) or passed
    return sum(list(units.values())[-(of or len(units)) :])


def _record_breach(
    result: BacktestResult, key: tuple[bool, str], alert: _Alert, severity: str, at: datetime, reopen_within: timedelta
) -> None:
    shadow, dedup_key = key
    more_severe = max_severity(alert.severity, severity) != alert.severity
    if not alert.live:
        result.alerts += not _reopens(alert, at, reopen_within) and not shadow
        alert.severity = severity
    elif more_severe:
        alert.severity = severity
    if not alert.live or more_severe:
        if shadow:
            result.would_notify += 1
        else:
            result.keys[dedup_key] += 1
    alert.live, alert.last_seen = True, at


def _reopens(alert: _Alert, at: datetime, within: timedelta) -> bool:
    return alert.resolved is not None and at - alert.resolved < within


def _resolve(result: BacktestResult, key: tuple[bool, str], alert: _Alert, at: datetime) -> None:
    alert.live, alert.resolved = False, at
    result.resolved += not key[0]
