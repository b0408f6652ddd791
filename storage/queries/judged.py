"""Read-only queries for the judge and its budget: what was asked, what the band holds, what came of it.

Contract: times are the database's. Rows that a judge was asked about are few, at most the budget of a day, and have an
index; recent scores are read newest first, by another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, and_, exists, func, select, true

from storage.schema import alert_messages, alerts, outbox, score_rollups, scores

_ASKED = ("harmful", "harmless", "failed")
# The reason of a verdict that cost no question.
SAME_TEXT = "same text as before"
# A row waits for an hour at most, so what was judged in the last day was stored not much earlier.
_DAY = timedelta(hours=24)
_LONGEST_WAIT = timedelta(hours=2)


def asked_in_a_day(connection: Connection) -> int:
    """Questions that were put in the last 24 hours."""
    c = scores.c
    recent = and_(c.judge.is_not(None), c.created_at > func.now() - _DAY - _LONGEST_WAIT)
    put = and_(c.judge.in_(_ASKED), c.judge_reason.is_distinct_from(SAME_TEXT), c.judge_at > func.now() - _DAY)
    return int(connection.execute(select(func.count()).where(recent, put)).scalar_one())


@dataclass(frozen=True)
class Recent:
    """Scores of a probe in the last 24 hours, the newest ones, and the seconds that they came in."""

    scores: tuple[float, ...]
    seconds: float


def recent_scores(connection: Connection, probe: str, digest: str, limit: int, *, shadow: bool = False) -> Recent:
    """The newest scores of a probe; those of shadow mode and replays only where they are asked for."""
    c = scores.c
    newest = (
        select(c.score, c.created_at)
        .where(c.probe == probe, c.probe_digest == digest, c.created_at > func.now() - _DAY)
        .where(true() if shadow else c.shadow.is_not(True))
        .order_by(c.created_at.desc())
        .limit(limit)
        .subquery()
    )
    age = func.extract("epoch", func.now() - func.min(newest.c.created_at))
    found, seconds = connection.execute(select(func.array_agg(newest.c.score), age)).one()
    return Recent(tuple(found or ()), float(seconds or 0.0))


@dataclass(frozen=True)
class BandCounts:
    """A probe's messages in the uncertain band, by what the probe said and then the judge."""

    probe: str
    flagged_harmful: int
    flagged_harmless: int
    passed_harmful: int
    passed_harmless: int
    failed: int
    not_asked: int
    waiting: int
    # Of the unjudged ones those that the probe flagged.
    flagged_unjudged: int

    @property
    def band(self) -> int:
        return self.judged + self.failed + self.not_asked + self.waiting

    @property
    def judged(self) -> int:
        return self.flagged_harmful + self.flagged_harmless + self.passed_harmful + self.passed_harmless


def band_counts(connection: Connection, since: timedelta) -> list[BandCounts]:
    """By probe, of the scores stored since then."""
    c = scores.c

    def number(*conditions: Any) -> Any:
        return func.count().filter(*conditions)

    unjudged = c.judge.in_(("failed", "not asked", "waiting"))
    query = (
        select(
            c.probe,
            number(c.flagged, c.judge == "harmful"),
            number(c.flagged, c.judge == "harmless"),
            number(~c.flagged, c.judge == "harmful"),
            number(~c.flagged, c.judge == "harmless"),
            number(c.judge == "failed"),
            number(c.judge == "not asked"),
            number(c.judge == "waiting"),
            number(c.flagged, unjudged),
        )
        .where(c.judge.is_not(None), c.created_at > func.now() - since)
        .group_by(c.probe)
        .order_by(c.probe)
    )
    return [BandCounts(*row) for row in connection.execute(query)]


@dataclass(frozen=True)
class Span:
    """How long a judge was asked within a time: the days since its first row, and the scores since then by probe, with
    those that were flagged."""

    days: float
    scores: dict[str, tuple[int, int]]


def judged_span(connection: Connection, since: timedelta) -> Span:
    """Of the rollups, which lag behind by a minute; 0 days where no judge was asked."""
    c, r = scores.c, score_rollups.c
    first = select(func.min(c.created_at)).where(c.judge.is_not(None), c.created_at > func.now() - since)
    begun, days = connection.execute(
        select(first.scalar_subquery(), func.extract("epoch", func.now() - first.scalar_subquery()) / 86_400)
    ).one()
    if begun is None:
        return Span(0.0, {})
    query = (
        select(r.probe, func.sum(r.n), func.sum(r.flagged))
        .where(r.minutes == 5, r.bucket > begun - timedelta(minutes=5))
        .group_by(r.probe)
    )
    return Span(float(days), {probe: (int(n), int(flagged)) for probe, n, flagged in connection.execute(query)})


@dataclass(frozen=True)
class JudgedAlerts:
    """Alerts of threshold rules that were opened since then: all; those all of whose messages the judge called
    harmless; those that it resolved, and those of them that nobody was notified of; those that it alone opened."""

    opened: int
    harmless: int
    resolved: int
    unsent: int
    raised: int


def judged_alerts(connection: Connection, since: timedelta) -> JudgedAlerts:
    """Counts of alerts. What was withdrawn before it was sent is in the outbox no more."""
    same = and_(
        *(scores.c[name] == alert_messages.c[name] for name in ("source", "partition", "offset", "sub", "day")),
        scores.c.probe == alerts.c.probe,
    )
    messages_of = alert_messages.c.alert_id == alerts.c.id
    judged = exists().where(messages_of, same, scores.c.judge.in_(("harmful", "harmless")))
    not_harmless = exists().where(messages_of, same, scores.c.judge.is_distinct_from("harmless"))
    by_probe = exists().where(messages_of, same, scores.c.flagged)
    by_judge = alerts.c.resolved_by.like("judge %")
    notified = exists().where(outbox.c.alert_id == alerts.c.id)
    query = select(
        func.count(),
        func.count().filter(judged, ~not_harmless),
        func.count().filter(by_judge),
        func.count().filter(by_judge, ~notified),
        func.count().filter(judged, ~by_probe),
    ).where(alerts.c.kind == "threshold", alerts.c.opened_at > func.now() - since)
    return JudgedAlerts(*(int(n) for n in connection.execute(query).one()))
