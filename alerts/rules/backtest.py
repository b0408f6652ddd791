"""Backtest of rules: stored scores run through them again, in memory, in the order in which they were stored.

Contract: `backtest(engine, rules, since, every)` gives one `BacktestResult` for each rule that is tried. No alert
is live when it begins and nobody acknowledges, silences or resolves any; a notification is an alert that opens, reopens
or becomes more severe, at one destination. Scores that were stored together count as one batch, as they did; rate
rules are evaluated every `every`. Scores of probes in shadow, and replayed ones, are counted apart: `would_notify`. A
message that names no model has none here, where its worker had a name for it. Of the rules on the monitor itself only
`tail_drift` is tried, from the rollups, an evaluation an hour: the tables do not hold what the others measured.

Of each probe's name one card counts, the one that scored last; live scores and those in shadow each have theirs. Scores
of unknown digest are taken for the card's where name and version are the same. What other cards scored is left out, and
its number is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import ColumnElement, Connection, Engine, and_, false, func, or_, select, true

from alerts.rules.in_use import HOUR
from alerts.rules.model import (
    SEVERITIES,
    Conversation,
    Flagged,
    MonitorRule,
    RateRule,
    Rules,
    ThresholdRule,
    max_severity,
)
from alerts.rules.patterns import matches
from alerts.rules.queries import Subject, subject_key
from alerts.rules.simulation import BacktestResult, Conditions, SimulatedAlert, record_breach, reopens, resolve_alert
from alerts.rules.tails import tails_by_hour
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


@dataclass(frozen=True)
class Cards:
    """Which scores count: of each probe, in shadow or not, those of one version and digest; how many do not."""

    counted: tuple[tuple[str, bool, int, str], ...]
    left_out: int

    @property
    def condition(self) -> ColumnElement[bool]:
        """Of a row of `scores` that counts."""
        c = scores.c
        return or_(
            false(),
            *(
                and_(
                    c.probe == probe,
                    c.shadow.is_(True) if shadow else c.shadow.is_not(True),
                    or_(c.probe_digest == digest, and_(c.probe_digest == "", c.probe_version == version)),
                )
                for probe, shadow, version, digest in self.counted
            ),
        )


def backtest(engine: Engine, rules: Rules, since: timedelta, every: timedelta) -> tuple[int, list[BacktestResult], int]:
    """Number of scores that were read, what each rule would have done with them, and the number of scores of other
    cards, which were left out."""
    simulations = [_Threshold(rule) for rule in rules.threshold] + [_Rate(rule, every) for rule in rules.rate]
    number = 0
    with engine.connect() as connection:
        cards = cards_that_scored_last(connection, since)
    for at, scores_then in groupby(stored_scores(engine, rules, since, cards), key=lambda score: score.at):
        batch = list(scores_then)
        number += len(batch)
        for simulation in simulations:
            simulation.add(at, batch)
    with engine.connect() as connection:
        now = connection.execute(select(func.now())).scalar_one()
        tails = [_tail(connection, rule, since) for rule in rules.monitor if rule.check == "tail_drift"]
    for simulation in simulations:
        simulation.end(now)
    return number, [*(simulation.result for simulation in simulations), *tails], cards.left_out


def cards_that_scored_last(connection: Connection, since: timedelta) -> Cards:
    """Of each probe's scores since then: the version and digest of the last one."""
    c = scores.c
    shadow = func.coalesce(c.shadow, False)
    query = (
        select(c.probe, shadow, c.probe_version, c.probe_digest, func.count(), func.max(c.created_at))
        .where(c.created_at > func.now() - since)
        .group_by(c.probe, shadow, c.probe_version, c.probe_digest)
        .order_by(func.max(c.created_at), c.probe_version, c.probe_digest)
    )
    found = [tuple(row) for row in connection.execute(query)]
    last = {(probe, shadow): (version, digest) for probe, shadow, version, digest, _, _ in found}
    left_out = 0
    for probe, shadow, version, digest, number, _ in found:
        last_version, last_digest = last[probe, shadow]
        of_last = digest == last_digest or (digest == "" and version == last_version)
        left_out += 0 if of_last else number
    return Cards(tuple((*key, *card) for key, card in last.items()), left_out)


