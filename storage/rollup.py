"""Sums of scores by five minutes, so that a dashboard of ten million scores answers at once.

Contract: `roll_up(engine)` adds every score that was committed since the last time to the rollups (`storage.schema`),
each exactly once, however many processes call it at once: it returns the number that it added itself, and None when
another process rolls up and it added nothing. It may be stopped anywhere: each step is one transaction, of an hour of
scores at most. Rollups lag behind by what was scored since the last call; processes that serve dashboards call it once
a minute.

The watermark is safe because `created_at` is the time at which the writer's transaction began: it stays below the
beginning of every transaction that is still open in this database, of a role that may write scores. A long one (a
dump) therefore holds the rollups back; one of a role that only reads does not. A role that may not see when others'
transactions began (other roles than its own, without pg_read_all_stats) relies on them taking less than `_SLACK`.
Scores of a probe that was never registered are left out, and so is what is written after the server's clock was set
back, until it has caught up. Of a tenant's or model's name the first 250 characters count.

Sums are by the digest of the probe, so that no two cards share one. Scores above a quantile of the calibration
(`over95`, `over99`, `over999`) are counted where the card of their digest has it (`calibration.tail`), else 0.

Scores of a message that the rollups cannot hold (a sum beyond the largest number) are left out, with a warning; the
others are added. One call leaves out a few messages at most, and then stops with RowRefusedError: with so many it is no
matter of single ones. Once the cause is gone, rollups that are emptied (all their tables) are filled from the first
score.

Retention removes rollups with the scores (`storage.retention`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, TextClause, text

from storage.coordinates import Coordinates
from storage.database import transact, try_row
from storage.errors import RowRefusedError
from storage.locks import SharedLock, try_lock

_log = logging.getLogger("awry.rollup")

_SLACK = "10 seconds"
# Of scores at most; where the database refuses a row, a step is made smaller, down to one moment, which is one
# transaction of the writer, and is then added message by message.
_STEPS = ("1 hour", "1 minute", "1 second", "1 millisecond", "1 microsecond")
# Messages that one call leaves out at most.
_LEFT_OUT = 20
# Characters of a name in the rollups: two such names of four bytes each fit in one row of an index (2,704 bytes).
_NAME = 250

_OWNER = "(SELECT relowner FROM pg_class WHERE oid = 'scores'::regclass)"

_NEXT = text(
    f"""
    WITH horizon AS (
        SELECT least(now() - interval '{_SLACK}', min(xact_start)) AS at FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
            AND (has_table_privilege(usesysid, 'scores', 'INSERT') OR pg_has_role(usesysid, {_OWNER}, 'MEMBER'))
    ), first AS (
        SELECT min(f.at) AS at FROM (SELECT DISTINCT name FROM probes) AS p CROSS JOIN LATERAL (
            SELECT created_at AS at FROM scores
            WHERE probe = p.name AND created_at >= (SELECT until FROM rollup_state) ORDER BY created_at LIMIT 1
        ) AS f
    )
    SELECT horizon.at AS horizon, least(first.at, horizon.at) AS since,
        least(first.at + CAST(:step AS interval), horizon.at) AS until FROM horizon, first
    """  # noqa: S608 - constants of this module
)

# A quantile of the calibration by the card: `tail` holds pairs of a share and a score. What is none is infinitely high.
_TAIL = (
    "coalesce((jsonb_path_query_first(card, 'strict $.calibration.tail[*] ? (@[0] == {})[1] "
    "? (@.type() == \"number\")', silent => true) #>> '{{}}')::float8, 'infinity')"
)

# A message is joined by its whole key, the day included, so that one partition a score is asked.
_SCORES = f"""
    WITH tails AS MATERIALIZED (
        SELECT digest, {_TAIL.format(0.95)} AS q95, {_TAIL.format(0.99)} AS q99, {_TAIL.format(0.999)} AS q999
        FROM probes
    ), fresh AS MATERIALIZED (
        SELECT date_bin('5 minutes', s.created_at, '2000-01-01') AS bucket, s.probe, s.probe_version, s.probe_digest,
            coalesce(left(m.tenant, {_NAME}), '') AS tenant, coalesce(left(m.model, {_NAME}), '') AS model,
            s.score, s.threshold, s.flagged, s.score > t.q95 AS over95, s.score > t.q99 AS over99,
            s.score > t.q999 AS over999
        FROM scores AS s LEFT JOIN messages AS m ON m.source = s.source AND m.partition = s.partition
            AND m."offset" = s."offset" AND m.sub = s.sub AND m.day = s.day AND m.status IN ('scored', 'truncated')
            LEFT JOIN tails AS t ON t.digest = s.probe_digest
        WHERE s.probe IN (SELECT name FROM probes) AND s.created_at >= :since AND s.created_at < :until
    ), grouped AS (
        SELECT bucket, probe, probe_version, probe_digest, tenant, model, count(*) AS n,
            count(*) FILTER (WHERE flagged) AS flagged, sum(score) AS total, max(score) AS peak,
            max(threshold) AS threshold, count(*) FILTER (WHERE over95) AS over95,
            count(*) FILTER (WHERE over99) AS over99, count(*) FILTER (WHERE over999) AS over999
        FROM fresh GROUP BY 1, 2, 3, 4, 5, 6
    ), summed AS (
        INSERT INTO score_rollups AS old (minutes, bucket, probe, probe_version, probe_digest, tenant, model, n,
            flagged, total, peak, threshold, over95, over99, over999)
        SELECT minutes, date_bin(make_interval(mins => minutes), bucket, '2000-01-01'), probe, probe_version,
            probe_digest, tenant, model, sum(n), sum(flagged), sum(total), max(peak), max(threshold), sum(over95),
            sum(over99), sum(over999)
        FROM grouped CROSS JOIN (VALUES (5), (60)) AS widths (minutes) GROUP BY 1, 2, 3, 4, 5, 6, 7
        ON CONFLICT (minutes, bucket, probe, probe_version, probe_digest, tenant, model) DO UPDATE SET
            n = old.n + excluded.n, flagged = old.flagged + excluded.flagged, total = old.total + excluded.total,
            peak = greatest(old.peak, excluded.peak), threshold = excluded.threshold,
            over95 = old.over95 + excluded.over95, over99 = old.over99 + excluded.over99,
            over999 = old.over999 + excluded.over999
    ), counted AS (
        INSERT INTO score_histograms AS old (bucket, probe, probe_version, probe_digest, model, bin, n)
        SELECT bucket, probe, probe_version, probe_digest, model, floor(10 * greatest(-5, least(9.95, score))), count(*)
        FROM fresh GROUP BY 1, 2, 3, 4, 5, 6
        ON CONFLICT (bucket, probe, probe_version, probe_digest, model, bin) DO UPDATE SET n = old.n + excluded.n
    )
    SELECT count(*) FROM fresh
    """  # noqa: S608 - constants of this module
# Summed by the number of a group and the place in the array: hashes of two numbers, several hundred a message.
_HEADS = """
    WITH fresh AS MATERIALIZED (
        SELECT date_bin('5 minutes', s.created_at, '2000-01-01') AS bucket, s.probe, s.probe_version, s.probe_digest,
            h.layout, s.flagged, h.scores
        FROM scores AS s JOIN head_scores AS h ON h.source = s.source AND h.partition = s.partition
            AND h."offset" = s."offset" AND h.sub = s.sub AND h.probe = s.probe AND h.probe_digest = s.probe_digest
            AND h.day = s.day
        WHERE s.probe IN (SELECT name FROM probes) AND s.created_at >= :since AND s.created_at < :until
    ), groups AS MATERIALIZED (
        SELECT row_number() OVER () AS number, g.* FROM (
            SELECT DISTINCT bucket, probe, probe_version, probe_digest, layout FROM fresh
        ) AS g
    ), sums AS (
        SELECT g.number, e.place, count(*) AS n, sum(e.score::float8) AS total,
            count(*) FILTER (WHERE f.flagged) AS flagged, sum(e.score::float8) FILTER (WHERE f.flagged) AS flagged_total
        FROM fresh AS f JOIN groups AS g USING (bucket, probe, probe_version, probe_digest, layout)
            CROSS JOIN unnest(f.scores) WITH ORDINALITY AS e (score, place)
        GROUP BY g.number, e.place
    )
    INSERT INTO head_rollups AS old (bucket, probe, probe_version, probe_digest, layer, head, n, total, flagged,
        flagged_total)
    SELECT g.bucket, g.probe, g.probe_version, g.probe_digest, l.layers[s.place], l.heads[s.place], sum(s.n),
        sum(s.total), sum(s.flagged), coalesce(sum(s.flagged_total), 0)
    FROM sums AS s JOIN groups AS g ON g.number = s.number JOIN head_layouts AS l ON l.id = g.layout
    GROUP BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (bucket, probe, probe_version, probe_digest, layer, head) DO UPDATE SET n = old.n + excluded.n,
        total = old.total + excluded.total, flagged = old.flagged + excluded.flagged,
        flagged_total = old.flagged_total + excluded.flagged_total
    """
_TIMES = "s.created_at >= :since AND s.created_at < :until"
_MESSAGE = f'{_TIMES} AND s.source = :source AND s.partition = :partition AND s."offset" = :offset AND s.sub = :sub'
_OF_TIMES = (text(_SCORES), text(_HEADS))
_OF_MESSAGE = tuple(text(statement.replace(_TIMES, _MESSAGE)) for statement in (_SCORES, _HEADS))
_MESSAGES = text(
    f"""
    SELECT DISTINCT source, partition, "offset", sub FROM scores AS s
    WHERE s.probe IN (SELECT name FROM probes) AND {_TIMES}
    """  # noqa: S608 - constants of this module
)
_STATE = text("UPDATE rollup_state SET until = greatest(until, :until), at = clock_timestamp()")
# The migration inserts it; truncating the tables may have removed it.
_BEGIN = text("INSERT INTO rollup_state (until) VALUES ('-infinity') ON CONFLICT DO NOTHING")


def roll_up(engine: Engine) -> int | None:
    """Bring the rollups up to date; returns the number of scores added. Raises as `transact` does."""
    added = left_out = size = 0
    while True:
        try:
            step = transact(engine, partial(_step, size=size, may_leave_out=_LEFT_OUT - left_out))
        except RowRefusedError:
            size += 1
            if size == len(_STEPS):
                raise
            continue
        if step is None:  # another process continues
            return added or None
        added += step.added
        left_out += step.left_out
        if step.last:
            return added
        if step.left_out:
            size = 0


@dataclass(frozen=True)
class _Step:
    """Scores added, messages left out, and whether there are no more."""

    added: int
    left_out: int
    last: bool


def _step(connection: Connection, size: int, may_leave_out: int) -> _Step | None:
    """One step; None when another rolls up."""
    if not try_lock(connection, SharedLock.ROLLUP):
        return None
    connection.execute(_BEGIN)
    # Plan for these days and times, not for any.
    connection.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
    horizon, since, until = connection.execute(_NEXT, {"step": _STEPS[size]}).one()
    number = left_out = 0
    if since is not None and since < until:
        span: dict[str, Any] = {"since": since, "until": until}
        if size < len(_STEPS) - 1:
            number = _add(connection, _OF_TIMES, span)
        else:
            number, left_out = _add_by_message(connection, span, may_leave_out)
    # With nothing to add, the watermark still moves.
    reached = horizon if since is None else until
    connection.execute(_STATE, {"until": reached})
    return _Step(number, left_out, reached >= horizon)


def _add(connection: Connection, statements: tuple[TextClause, ...], of: dict[str, Any]) -> int:
    scores, heads = statements
    number = connection.execute(scores, of).scalar_one()
    connection.execute(heads, of)
    return int(number)


def _add_one(connection: Connection, message: dict[str, Any], added: list[int]) -> None:
    added.append(_add(connection, _OF_MESSAGE, message))


def _add_by_message(connection: Connection, span: dict[str, Any], may_leave_out: int) -> tuple[int, int]:
    """(scores added, messages left out)."""
    number = left_out = 0
    for row in connection.execute(_MESSAGES, span).all():
        added: list[int] = []
        names = try_row(connection, partial(_add_one, connection, span | dict(row._mapping), added))
        if names is None:
            number += sum(added)
            continue
        left_out += 1
        told = f"dashboards: the scores of {Coordinates(*row)} are left out, the database refused them ({names})"
        if left_out > may_leave_out:
            raise RowRefusedError(f"{told}; and too many others", names)
        _log.warning("%s", told)
    return number, left_out
