"""Which digests of the probes are in use, and how old their calibrations are.

Contract: of the digests of one name those are in use that have live scores in the newest hour of any of them, by the
hourly rollups: one, or two where workers run with two cards. A digest whose newest scores are all in shadow or replayed
is not in use. `measure_ages` gives days since the calibration, by probe; of two digests the older one counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select, text

from alerts.rules.model import MonitorRule
from alerts.rules.patterns import matches
from storage.schema import probes, score_rollups

HOUR = timedelta(hours=1)

_LIVE = text(
    """
    SELECT bool_or(shadow IS NOT TRUE) FROM (
        SELECT shadow FROM scores WHERE probe = :probe AND probe_digest = :digest
            AND created_at >= :hour AND created_at < CAST(:hour AS timestamptz) + interval '1 hour'
        ORDER BY created_at DESC LIMIT 10000
    ) AS newest
    """
)


def in_use(connection: Connection, last: Mapping[str, tuple[str, datetime]]) -> set[str]:
    """Of these digests, with their probe's name and their newest hour with scores."""
    newest: dict[str, datetime] = {}
    used = set()
    for digest, (probe, hour) in sorted(last.items(), key=lambda item: item[1][1], reverse=True):
        if newest.get(probe, hour) == hour:
            asked = {"probe": probe, "digest": digest, "hour": hour}
            if connection.execute(_LIVE, asked).scalar():
                newest[probe] = hour
                used.add(digest)
    return used


def measure_ages(connection: Connection, rule: MonitorRule) -> dict[str, float]:
    """Days since the calibration of each probe that is in use in the window."""
    recent = score_rollups.c.bucket > func.now() - rule.window
    hours = (
        select(score_rollups.c.probe, score_rollups.c.probe_digest, func.max(score_rollups.c.bucket).label("hour"))
        .where(score_rollups.c.minutes == 60, recent)
        .group_by(score_rollups.c.probe, score_rollups.c.probe_digest)
    )
    last = {r.probe_digest: (r.probe, r.hour) for r in connection.execute(hours) if matches(rule.probe, r.probe)}
    today = connection.execute(select(func.now())).scalar_one().date()
    cards = select(probes.c.name, probes.c.card).where(probes.c.digest.in_(in_use(connection, last)))
    ages: dict[str, float] = {}
    for row in connection.execute(cards):
        age = calibration_age(row.card, today)
        if age is not None:
            ages[row.name] = max(age, ages.get(row.name, age))
    return ages


def calibration_age(card: Mapping[str, Any], today: date) -> float | None:
    """Days since a card's calibration was made; None where it does not say."""
    try:
        return float((today - date.fromisoformat(str((card.get("calibration") or {})["made"]))).days)
    except (KeyError, ValueError):
        return None
