"""The worker: records in, one transaction a batch out, commit after it.

One message's way: source -> wire -> scoring -> verdict -> outputs -> storage (one transaction) -> commit, with
mitigation beside it where switched on. Every record ends as a row: scored, truncated, skipped, invalid or failed; the
last two are dead letters as well. Outputs are flushed before the transaction, so that what is in the tables went out
at least once. While one batch is written, the next one is scored; batches are written and committed in order.

The worker stops, without committing, when the database cannot be written to after retries, an output cannot be
written, or too many messages in a row would be dead letters.

Does not know: where records come from (`monitor.stream.record`), how alerts are sent (`alerts.delivery.deliver`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal, Protocol

from sqlalchemy import Connection, Engine

from alerts.lifecycle.lifecycle import Opened, record, would_alert
from alerts.rules.model import Flagged, ThresholdRule
from monitor.service import batch_rows as make
from monitor.service.batch_rows import Item, Privacy, read
from monitor.service.dead_letter_limit import DeadLetterLimit
from monitor.service.heartbeat import Reporter
from monitor.service.outcomes import Outcome
from monitor.stream.record import Record, Source
from monitor.stream.sinks import Line, Sink
from monitor.stream.wire import WireMessage
from monitor.telemetry import logs, metrics
from storage.database import transact
from storage.partitions import Days
from storage.queries.messages import already_scored
from storage.writer import BatchRows, Coordinates, write_batch

if TYPE_CHECKING:
    from monitor.service.mitigation import Mitigator


class Scoring(Protocol):
    """What the worker needs of a scorer: one Outcome a message, in order; counts of what was read so far."""

    tokens: int
    seconds: float

    def __call__(self, messages: Sequence[WireMessage]) -> list[Outcome]: ...


@dataclass(frozen=True)
class Policy:
    """What the worker does with what it finds."""

    probe_names: tuple[str, ...]
    model: str
    destinations: tuple[str, ...] = ()
    shadow: frozenset[str] = frozenset()
    rules: tuple[ThresholdRule, ...] = (ThresholdRule(),)
    privacy: Privacy = "sha256"
    mitigate: Literal["off", "flagged", "all"] = "off"
    batch_messages: int = 64
    batch_wait_seconds: float = 1.0
    dead_letter_limit: float = 0.5
    # Tell rules on the monitor itself that this worker lives; a replay does not.
    reports: bool = True
    # Score a batch while the one before is written. Off only where a benchmark compares.
    overlap: bool = True


@dataclass(frozen=True)
class Outputs:
    """Where lines go; None where nobody wants them."""

    verdicts: Sink | None = None
    answers: Sink | None = None
    dead_letters: Sink | None = None

    def close(self) -> None:
        for sink in (self.verdicts, self.answers, self.dead_letters):
            if sink is not None:
                sink.close()


@dataclass
class Tally:
    """Counts since the start, for progress and the last line."""

    messages: int = 0
    known: int = 0
    by_status: dict[str, int] = field(default_factory=dict)
    flagged: int = 0
    alerts: int = 0
    tokens: int = 0
    scoring_seconds: float = 0.0
    seconds: float = 0.0

    def count(self, status: str) -> None:
        self.by_status[status] = self.by_status.get(status, 0) + 1


OnBatch = Callable[[Tally, Sequence[Opened], int | None], None]


class Worker:
    """Runs one source through one model until the source ends or `stop` is called."""

    def __init__(
        self,
        source: Source,
        scorer: Scoring,
        engine: Engine,
        policy: Policy,
        *,
        mitigator: Mitigator | None = None,
        outputs: Outputs = Outputs(),
        on_batch: OnBatch = lambda *_: None,
    ) -> None:
        self._source = source
        self._scorer = scorer
        self.engine = engine
        self._policy = policy
        self._mitigator = mitigator
        self._outputs = outputs
        self._on_batch = on_batch
        self._days = Days(engine)
        self._told_of_days = False
        self._limit = DeadLetterLimit(policy.dead_letter_limit)
        self._reporter = Reporter(engine, source) if policy.reports else None
        self._stopping = False
        self._started = self.progress_at = time.monotonic()
        self.tally = Tally()
        metrics.start_at_zero(probe=policy.probe_names)

    def stop(self) -> None:
        """Finish the batches in hand, commit them and return from `run`."""
        self._stopping = True

    def run(self) -> Tally:
        """Until the source ends or `stop`."""
        self._started = time.monotonic()
        writing: Future[None] | None = None
        reporting = self._reporter.reporting() if self._reporter is not None else nullcontext()
        with reporting, ThreadPoolExecutor(1, thread_name_prefix="awry-store") as store:
            while not self._stopping:
                records = self._source.poll(self._policy.batch_messages, self._policy.batch_wait_seconds)
                self.progress_at = time.monotonic()
                found = self._find(records) if records else []
                if writing is not None:
                    writing.result()
                    writing = None
                if records:
                    writing = store.submit(self._finish, records, found)
                    if not self._policy.overlap:
                        writing.result()
                elif self._source.finished:
                    break
            if writing is not None:
                writing.result()
        return self.tally

    def _find(self, records: Sequence[Record]) -> list[Item]:
        """Read, score and, where switched on, answer what is not in the tables yet."""
        metrics.BATCH_MESSAGES.observe(len(records))
        metrics.BATCH_FILL_RATIO.observe(len(records) / self._policy.batch_messages)
        items = self._unknown([read(r) for r in records])
        waiting = [(i, item.parsed) for i, item in enumerate(items) if isinstance(item.parsed, WireMessage)]
        for (i, _), outcome in zip(waiting, self._scorer([m for _, m in waiting]), strict=True):
            items[i] = replace(items[i], outcome=outcome)
        self._limit.check(make.is_dead(item) for item in items)
        return self._mitigate(items)

    def _unknown(self, items: list[Item]) -> list[Item]:
        """Leave out what is in the tables already with a score of every loaded probe: redelivery costs no forward."""
        places = [(i.record.at, i.sha256) for i in items]
        known = transact(self.engine, lambda c: already_scored(c, places, self._policy.probe_names))
        metrics.KNOWN_MESSAGES.inc(len(known))
        return [i for i in items if (i.record.at, i.sha256) not in known] if known else items

    def _mitigate(self, items: list[Item]) -> list[Item]:
        if self._mitigator is None or self._policy.mitigate == "off":
            return items
        chosen = [
            (i, item.parsed.turns)
            for i, item in enumerate(items)
            if isinstance(item.parsed, WireMessage)
            and item.outcome is not None
            and item.outcome.scores
            and (self._policy.mitigate == "all" or item.flagged)
        ]
        with metrics.stage("mitigate"):
            answers = self._mitigator([turns for _, turns in chosen])
        for (i, _), found in zip(chosen, answers, strict=True):
            items[i] = replace(items[i], mitigated=found)
        return items

    def _finish(self, records: Sequence[Record], items: Sequence[Item]) -> None:
        """Out, into the tables, and then committed."""
        self._write_out(items)
        with metrics.stage("store"):
            opened = self._store(items) if items else []
        if items and self._reporter is not None:
            self._reporter.stored()
        self._source.commit(records)
        self.progress_at = time.monotonic()
        tally = self.tally
        tally.messages += len(records)
        tally.known += len(records) - len(items)
        tally.tokens, tally.scoring_seconds = self._scorer.tokens, self._scorer.seconds
        tally.seconds = time.monotonic() - self._started
        self._on_batch(tally, opened, self._source.lag)

    def _write_out(self, items: Sequence[Item]) -> None:
        out = self._outputs
        dead = [item for item in items if make.is_dead(item)]
        answered = [item for item in items if item.mitigated is not None]
        with metrics.stage("output"):
            _write(out.verdicts, (make.verdict(i) for i in items))
            _write(out.answers, (make.answer(i) for i in answered))
            _write(out.dead_letters, (make.dead_letter(i) for i in dead))
        metrics.VERDICTS.inc(len(items) if out.verdicts else 0)
        metrics.ANSWERS.inc(len(answered))
        for item in dead:
            metrics.DEAD_LETTERS.labels(item.status).inc()

    def _store(self, items: Sequence[Item]) -> list[Opened]:
        now = datetime.now(UTC)
        batch = BatchRows()
        days: set[date] = set()
        for item in items:
            batch.messages.append(make.message_row(item, self._policy.privacy, now))
            batch.scores += make.score_rows(item, self._policy.shadow)
            batch.answers += make.answer_rows(item, self._policy.privacy)
            days.add(batch.messages[-1].day)
        self._days(days)
        if not self._days.complete and not self._told_of_days:
            self._told_of_days = True
            logs.logger().warning("partitions of days cannot be made; rows go to the default partition")
        by_place = {item.record.at: item for item in items}

        def write(connection: Connection) -> tuple[frozenset[Coordinates], list[Flagged], list[Opened]]:
            written = write_batch(connection, batch)
            flagged = [make.flagged(by_place[s.at], s, self._policy.model, now) for s in written.scores if s.flagged]
            paging = [f for f in flagged if f.probe not in self._policy.shadow]
            opened = record(connection, paging, self._policy.destinations, self._policy.rules)
            return written.conflicts, flagged, opened

        conflicts, flagged, opened = transact(self.engine, write)
        self._count(items, conflicts, flagged, opened)
        return [o for o in opened if not o.suppressed]

    def _count(
        self,
        items: Sequence[Item],
        conflicts: frozenset[Coordinates],
        flagged: Sequence[Flagged],
        opened: Sequence[Opened],
    ) -> None:
        for item in items:
            status = "failed" if item.record.at in conflicts else item.status
            self.tally.count(status)
            metrics.MESSAGES.labels(status).inc()
            if status in metrics.FAIL_OPEN:
                metrics.FAIL_OPEN_MESSAGES.labels(status).inc()
            for score in item.outcome.scores if item.outcome else ():
                metrics.SCORE.labels(score.probe.name).observe(score.score)
        for one in flagged:
            metrics.FLAGGED.labels(one.probe, "shadow" if one.probe in self._policy.shadow else "live").inc()
        for probe, severity in would_alert(flagged, self._policy.rules, self._policy.shadow):
            metrics.ALERTS.labels(probe, severity, "would_alert").inc()
        for alert in opened:
            result = "suppressed" if alert.suppressed else "alerted"
            metrics.ALERTS.labels(alert.probe, alert.severity, result).inc()
        self.tally.flagged += len({f.coordinates for f in flagged})
        self.tally.alerts += sum(o.event == "alert.opened" and not o.suppressed for o in opened)


def _write(sink: Sink | None, lines: Iterable[Line]) -> None:
    if sink is not None:
        sink.write(list(lines))
