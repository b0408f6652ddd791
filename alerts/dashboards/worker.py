"""The workers: throughput, time by stage, what was read of messages, dead letters."""

from __future__ import annotations

from alerts.dashboards.board import (
    INVESTIGATE,
    TENANT,
    WORKER,
    coordinates,
    dashboard,
    link_to,
    matches_nullable,
    tenant_column,
)
from alerts.dashboards.panels import BAD, GOOD, WARN, Json, column, prom, sql, stat, table, timeseries

INSTANCE: Json = {
    "type": "query",
    "name": "instance",
    "label": "Worker",
    "description": "Which workers, by the address that Prometheus scrapes.",
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
            (8, [(6, _throughput()), (6, _tokens()), (6, _lag()), (6, _waiting_by_tenant())]),
            (8, [(8, _stages()), (8, _slow_batches()), (8, _fill())]),
            (8, [(8, _memory()), (8, _gpu()), (8, _trouble())]),
            (8, [(8, _reading()), (8, _formats()), (8, _not_whole())]),
            (7, [(24, _reading_gaps())]),
            (8, [(12, _dead_letters()), (12, _workers())]),
            (7, [(8, _put_aside()), (8, _deliveries()), (8, _alerting())]),
        ],
        [INSTANCE, TENANT],
        time_from="now-1h",
    )


def _rate(name: str, by: str = "", labels: str = "") -> str:
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({name}{{{HERE}{labels}}}[$__rate_interval]))"


def _numbers() -> list[Json]:
    return [
        stat(
            "Workers",
            "Workers that Prometheus scrapes.",
            "short",
            prom('sum(up{job="awry-run"})', instant=True),
            ((None, BAD), (1, GOOD)),
            no_value="none",
        ),
        stat(
            "Messages",
            "Stored per second over the last five minutes.",
            "mps",
            prom(f"sum(rate(awry_messages_total{{{HERE}}}[5m]))", instant=True),
            no_value="no worker",
        ),
        stat(
            "Busy",
            "Share of the workers' time spent in the model: near 100 % they are at full capacity.",
            "percentunit",
            prom(
                f'avg(sum by (instance) (rate(awry_stage_seconds_sum{{{HERE}, stage=~"forward|mitigate"}}[5m])))',
                instant=True,
            ),
            no_value="no worker",
            decimals=0,
        ),
        stat(
            "Lag",
            "Messages in the stream that are not committed.",
            "short",
            prom(f"sum(awry_consumer_lag{{{HERE}}})", instant=True),
            no_value="no Kafka",
        ),
        stat(
            "Dead letters",
            "Dead letters in this range: invalid messages are their producer's fault, failed ones awry's.",
            "short",
            prom(f"sum(increase(awry_dead_letters_total{{{HERE}}}[$__range]))", instant=True),
            ((None, GOOD), (1, WARN)),
            decimals=0,
            no_value="no worker",
        ),
        stat(
            "Known already",
            "Messages delivered again that were already stored: after a restart or a rebalance.",
            "short",
            prom(f"sum(increase(awry_known_messages_total{{{HERE}}}[$__range]))", instant=True),
            decimals=0,
            no_value="no worker",
        ),
    ]


def _throughput() -> Json:
    return timeseries(
        "Throughput",
        "Messages stored per second by status.",
        "mps",
        [prom(_rate("awry_messages_total", "status"), "{{status}}")],
        stacked=True,
        minimum=0,
    )


def _tokens() -> Json:
    return timeseries(
        "Tokens",
        "Tokens that the model read per second, by worker.",
        "suffix: tokens/s",
        [prom(_rate("awry_tokens_total", "instance"), "{{instance}}")],
        minimum=0,
    )


def _lag() -> Json:
    return timeseries(
        "Lag by partition",
        "Messages that are not committed. If one partition grows alone, a message "
        "keeps its worker busy, or it has no worker.",
        "short",
        [prom(f"awry_consumer_lag{{{HERE}}}", "{{topic}} {{partition}}")],
        minimum=0,
    )


