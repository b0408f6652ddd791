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

Retention removes rollups with the scores (`storage.retention`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, text

from storage.database import transact
from storage.locks import SharedLock, try_lock

_SLACK = "10 seconds"
_STEP = "1 hour"
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
        least(first.at + interval '{_STEP}', horizon.at) AS until FROM horizon, first
    """  # noqa: S608 - constants of this module
)

# A quantile of the calibration by the card: `tail` holds pairs of a share and a score. What is none is infinitely high.
_TAIL = (
    "coalesce((jsonb_path_query_first(card, 'strict $.calibration.tail[*] ? (@[0] == {})[1] "
    "? (@.type() == \"number\")', silent => true) #>> '{{}}')::float8, 'infinity')"
)

# A message is joined by its whole key, the day included, so that one partition a score is asked.
_SCORES = text(
    f"""
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
)
_HEADS = text(
    """
    INSERT INTO head_rollups AS old (bucket, probe, probe_version, probe_digest, layer, head, n, total, flagged,
        flagged_total)
    SELECT date_bin('5 minutes', s.created_at, '2000-01-01'), s.probe, s.probe_version, s.probe_digest, h.layer, h.head,
        count(*), sum(h.score), count(*) FILTER (WHERE s.flagged), coalesce(sum(h.score) FILTER (WHERE s.flagged), 0)
    FROM scores AS s JOIN head_scores AS h ON h.source = s.source AND h.partition = s.partition
        AND h."offset" = s."offset" AND h.sub = s.sub AND h.probe = s.probe AND h.probe_digest = s.probe_digest
        AND h.day = s.day
    WHERE s.probe IN (SELECT name FROM probes) AND s.created_at >= :since AND s.created_at < :until
    GROUP BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (bucket, probe, probe_version, probe_digest, layer, head) DO UPDATE SET n = old.n + excluded.n,
        total = old.total + excluded.total, flagged = old.flagged + excluded.flagged,
        flagged_total = old.flagged_total + excluded.flagged_total
    """
)
_STATE = text("UPDATE rollup_state SET until = greatest(until, :until), at = clock_timestamp()")
# The migration inserts it; truncating the tables may have removed it.
_BEGIN = text("INSERT INTO rollup_state (until) VALUES ('-infinity') ON CONFLICT DO NOTHING")


def roll_up(engine: Engine) -> int | None:
    """Bring the rollups up to date; returns the number of scores added. Raises as `transact` does."""
    added = 0
    while True:
        step = transact(engine, _step)
        if step is None:  # another process continues
            return added or None
        number, last = step
        added += number
        if last:
            return added


def _step(connection: Connection) -> tuple[int, bool] | None:
    """Scores added, and whether there are no more; None when another rolls up."""
    if not try_lock(connection, SharedLock.ROLLUP):
        return None
    connection.execute(_BEGIN)
    # Plan for these days and times, not for any.
    connection.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
    horizon, since, until = connection.execute(_NEXT).one()
    number = 0
    if since is not None and since < until:
        span: dict[str, Any] = {"since": since, "until": until}
        number = connection.execute(_SCORES, span).scalar_one()
        connection.execute(_HEADS, span)
    # With nothing to add, the watermark still moves.
    reached = horizon if since is None else until
    connection.execute(_STATE, {"until": reached})
    return int(number), reached >= horizon
