"""Tail drift as the tables have it: of each probe's traffic, and of its largest tenants'.

Contract: `measure_tails(connection, rule)` gives years (`exceedance.years`) by (probe, tenant), None for all traffic,
from the hourly rollups of the window that ends with the last whole hour that was rolled up. Streams with fewer scores
than `at_least` have no value. Of a probe's digests the one in use counts (`alerts.rules.in_use`), so a probe that was
calibrated again starts anew. Of the rule's one false alarm a year, each probe has an equal part: half of it for all its
traffic, half for its tenants, in as many parts as `tenants` says, whether there are so many or not.

Rollups do not know which scores were in shadow: a replay into the digest of a live probe counts as traffic of its hour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from sqlalchemy import Connection, Engine, Text, cast, select, text

from alerts.rules.exceedance import QUANTILES, Array, Hours, Level, evidence, levels, years
from alerts.rules.in_use import HOUR, in_use
from alerts.rules.model import MonitorRule
from alerts.rules.patterns import matches
from storage.schema import probes, rollup_state

# (probe, tenant).
Key = tuple[str, str | None]

_UNTIL = text("SELECT date_bin('1 hour', until, '2000-01-01') FROM rollup_state WHERE isfinite(until)")
_SUMS = ", ".join(f"sum({name})::float8 AS {name}" for name in ("n", *QUANTILES))
_COUNTS = text(
    f"""
    WITH counted AS MATERIALIZED (
        SELECT probe_digest, tenant, bucket, {_SUMS} FROM score_rollups
        WHERE minutes = 60 AND bucket >= :since AND bucket < :until AND probe_digest = ANY(:digests)
        GROUP BY probe_digest, tenant, bucket
    ), ordered AS (
        SELECT probe_digest, tenant, row_number() OVER (PARTITION BY probe_digest ORDER BY sum(n) DESC, tenant) AS place
        FROM counted WHERE tenant <> '' GROUP BY probe_digest, tenant
    )
    SELECT probe_digest, NULL AS tenant, bucket, {_SUMS} FROM counted GROUP BY probe_digest, bucket
    UNION ALL
    SELECT * FROM counted WHERE (probe_digest, tenant) IN (
        SELECT probe_digest, tenant FROM ordered WHERE place <= :tenants
    )
    """  # noqa: S608 - names of this module
)


@dataclass(frozen=True)
class Stream:
    """Scores by hour of one digest of a probe: of all its traffic, or of a tenant's."""

    probe: str
    digest: str
    tenant: str | None
    tail: tuple[Level, ...]
    hours: Hours

    def within(self, first: int, end: int) -> Stream:
        """The same from one hour to before another."""
        above = {name: counts[first:end] for name, counts in self.hours.above.items()}
        return Stream(self.probe, self.digest, self.tenant, self.tail, Hours(self.hours.n[first:end], above))

    @property
    def last(self) -> int:
        """The last hour with traffic; -1 where there is none."""
        return int(np.flatnonzero(self.hours.n)[-1]) if self.hours.n.any() else -1


# By database: the rollups' state that a rule was last measured at, and its values. Rules are evaluated several times a
# minute, rollups change once, and reading two weeks of many tenants takes a second.
_measured: WeakKeyDictionary[Engine, dict[MonitorRule, tuple[Any, dict[Key, float]]]] = WeakKeyDictionary()


def measure_tails(connection: Connection, rule: MonitorRule) -> dict[Key, float]:
    """Years by probe and tenant, at the end of the last whole hour; read anew when more was rolled up."""
    # As text: until the first roll-up it is -infinity.
    state = connection.execute(select(cast(rollup_state.c.until, Text), rollup_state.c.at)).one_or_none()
    kept = _measured.setdefault(connection.engine, {})
    if state is None or rule not in kept or kept[rule][0] != state:
        kept[rule] = state, values(streams(connection, rule, rule.window)[1], rule)
    return dict(kept[rule][1])


def tails_by_hour(
    connection: Connection, rule: MonitorRule, since: timedelta
) -> Iterator[tuple[datetime, dict[Key, float]]]:
    """What the rule would have measured at the end of each hour since then."""
    until, found = streams(connection, rule, rule.window + since)
    window, hours = rule.window // HOUR, since // HOUR
    if until is not None:
        for ago in range(hours - 1, -1, -1):
            end = window + hours - ago
            yield until - ago * HOUR, values([stream.within(end - window, end) for stream in found], rule)


def drifting_hours(connection: Connection, rule: MonitorRule, digest: str) -> int:
    """For how many hours by now all traffic of a digest has been over the rule's limit, in the rule's window."""
    _, found = streams(connection, rule, rule.window)
    for stream in found:
        if stream.digest == digest and stream.tenant is None and stream.hours.n.sum() >= rule.at_least:
            over = years(evidence(stream.tail, stream.hours, rule.tolerance), _weights(rule, 1)[0]) > rule.limit
            return len(over) if over.all() else int(over[::-1].argmin())
    return 0


def streams(connection: Connection, rule: MonitorRule, back: timedelta) -> tuple[datetime | None, list[Stream]]:
    """Traffic by hour up to the last whole one, whose end is given; None where nothing was ever rolled up."""
    until = connection.execute(_UNTIL).scalar()
    cards = {
        row.digest: (row.name, levels({"calibration": row.calibration}))
        for row in connection.execute(
            select(probes.c.digest, probes.c.name, probes.c.card["calibration"].label("calibration"))
        )
        if matches(rule.probe, row.name)
    }
    tails = {digest: found for digest, found in cards.items() if any(level.enough for level in found[1])}
    if until is None or not tails:
        return until, []
    hours = back // HOUR
    since = until - hours * HOUR
    asked = {"since": since, "until": until, "digests": list(tails), "tenants": rule.tenants}
    counts: dict[tuple[str, str | None], Array] = {}
    for row in connection.execute(_COUNTS, asked):
        key = (row.probe_digest, row.tenant)
        by_hour = counts.setdefault(key, np.zeros((1 + len(QUANTILES), hours)))
        by_hour[:, (row.bucket - since) // HOUR] = (row.n, *(getattr(row, name) for name in QUANTILES))
    found = []
    for (digest, tenant), by_hour in counts.items():
        above = dict(zip(QUANTILES, by_hour[1:], strict=True))
        found.append(Stream(tails[digest][0], digest, tenant, tails[digest][1], Hours(by_hour[0], above)))
    last = {s.digest: (s.probe, since + s.last * HOUR) for s in found if s.tenant is None}
    used = in_use(connection, last)
    return until, [stream for stream in found if stream.digest in used]


def values(found: Sequence[Stream], rule: MonitorRule) -> dict[Key, float]:
    """Years by probe and tenant of these hours."""
    tested = [stream for stream in found if stream.hours.n.sum() >= rule.at_least]
    weights = _weights(rule, len({stream.probe for stream in tested}))
    measured: dict[Key, float] = {}
    for stream in tested:
        log = evidence(stream.tail, stream.hours, rule.tolerance)
        value = float(years(log, weights[stream.tenant is not None])[-1])
        # Two workers with two cards in the same hour: the worse one is told.
        key = (stream.probe, stream.tenant)
        measured[key] = max(value, measured.get(key, 0.0))
    return measured


def _weights(rule: MonitorRule, number: int) -> tuple[float, float]:
    """The parts of the false alarms that all traffic of a probe has, and each of its tenants."""
    part = 1 / max(number, 1)
    return (part / 2, part / 2 / rule.tenants) if rule.tenants else (part, 0.0)