def _waiting_by_tenant() -> Json:
    return timeseries(
        "Waiting by tenant",
        "Age of the first record of a tenant that was fetched and waits for the model, of the tenants that wait "
        "longest. They take turns: one that waits alone sends more than its turns.",
        "s",
        [prom(f"max by (tenant) (awry_tenant_waiting_seconds{{{HERE}}})", "{{tenant}}")],
        minimum=0,
    )


def _stages() -> Json:
    return timeseries(
        "Time by stage",
        "Seconds of each second that the workers spend in each stage, all together. Waiting for messages is poll.",
        "s",
        [prom(_rate("awry_stage_seconds_sum", "stage"), "{{stage}}")],
        stacked=True,
        minimum=0,
    )


def _slow_batches() -> Json:
    quantile = f"histogram_quantile(0.95, {_rate('awry_stage_seconds_bucket', 'le, stage')})"
    return timeseries(
        "Slow batches",
        "95th percentile of the time that a batch takes in each stage.",
        "s",
        [prom(quantile, "{{stage}}")],
        minimum=0,
    )


def _fill() -> Json:
    fill = f"{_rate('awry_batch_fill_ratio_sum')} / {_rate('awry_batch_fill_ratio_count')}"
    return timeseries(
        "Batch fill",
        "Messages in a batch divided by its maximum, on average. Full batches use the device "
        "best; with little traffic batches are small.",
        "percentunit",
        [prom(fill, "fill")],
        minimum=0,
        maximum=1,
    )


def _memory() -> Json:
    return timeseries(
        "Processes",
        "Resident memory of each process: it must not grow with the number of messages.",
        "bytes",
        [prom(f"process_resident_memory_bytes{{{HERE}}}", "{{instance}}")],
        minimum=0,
    )


def _gpu() -> Json:
    return timeseries(
        "GPU memory",
        "Of the device that each worker uses: what torch has allocated and reserved, and what "
        "all programs use of its total. Empty without a GPU.",
        "bytes",
        [prom(f"awry_gpu_memory_bytes{{{HERE}}}", "{{instance}} {{kind}}")],
        minimum=0,
    )


def _trouble() -> Json:
    return timeseries(
        "Trouble",
        "Events per second that cost work: batches split because the model could not process them whole, "
        "partitions revoked, messages abandoned by that, commits refused.",
        "ops",
        [
            prom(_rate("awry_batch_splits_total", "reason"), "split: {{reason}}", "A"),
            prom(_rate("awry_rebalances_total", "event"), "partitions {{event}}", "B"),
            prom(_rate("awry_abandoned_messages_total"), "abandoned", "C"),
            prom(_rate("awry_commit_failures_total"), "commit refused", "D"),
        ],
        minimum=0,
    )


def _reading() -> Json:
    return timeseries(
        "Not read whole, adapted",
        "Messages per second that were scored and not read whole, by reason (length: longer than max_tokens; media: "
        "images and the like; duplicate: a field given twice), and those whose turns were changed, since the model's "
        "template refused them.",
        "mps",
        [
            prom(_rate("awry_partial_total", "reason"), "not read whole: {{reason}}", "A"),
            prom(_rate("awry_adapted_total"), "adapted", "B"),
        ],
        minimum=0,
    )


def _reading_gaps() -> Json:
    return timeseries(
        "Gaps in readings",
        "Of engines that read their own traffic (awry run --readings): gaps per second by kind (hole: numbers that "
        "never came; dropped: what the engine left out; new_instance: an engine ended silently), readings in them, and "
        "those that came twice and are stored once. Empty without --readings.",
        "ops",
        [
            prom(_rate("awry_reading_gaps_total", "kind"), "gap: {{kind}}", "A"),
            prom(_rate("awry_readings_lost_total"), "readings lost", "B"),
            prom(_rate("awry_readings_repeated_total"), "sent twice", "C"),
        ],
        minimum=0,
    )


