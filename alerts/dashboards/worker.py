"""The workers: how fast, where the time goes, what was put aside."""

from __future__ import annotations

from alerts.dashboards.board import INVESTIGATE, TENANT, WORKER, dashboard, link_to, of_messages, tenant_column
from alerts.dashboards.panels import BAD, GOOD, WARN, Json, column, prom, sql, stat, table
from alerts.dashboards.panels import timeseries as lines

INSTANCE: Json = {
    "type": "query",
    "name": "instance",
    "label": "Worker",
    "description": "Which workers, by the address that Prometheus asks.",
    "datasource": {"type": "prometheus", "uid": "awry-prometheus"},
    "query": {"query": "label_values(awry_batch_messages_count, instance)", "refId": "instance"},
    "refresh": 2,
    "sort": 1,
    "multi": True,
    "includeAll": True,
    "allValue": ".*",
    "current": {"text": ["All"], "value": ["$__all"]},
}
HERE = 'instance=~"${instance:regex}"'


def worker() -> Json:
    """Throughput, stage times, batch fill, GPU, dead letters."""
    return dashboard(
        WORKER,
        "awry: worker",
        "Whether the workers keep up with the traffic, and what slows them down.",
        [
            (4, [(4, panel) for panel in _numbers()]),
            (8, [(8, _throughput()), (8, _tokens()), (8, _lag())]),
            (8, [(8, _stages()), (8, _slow_batches()), (8, _fill())]),
            (8, [(8, _memory()), (8, _gpu()), (8, _trouble())]),
            (8, [(12, _dead_letters()), (12, _workers())]),
            (7, [(8, _put_aside()), (8, _deliveries()), (8, _alerting())]),
        ],
        [INSTANCE, TENANT],
        since="now-1h",
    )


def _rate(name: str, by: str = "", labels: str = "") -> str:
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({name}{{{HERE}{labels}}}[$__rate_interval]))"


def _numbers() -> list[Json]:
    return [
        stat(
            "Workers",
            "Workers that answer Prometheus.",
            "short",
            prom('sum(up{job="awry-run"})', instant=True),
            ((None, BAD), (1, GOOD)),
            empty="none",
        ),
        stat(
            "Messages",
            "Stored per second over the last five minutes.",
            "mps",
            prom(f"sum(rate(awry_messages_total{{{HERE}}}[5m]))", instant=True),
            empty="no worker",
        ),
        stat(
            "Busy",
            "Share of the workers' time that the model takes: near 100 % they are as fast as they get.",
            "percentunit",
            prom(
                f'avg(sum by (instance) (rate(awry_stage_seconds_sum{{{HERE}, stage=~"forward|mitigate"}}[5m])))',
                instant=True,
            ),
            empty="no worker",
            decimals=0,
        ),
        stat(
            "Lag",
            "Messages in the stream that are not committed.",
            "short",
            prom(f"sum(awry_consumer_lag{{{HERE}}})", instant=True),
            empty="no Kafka",
        ),
        stat(
            "Dead letters",
            "Messages put aside in this range: invalid ones are their producer's fault, failed ones awry's.",
            "short",
            prom(f"sum(increase(awry_dead_letters_total{{{HERE}}}[$__range]))", instant=True),
            ((None, GOOD), (1, WARN)),
            decimals=0,
            empty="no worker",
        ),
        stat(
            "Known already",
            "Messages delivered again that were in the tables: after a restart or a rebalance.",
            "short",
            prom(f"sum(increase(awry_known_messages_total{{{HERE}}}[$__range]))", instant=True),
            decimals=0,
            empty="no worker",
        ),
    ]


def _throughput() -> Json:
    return lines(
        "Throughput",
        "Messages stored per second by what became of them.",
        "mps",
        [prom(_rate("awry_messages_total", "status"), "{{status}}")],
        stacked=True,
        least=0,
    )


def _tokens() -> Json:
    return lines(
        "Tokens",
        "Tokens that the model read per second, by worker.",
        "suffix: tokens/s",
        [prom(_rate("awry_tokens_total", "instance"), "{{instance}}")],
        least=0,
    )


def _lag() -> Json:
    return lines(
        "Lag by partition",
        "Messages that are not committed. One partition that grows alone has a message "
        "that keeps its worker busy, or no worker.",
        "short",
        [prom(f"awry_consumer_lag{{{HERE}}}", "{{topic}} {{partition}}")],
        least=0,
    )


def _stages() -> Json:
    return lines(
        "Time by stage",
        "Seconds of each second that the workers spend in each stage, all together. Waiting for messages is poll.",
        "s",
        [prom(_rate("awry_stage_seconds_sum", "stage"), "{{stage}}")],
        stacked=True,
        least=0,
    )


