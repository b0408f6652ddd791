"""SQL of the dashboard `probe`: the statistic of `alerts.rules.exceedance` by hour, as the rule `tail_drift` has it.

The same constants and the same figures: a test compares them. The window, tolerance and parts are those of the built-in
rule; the filters on tenant and model apply, so that with them it is the statistic of their messages. Two weeks before
the range are read, so that a drift that began then is seen. Hours that were rolled up whole count, and no others.
"""

from __future__ import annotations

from collections.abc import Sequence

from alerts.dashboards.board import matches
from alerts.dashboards.probe_sql import CARD, THIS
from alerts.rules.exceedance import (
    FACTORS_ABOVE,
    FACTORS_BELOW,
    HOURS_A_YEAR,
    MOST_AN_HOUR,
    MOST_YEARS,
    QUANTILES,
    RECENT_HOURS,
    STAKES,
    TOGETHER,
    TOLERANCE,
    Z,
)

_WINDOW = "interval '14 days'"
_FROM = "date_bin('1 hour', $__timeFrom()::timestamptz, '2000-01-01')"
_TO = "date_bin('1 hour', least($__timeTo()::timestamptz, (SELECT until FROM rollup_state)), '2000-01-01')"
_READ = f"minutes = 60 AND bucket >= least({_FROM}, {_TO} - {_WINDOW}) AND bucket < {_TO}"
# Exponents of a float8.
_MOST = 600


def _values(rows: Sequence[Sequence[object]]) -> str:
    return ", ".join(f"({', '.join(str(value) for value in row)})" for row in rows)


def _bets() -> str:
    """(column, kind, factor or stake, weight of its logarithm)."""
    part = 1 / (len(QUANTILES) + 1)
    rows: list[Sequence[object]] = []
    for name in QUANTILES:
        each = part / (len(STAKES) + len(FACTORS_ABOVE))
        rows += [(f"'{name}'", "'stake'", stake, each) for stake in STAKES]
        rows += [(f"'{name}'", "'above'", factor, each) for factor in FACTORS_ABOVE]
    rows += [("'over95'", "'below'", factor, part / len(FACTORS_BELOW)) for factor in FACTORS_BELOW]
    return _values(rows)


def _limit(count: str, of: str, sign: str) -> str:
    safe = f"greatest({count}, 1e-9)"
    root = f"1 - 1 / (9 * {safe}) {sign} {Z} / (3 * sqrt({safe}))"
    return f"({safe} * greatest({root}, 0) ^ 3 / ({of}))"


_COUNT, _OF = "(before + above_quantile)", "(before_n + calibration_n)"

# Years, by hour, of the selected probe.
TAIL = f"""
    WITH quantiles (name, quantile) AS (
        VALUES {_values([(f"'{name}'", f"{quantile}::float8") for name, quantile in QUANTILES.items()])}
    ), bets (name, kind, by, weight) AS (VALUES {_bets()}),
    calibration AS (
        SELECT (card #>> '{{calibration,n}}')::float8 AS calibration_n, card #> '{{calibration,tail}}' AS tail,
            card #> '{{calibration,quantiles}}' AS quantiles FROM {CARD}
    ), levels AS (
        SELECT name, 1 - quantile AS share, calibration_n,
            calibration_n - floor((calibration_n - 1) * quantile + 1e-9) - 1 AS above_quantile,
            name = 'over95' AND NOT EXISTS (
                SELECT FROM jsonb_array_elements(quantiles) AS q
                WHERE (q ->> 0)::float8 <> 0.95 AND (q ->> 1)::float8 = (known ->> 1)::float8
            ) AS too_few
        FROM calibration CROSS JOIN quantiles CROSS JOIN LATERAL jsonb_array_elements(
            CASE jsonb_typeof(tail) WHEN 'array' THEN tail ELSE '[]' END
        ) AS known WHERE (known ->> 0)::float8 = quantile AND calibration_n * (1 - quantile) > 1 - 1e-9
    ), hours AS (
        SELECT bucket, sum(n)::float8 AS n, {", ".join(f"sum({name})::float8 AS {name}" for name in QUANTILES)}
        FROM score_rollups WHERE {_READ} AND {THIS} AND {matches("tenant")} AND {matches("model")} GROUP BY bucket
    ), probes_tested AS (
        SELECT greatest(count(DISTINCT probe), 1) AS number FROM score_rollups
        WHERE {_READ} AND bucket >= {_TO} - interval '1 day' AND probe_digest IN (
            SELECT digest FROM probes WHERE jsonb_typeof(card #> '{{calibration,tail,0}}') = 'array'
        )
    ), counted AS (
        SELECT bucket, n, share, calibration_n, above_quantile, too_few, name,
            CASE name {" ".join(f"WHEN '{name}' THEN {name}" for name in QUANTILES)} END AS above FROM hours, levels
    ), earlier AS (
        SELECT *, coalesce(sum(n) OVER early, 0) / {TOGETHER} AS before_n,
            coalesce(sum(above) OVER early, 0) / {TOGETHER} AS before
        FROM counted WINDOW early AS (
            PARTITION BY name ORDER BY bucket
            RANGE BETWEEN UNBOUNDED PRECEDING AND interval '{RECENT_HOURS} hours' PRECEDING
        )
    ), promised AS (
        SELECT *, greatest(n, 1) AS any_n, least(greatest(n, 1), {TOGETHER}) AS together,
            {TOLERANCE} * least(greatest({_limit(f"({_COUNT} + 1)", _OF, "+")}, share),
                {_limit("(above_quantile + 1)", "calibration_n", "+")}) AS most,
            greatest(least({_limit(_COUNT, _OF, "-")}, share), {_limit("above_quantile", "calibration_n", "-")})
                / {TOLERANCE} AS least_share
        FROM earlier
    ), factors AS (
        SELECT bucket, name, kind, by, weight, least({MOST_AN_HOUR}, CASE kind
            WHEN 'stake' THEN ln(1 + by * (above / any_n / most - 1))
            WHEN 'above' THEN (above * ln(by) - n * ln(1 + most * (by - 1))) / together
            ELSE (above * ln(by) - n * ln(1 + least_share * (by - 1))) / together END) AS log
        FROM promised JOIN bets USING (name) WHERE kind <> 'below' OR too_few
    ), sums AS (
        SELECT bucket, name, kind, by, weight, sum(log) OVER (PARTITION BY name, kind, by ORDER BY bucket) AS total
        FROM factors
    ), lowest AS (
        SELECT bucket, weight, total - least(0, min(total) OVER (
            PARTITION BY name, kind, by ORDER BY bucket ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        )) AS cusum FROM sums
    )
    SELECT bucket AS time,
        least({MOST_YEARS:.0f}, sum(weight * exp(least(greatest(cusum, -{_MOST}), {_MOST}))) / {HOURS_A_YEAR}
            / 2 / (SELECT number FROM probes_tested)) AS "years without drift",
        1.0::float8 AS "limit"
    FROM lowest WHERE bucket >= {_FROM} GROUP BY bucket ORDER BY 1
"""  # noqa: S608
