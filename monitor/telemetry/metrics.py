"""Every metric of awry in one list: what `/metrics` shows, and what docs/operations.md says of it.

Contract: one constant a metric, all on `REGISTRY`, never on the client's own default; `METRICS` describes them in
order. A label's values are a closed set, or names that the settings give (probes, destinations, topics), never
anything out of a message: a tenant or an id as label would be a series each. Counters and histograms of closed sets
are there from the start, so that a rate sees their first increase; `start_at_zero` does it for the settings' names.

Units are in the names; scores are in class gaps (0: mean of the aligned, 1: mean of the misaligned), and since they
may be negative, `awry_score` has counts and buckets, but no sum. What only the tables know is asked at scrape time.

Does not know: who counts, and how it is served (`monitor.telemetry.health`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from alerts.rules.model import SEVERITIES
from storage.queries.alerts import live_alert_counts
from storage.queries.outbox import destination_states, oldest_pending_seconds, outbox_counts
from storage.schema import STATUSES

Stage = Literal["poll", "tokenize", "forward", "mitigate", "output", "store", "commit"]
STAGES: tuple[Stage, ...] = get_args(Stage)
FailOpen = Literal["skipped", "failed", "invalid", "lost"]
FAIL_OPEN: tuple[FailOpen, ...] = get_args(FailOpen)
LIVE_STATES = ("open", "acknowledged", "silenced")

# A scrape waits this long for the database, and for each of its answers; Prometheus gives up after 10 s.
DATABASE_SECONDS = 2

# The values of a label that only a running awry knows, few as they are: its probes, destinations, partitions.
_NAMED: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """What one metric is. `name` is what a query says (a histogram's without `_bucket`); `labels` gives each label's
    values, or () where only a running awry knows them."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: dict[str, tuple[str, ...]]
    unit: str
    help: str


REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
# One more series beside each counter and histogram, which no query of ours reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

_listed: list[Metric] = []
_parents: list[tuple[Metric, Counter | Histogram]] = []
_T = TypeVar("_T", Counter, Gauge, Histogram)


def _counter(name: str, unit: str, what: str, **labels: tuple[str, ...]) -> Counter:
    metric = _list(Metric(name, "counter", labels, unit, what))
    made = Counter(name, what, tuple(labels), unit=_told(metric), registry=REGISTRY)
    _parents.append((metric, made))
    return made


def _gauge(name: str, unit: str, what: str, **labels: tuple[str, ...]) -> Gauge:
    metric = _list(Metric(name, "gauge", labels, unit, what))
    return Gauge(name, what, tuple(labels), unit=_told(metric), registry=REGISTRY)


def _histogram(name: str, unit: str, what: str, buckets: Iterable[float], **labels: tuple[str, ...]) -> Histogram:
    metric = _list(Metric(name, "histogram", labels, unit, what))
    made = Histogram(name, what, tuple(labels), unit=_told(metric), registry=REGISTRY, buckets=tuple(buckets))
    _parents.append((metric, made))
    return made


def _asked(name: str, unit: str, what: str, **labels: tuple[str, ...]) -> Metric:
    """A gauge that the database answers at scrape time."""
    return _list(Metric(name, "gauge", labels, unit, what))


def _list(metric: Metric) -> Metric:
    _listed.append(metric)
    return metric


def _told(metric: Metric) -> str:
    """The unit, for OpenMetrics, where the name ends in it; the client would change any other name."""
    return metric.unit if metric.name.removesuffix("_total").endswith(f"_{metric.unit}") else ""


# What became of the messages.
MESSAGES = _counter("awry_messages_total", "messages", "Messages stored, by what became of them", status=STATUSES)
KNOWN_MESSAGES = _counter(
    "awry_known_messages_total", "messages", "Messages delivered again that were in the tables already"
)
FAIL_OPEN_MESSAGES = _counter(
    "awry_fail_open_total",
    "messages",
    "Messages that passed without a score; lost: the broker removed them before they were read",
    reason=FAIL_OPEN,
)
DEAD_LETTERS = _counter(
    "awry_dead_letters_total", "messages", "Messages put aside for a human to read", reason=("invalid", "failed")
)
TOKENS = _counter("awry_tokens_total", "tokens", "Tokens that the model read")

# What the probes found.
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
    "Alerts opened, reopened or made graver; would_alert: by probes or rules in shadow, once a batch; suppressed: kept "
    "back by a silence",
    probe=_NAMED,
    severity=SEVERITIES,
    result=("alerted", "would_alert", "suppressed"),
)
SCORE_DRIFT = _gauge(
    "awry_score_drift",
    "PSI",
    "How far recent scores are from those of the calibration; of rules that check score_drift",
    probe=_NAMED,
)
RULE_EVALUATIONS = _counter(
    "awry_rule_looks_total",
    "looks",
    "Times that rate and monitor rules were evaluated; left: another process was at it",
    result=("done", "failed", "left"),
)
VERDICTS = _counter("awry_verdicts_total", "messages", "Verdicts written to the output stream")
ANSWERS = _counter("awry_answers_total", "answers", "Mitigated answers written")

# How fast, and in which batches.
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
    "Batches halved because the model could not read them whole",
    reason=("out_of_memory", "error"),
)

GPU_MEMORY_BYTES = _asked(
    "awry_gpu_memory_bytes",
    "bytes",
    "Memory of the worker's GPU: what torch allocated and reserved, what all programs use, and its total",
    kind=("allocated", "reserved", "used", "total"),
)

