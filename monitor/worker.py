"""The worker: records in, one transaction a batch out, commit after it.

One message's way: source -> wire -> scoring -> verdict -> storage (one transaction) -> commit, with mitigation beside
it where switched on. Every record ends as a row: scored, truncated, skipped, invalid or failed. The worker stops,
without committing, when the database cannot be written to after retries or an output cannot be written.

Does not know: where records come from (`monitor.sources`), how alerts are sent (`alerts.outbox`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Connection, Engine

from alerts.lifecycle import Opened, record
from alerts.rules import Flagged, ThresholdRule
from monitor.answers import AnswerFile, Mitigated, Mitigator
from monitor.scoring import BatchScorer, Outcome
from monitor.sources import Record, Source
from monitor.wire import Invalid, WireMessage, parse
from storage.database import transact
from storage.queries import already_scored
from storage.writer import AnswerRow, BatchRows, Coordinates, MessageRow, ScoreRow, write_batch


@dataclass(frozen=True)
class Policy:
    """What the worker does with what it finds."""

    probe_names: tuple[str, ...]
    model: str
    destinations: tuple[str, ...] = ()
    shadow: frozenset[str] = frozenset()
    rule: ThresholdRule = field(default_factory=ThresholdRule)
    privacy: Literal["none", "sha256", "full"] = "sha256"
    mitigate: Literal["off", "flagged", "all"] = "off"
    batch_messages: int = 64
    batch_wait_seconds: float = 1.0


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


@dataclass(frozen=True)
class _Item:
    record: Record
    sha256: str
    parsed: WireMessage | Invalid
    outcome: Outcome | None = None


OnBatch = Callable[[Tally, Sequence[Opened], int | None], None]


class Worker:
    """Runs one source through one model until the source ends or `stop` is called."""

    def __init__(
        self,
        source: Source,
        scorer: BatchScorer,
        engine: Engine,
        policy: Policy,
        *,
        mitigator: Mitigator | None = None,
        answers: AnswerFile | None = None,
        on_batch: OnBatch = lambda *_: None,
    ) -> None:
        self._source = source
        self._scorer = scorer
        self._engine = engine
        self._policy = policy
        self._mitigator = mitigator
        self._answers = answers
        self._on_batch = on_batch
        self._stopping = False
        self.tally = Tally()

    def stop(self) -> None:
        """Finish the batch in hand, commit it and return from `run`."""
        self._stopping = True

    def run(self) -> Tally:
        """Until the source ends or `stop`."""
        started = time.monotonic()
        while not self._stopping:
            records = self._source.poll(self._policy.batch_messages, self._policy.batch_wait_seconds)
            if records:
                opened = self.handle(records)
                self._source.commit(records)
                self.tally.seconds = time.monotonic() - started
                self._on_batch(self.tally, opened, self._source.lag)
            elif self._source.finished:
                break
        return self.tally

    def handle(self, records: Sequence[Record]) -> list[Opened]:
        """Score and store one batch; returns the alerts that it opened or made graver."""
        items = self._unknown([self._read(r) for r in records])
        waiting = [i for i, item in enumerate(items) if item.outcome is None and _is_message(item)]
        outcomes = self._scorer([items[i].parsed for i in waiting])  # type: ignore[misc]
        for i, outcome in zip(waiting, outcomes, strict=True):
            items[i] = _Item(items[i].record, items[i].sha256, items[i].parsed, outcome)
        mitigated = self._mitigate(items)
        opened = self._store(items, mitigated)
        self.tally.messages += len(records)
        self.tally.known += len(records) - len(items)
        self.tally.tokens = self._scorer.tokens
        self.tally.scoring_seconds = self._scorer.seconds
        return opened

    def _read(self, one: Record) -> _Item:
        if one.payload is None:
            reason = f"{one.size} bytes, over max_message_bytes"
            digest = hashlib.sha256(f"over-size:{one.size}".encode()).hexdigest()
            return _Item(one, digest, Invalid(reason), Outcome("skipped", reason=reason))
        return _Item(one, hashlib.sha256(one.payload).hexdigest(), parse(one.payload))

    def _unknown(self, items: list[_Item]) -> list[_Item]:
        """Leave out what is in the tables already with a score of every loaded probe: redelivery costs no forward."""
        places = [(i.record.at, i.sha256) for i in items]
        known = transact(self._engine, lambda c: already_scored(c, places, self._policy.probe_names))
        return [i for i in items if (i.record.at, i.sha256) not in known]

    def _mitigate(self, items: Sequence[_Item]) -> dict[int, Mitigated]:
        if self._mitigator is None or self._policy.mitigate == "off":
            return {}
        chosen = [
            i
            for i, item in enumerate(items)
            if item.outcome is not None
            and item.outcome.scores
            and (self._policy.mitigate == "all" or any(s.flagged for s in item.outcome.scores))
        ]
        turns = [items[i].parsed.turns for i in chosen]  # type: ignore[union-attr]
        return dict(zip(chosen, self._mitigator(turns), strict=True))

    def _store(self, items: Sequence[_Item], mitigated: dict[int, Mitigated]) -> list[Opened]:
        if not items:
            return []
        now = datetime.now(UTC)
        batch = BatchRows()
        for i, item in enumerate(items):
            batch.messages.append(self._message_row(item, now))
            batch.scores += _score_rows(item)
            if i in mitigated:
                batch.answers += self._answer_rows(item, mitigated[i])
        if self._answers is not None and mitigated:
            self._answers.write([_answer_line(items[i], m) for i, m in mitigated.items()])
        by_place = {item.record.at: item for item in items}

        def write(connection: Connection) -> tuple[frozenset[Coordinates], list[Flagged], list[Opened]]:
            written = write_batch(connection, batch)
            flagged = [self._flagged(by_place[s.at], s) for s in written.scores if s.flagged]
            paging = [f for f in flagged if f.probe not in self._policy.shadow]
            opened = record(connection, paging, self._policy.destinations, self._policy.rule)
            return written.conflicts, flagged, opened

        conflicts, flagged, opened = transact(self._engine, write)
        for row in batch.messages:
            self.tally.count("failed" if row.at in conflicts else row.status)
        self.tally.flagged += len({f.coordinates for f in flagged})
        self.tally.alerts += sum(o.event == "alert.opened" for o in opened)
        return opened

    def _message_row(self, item: _Item, now: datetime) -> MessageRow:
        parsed, at = item.parsed, item.record.at
        # The record's own time; the sender's `timestamp` is kept, but decides nothing.
        day = (item.record.recorded or now).astimezone(UTC).date()
        outcome = item.outcome
        if isinstance(parsed, Invalid):
            status = outcome.status if outcome is not None else "invalid"
            return MessageRow(at, item.sha256, day, status, parsed.reason, parsed.message_id)
        assert outcome is not None  # noqa: S101 - every parsed message was scored above
        return MessageRow(
            at,
            item.sha256,
            day,
            outcome.status,
            outcome.reason,
            message_id=parsed.id,
            tenant=parsed.tenant,
            user_id=parsed.user,
            model=parsed.model,
            conversation_id=parsed.conversation_id,
            sent_at=parsed.timestamp,
            tokens=outcome.tokens,
            text=parsed.stored_text if self._policy.privacy == "full" else None,
            text_sha256=None if self._policy.privacy == "none" else parsed.text_sha256,
            attributes=parsed.kept_attributes or None,
        )

    def _answer_rows(self, item: _Item, found: Mitigated) -> list[AnswerRow]:
        rows = []
        pairs = (("mitigated", found.mitigated, found.recipe), ("plain", found.plain, None))
        for kind, text, recipe in pairs:
            if text is None:
                continue
            digest = hashlib.sha256(text.text.encode("utf-8", "replace")).hexdigest()
            rows.append(
                AnswerRow(
                    item.record.at,
                    kind,
                    text.tokens,
                    recipe,
                    text=text.text if self._policy.privacy == "full" else None,
                    text_sha256=None if self._policy.privacy == "none" else digest,
                )
            )
        return rows

    def _flagged(self, item: _Item, score: ScoreRow) -> Flagged:
        parsed = item.parsed
        known = parsed if isinstance(parsed, WireMessage) else None
        at = item.record.at
        return Flagged(
            probe=score.probe,
            score=score.score,
            threshold=score.threshold,
            tenant=known.tenant if known else None,
            model=(known.model if known else None) or self._policy.model,
            coordinates=(at.source, at.partition, at.offset),
            message_id=known.id if known else None,
        )


def _is_message(item: _Item) -> bool:
    return isinstance(item.parsed, WireMessage)


def _score_rows(item: _Item) -> list[ScoreRow]:
    if item.outcome is None:
        return []
    return [
        ScoreRow(
            item.record.at,
            s.probe.name,
            s.probe.card.version,
            s.score,
            s.probe.card.threshold,
            s.flagged,
            s.heads,
        )
        for s in item.outcome.scores
    ]


def _answer_line(item: _Item, found: Mitigated) -> dict[str, object]:
    at, parsed, outcome = item.record.at, item.parsed, item.outcome
    line: dict[str, object] = {
        "id": parsed.id if isinstance(parsed, WireMessage) else None,
        "source": at.source,
        "partition": at.partition,
        "offset": at.offset,
        "scores": {s.probe.name: round(s.score, 6) for s in outcome.scores} if outcome else {},
        "flagged": any(s.flagged for s in outcome.scores) if outcome else False,
        "recipe": found.recipe,
        "mitigated": found.mitigated.text,
    }
    return line | {"plain": found.plain.text} if found.plain is not None else line