def _formats() -> Json:
    return timeseries(
        "Formats",
        "Messages stored per second, by the format that they came in.",
        "mps",
        [prom(_rate("awry_messages_by_format_total", "format"), "{{format}}")],
        stacked=True,
        minimum=0,
    )


def _not_whole() -> Json:
    query = f"""
    SELECT ingested_at AS at, partial, tokens, windows, coalesce(tenant, '') AS tenant, message_id AS message, format,
        {coordinates()} AS coordinates
    FROM messages WHERE partial IS NOT NULL AND $__timeFilter(ingested_at) AND {matches_nullable("tenant")}
    ORDER BY ingested_at DESC, source, partition, "offset" DESC, sub DESC LIMIT 100
    """  # noqa: S608
    return table(
        "Messages not read whole",
        "The latest hundred, and why. What the probes did not read can hold anything; the scores of windows flag "
        "nothing.",
        sql(query),
        [
            column("at", unit="dateTimeAsLocal"),
            tenant_column(),
            column("coordinates", link=("This message", link_to(INVESTIGATE, "message"))),
        ],
        no_value="none",
    )


def _dead_letters() -> Json:
    query = f"""
    SELECT ingested_at AS at, status, reason, coalesce(tenant, '') AS tenant, message_id AS message, format,
        {coordinates()} AS coordinates
    FROM messages WHERE status IN ('skipped', 'invalid', 'failed') AND $__timeFilter(ingested_at)
        AND {matches_nullable("tenant")}
    ORDER BY ingested_at DESC LIMIT 100
    """  # noqa: S608
    return table(
        "Messages without a score",
        "The latest hundred with the reason. awry messages show COORDINATES prints one; awry replay scores "
        "a range of the stream again.",
        sql(query),
        [
            column("at", unit="dateTimeAsLocal"),
            column("reason", expandable=True),
            tenant_column(),
            column("coordinates", link=("This message", link_to(INVESTIGATE, "message"))),
        ],
        no_value="none",
    )


def _workers() -> Json:
    query = """
    SELECT name, source, seen_at, started_at, stored_at, lag, lag_unit, oldest_seconds FROM workers
    ORDER BY seen_at DESC LIMIT 50
    """
    return table(
        "Workers as the tables know them",
        "The last heartbeat of each worker; a stopped worker stays for a while.",
        sql(query),
        [
            column("seen_at", unit="dateTimeFromNow"),
            column("started_at", unit="dateTimeFromNow"),
            column("stored_at", unit="dateTimeFromNow"),
            column("oldest_seconds", unit="s"),
        ],
        no_value="none",
    )


def _put_aside() -> Json:
    return timeseries(
        "Put aside and passed",
        "Messages per second: dead letters, and all that passed without a score.",
        "mps",
        [
            prom(_rate("awry_dead_letters_total", "reason"), "dead letter: {{reason}}", "A"),
            prom(_rate("awry_fail_open_total", "reason"), "passed: {{reason}}", "B"),
        ],
        minimum=0,
    )


def _deliveries() -> Json:
    return timeseries(
        "Deliveries",
        "Delivery attempts per second, by destination and result.",
        "ops",
        [
            prom(
                "sum by (destination, result) (rate(awry_deliveries_total[$__rate_interval]))",
                "{{destination}} {{result}}",
            )
        ],
        minimum=0,
    )


def _alerting() -> Json:
    return timeseries(
        "Flagged and alerted",
        "Flagged messages and alerts per second by probe; shadow probes open no alert, and "
        "would_alert counts those that they would have opened.",
        "ops",
        [
            prom(_rate("awry_flagged_total", "probe, mode"), "{{probe}} flagged, {{mode}}", "A"),
            prom(_rate("awry_alerts_total", "probe, result"), "{{probe}} {{result}}", "B"),
        ],
        minimum=0,
    )
