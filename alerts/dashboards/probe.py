"""One probe: whether its scores still agree with its calibration.

Scores are in class gaps: 0 is the mean of the aligned, 1 that of the misaligned messages. Distances and shares are over
all tenants, since histograms have no tenant; the table by tenant has.
"""

from __future__ import annotations

from alerts.dashboards.board import (
    FIVE_MINUTE_ROLLUPS_IN_RANGE,
    MODEL,
    ONE_PROBE,
    PROBE,
    TENANT,
    VERSION,
    dashboard,
    tenant_column,
)
from alerts.dashboards.panels import BAD, GOOD, WARN, Json, bars, column, heatmap, matrix, sql, stat, table, timeseries
from alerts.dashboards.probe_sql import (
    BINNED,
    CARD,
    EXPECTED,
    JUDGED,
    JUDGED_ALERTS,
    PROBE_NAME,
    QUANTILES,
    SCORED,
    THIS,
    distance,
)
from alerts.dashboards.tail_sql import TAIL

GAPS = "suffix: gaps"

# Upper bounds of the heat map's rows, in tenths of a class gap.
ROWS = range(-10, 31, 2)


def probe() -> Json:
    """Score distribution over time against its calibration, drift, threshold, FPR estimate, head heat map."""
    return dashboard(
        PROBE,
        "awry: probe",
        "Whether the scores of a probe still agree with its calibration.",
        [
            (4, [(4, panel) for panel in _numbers()]),
            (9, [(14, _over_time()), (10, _against_calibration())]),
            (8, [(6, _quantiles()), (6, _drift()), (6, _distance()), (6, _flagged())]),
            (8, [(12, _false_positives()), (12, _tenants())]),
            (9, [(12, _heads()), (12, _card())]),
        ],
        [ONE_PROBE, VERSION, TENANT, MODEL],
        time_from="now-24h",
    )


def _of_card(path: str) -> Json:
    return sql(f"SELECT (card #>> '{{{path}}}')::float8 AS value FROM {CARD}")  # noqa: S608


def _numbers() -> list[Json]:
    return [
        stat(
            "Threshold",
            "Scores above it are flagged. From the probe's card; the lines over time show which one was in use.",
            GAPS,
            _of_card("calibration,threshold"),
            decimals=3,
            no_value="no card",
        ),
        stat(
            "Scored",
            "Scores of this probe in the range.",
            "short",
            sql(f"SELECT sum(n) AS scored FROM {SCORED}"),  # noqa: S608
            no_value="none",
        ),
        stat(
            "Flagged",
            "Share of them above the threshold.",
            "percentunit",
            sql(f"SELECT sum(flagged)::float8 / nullif(sum(n), 0) AS flagged FROM {SCORED}"),  # noqa: S608
            decimals=3,
            no_value="none scored",
        ),
        stat(
            "Target FPR",
            "The false-positive rate that the threshold was set for.",
            "percentunit",
            _of_card("calibration,target_fpr"),
            decimals=2,
            no_value="no card",
        ),
        stat(
            "Distance in the range",
            "Largest distance between the distribution of scores in the range and that of "
            "the calibration (Kolmogorov-Smirnov): 0 the same, 1 no overlap. More misaligned messages "
            "than in the calibration set count as drift, too.",
            "percentunit",
            sql(f"SELECT drift FROM ({distance('0')}) AS whole"),  # noqa: S608
            ((None, GOOD), (0.15, WARN), (0.3, BAD)),
            decimals=2,
            no_value="no calibration",
        ),
        stat(
            "Judged false",
            "Of the alerts of this card that a reviewer judged in the range, the share judged false. "
            "Authorised tests are left out.",
            "percentunit",
            sql(JUDGED),
            decimals=0,
            no_value="none judged",
        ),
    ]


def _over_time() -> Json:
    ends = [
        f'sum(n) FILTER (WHERE bin < {end}{"" if end == ROWS[0] else f" AND bin >= {end - 2}"}) AS "{end / 10:g}"'
        for end in ROWS
    ]
    ends.append(f'sum(n) FILTER (WHERE bin >= {ROWS[-1]}) AS "10"')
    return heatmap(
        "Scores over time",
        "How many messages had which score, in steps of 0.2 class gaps; the lowest row holds all "
        "below -1, the highest all above 3.",
        GAPS,
        sql(
            f"SELECT $__timeGroupAlias(bucket, $__interval), {', '.join(ends)} FROM {BINNED} GROUP BY 1 ORDER BY 1",  # noqa: S608
            series=True,
        ),
        interval="10m",
    )


