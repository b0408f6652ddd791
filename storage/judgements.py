"""What a judge, a language model that is asked where a score is uncertain, says of it: an update of the score's row.

Contract: `record_judgement` writes a verdict once: into a row that waits for one, was not asked about, or has none.
Written again, or late, it changes nothing and says so, so that a judge may be asked twice. The probe's own verdict
(`flagged`) stays beside it. `waiting` gives the scores that still wait, for a process that starts again and has no text
of them. Reasons are of a closed list of the caller's and hold no text of a message.

Does not know: who the judge is, what it is asked, and what follows from its verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, get_args

from sqlalchemy import Connection, or_, select, update

from storage.coordinates import Coordinates, clean
from storage.schema import scores

Judgement = Literal["harmful", "harmless", "failed", "not asked"]


@dataclass(frozen=True)
class Waiting:
    """A score whose judge has not answered."""

    at: Coordinates
    probe: str
    digest: str
    day: date
    score: float
    threshold: float
    flagged: bool
    created_at: datetime


def record_judgement(
    connection: Connection,
    at: Coordinates,
    probe: str,
    digest: str,
    verdict: Judgement,
    by: str | None,
    reason: str | None,
    at_time: datetime,
    *,
    day: date | None = None,
) -> bool:
    """Whether the row has this verdict now: False where it has one already, or is not there. `day`, the row's, spares a
    look into the partitions of all days. ValueError for a verdict that is none."""
    if verdict not in get_args(Judgement):
        raise ValueError(f"verdict: {verdict!r} is none of {', '.join(get_args(Judgement))}")
    c = scores.c
    row = update(scores).where(
        c.source == at.source,
        c.partition == at.partition,
        c.offset == at.offset,
        c.sub == at.sub,
        c.probe == probe,
        c.probe_digest == digest,
        or_(c.judge.is_(None), c.judge.in_(("waiting", "not asked"))),
    )
    if day is not None:
        row = row.where(c.day == day)
    values = {"judge": verdict, "judge_by": clean(by), "judge_reason": clean(reason), "judge_at": at_time}
    return connection.execute(row.values(values)).rowcount > 0


def waiting(connection: Connection, before: datetime, limit: int) -> list[Waiting]:
    """Scores stored before a time that wait for their judge, oldest first."""
    c = scores.c
    names = ("probe", "probe_digest", "day", "score", "threshold", "flagged", "created_at")
    query = (
        select(c.source, c.partition, c.offset, c.sub, *(c[name] for name in names))
        .where(c.judge == "waiting", c.created_at < before)
        .order_by(c.created_at, c.source, c.partition, c.offset, c.sub)
        .limit(limit)
    )
    return [Waiting(Coordinates(*row[:4]), *row[4:]) for row in connection.execute(query)]
