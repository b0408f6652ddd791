"""The first screen: health, traffic, flagged share, open alerts, tenants with the highest flagged share."""

from __future__ import annotations

from alerts.dashboards.board import (
    INVESTIGATE,
    MODEL,
    OVERVIEW,
    PROBE,
    PROBES,
    ROLLUPS_IN_RANGE,
    TENANT,
    dashboard,
    link_to,
    matches,
    matches_nullable,
    series_by_card,
    tenant_column,
)
from alerts.dashboards.panels import BAD, GOOD, WARN, Json, column, prom, sql, stat, table, timeseries

_SELECTED = " AND ".join(matches(variable) for variable in ("probe", "tenant", "model"))
IN_RANGE = f"score_rollups WHERE {ROLLUPS_IN_RANGE} AND {_SELECTED}"

FLAGGED = sql(f"SELECT sum(flagged)::float8 / nullif(sum(n), 0) AS flagged FROM {IN_RANGE}")  # noqa: S608
OPEN = f"""
    SELECT count(*) AS open FROM alerts WHERE state = 'open' AND severity IN ({{}}) AND {matches_nullable("tenant")}
"""  # noqa: S608
WORST = sql(
    f"""
    WITH sums AS (
        SELECT tenant, sum(n) AS scored, sum(flagged) AS flagged, max(peak) AS top_score
        FROM {IN_RANGE} GROUP BY tenant HAVING sum(flagged) > 0
    ), shares AS (
        SELECT *, flagged::float8 / scored AS share, 1.96 ^ 2 / scored AS z FROM sums
    )
    SELECT tenant, flagged, scored, share, top_score,
        (share + z / 2 - sqrt(share * (1 - share) * z + z * z / 4)) / (1 + z) AS at_least
    FROM shares ORDER BY at_least DESC LIMIT 10
    """  # noqa: S608
)
ALERTS = sql(
    f"""
    SELECT last_seen_at AS last, severity, state, rule, probe, coalesce(tenant, '') AS tenant, model, count, top_score,
        units, top_message ->> 'id' AS top_message, opened_at AS opened, id::text AS alert
    FROM alerts WHERE state <> 'resolved' AND {matches_nullable("tenant")}
    ORDER BY array_position(ARRAY['critical', 'error', 'warning'], severity), last_seen_at DESC LIMIT 50
    """  # noqa: S608
)
SHARES = sql(
    f"""
    WITH shares AS (
        SELECT $__timeGroup(bucket, $__interval) AS time, probe, probe_version, probe_digest,
            sum(flagged)::float8 / sum(n) AS value FROM {IN_RANGE} GROUP BY 1, 2, 3, 4
    )
    SELECT time, {series_by_card("time")} AS metric, value FROM shares ORDER BY 1, 2
    """,  # noqa: S608
    series=True,
)

SEVERITY_STEPS = ((None, GOOD), (1, BAD))


def overview() -> Json:
    """Traffic, flagged rate, open alerts, worst tenants, lag and health on one screen."""
    return dashboard(
        OVERVIEW,
        "awry: overview",
        "Traffic, flagged scores and open alerts of the last hour, and whether anybody has to act.",
        [
            (4, [(3, panel) for panel in _numbers()]),
            (8, [(12, _traffic()), (12, _flagged())]),
            (9, [(14, _alerts()), (10, _tenants())]),
            (7, [(8, _waiting()), (8, _unscored()), (8, _health())]),
        ],
        [PROBES, TENANT, MODEL],
        time_from="now-1h",
    )