def _slow_batches() -> Json:
    quantile = f"histogram_quantile(0.95, {_rate('awry_stage_seconds_bucket', 'le, stage')})"
    return lines(
        "Slow batches",
        "The time that the slowest twentieth of batches takes in each stage, at least.",
        "s",
        [prom(quantile, "{{stage}}")],
        least=0,
    )


def _fill() -> Json:
    fill = f"{_rate('awry_batch_fill_ratio_sum')} / {_rate('awry_batch_fill_ratio_count')}"
    return lines(
        "Batch fill",
        "Messages in a batch over the most it may hold, on average. Full batches use the device "
        "best; with little traffic they are small.",
        "percentunit",
        [prom(fill, "fill")],
        least=0,
        most=1,
    )


def _memory() -> Json:
    return lines(
        "Processes",
        "Resident memory of each process: it must not grow with the number of messages.",
        "bytes",
        [prom(f"process_resident_memory_bytes{{{HERE}}}", "{{instance}}")],
        least=0,
    )


def _gpu() -> Json:
    return lines(
        "GPU memory",
        "Of the device that each worker uses: what torch has allocated and reserved, and what "
        "all programs use of its total. Empty without a GPU.",
        "bytes",
        [prom(f"awry_gpu_memory_bytes{{{HERE}}}", "{{instance}} {{kind}}")],
        least=0,
    )


def _trouble() -> Json:
    return lines(
        "Trouble",
        "Events per second that cost work: batches halved because the model could not read them whole, "
        "partitions taken away, messages in hand then, commits refused.",
        "ops",
        [
            prom(_rate("awry_batch_splits_total", "reason"), "split: {{reason}}", "A"),
            prom(_rate("awry_rebalances_total", "event"), "partitions {{event}}", "B"),
            prom(_rate("awry_abandoned_messages_total"), "abandoned", "C"),
            prom(_rate("awry_commit_failures_total"), "commit refused", "D"),
        ],
        least=0,
    )


def _dead_letters() -> Json:
    query = f"""
    SELECT ingested_at AS at, status, reason, coalesce(tenant, '') AS tenant, message_id AS message,
        source || '/' || partition || '/' || "offset" AS coordinates
    FROM messages WHERE status IN ('skipped', 'invalid', 'failed') AND $__timeFilter(ingested_at)
        AND {of_messages("tenant")}
    ORDER BY ingested_at DESC LIMIT 100
    """  # noqa: S608
    return table(
        "Messages without a score",
        "The latest hundred and why. awry show COORDINATES prints one; awry replay scores "
        "a stretch of the stream again.",
        sql(query),
        [
            column("at", unit="dateTimeAsLocal"),
            column("reason", long=True),
            tenant_column(),
            column("coordinates", link=("This message", link_to(INVESTIGATE, "message"))),
        ],
        empty="none",
    )


def _workers() -> Json:
    query = """
    SELECT name, source, seen_at, started_at, stored_at, lag, lag_unit, oldest_seconds FROM workers
    ORDER BY seen_at DESC LIMIT 50
    """
    return table(
        "Workers as the tables know them",
        "What each worker last said of itself: one that has gone stays for a while.",
        sql(query),
        [
            column("seen_at", unit="dateTimeFromNow"),
            column("started_at", unit="dateTimeFromNow"),
            column("stored_at", unit="dateTimeFromNow"),
            column("oldest_seconds", unit="s"),
        ],
        empty="none",
    )


def _put_aside() -> Json:
    return lines(
        "Put aside and passed",
        "Messages per second: dead letters for a human to read, and all that passed without a score.",
        "mps",
        [
            prom(_rate("awry_dead_letters_total", "reason"), "dead letter: {{reason}}", "A"),
            prom(_rate("awry_fail_open_total", "reason"), "passed: {{reason}}", "B"),
        ],
        least=0,
    )


def _deliveries() -> Json:
    return lines(
        "Deliveries",
        "Tries to deliver alerts per second, by destination and what came of them.",
        "ops",
        [
            prom(
                "sum by (destination, result) (rate(awry_deliveries_total[$__rate_interval]))",
                "{{destination}} {{result}}",
            )
        ],
        least=0,
    )


def _alerting() -> Json:
    return lines(
        "Flagged and alerted",
        "Flagged messages and alerts per second by probe; shadow probes alert nobody, and "
        "would_alert says what they would have done.",
        "ops",
        [
            prom(_rate("awry_flagged_total", "probe, mode"), "{{probe}} flagged, {{mode}}", "A"),
            prom(_rate("awry_alerts_total", "probe, result"), "{{probe}} {{result}}", "B"),
        ],
        least=0,
    )
