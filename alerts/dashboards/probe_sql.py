"""SQL of the dashboard `probe`: the selected card's rows, its calibration by bin, the distance between the two.

The variable `version` holds the digest of a card. A version's number, as links of before have it, stands for its newest
card. `unknown N` are the scores of version N from before cards had digests: no card is theirs, so they are compared
with no calibration.
"""

from __future__ import annotations

from alerts.dashboards.board import FIVE_MINUTE_ROLLUPS_IN_RANGE, ROLLUPS_IN_RANGE, matches, single_value

PROBE_NAME, PROBE_VERSION = single_value("probe"), single_value("version")
_DIGEST = (
    f"(SELECT digest FROM probes WHERE name = {PROBE_NAME} AND {PROBE_VERSION} IN (digest, version::text) "  # noqa: S608
    "ORDER BY registered_at DESC, digest LIMIT 1)"
)


def this(of: str = "") -> str:
    """SQL condition: a score or a rollup is the selected card's; `of` is its table's alias and a dot."""
    unknown = f"{of}probe_digest = '' AND {PROBE_VERSION} = 'unknown ' || {of}probe_version"
    return f"{of}probe = {PROBE_NAME} AND ({of}probe_digest = {_DIGEST} OR {unknown})"


THIS = this()
SCORED = f"score_rollups WHERE {ROLLUPS_IN_RANGE} AND {THIS} AND {matches('tenant')} AND {matches('model')}"
BINNED = f"score_histograms WHERE {FIVE_MINUTE_ROLLUPS_IN_RANGE} AND {THIS} AND {matches('model')}"
_NAMED = f"WHERE digest = {_DIGEST}"
CARD = f"probes {_NAMED}"
QUANTILES = f"probes CROSS JOIN LATERAL jsonb_array_elements(card #> '{{calibration,quantiles}}') AS q {_NAMED}"

# The calibration by bin: the share of its scores up to the upper bound, interpolated between the card's quantiles.
EXPECTED = f"""
    quantiles AS (
        SELECT (q ->> 0)::float8 AS p, (q ->> 1)::float8 AS v FROM {QUANTILES}
    ), expected AS (
        SELECT bin, CASE
            WHEN edge < (SELECT min(v) FROM quantiles) THEN 0
            WHEN edge >= (SELECT max(v) FROM quantiles) THEN 1
            ELSE (
                SELECT low.p + (high.p - low.p) * (edge - low.v) / (high.v - low.v)
                FROM (SELECT p, v FROM quantiles WHERE v <= edge ORDER BY v DESC, p DESC LIMIT 1) AS low,
                    (SELECT p, v FROM quantiles WHERE v > edge ORDER BY v, p LIMIT 1) AS high
            ) END AS upto
        FROM (SELECT bin, (bin + 1) / 10.0::float8 AS edge FROM generate_series(-51, 99) AS bin) AS edges
        WHERE EXISTS (SELECT FROM quantiles)
    )"""  # noqa: S608

# Alerts that a reviewer judged in the range and whose messages the selected card flagged. An alert has the name of its
# probe only; the twenty messages with the highest scores say which card it was.
JUDGED_ALERTS = f"""alerts WHERE probe = {PROBE_NAME} AND verdict IN ('true', 'false') AND $__timeFilter(verdict_at)
        AND EXISTS (
            SELECT FROM (SELECT * FROM alert_messages WHERE alert_id = alerts.id ORDER BY score DESC LIMIT 20) AS l
            CROSS JOIN LATERAL (
                SELECT FROM scores AS s WHERE s.source = l.source AND s.partition = l.partition
                    AND s."offset" = l."offset" AND s.sub = l.sub AND s.day = l.day AND s.flagged
                    AND {this("s.")} LIMIT 1
            ) AS s
        )"""  # noqa: S608
JUDGED = f"""
    SELECT count(*) FILTER (WHERE verdict = 'false')::float8 / nullif(count(*), 0) AS false_alarms FROM {JUDGED_ALERTS}
"""  # noqa: S608


def distance(time: str) -> str:
    """SQL: the Kolmogorov-Smirnov distance from the calibration by `time`, and its critical value at p = 0.001.

    The traffic's distribution is a step function, the calibration's linear between quantiles: the largest distance is
    at a bin with scores, either at its upper bound, after its scores, or at its lower bound, before them.
    """
    return f"""
    WITH {EXPECTED}, counted AS (
        SELECT {time} AS time, bin, sum(n) AS n FROM {BINNED} GROUP BY 1, 2
    ), found AS (
        SELECT time, bin, n, sum(n) OVER (PARTITION BY time) AS all_n,
            sum(n) OVER (PARTITION BY time ORDER BY bin) AS upto FROM counted
    )
    SELECT found.time, max(greatest(abs(found.upto / all_n - here.upto), abs((found.upto - n) / all_n - below.upto)))
            AS drift,
        1.95 * sqrt(1.0 / max(all_n) + 1.0 / (SELECT (card #>> '{{calibration,n}}')::float8 FROM {CARD})) AS chance
    FROM found JOIN expected AS here ON here.bin = found.bin JOIN expected AS below ON below.bin = found.bin - 1
    GROUP BY 1 ORDER BY 1
    """  # noqa: S608