def _numbers() -> list[Json]:
    return [
        stat(
            "Critical open",
            "Alerts of severity critical that nobody has acknowledged, of any age.",
            "short",
            sql(OPEN.replace("{}", "'critical'")),
            SEVERITY_STEPS,
        ),
        stat(
            "Other open",
            "Alerts of severity warning or error that nobody has acknowledged, of any age.",
            "short",
            sql(OPEN.replace("{}", "'warning', 'error'")),
            ((None, GOOD), (1, WARN)),
        ),
        stat(
            "Flagged",
            "Share of the scores in this range that are above their probe's threshold.",
            "percentunit",
            FLAGGED,
            decimals=2,
            no_value="nothing scored",
        ),
        stat(
            "Messages",
            "Stored per second, over all workers, at the end of the range.",
            "mps",
            prom("sum(rate(awry_messages_total[5m]))", instant=True),
            no_value="no worker",
        ),
        stat(
            "Waiting since",
            "Age of the oldest message that was read and has no score yet, of the slowest worker: its "
            "alert is delayed by as much.",
            "s",
            prom("max(awry_oldest_unscored_seconds)", instant=True),
            ((None, GOOD), (60, WARN), (300, BAD)),
            no_value="no worker",
        ),
        stat(
            "Lag",
            "Messages in the stream that are not committed, over all partitions.",
            "short",
            prom("sum(awry_consumer_lag)", instant=True),
            no_value="no Kafka",
        ),
        stat(
            "Passed unscored",
            "Messages that passed without a score in this range, whatever the reason: the way to evade the monitor.",
            "short",
            prom("sum(increase(awry_fail_open_total[$__range]))", instant=True),
            ((None, GOOD), (1, WARN)),
            decimals=0,
            no_value="no worker",
        ),
        stat(
            "Data as of",
            "Age of the newest score that the panels from PostgreSQL can show. It stays under two "
            "minutes while a worker, awry send or awry serve runs.",
            "s",
            sql("SELECT extract(epoch FROM now() - nullif(until, '-infinity'))::float8 AS age FROM rollup_state"),
            ((None, GOOD), (180, WARN), (900, BAD)),
            decimals=0,
            no_value="never",
        ),
    ]


def _traffic() -> Json:
    return timeseries(
        "Traffic",
        "Messages stored per second by status: only scored and truncated ones have scores.",
        "mps",
        [prom("sum by (status) (rate(awry_messages_total[$__rate_interval]))", "{{status}}")],
        stacked=True,
        minimum=0,
    )


def _flagged() -> Json:
    return timeseries(
        "Flagged share",
        "Share of each probe's scores that are above its threshold, in steps of five minutes, or "
        "of hours where the range is longer than six. Where a probe scored with several cards, each has its line.",
        "percentunit",
        [SHARES],
        minimum=0,
        interval="5m",
        links=[("Probe", link_to(PROBE, "probe", "${__field.name}"))],
    )


def _alerts() -> Json:
    return table(
        "Alerts that are not resolved",
        "Most severe first. The message is the one with the highest score; its link leads "
        "to its scores. Acknowledge with awry alerts ack, or on the page of awry serve.",
        ALERTS,
        [
            column("last", unit="dateTimeFromNow"),
            column("opened", unit="dateTimeFromNow"),
            column("top_score", decimals=2),
            tenant_column(),
            column("probe", link=("This probe", link_to(PROBE, "probe"))),
            column("alert", link=("Messages of this alert", link_to(INVESTIGATE, "alert"))),
            column("top_message", link=("Investigate this message", link_to(INVESTIGATE, "message"))),
        ],
        no_value="none",
    )


def _tenants() -> Json:
    return table(
        "Worst tenants",
        "By the least flagged share that their number of messages allows to say (95 %), so that two "
        "messages of a new tenant do not lead. Top score in class gaps.",
        WORST,
        [
            tenant_column(),
            column("share", unit="percentunit", decimals=2),
            column("at_least", unit="percentunit", decimals=2, steps=((None, GOOD), (0.05, WARN), (0.2, BAD))),
            column("top_score", decimals=2),
        ],
        no_value="nothing flagged",
    )


def _waiting() -> Json:
    return timeseries(
        "Age of the oldest unscored message",
        "Of each worker. It grows while the workers are slower than the traffic, or hang.",
        "s",
        [prom("awry_oldest_unscored_seconds", "{{instance}}")],
        steps=((None, GOOD), (300, BAD)),
        minimum=0,
    )


def _unscored() -> Json:
    return timeseries(
        "Passed without a score",
        "Messages per second by reason; lost: the broker removed them before a worker read them.",
        "mps",
        [prom("sum by (reason) (rate(awry_fail_open_total[$__rate_interval]))", "{{reason}}")],
        stacked=True,
        minimum=0,
    )


def _health() -> Json:
    return timeseries(
        "Health",
        "Workers that Prometheus scrapes, deliveries waiting and deliveries given up. The database shows as 0 "
        "while it does not respond.",
        "short",
        [
            prom('sum(up{job="awry-run"})', "workers up", "A"),
            prom("min(awry_database_up)", "database answers", "B"),
            prom("max(awry_outbox_pending)", "deliveries waiting", "C"),
            prom("max(awry_outbox_dead)", "deliveries given up", "D"),
        ],
        minimum=0,
    )