def stored_scores(engine: Engine, rules: Rules, since: timedelta, cards: Cards) -> Iterator[StoredScore]:
    """Scores that count in the order in which they were stored; unflagged ones only where a rule counts them, or
    measures their turns."""
    every = any(rule.of is not None for rule in rules.rate)
    read: list[ColumnElement[bool]] = [true() if every else scores.c.flagged]
    read += [scores.c[rule.measure] > rule.threshold for rule in rules.threshold if rule.measure != "score"]
    names = ("source", "partition", "offset", "sub", "day")
    same = and_(*(scores.c[n] == messages.c[n] for n in names), messages.c.status.in_(("scored", "truncated")))
    query = (
        select(scores, messages.c.tenant, messages.c.model, messages.c.conversation_id, messages.c.message_id)
        .join_from(scores, messages, same)
        .where(scores.c.created_at > func.now() - since, or_(*read), cards.condition)
        .order_by(scores.c.created_at, scores.c.source, scores.c.partition, scores.c.offset)
        .order_by(scores.c.sub, scores.c.probe)
    )
    with engine.connect() as connection:
        for r in connection.execution_options(yield_per=2000).execute(query):
            at = Coordinates(r.source, r.partition, r.offset, r.sub)
            flagged = Flagged(
                r.probe,
                r.score,
                r.threshold,
                r.tenant,
                r.model,
                at,
                r.message_id,
                r.conversation_id,
                flagged=r.flagged,
                trajectory=r.trajectory,
                path_length=r.path_length,
                turn_new=r.turn_new,
            )
            yield StoredScore(r.created_at, flagged, r.flagged, bool(r.shadow))


class _Threshold:
    """A threshold rule: alerts by key, of live and of shadow probes."""

    def __init__(self, rule: ThresholdRule) -> None:
        self._rule = rule
        self._alerts: dict[tuple[bool, str], SimulatedAlert] = {}
        # Conversations of earlier alerts of a key: when their alert was resolved, and the highest score over the
        # threshold.
        self._before: dict[tuple[bool, str], dict[Conversation, tuple[datetime, float]]] = {}
        self.result = BacktestResult(rule.name, "threshold", rule.shadow)

    def add(self, at: datetime, batch: Iterable[StoredScore]) -> None:
        groups: dict[tuple[bool, str], list[Flagged]] = {}
        for score in batch:
            if self._rule.matches(score.flagged):
                key = (score.shadow, self._rule.dedup_key(score.flagged))
                groups.setdefault(key, []).append(score.flagged)
                self.result.messages += not score.shadow
        for key, group in groups.items():
            alert = self._alerts.setdefault(key, SimulatedAlert())
            self._resolve_quiet(key, alert, at)
            new = [flagged for flagged in group if not self._is_repeat(key, alert, flagged, at)]
            if not new:
                continue
            if not alert.live and not reopens(alert, at, self._rule.reopen_within) and alert.resolved is not None:
                before = self._before.setdefault(key, {})
                before |= {talk: (alert.resolved, top) for talk, top in alert.conversations.items()}
                alert.conversations = {}
            severity: str = SEVERITIES[0]
            for flagged in new:
                severity = max_severity(severity, self._rule.severity_of(flagged))
                talk = flagged.conversation
                excess = self._rule.value_of(flagged) - self._rule.threshold_of(flagged)
                if talk is not None:
                    alert.conversations[talk] = max(excess, alert.conversations.get(talk, excess))
            record_breach(self.result, key, alert, severity, at, self._rule.reopen_within)

    def _is_repeat(self, key: tuple[bool, str], alert: SimulatedAlert, flagged: Flagged, at: datetime) -> bool:
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

    def _resolve_quiet(self, key: tuple[bool, str], alert: SimulatedAlert, at: datetime) -> None:
        after = self._rule.resolve_after
        if alert.live and after is not None and alert.last_seen is not None and at - alert.last_seen > after:
            resolve_alert(self.result, key, alert, alert.last_seen + after)


class _Rate:
    """A rate rule: a window of (time, flagged, conversation) for each group, evaluated in steps."""

    def __init__(self, rule: RateRule, every: timedelta) -> None:
        self._rule, self._every = rule, every
        self._windows: dict[tuple[bool, str], deque[_Seen]] = {}
        self._next: datetime | None = None
        self.result = BacktestResult(rule.name, "rate", rule.shadow)
        self._conditions = Conditions(rule, every, self.result)

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
            self._conditions.advance(key, float(_flagged_among_the_last(window, self._rule.of)), now)
            if not window and key not in self._conditions.states:
                del self._windows[key]


def _tail(connection: Connection, rule: MonitorRule, since: timedelta) -> BacktestResult:
    """Of the cards that are in use now."""
    result = BacktestResult(rule.name, "monitor", rule.shadow)
    conditions = Conditions(rule, HOUR, result)
    known: set[str] = set()
    for now, values in tails_by_hour(connection, rule, since):
        measured = {subject_key(rule, Subject(*key)): value for key, value in values.items()}
        known |= set(measured)
        for key in sorted(known):
            conditions.advance((False, key), measured.get(key, 0.0), now)
    return result


def _flagged_among_the_last(window: Iterable[_Seen], of: int | None) -> int:
    """The number of flagged ones; messages of one conversation are one, as new as its newest."""
    units: dict[Conversation | int, bool] = {}
    for n, (_, passed, talk) in enumerate(window):
        unit = n if talk is None else talk
        # Taken out and put back: it is the newest now.
        units[unit] = units.pop(unit, False) or passed
    return sum(list(units.values())[-(of or len(units)) :])
