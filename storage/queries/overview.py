"""Read-only queries for the overview page of `awry serve`: the last hour in numbers, live alerts, latest scores.

Contract: times are the database's. Every query is answered from an index or a rollup, so that none grows with the
tables: what was scored in the last hour lags behind by a minute (`storage.rollup`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, case, func, select, true
from sqlalchemy.dialects.postgresql import distinct_on

from storage.heartbeat import ENDED
from storage.schema import alerts, messages, probes, score_rollups, scores, workers

SPAN = timedelta(hours=1)
# Scores of a probe's name among which the latest ones of a card are looked for.
_LATEST = 5000
# A worker writes a heartbeat every few seconds; one without any for so long is down.
SILENT = timedelta(minutes=1)


@dataclass(frozen=True)
class LastHour:
    """Scores and flagged ones among them (a message has one a probe), and messages without a score by their status."""

    scored: int
    flagged: int
    unscored: dict[str, int]

    @property
    def share(self) -> float | None:
        """Of the scores that are flagged; None when nothing was scored."""
        return self.flagged / self.scored if self.scored else None


def last_hour(connection: Connection) -> LastHour:
    """The last hour, in buckets of five minutes: up to five minutes more."""
    sums = select(func.coalesce(func.sum(score_rollups.c.n), 0), func.coalesce(func.sum(score_rollups.c.flagged), 0))
    recent = (score_rollups.c.minutes == 5, score_rollups.c.bucket > func.now() - SPAN - timedelta(minutes=5))
    scored, flagged = connection.execute(sums.where(*recent)).one()
    by_status = (
        select(messages.c.status, func.count())
        .where(messages.c.status.in_(("skipped", "invalid", "failed")), messages.c.ingested_at > func.now() - SPAN)
        .group_by(messages.c.status)
    )
    unscored = {str(status): int(n) for status, n in connection.execute(by_status)}
    return LastHour(int(scored), int(flagged), unscored)


def live_alerts(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """Alerts that are not resolved: those not acknowledged first, then the most severe, then the latest."""
    state = case({"open": 0, "acknowledged": 1}, value=alerts.c.state, else_=2)
    severity = case({"critical": 0, "error": 1, "warning": 2}, value=alerts.c.severity, else_=3)
    live = select(alerts).where(alerts.c.state != "resolved")
    query = live.order_by(state, severity, alerts.c.last_seen_at.desc(), alerts.c.id).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


@dataclass(frozen=True)
class Worker:
    """A worker's last heartbeat. `lag` is in `lag_unit`; `silent` when it is older than SILENT."""

    name: str
    source: str
    seen_at: datetime
    lag: int | None
    lag_unit: str | None
    oldest_seconds: float | None
    silent: bool

    @property
    def ended(self) -> bool:
        """It stopped as it should, at the end of its source."""
        return self.lag_unit == ENDED


def recent_workers(connection: Connection) -> list[Worker]:
    """Workers with a heartbeat in the last hour, by name."""
    quiet = (workers.c.seen_at < func.now() - SILENT).label("silent")
    c = workers.c
    query = (
        select(c.name, c.source, c.seen_at, c.lag, c.lag_unit, c.oldest_seconds, quiet)
        .where(c.seen_at > func.now() - SPAN)
        .order_by(c.name, c.seen_at.desc())
    )
    return [Worker(*row) for row in connection.execute(query)]


@dataclass(frozen=True)
class Score:
    """One score of a probe, with its message's id and tenant."""

    source: str
    partition: int
    offset: int
    sub: int
    score: float
    threshold: float
    flagged: bool
    shadow: bool
    created_at: datetime
    message_id: str | None
    tenant: str | None


def latest_scores(connection: Connection, probe: str, version: int, digest: str, limit: int) -> list[Score]:
    """The last `limit` scores of one card of a probe, oldest first; those among the latest of its name."""
    c = scores.c
    latest = select(scores).where(c.probe == probe).order_by(c.created_at.desc()).limit(_LATEST).subquery("latest")
    of_card = (latest.c.probe_digest == digest, latest.c.probe_version == version)
    last = select(latest).where(*of_card).order_by(latest.c.created_at.desc()).limit(limit).subquery("scores")
    on = and_(
        messages.c.source == last.c.source,
        messages.c.partition == last.c.partition,
        messages.c.offset == last.c.offset,
        messages.c.sub == last.c.sub,
        messages.c.day == last.c.day,
        messages.c.status.in_(("scored", "truncated")),
    )
    names = ("source", "partition", "offset", "sub", "score", "threshold", "flagged")
    columns: list[Any] = [last.c[name] for name in names]
    columns += [func.coalesce(last.c.shadow, False), last.c.created_at, messages.c.message_id, messages.c.tenant]
    query = select(*columns).outerjoin_from(last, messages, on)
    # Within a batch, whose scores all have its transaction's time, in the order of the stream.
    query = query.order_by(last.c.created_at, last.c.source, last.c.partition, last.c.offset, last.c.sub)
    return [Score(*row) for row in connection.execute(query)]


def known_probes(connection: Connection) -> list[dict[str, Any]]:
    """The card in use of every probe that a worker has loaded, by name: the one that scored last, live rather than in
    shadow, else the newest. With it, of that last score: `scored_at`, and its `scored_version` and `scored_digest`,
    which is '' where the digest is unknown; then the card is the newest of that version."""
    names = select(probes.c.name).distinct().subquery("names")
    c = scores.c
    latest = (
        select(c.created_at, c.probe_version, c.probe_digest, c.shadow)
        .where(c.probe == names.c.name)
        .order_by(c.created_at.desc())
        .limit(_LATEST)
        .correlate(names)
        .subquery("latest")
    )
    live_first = (latest.c.shadow.is_(True), latest.c.created_at.desc(), latest.c.probe_version.desc())
    last = select(latest).order_by(*live_first, latest.c.probe_digest).limit(1).subquery("last").lateral()
    of_last = func.coalesce(probes.c.digest == last.c.probe_digest, False)
    of_version = func.coalesce(and_(last.c.probe_digest == "", probes.c.version == last.c.probe_version), False)
    in_use = (of_last.desc(), of_version.desc(), probes.c.version.desc(), probes.c.registered_at.desc())
    query = (
        select(
            probes,
            last.c.created_at.label("scored_at"),
            last.c.probe_version.label("scored_version"),
            last.c.probe_digest.label("scored_digest"),
        )
        .select_from(names.outerjoin(last, true()).join(probes, probes.c.name == names.c.name))
        .ext(distinct_on(probes.c.name))
        .order_by(probes.c.name, *in_use, probes.c.digest)
    )
    return [dict(row) for row in connection.execute(query).mappings()]