def _against_calibration() -> Json:
    query = f"""
    WITH {EXPECTED}, counted AS (
        SELECT floor(bin / 2.0) AS pair, sum(n) AS n FROM {BINNED} GROUP BY 1
    ), shares AS (
        SELECT floor(bin / 2.0) AS pair, max(upto) - min(before) AS share FROM (
            SELECT bin, upto, lag(upto, 1, 0) OVER (ORDER BY bin) AS before FROM expected
        ) AS steps GROUP BY 1
    )
    SELECT round(pair / 5.0, 1)::text AS score, share AS calibration,
        coalesce(counted.n / (SELECT sum(n) FROM counted), 0)::float8 AS traffic
    FROM counted FULL JOIN shares USING (pair) WHERE counted.n > 0 OR share > 0 ORDER BY pair
    """  # noqa: S608
    return bars(
        "Against the calibration",
        "The share of messages by score in the range, beside the share of the benign "
        "messages that the threshold was set on. Each pair of bars begins at the score below it and is 0.2 class gaps "
        "wide.",
        "percentunit",
        sql(query),
        "score",
        no_value="nothing scored",
    )


def _quantiles() -> Json:
    query = f"""
    WITH counted AS (
        SELECT $__timeGroup(bucket, $__interval) AS time, bin, sum(n) AS n FROM {BINNED} GROUP BY 1, 2
    ), ranked AS (
        SELECT time, bin, sum(n) OVER (PARTITION BY time ORDER BY bin) / sum(n) OVER (PARTITION BY time) AS upto
        FROM counted
    )
    SELECT time, (min(bin) FILTER (WHERE upto >= 0.5) + 0.5) / 10 AS median,
        (min(bin) FILTER (WHERE upto >= 0.95) + 0.5) / 10 AS "95 %",
        (min(bin) FILTER (WHERE upto >= 0.99) + 0.5) / 10 AS "99 %",
        (SELECT (q ->> 1)::float8 FROM {QUANTILES} AND (q ->> 0)::float8 = 0.5) AS "median of the calibration"
    FROM ranked GROUP BY time ORDER BY time
    """  # noqa: S608
    thresholds = f"""
    SELECT $__timeGroupAlias(bucket, $__interval), max(threshold) AS threshold FROM {SCORED} GROUP BY 1 ORDER BY 1
    """  # noqa: S608
    return timeseries(
        "Quantiles and threshold",
        "Median, 95 % and 99 % quantile of the scores, to a tenth of a class gap, and the "
        "threshold that was in use. A step in the threshold is a change of it.",
        GAPS,
        [sql(query, "A", series=True), sql(thresholds, "B", series=True)],
        interval="10m",
    )


def _drift() -> Json:
    return timeseries(
        "Drift",
        "How much speaks against scores above the calibration's 95, 99 and 99.9 % quantiles being as many as it "
        "promises, up to each hour: traffic without drift comes so far once in so many years. Above the limit, one, "
        "the built-in rule alerts. Nothing where the calibration knows none of these quantiles.",
        "suffix: years",
        [sql(TAIL, series=True)],
        interval="1h",
        logarithmic=True,
    )


def _distance() -> Json:
    return timeseries(
        "Distance from the calibration",
        "Distance of the scores of each hour (or longer step) from the calibration (Kolmogorov-Smirnov), and the "
        "distance that as many benign messages exceed by chance once in 1,000 times. It sees the whole distribution, "
        "and hardly its tail: that is what Drift is for.",
        "percentunit",
        [sql(distance("$__timeGroup(bucket, $__interval)"), series=True)],
        interval="1h",
        minimum=0,
        maximum=1,
    )


def _flagged() -> Json:
    query = f"""
    WITH sums AS (
        SELECT $__timeGroup(bucket, $__interval) AS time, sum(flagged)::float8 / sum(n) AS flagged,
            1.96 ^ 2 / sum(n) AS z FROM {SCORED} GROUP BY 1
    )
    SELECT time, flagged,
        (flagged + z / 2 + sqrt(flagged * (1 - flagged) * z + z * z / 4)) / (1 + z) AS "at most (95 %)",
        (SELECT (card #>> '{{calibration,target_fpr}}')::float8 FROM {CARD}) AS "target FPR"
    FROM sums ORDER BY time
    """  # noqa: S608
    return timeseries(
        "Flagged share and target",
        "If nothing in the traffic were misaligned, the flagged share would be the "
        "false-positive rate, and should stay near its target.",
        "percentunit",
        [sql(query, series=True)],
        interval="10m",
        minimum=0,
    )


