"""Every metric of awry in one list: what `/metrics` exposes, and the source of the table in docs/operations.md.

Contract: one constant a metric, all on `REGISTRY`, never on the client's default registry; `METRICS` describes them in
order. A label's values are a closed set, or names that the settings give (probes, destinations, topics), never a value
from a message: a tenant or an id as label would be a series each. The one exception is what waits by tenant, of which
a few are shown at a time (`monitor.telemetry.waiting`). Counters and histograms with closed sets exist from the start,
so that a rate sees their first increase; `start_at_zero` does it for the settings' names.

Units are in the names; scores are in class gaps (0: mean of the aligned, 1: mean of the misaligned), and since they
may be negative, `awry_score` has counts and buckets, but no sum. Metrics of the database are queried at scrape time.

Does not know: who counts, and how it is served (`monitor.telemetry.health`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from alerts.rules.model import SEVERITIES
from storage.queries.alerts import live_alert_counts
from storage.queries.outbox import destination_states, oldest_pending_seconds, outbox_counts
from storage.replica import lag_seconds
from storage.schema import STATUSES
from storage.sessions import CONNECT_ARGS

Stage = Literal["poll", "tokenize", "forward", "mitigate", "output", "store", "commit"]
STAGES: tuple[Stage, ...] = get_args(Stage)
FailOpen = Literal["skipped", "failed", "invalid", "lost"]
FAIL_OPEN: tuple[FailOpen, ...] = get_args(FailOpen)
READING_GAP_KINDS = ("hole", "dropped", "new_instance")
INGEST_ROUTES = ("traces", "logs", "litellm", "ingest")
INGEST_CODES = ("200", "400", "401", "403", "408", "413", "415", "429", "499", "500", "503")
JUDGE_FAILURE_REASONS = (
    *("timeout", "unreachable", "rate limited", "server error", "refused by server", "too large", "garbage"),
    *("declined", "command failed", "internal error"),
)
JUDGE_NOT_ASKED_REASONS = ("queue full", "budget spent", "judge down", "waited too long", "worker stopped")
LIVE_STATES = ("open", "acknowledged", "silenced")

# A scrape waits this long for the database, and for each of its answers; Prometheus gives up after 10 s.
DATABASE_SECONDS = 2

# A label whose values are known at run time only, and few: probes, destinations, partitions.
_NAMED: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """Description of a metric. `name` is the one in queries (a histogram's without `_bucket`); `labels` gives each
    label's values, or () where they are known at run time only."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: dict[str, tuple[str, ...]]
    unit: str
    help: str


REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
# They would be one more series beside each counter and histogram, which no query reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

_listed: list[Metric] = []
_parents: list[tuple[Metric, Counter | Histogram]] = []
_T = TypeVar("_T", Counter, Gauge, Histogram)


def _counter(name: str, unit: str, what: str, **labels: tuple[str, ...]) -> Counter:
    metric = _list(Metric(name, "counter", labels, unit, what))
    counter = Counter(name, what, tuple(labels), unit=_unit(metric), registry=REGISTRY)
    _parents.append((metric, counter))
    return counter


def _gauge(name: str, unit: str, what: str, **labels: tuple[str, ...]) -> Gauge:
    metric = _list(Metric(name, "gauge", labels, unit, what))
    return Gauge(name, what, tuple(labels), unit=_unit(metric), registry=REGISTRY)


def _histogram(name: str, unit: str, what: str, buckets: Iterable[float], **labels: tuple[str, ...]) -> Histogram:
    metric = _list(Metric(name, "histogram", labels, unit, what))
    histogram = Histogram(name, what, tuple(labels), unit=_unit(metric), registry=REGISTRY, buckets=tuple(buckets))
    _parents.append((metric, histogram))
    return histogram


def _collected_gauge(name: str, unit: str, what: str, **labels: tuple[str, ...]) -> Metric:
    """A gauge that a collector fills at scrape time."""
    return _list(Metric(name, "gauge", labels, unit, what))


def _list(metric: Metric) -> Metric:
    _listed.append(metric)
    return metric


def _unit(metric: Metric) -> str:
    """The unit, for OpenMetrics, where the name ends in it; the client would change any other name."""
    return metric.unit if metric.name.removesuffix("_total").endswith(f"_{metric.unit}") else ""


# Messages by outcome.
MESSAGES = _counter("awry_messages_total", "messages", "Messages stored, by status", status=STATUSES)
KNOWN_MESSAGES = _counter(
    "awry_known_messages_total", "messages", "Messages delivered again that were in the tables already"
)
FAIL_OPEN_MESSAGES = _counter(
    "awry_fail_open_total",
    "messages",
    "Messages that passed without a score; lost: the broker removed them before they were read",
    reason=FAIL_OPEN,
)
READING_GAPS = _counter(
    "awry_reading_gaps_total",
    "gaps",
    "Gaps in the readings of engines: numbers that never came, readings that one dropped, one that ended silently",
    kind=READING_GAP_KINDS,
)
READINGS_LOST = _counter(
    "awry_readings_lost_total", "readings", "Readings in those gaps; of an engine that ended silently nobody knows"
)
READINGS_REPEATED = _counter(
    "awry_readings_repeated_total", "readings", "Readings that an engine sent twice, stored once"
)
SAMPLED_OUT = _counter(
    "awry_sampled_out_total",
    "messages",
    "Messages that had waited longer than sample_after_seconds and were not among the sample",
)
DEAD_LETTERS = _counter(
    "awry_dead_letters_total",
    "messages",
    "Messages that are invalid or could not be scored",
    reason=("invalid", "failed"),
)
PARTIAL = _counter(
    "awry_partial_total",
    "messages",
    "Messages that were scored and not read whole: over-long, parts without text, a field given twice, cut by the "
    "gateway, text beside another that was read, left out by the model's template, or an answer that was still running",
    reason=("length", "media", "duplicate", "cut", "beside", "template", "running"),
)
UNREADABLE = _counter(
    "awry_unreadable_total",
    "messages",
    "Messages of whose text 0.3 or more is encoded, disguised or like no language, so that a model that reads it as it "
    "stands is not told what it says",
)
FORMATS = _counter(
    "awry_messages_by_format_total", "messages", "Messages stored, by the format they came in", format=_NAMED
)
ADAPTED = _counter(
    "awry_adapted_total", "messages", "Messages whose turns were changed since the model's template refused them"
)
CONTROL_TOKENS = _counter(
    "awry_control_tokens_total", "messages", "Messages with control tokens of the model in their content"
)
NOTED = _counter("awry_noted_total", "messages", "Messages of which a field was dropped or changed")
TOMBSTONES = _counter("awry_tombstones_total", "records", "Records without a value, which are no messages")
EMPTY_RECORDS = _counter(
    "awry_empty_records_total", "records", "Requests of OpenTelemetry without a call of a model, which are no messages"
)
LOST_BYTES = _counter(
    "awry_lost_bytes_total", "bytes", "Bytes of followed files that were truncated before they were read"
)
RECREATED_LOGS = _counter(
    "awry_recreated_logs_total", "logs", "Topics or files that were made again while they were read"
)
TOKENS = _counter("awry_tokens_total", "tokens", "Tokens that the model read")
REUSED_TOKENS = _counter(
    "awry_prompt_tokens_reused_total",
    "tokens",
    "Tokens among all that did not go through the model, since equal messages or beginnings did",
)
REUSE_BYTES = _gauge(
    "awry_prompt_reuse_bytes", "bytes", "Keys, values and scores that are kept of messages' beginnings"
)
SECOND_TOKENS = _counter(
    "awry_second_reading_tokens_total", "tokens", "Tokens of readings of what messages hide, among all tokens"
)
BEYOND_LENGTH = _counter(
    "awry_scores_beyond_calibrated_length_total",
    "scores",
    "Scores of more tokens than the longest message that the probe was calibrated on",
    probe=_NAMED,
)

# Scores and alerts.
SCORE = _histogram(
    "awry_score",
    "class gaps",
    "Scores: 0 is the mean of the aligned, 1 of the misaligned",
    (quarter / 4 for quarter in range(-8, 17)),
    probe=_NAMED,
)
FLAGGED = _counter(
    "awry_flagged_total",
    "messages",
    "Messages with a score above the probe's threshold; shadow: of a probe that opens no alert",
    probe=_NAMED,
    mode=("live", "shadow"),
)
ALERTS = _counter(
    "awry_alerts_total",
    "alerts",
    "Alerts opened, reopened or made more severe; would_alert: by probes or rules in shadow, once a batch; suppressed: "
    "by a silence; excepted: not opened because of an exception, by message for threshold rules",
    probe=_NAMED,
    severity=SEVERITIES,
    result=("alerted", "would_alert", "suppressed", "excepted"),
)
EXCEPTIONS = _gauge(
    "awry_rule_exceptions",
    "exceptions",
    "Exceptions in the rules file; those that expire within 14 days, and those that have no effect any more",
    state=("active", "expires_soon", "expired"),
)
SCORE_DRIFT = _gauge(
    "awry_score_drift",
    "PSI",
    "How far recent scores are from those of the calibration; of rules that check score_drift",
    probe=_NAMED,
)
TAIL_DRIFT = _gauge(
    "awry_tail_drift",
    "years",
    "How much speaks against the calibration's high quantiles: traffic without drift comes so far once in so many "
    "years; of all traffic, of rules that check tail_drift",
    probe=_NAMED,
)
PROBE_CALIBRATION_AGE = _gauge(
    "awry_probe_calibration_age_seconds",
    "seconds",
    "Age of the calibration of a loaded probe, from the beginning of its day (UTC)",
    probe=_NAMED,
)
RULE_EVALUATIONS = _counter(
    "awry_rule_looks_total",
    "looks",
    "Evaluations of rate and monitor rules; left: another process was evaluating",
    result=("done", "failed", "left"),
)
VERDICTS = _counter("awry_verdicts_total", "messages", "Verdicts written to the output stream")
ANSWERS = _counter("awry_answers_total", "answers", "Mitigated replies written")

# Stages and batches.
STAGE_SECONDS = _histogram(
    "awry_stage_seconds",
    "seconds",
    "Time that a batch spent in each stage",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    stage=STAGES,
)
BATCH_MESSAGES = _histogram("awry_batch_messages", "messages", "Messages in a batch", (2**power for power in range(13)))
BATCH_FILL_RATIO = _histogram(
    "awry_batch_fill_ratio", "ratio", "Messages in a batch over the most it may hold", (n / 10 for n in range(1, 11))
)
BATCH_SPLITS = _counter(
    "awry_batch_splits_total",
    "splits",
    "Batches halved because the forward pass failed",
    reason=("out_of_memory", "error"),
)

GPU_MEMORY_BYTES = _collected_gauge(
    "awry_gpu_memory_bytes",
    "bytes",
    "Memory of the worker's GPU: what torch allocated and reserved, what all programs use, and its total",
    kind=("allocated", "reserved", "used", "total"),
)

# The judge. Its closed wordings are listed here, since its room imports this one.
JUDGE_VERDICTS = _counter(
    "awry_judge_verdicts_total",
    "messages",
    "Messages in the uncertain band, by what the judge said and what the probe had said",
    probe=_NAMED,
    verdict=("harmful", "harmless", "failed", "not asked"),
    probe_said=("flag", "pass"),
)
JUDGE_FAILURES = _counter(
    "awry_judge_failures_total",
    "attempts",
    "Attempts to ask the judge that gave no verdict; some are made again",
    reason=JUDGE_FAILURE_REASONS,
)
JUDGE_NOT_ASKED = _counter(
    "awry_judge_not_asked_total",
    "messages",
    "Messages in the uncertain band that the judge was not asked about",
    reason=JUDGE_NOT_ASKED_REASONS,
)
JUDGE_CACHED = _counter(
    "awry_judge_cached_total", "messages", "Messages whose verdict was known from one with the same text"
)
JUDGE_TOKENS = _counter("awry_judge_tokens_total", "tokens", "Tokens that questions to the judge and its answers took")
JUDGE_SECONDS = _histogram(
    "awry_judge_seconds",
    "seconds",
    "Time of one attempt to ask the judge",
    (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60, 300),
)
JUDGE_WAITING = _gauge("awry_judge_waiting", "messages", "Messages that wait for the judge, in memory")
JUDGE_CIRCUIT_OPEN = _gauge("awry_judge_circuit_open", "", "1 while the judge is taken to be down and seldom asked")
JUDGE_BAND = _gauge(
    "awry_judge_band",
    "class gaps",
    "The uncertain band: the lowest and the highest score that the judge is asked about",
    probe=_NAMED,
    edge=("low", "high"),
)

# The stream.
CONSUMER_LAG = _gauge(
    "awry_consumer_lag", "messages", "Messages in the stream that are not committed", topic=_NAMED, partition=_NAMED
)
OLDEST_UNSCORED_SECONDS = _gauge(
    "awry_oldest_unscored_seconds", "seconds", "Age of the oldest message that was read and has no score yet"
)
WAITING_MESSAGES = _collected_gauge(
    "awry_tenant_waiting_messages",
    "messages",
    "Records that were fetched and wait for the model, of the tenants that wait longest",
    tenant=_NAMED,
)
WAITING_SECONDS = _collected_gauge(
    "awry_tenant_waiting_seconds", "seconds", "Age of the first of them, by tenant", tenant=_NAMED
)
PARTITIONS_ASSIGNED = _gauge("awry_partitions_assigned", "partitions", "Partitions that this worker reads")
REBALANCES = _counter(
    "awry_rebalances_total",
    "events",
    "Rebalances: partitions assigned, revoked or lost",
    event=("assigned", "revoked", "lost"),
)
ABANDONED_MESSAGES = _counter(
    "awry_abandoned_messages_total", "messages", "Messages in progress, not committed, when their partition was revoked"
)
COMMIT_FAILURES = _counter(
    "awry_commit_failures_total", "commits", "Commits that the broker rejected or did not answer"
)

# Probes and build.
PROBE_INFO = _gauge(
    "awry_probe_info", "", "1 for each loaded probe", probe=_NAMED, version=_NAMED, model=_NAMED, threshold=_NAMED
)
BUILD_INFO = _gauge("awry_build_info", "", "1 for the version that is running", version=_NAMED)

# Delivery, in `awry send`; and gauges of the database.
DELIVERIES = _counter(
    "awry_deliveries_total",
    "deliveries",
    "Attempts to deliver a notification; dead: the last one, given up; gone: the receiver is gone for good",
    destination=_NAMED,
    result=("sent", "retried", "dead", "gone"),
)
OUTBOX_PENDING = _collected_gauge("awry_outbox_pending", "deliveries", "Notifications that are waiting to be sent")
OUTBOX_DEAD = _collected_gauge("awry_outbox_dead", "deliveries", "Notifications given up after the last attempt")
OUTBOX_OLDEST_SECONDS = _collected_gauge(
    "awry_outbox_oldest_seconds",
    "seconds",
    "Age of the oldest notification that is waiting to be sent; 0 when there is none",
)
DESTINATION_FAILURES = _collected_gauge(
    "awry_destination_failures", "deliveries", "Attempts that failed since the last success", destination=_NAMED
)
DESTINATION_DISABLED = _collected_gauge(
    "awry_destination_disabled", "", "1 when the receiver is gone: nothing is sent", destination=_NAMED
)
ALERTS_LIVE = _collected_gauge(
    "awry_alerts_live", "alerts", "Alerts that are not resolved", state=LIVE_STATES, severity=SEVERITIES
)
DATABASE_UP = _collected_gauge(
    "awry_database_up", "", f"1 when the database answered this scrape, 0 when not within {DATABASE_SECONDS} s"
)
REPLICA_UP = _collected_gauge(
    "awry_replica_up",
    "",
    f"1 when the read replica of awry serve answered this scrape as a standby, 0 when not within {DATABASE_SECONDS} s",
)
REPLICA_LAG_SECONDS = _collected_gauge(
    "awry_replica_lag_seconds",
    "seconds",
    "How old what the read replica of awry serve shows is; left out while it is not up",
)

# awry ingest.
INGEST_REQUESTS = _counter(
    "awry_ingest_requests_total",
    "requests",
    "Requests to awry ingest, by status; 499: the client went away before its response",
    route=INGEST_ROUTES,
    code=INGEST_CODES,
)
INGEST_MESSAGES = _counter(
    "awry_ingest_messages_total", "messages", "Records that Kafka or the spool acknowledged; an OTLP request is one"
)
INGEST_OVERSIZE = _counter(
    "awry_ingest_oversize_total",
    "messages",
    "Records over the topic's max.message.bytes: a note of their size was written instead",
)
INGEST_BYTES_IN_FLIGHT = _gauge(
    "awry_ingest_bytes_in_flight", "bytes", "Bytes of requests that awry ingest holds, against ingest_max_bytes"
)
INGEST_SECONDS = _histogram(
    "awry_ingest_seconds",
    "seconds",
    "Time from a request's headers to its response",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    route=INGEST_ROUTES,
)

# awry score-server.
SCORE_REQUESTS = _counter(
    "awry_score_requests_total",
    "requests",
    "Requests to awry score-server, by status; 499: the client went away",
    code=INGEST_CODES,
)
SCORE_MESSAGES = _counter(
    "awry_score_messages_total",
    "messages",
    "Messages that awry score-server answered, by decision",
    decision=("flag", "unscored", "partial", "pass"),
)
SCORE_SECONDS = _histogram(
    "awry_score_seconds",
    "seconds",
    "Time from a request's headers to its verdict",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
SCORE_WAITING = _gauge("awry_score_waiting", "messages", "Messages that wait for awry score-server's model")

# awry serve and awry ingest.
ACCESS_REFUSED = _counter(
    "awry_access_refused_total",
    "requests",
    "Requests refused for what they came with; wrong: a token or session that is none; blocked: another one from an "
    "address that sent too many; scope: a token that opens something else; tenant: something of no tenant or another "
    "one; sign-on: a single sign-on that failed",
    reason=("wrong", "blocked", "scope", "tenant", "sign-on"),
)

METRICS: tuple[Metric, ...] = tuple(_listed)


def start_at_zero(**named: Iterable[str]) -> None:
    """Create the series of these label values: `start_at_zero(probe=names)`, `start_at_zero(destination=names)`.

    Gauges are left out: their zero would be a measurement that was not made.
    """
    known = {label: tuple(values) for label, values in named.items()}
    for metric, parent in _parents:
        if metric.labels:
            for values in product(*(known.get(label, closed) for label, closed in metric.labels.items())):
                parent.labels(*values)


start_at_zero()


def stage(name: Stage) -> AbstractContextManager[object]:
    """Times a block as one stage of a batch, also when it raises."""
    return STAGE_SECONDS.labels(name).time()


class DatabaseCollector(Collector):
    """Queries the database at each scrape. Without an answer `awry_database_up` is 0 and the rest is left out."""

    def __init__(self, engine: Engine) -> None:
        self._engine = _engine_of_its_own(engine)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        gauges = (
            DATABASE_UP,
            OUTBOX_PENDING,
            OUTBOX_DEAD,
            OUTBOX_OLDEST_SECONDS,
            DESTINATION_FAILURES,
            DESTINATION_DISABLED,
            ALERTS_LIVE,
        )
        return [family(metric) for metric in gauges]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        up, pending, dead, oldest, failures, disabled, live = self.describe()
        try:
            with _asked(self._engine) as connection:
                deliveries, alerts = outbox_counts(connection), live_alert_counts(connection)
                age, states = oldest_pending_seconds(connection), destination_states(connection)
        except SQLAlchemyError:
            up.add_metric((), 0)
            return [up]
        up.add_metric((), 1)
        pending.add_metric((), deliveries["pending"])
        dead.add_metric((), deliveries["dead"])
        oldest.add_metric((), age)
        for state in states:
            failures.add_metric((state["name"],), state["failures"])
            disabled.add_metric((state["name"],), state["disabled_at"] is not None)
        for key in product(*ALERTS_LIVE.labels.values()):
            live.add_metric(key, alerts.get(key, 0))
        return [up, pending, dead, oldest, failures, disabled, live]


class ReplicaCollector(Collector):
    """Asks a read replica at each scrape how far it is behind."""

    def __init__(self, engine: Engine) -> None:
        self._engine = _engine_of_its_own(engine)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [family(REPLICA_UP), family(REPLICA_LAG_SECONDS)]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        up, lag = self.describe()
        try:
            with _asked(self._engine) as connection:
                seconds = lag_seconds(connection)
        except SQLAlchemyError:
            seconds = None
        up.add_metric((), seconds is not None)
        if seconds is not None:
            lag.add_metric((), seconds)
        return [up, lag]


def _engine_of_its_own(engine: Engine) -> Engine:
    """A scrape neither waits for the process's own connections nor as long as the process does."""
    return create_engine(
        engine.url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={**CONNECT_ARGS, "connect_timeout": DATABASE_SECONDS, "application_name": "awry metrics"},
    )


@contextmanager
def _asked(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection.execute(text(f"SET LOCAL statement_timeout = '{DATABASE_SECONDS}s'"))
        yield connection


def family(metric: Metric) -> GaugeMetricFamily:
    """An empty family, for a collector to fill at scrape time."""
    return GaugeMetricFamily(metric.name, metric.help, labels=tuple(metric.labels))


@contextmanager
def watching(engine: Engine, replica: Engine | None = None) -> Iterator[None]:
    """The metrics of the database, and of its read replica where there is one, are on `REGISTRY` within this block."""
    collectors = [DatabaseCollector(engine), *([ReplicaCollector(replica)] if replica is not None else [])]
    with ExitStack() as stack:
        for collector in collectors:
            REGISTRY.register(collector)
            stack.callback(REGISTRY.unregister, collector)
        yield


def reference() -> list[tuple[str, str, str, str, str]]:
    """(name, type, labels with their values, unit, help) of every metric."""
    return [(m.name, m.kind, _labels(m), m.unit, m.help) for m in METRICS]


def _labels(metric: Metric) -> str:
    return "; ".join(f"{name}: {', '.join(values)}" if values else name for name, values in metric.labels.items())
