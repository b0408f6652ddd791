"""The worker: polls records, scores them, stores each batch in one transaction, then commits it to the source.

Contract: a record goes source -> wire -> scoring -> mitigation (where enabled) -> tables -> outputs -> commit. Every
message ends as a row: scored, truncated, skipped, invalid or failed; the last two are dead letters as well. Outputs are
decided within the transaction, once it is known what its rows are, and flushed before it commits: what is in the tables
was written out at least once. A message of which the database refuses a row is stored alone, as failed
(`monitor.service.splitting`). While the model works on one batch, the next one is parsed, looked up and tokenised
(`monitor.service.preparing`), and the one before is stored; batches are stored and committed in order. The model takes
what is there when it is free.

The worker stops, without committing, when the database cannot be written to after retries, an output cannot be
written, or too many messages failed by awry's own fault. What senders send wrong stops nothing.

Does not know: where records come from (`monitor.stream.record`), how alerts are sent (`alerts.delivery.deliver`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Connection, Engine, text

from alerts.lifecycle.lifecycle import Opened, record_flagged
from alerts.rules.model import Flagged
from monitor.service.batch_rows import (
    Outcome,
    ProcessedMessage,
    answer_rows,
    day_of,
    flagged_score,
    message_row,
    parse_record,
    score_rows,
    window_rows,
)
from monitor.service.dead_letter_limit import DeadLetterLimit
from monitor.service.engine_readings import EngineReadings, told
from monitor.service.heartbeat import HeartbeatWriter
from monitor.service.message_metrics import count_flagged, count_message
from monitor.service.output_lines import write_lines
from monitor.service.policy import Policy, Tally
from monitor.service.preparing import Preparing
from monitor.service.splitting import store_split
from monitor.stream.parse import Parser
from monitor.stream.record import Record, Source
from monitor.stream.sinks import Outputs
from monitor.stream.wire import WireMessage
from monitor.telemetry import logs, metrics
from storage.coordinates import Coordinates
from storage.database import transact
from storage.known import ScoredBy
from storage.partitions import Days
from storage.queries.messages import already_scored
from storage.sources import KnownMessages, lock_streams, place
from storage.writer import BatchRows, write_batch

if TYPE_CHECKING:
    from monitor.service.asking import Asking, Uncertain
    from monitor.service.mitigation import Mitigator
    from storage.reading_partials import Partial


class Scoring(Protocol):
    """What the worker needs of a scorer: totals of tokens and seconds so far, and two steps, of which the first runs in
    another thread while the second works on the batch before."""

    tokens: int
    seconds: float

    def prepare(self, messages: Sequence[WireMessage]) -> list[Any]:
        """Something for each message, in order."""

    def score(self, prepared: Sequence[Any]) -> list[Outcome]:
        """One Outcome for each, in order."""


_CHECK_NOW = text("SET CONSTRAINTS ALL IMMEDIATE")
# How long the worker waits for a message before it looks at what else goes on.
_IDLE_SECONDS = 0.5
# Records, each with its messages.
_Part = list[tuple[Record, list[ProcessedMessage]]]


@dataclass(frozen=True)
class _Batch:
    """Records with their messages; those that are to be stored; and what is to be scored of them, by their place."""

    part: _Part
    messages: list[ProcessedMessage]
    prepared: list[tuple[int, Any]]

    @classmethod
    def of(cls, batches: Sequence[_Batch]) -> _Batch:
        """Several as one."""
        if len(batches) == 1:
            return batches[0]
        joined = cls([], [], [])
        for each in batches:
            joined.prepared.extend((len(joined.messages) + i, one) for i, one in each.prepared)
            joined.part.extend(each.part)
            joined.messages.extend(each.messages)
        return joined


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
        outputs: Outputs | None = None,
        asking: Asking | None = None,
        on_batch: OnBatch = lambda *_: None,
    ) -> None:
        self._source = source
        self._scorer = scorer
        self.engine = engine
        self._policy = policy
        self._mitigator = mitigator
        self._outputs = outputs or Outputs()
        self._asking = asking
        self._on_batch = on_batch
        self._days = Days(engine)
        self._warned_of_days = False
        self._limit = DeadLetterLimit(policy.dead_letter_limit)
        self._parser = Parser(policy.parsing)
        self._heartbeat = HeartbeatWriter(engine, source) if policy.heartbeats else None
        self._readings = (
            EngineReadings(engine, source, policy.readings_grace_seconds, behind_from=policy.batch_messages)
            if policy.readings_grace_seconds is not None
            else None
        )
        self._stopping = False
        self._scored_by = policy.scored_by or tuple(map(ScoredBy, policy.probe_names))
        self._started = self.progress_at = time.monotonic()
        self.tally = Tally()
        metrics.start_at_zero(probe=policy.probe_names)

    def stop(self) -> None:
        """Finish what was read from the source, commit it and return from `run`."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping

    def run(self) -> Tally:
        """Until the source ends or `stop`."""
        self._started = time.monotonic()
        storing: Future[None] | None = None
        beating = self._heartbeat.beating() if self._heartbeat is not None else nullcontext()
        watching = self._readings.watching() if self._readings is not None else nullcontext()
        with beating, watching, ThreadPoolExecutor(1, thread_name_prefix="awry-store") as store_thread:
            preparing = Preparing(self._source, self._prepare, self._policy.batch_messages)
            with preparing.running():
                while not self._stopping and not preparing.ended:
                    ready = preparing.take(_IDLE_SECONDS)
                    self.progress_at = time.monotonic()
                    if ready:
                        storing = self._work(_Batch.of(ready), storing, store_thread)
                    elif storing is not None and storing.done():
                        # What went wrong in it stops the worker, whether or not more comes.
                        storing.result()
                        storing = None
            for batch in preparing.rest():
                storing = self._work(batch, storing, store_thread)
            if storing is not None:
                storing.result()
        return self.tally

    def _work(self, batch: _Batch, storing: Future[None] | None, store_thread: ThreadPoolExecutor) -> Future[None]:
        """Score a batch while the one before is stored, and store it then."""
        processed = self._process(batch)
        if storing is not None:
            storing.result()
        storing = store_thread.submit(self._finish, batch.part, processed)
        if not self._policy.overlap:
            storing.result()
        return storing

    def _parts(self, records: Sequence[Record]) -> Iterator[_Part]:
        """Parse, and cut where a batch is full: a record may hold thousands of messages."""
        part, messages = _Part(), 0
        for record in records:
            parsed = parse_record(record, self._parser)
            if part and messages + len(parsed) > self._policy.batch_messages:
                yield part
                part, messages = _Part(), 0
            part.append((record, parsed))
            messages += len(parsed)
        if part:
            yield part

    def _prepare(self, records: Sequence[Record]) -> Iterator[tuple[_Batch, int]]:
        """All that needs no model, in a thread of its own: with the number of messages."""
        for part in self._parts(records):
            parsed = [message for _, messages in part for message in messages]
            metrics.TOMBSTONES.inc(sum(record.tombstone for record, _ in part))
            metrics.EMPTY_RECORDS.inc(sum(not messages and not record.tombstone for record, messages in part))
            batch = self._policy.sampling(self._without_known(parsed)) if parsed else []
            valid = [
                (i, each.parsed)
                for i, each in enumerate(batch)
                if isinstance(each.parsed, WireMessage) and each.outcome is None
            ]
            prepared = self._scorer.prepare([message for _, message in valid])
            yield _Batch(part, batch, [(i, one) for (i, _), one in zip(valid, prepared, strict=True)]), len(parsed)

    def _process(self, given: _Batch) -> list[ProcessedMessage]:
        """Score and, where enabled, mitigate what is not in the tables yet."""
        number = sum(len(messages) for _, messages in given.part)
        metrics.BATCH_MESSAGES.observe(number)
        metrics.BATCH_FILL_RATIO.observe(number / self._policy.batch_messages)
        batch = list(given.messages)
        outcomes = self._scorer.score([one for _, one in given.prepared])
        for (i, _), outcome in zip(given.prepared, outcomes, strict=True):
            batch[i] = replace(batch[i], outcome=outcome)
        self._limit.check(each.status == "failed" for each in batch)
        batch = self._mitigate(batch)
        return self._asking.marked(batch) if self._asking is not None else batch

    def _without_known(self, parsed: list[ProcessedMessage]) -> list[ProcessedMessage]:
        """Give each message its source name, and drop what is in the tables already with a score of every loaded probe,
        by its digest: redelivery costs no forward pass."""

        def look(connection: Connection) -> tuple[list[ProcessedMessage], set[Any]]:
            placed = place(connection, [each.place for each in parsed])
            batch = [each.placed(name) for each, name in zip(parsed, placed.names, strict=True)]
            return batch, self._done(connection, batch, placed.known)

        batch, known = transact(self.engine, look)
        metrics.KNOWN_MESSAGES.inc(len(known))
        return [each for each in batch if (each.at, each.sha256) not in known] if known else batch

    def _done(
        self, connection: Connection, batch: Sequence[ProcessedMessage], known: KnownMessages
    ) -> set[tuple[Coordinates, str]]:
        """What needs no work, by coordinates and payload hash."""
        readable = {(each.at, each.sha256) for each in batch if isinstance(each.parsed, WireMessage)}
        payloads = [(each.at, each.sha256) for each in batch]
        again = self._policy.sampling.off
        return already_scored(connection, payloads, self._scored_by, readable, known, sampled_again=again)

    def _mitigate(self, batch: list[ProcessedMessage]) -> list[ProcessedMessage]:
        if self._mitigator is None or self._policy.mitigate == "off":
            return batch
        chosen = [
            (i, each.parsed)
            for i, each in enumerate(batch)
            if isinstance(each.parsed, WireMessage)
            and each.outcome is not None
            and each.outcome.scores
            and (self._policy.mitigate == "all" or each.flagged)
        ]
        with metrics.stage("mitigate"):
            mitigations = self._mitigator([message for _, message in chosen])
        for (i, _), mitigation in zip(chosen, mitigations, strict=True):
            batch[i] = replace(batch[i], mitigation=mitigation)
        return batch

    def _finish(self, part: _Part, batch: Sequence[ProcessedMessage]) -> None:
        """Store the rows and write the outputs, then commit the records."""
        records = [record for record, _ in part]
        with metrics.stage("store"):
            opened = self._store(batch) if batch else []
        if batch and self._heartbeat is not None:
            self._heartbeat.stored()
        self._source.commit(records)
        self.progress_at = time.monotonic()
        tally = self.tally
        tally.messages += len(records)
        # By identity: files of one source name have the same offsets. A record without a message is not known.
        tally.known += sum(bool(messages) for _, messages in part) - len({id(each.record) for each in batch})
        tally.tokens, tally.scoring_seconds = self._scorer.tokens, self._scorer.seconds
        tally.seconds = time.monotonic() - self._started
        self._on_batch(tally, opened, self._source.lag)

    def _store(self, batch: Sequence[ProcessedMessage]) -> list[Opened]:
        now = datetime.now(UTC)
        self._days({day_of(each, now) for each in batch})
        if not self._days.complete and not self._warned_of_days:
            self._warned_of_days = True
            logs.logger().warning("partitions of days cannot be made; rows go to the default partition")
        opened: list[Opened] = []
        store_split(batch, lambda part: opened.extend(self._store_part(part, now)), self._refused)
        return opened

    def _refused(self, message: ProcessedMessage, names: str) -> None:
        """The database refuses a row of this one message."""
        logs.logger().warning("a message is stored as failed: the database refused it", at=str(message.at), error=names)
        if message.status != "failed":
            self._limit.failed_later()
        if self._asking is not None:
            self._asking.ask([message], ())

    def _store_part(self, batch: Sequence[ProcessedMessage], now: datetime) -> list[Opened]:
        """One transaction."""

        tried = False
        done: set[tuple[Coordinates, str]] = set()
        again: list[ProcessedMessage] = []

        def write(
            connection: Connection,
        ) -> tuple[list[ProcessedMessage], list[Flagged], list[Opened], list[Uncertain]]:
            nonlocal tried, done, again
            lock_streams(connection, ((each.record.at.source, each.record.at.partition) for each in batch))
            placed = place(connection, [each.place for each in batch])
            final = [each.placed(name) for each, name in zip(batch, placed.names, strict=True)]
            # What was delivered again while its first copy was on its way counts once. Not when this is tried again:
            # what is known then may be what the first attempt has stored.
            if placed.known and not tried:
                done = self._done(connection, final, placed.known)
            tried = True
            again = [each for each in final if (each.at, each.sha256) in done]
            final = [each for each in final if (each.at, each.sha256) not in done]
            ended: dict[Coordinates, Partial] = {}
            if self._readings is not None:
                final, ended = self._readings.kept(connection, final, placed.known, lambda each: day_of(each, now))
            written = write_batch(connection, self._rows(final, now), placed.known)
            final = [each for each in final if (each.at, each.sha256) not in written.erased]
            final = [replace(each, conflict=True) if each.at in written.conflicts else each for each in final]
            if self._asking is not None:
                final = self._asking.only_new(final, written.scores)
            # What a check that waits for the commit would refuse, it refuses before lines are written of it.
            connection.execute(_CHECK_NOW)
            # Where a broker is away for longer than a transaction may be idle, all of this is done again.
            write_lines(self._outputs, final)
            by_coordinates = {each.at: each for each in final}
            of_turns = [rule for rule in self._policy.rules if rule.measure != "score"]
            # A message that is known keeps its first day, and alerts refer to it by that.
            days = {Coordinates(*key, sub): each.day for key, found in placed.known.items() for sub, each in found}
            telling = [
                (each, score, flagged_score(each, score, self._policy.model, days.get(score.at) or day_of(each, now)))
                for score in written.scores
                if (score.flagged or score.judge or (of_turns and score.trajectory is not None))
                and (each := by_coordinates[score.at])
            ]
            flagged = [
                labels for _, score, labels in telling if score.flagged or any(r.matches(labels) for r in of_turns)
            ]
            live = [f for f in flagged if f.probe not in self._policy.shadow]
            live = told(connection, live, ended, self._policy.rules)
            opened = record_flagged(connection, live, self._policy.destinations, self._policy.rules)
            return final, flagged, opened, [one for one in telling if one[1].judge]

        final, flagged, opened, uncertain = transact(self.engine, write)
        if self._asking is not None:
            self._asking.ask(batch, uncertain)
        if self._readings is not None:
            self._readings.stored()
        metrics.KNOWN_MESSAGES.inc(len(again))
        self.tally.known += len({id(each.record) for each in again})
        self._count(final, flagged, opened)
        return [o for o in opened if not o.suppressed]

    def _rows(self, batch: Sequence[ProcessedMessage], now: datetime) -> BatchRows:
        rows = BatchRows()
        for each in batch:
            rows.messages.append(message_row(each, self._policy.privacy, now, self._policy.attribute_keys))
            rows.scores += score_rows(each, self._policy.shadow)
            rows.answers += answer_rows(each, self._policy.privacy)
            rows.windows += window_rows(each)
        return rows

    def _count(self, batch: Sequence[ProcessedMessage], flagged: Sequence[Flagged], opened: Sequence[Opened]) -> None:
        for each in batch:
            self.tally.count(each.status)
            count_message(each)
        if self._outputs.verdicts:
            metrics.VERDICTS.inc(len(batch))
        count_flagged(flagged, opened, self._policy.rules, self._policy.shadow)
        self.tally.flagged += len({f.coordinates for f in flagged if f.flagged})
        self.tally.alerts += sum(o.event == "alert.opened" and not o.suppressed for o in opened)