def _false_positives() -> Json:
    query = f"""
    WITH card AS (SELECT card -> 'calibration' AS c, card #> '{{evaluation,at_threshold,fpr}}' AS held FROM {CARD}),
    sums AS (SELECT sum(n)::float8 AS n, sum(flagged) / nullif(sum(n), 0)::float8 AS share FROM {SCORED}),
    judged AS (
        SELECT count(*)::float8 AS n, count(*) FILTER (WHERE verdict = 'false') / nullif(count(*), 0)::float8 AS share
        FROM {JUDGED_ALERTS}
    ), rates AS (
        SELECT 1 AS place, 'target' AS what, (c ->> 'target_fpr')::float8 AS share, NULL::float8 AS low,
            NULL::float8 AS high, NULL::float8 AS n FROM card
        UNION ALL SELECT 2, 'calibration set', (c #>> '{{fpr,value}}')::float8, (c #>> '{{fpr,low}}')::float8,
            (c #>> '{{fpr,high}}')::float8, (c #>> '{{fpr,n}}')::float8 FROM card
        UNION ALL SELECT 3, 'held-out set', (held ->> 'value')::float8, (held ->> 'low')::float8,
            (held ->> 'high')::float8, (held ->> 'n')::float8 FROM card
        UNION ALL SELECT 4, 'traffic, if none is misaligned', share,
            greatest(0, share + 1.92 / n - sqrt(share * (1 - share) * 3.84 / n + 3.69 / n / n)) / (1 + 3.84 / n),
            (share + 1.92 / n + sqrt(share * (1 - share) * 3.84 / n + 3.69 / n / n)) / (1 + 3.84 / n), n FROM sums
        UNION ALL SELECT 5, 'traffic, by reviewed alerts', sums.share * judged.share,
            sums.share * greatest(0, judged.share + 1.92 / judged.n
                - sqrt(judged.share * (1 - judged.share) * 3.84 / judged.n + 3.69 / judged.n / judged.n))
                / (1 + 3.84 / judged.n),
            sums.share * (judged.share + 1.92 / judged.n
                + sqrt(judged.share * (1 - judged.share) * 3.84 / judged.n + 3.69 / judged.n / judged.n))
                / (1 + 3.84 / judged.n), judged.n FROM sums, judged WHERE judged.n > 0
    )
    SELECT what AS "false-positive rate", share, low, high, n FROM rates WHERE share IS NOT NULL ORDER BY place
    """  # noqa: S608
    return table(
        "False-positive rate",
        "Estimates with 95 % intervals and the number of messages, or of reviewed alerts, "
        "behind each. By reviewed alerts: the flagged share times the share of alerts judged false, as if "
        "alerts had equally many messages.",
        sql(query),
        [column(name, unit="percentunit", decimals=3) for name in ("share", "low", "high")],
        no_value="no card",
    )


def _tenants() -> Json:
    query = f"""
    SELECT tenant, sum(n) AS scored, sum(flagged)::float8 / sum(n) AS flagged, sum(total) / sum(n) AS mean,
        max(peak) AS top FROM {SCORED} GROUP BY tenant ORDER BY sum(total) / sum(n) DESC LIMIT 20
    """  # noqa: S608
    return table(
        "By tenant",
        "The twenty tenants with the highest mean score, in class gaps. A tenant far from the others may "
        "need a calibration of its own.",
        sql(query),
        [
            tenant_column(),
            column("flagged", unit="percentunit", decimals=2),
            column("mean", decimals=2),
            column("top", decimals=2),
        ],
        no_value="nothing scored",
    )


def _heads() -> Json:
    query = f"""
    SELECT layer, head, round((sum(flagged_total) / nullif(sum(flagged), 0)
        - (sum(total) - sum(flagged_total)) / nullif(sum(n) - sum(flagged), 0))::numeric, 3)::float8 AS gap
    FROM head_rollups WHERE {FIVE_MINUTE_ROLLUPS_IN_RANGE} AND {THIS} GROUP BY layer, head ORDER BY layer, head
    """  # noqa: S608
    return matrix(
        "Heads",
        "By layer and head: the mean score of flagged messages at this head minus that of the others. "
        "High values mark the heads that separate flagged messages.",
        GAPS,
        sql(query),
        "layer",
        "head",
        "gap",
        no_value="this probe reads no heads, or flagged nothing",
    )


def _card() -> Json:
    query = f"""
    SELECT name AS probe, version, digest, registered_at AS registered, card ->> 'aggregation' AS reads,
        card #>> '{{identity,model}}' AS model, (card #>> '{{identity,adapter_scale}}')::float8 AS adapter_scale,
        (card #>> '{{evaluation,test,auroc,value}}')::float8 AS auroc,
        (card #>> '{{evaluation,text_only,auroc,value}}')::float8 AS text_only_auroc,
        (card #>> '{{evaluation,at_threshold,tpr,value}}')::float8 AS tpr,
        card #>> '{{calibration,set_name}}' AS calibrated_on,
        (card #>> '{{calibration,n}}')::integer AS n, (card #>> '{{calibration,enough}}')::boolean AS enough,
        (card #>> '{{calibration,threshold}}')::float8 AS threshold, card ->> 'description' AS description
    FROM probes WHERE name = {PROBE_NAME} ORDER BY version DESC, registered_at DESC
    """  # noqa: S608
    return table(
        "Cards",
        "Every card of this probe that was ever loaded: what it reads, what it was calibrated on, and what "
        "it reached on held-out data beside a text-only baseline.",
        sql(query),
        [
            column("registered", unit="dateTimeAsLocal"),
            column("tpr", unit="percentunit", decimals=1),
            column("description", expandable=True),
            *(column(name, decimals=3) for name in ("auroc", "text_only_auroc", "threshold")),
        ],
        no_value="never loaded",
    )