# The stream.
CONSUMER_LAG = _gauge(
    "awry_consumer_lag", "messages", "Messages in the stream that are not committed", topic=_NAMED, partition=_NAMED
)
OLDEST_UNSCORED_SECONDS = _gauge(
    "awry_oldest_unscored_seconds", "seconds", "Age of the oldest message known that has no score yet"
)
PARTITIONS_ASSIGNED = _gauge("awry_partitions_assigned", "partitions", "Partitions that this worker reads")
REBALANCES = _counter(
    "awry_rebalances_total", "events", "Changes of the partitions", event=("assigned", "revoked", "lost")
)
ABANDONED_MESSAGES = _counter(
    "awry_abandoned_messages_total", "messages", "Messages in hand, not committed, when their partition was taken away"
)
COMMIT_FAILURES = _counter("awry_commit_failures_total", "commits", "Commits that the broker refused or did not answer")

# Who is running.
PROBE_INFO = _gauge(
    "awry_probe_info", "", "1 for each loaded probe", probe=_NAMED, version=_NAMED, model=_NAMED, threshold=_NAMED
)
BUILD_INFO = _gauge("awry_build_info", "", "1 for the version that runs", version=_NAMED)

# Delivering, in `awry send`; and what only the tables know.
DELIVERIES = _counter(
    "awry_deliveries_total",
    "deliveries",
    "Tries to deliver a page; dead: the last one, given up; gone: the receiver wants no more, ever",
    destination=_NAMED,
    result=("sent", "retried", "dead", "gone"),
)
OUTBOX_PENDING = _asked("awry_outbox_pending", "deliveries", "Events that wait to be sent to a destination")
OUTBOX_DEAD = _asked("awry_outbox_dead", "deliveries", "Events given up after the last try")
OUTBOX_OLDEST_SECONDS = _asked(
    "awry_outbox_oldest_seconds", "seconds", "Age of the oldest event that waits to be sent; 0 when none does"
)
DESTINATION_FAILURES = _asked(
    "awry_destination_failures", "deliveries", "Tries that failed since the last one that did not", destination=_NAMED
)
DESTINATION_DISABLED = _asked(
    "awry_destination_disabled", "", "1 when the receiver said that it is gone: nothing is sent", destination=_NAMED
)
ALERTS_LIVE = _asked(
    "awry_alerts_live", "alerts", "Alerts that are not resolved", state=LIVE_STATES, severity=SEVERITIES
)
DATABASE_UP = _asked(
    "awry_database_up", "", f"1 when the database answered this scrape, 0 when not within {DATABASE_SECONDS} s"
)

METRICS: tuple[Metric, ...] = tuple(_listed)


def start_at_zero(**named: Iterable[str]) -> None:
    """Make the series of these label values: `start_at_zero(probe=names)`, `start_at_zero(destination=names)`.

    Gauges are left out: a zero that nobody measured would be a statement.
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
    """Asks the database at each scrape. When it does not answer, `awry_database_up` is 0 and the rest is left out."""

    def __init__(self, engine: Engine) -> None:
        # Connections of its own: the scrape neither waits for the worker's nor as patiently as the worker does.
        self._engine = create_engine(
            engine.url,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={"connect_timeout": DATABASE_SECONDS, "application_name": "awry metrics"},
        )

    def describe(self) -> Iterable[GaugeMetricFamily]:
        asked = (
            DATABASE_UP,
            OUTBOX_PENDING,
            OUTBOX_DEAD,
            OUTBOX_OLDEST_SECONDS,
            DESTINATION_FAILURES,
            DESTINATION_DISABLED,
            ALERTS_LIVE,
        )
        return [family(metric) for metric in asked]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        up, pending, dead, oldest, failures, disabled, live = self.describe()
        try:
            with self._engine.connect() as connection:
                connection.execute(text(f"SET LOCAL statement_timeout = '{DATABASE_SECONDS}s'"))
                deliveries, found = outbox_counts(connection), live_alert_counts(connection)
                waited, places = oldest_pending_seconds(connection), destination_states(connection)
        except SQLAlchemyError:
            up.add_metric((), 0)
            return [up]
        up.add_metric((), 1)
        pending.add_metric((), deliveries["pending"])
        dead.add_metric((), deliveries["dead"])
        oldest.add_metric((), waited)
        for place in places:
            failures.add_metric((place["name"],), place["failures"])
            disabled.add_metric((place["name"],), place["disabled_at"] is not None)
        for key in product(*ALERTS_LIVE.labels.values()):
            live.add_metric(key, found.get(key, 0))
        return [up, pending, dead, oldest, failures, disabled, live]


def family(metric: Metric) -> GaugeMetricFamily:
    """What a collector that asks at scrape time fills in."""
    return GaugeMetricFamily(metric.name, metric.help, labels=tuple(metric.labels))


@contextmanager
def watching(engine: Engine) -> Iterator[None]:
    """The database's metrics are on `REGISTRY` within this block."""
    collector = DatabaseCollector(engine)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)


def reference() -> list[tuple[str, str, str, str, str]]:
    """(name, type, labels with their values, unit, help) of every metric."""
    return [(m.name, m.kind, _labels(m), m.unit, m.help) for m in METRICS]


def _labels(metric: Metric) -> str:
    return "; ".join(f"{name}: {', '.join(values)}" if values else name for name, values in metric.labels.items())
