"""Scoring one batch of messages with all loaded probes in one prefill; a batch that breaks is split.

Contract: `BatchScorer(...)(messages)` gives one Outcome a message, in order, never fewer: scored, truncated, skipped or
failed with a reason. A batch that runs out of memory is halved; one that breaks otherwise is tried once more, then
halved until the bad message stands alone. Reasons hold the class of an error, never its text, since a library's error
may quote the prompt.

A message is read as `probes.reading` says: as it is, in windows where it is over-long, and once more where it hides
something; a probe's score is the highest of those, corrected for length. The scores of single windows are kept as well.
A further reading that cannot be made or scored is left out and costs the message nothing.

A message whose turns the template refuses in every form is skipped, with the roles in the reason: it is the sender's
doing, and `failed` is awry's own fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from monitor.errors import MonitorError
from monitor.service.batch_rows import Outcome
from monitor.service.outcomes import Outcomes, ReadMessage
from monitor.stream.wire import WireMessage
from monitor.telemetry import logs, metrics
from probes.capture.batches import Encoded, token_limit
from probes.card import Probe
from probes.engines.base import Engine
from probes.engines.transformers import TransformersEngine
from probes.errors import EngineLostError, ModelError
from probes.model.control_tokens import strings
from probes.model.load import ChatModel
from probes.reading.conversation import Conversation
from probes.reading.readings import ReadingSettings, readings, tokens_of
from probes.reading.values import Value

# A message as it is read, or what became of one that cannot be.
Prepared = ReadMessage | Outcome


@dataclass(frozen=True)
class _Item:
    """One row of a batch: a reading of a message, by its number."""

    message: int
    reading: int
    encoded: Encoded


Once = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]


def _again(_: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return work()


def _wanted() -> bool:
    return True


class AbandonedError(MonitorError):
    """Nobody waits for the outcomes any more."""


class BatchScorer:
    """Scores batches with one model and its probes; `tokens` and `seconds` are totals since the start. `model` is the
    engine that runs it, or a model that is loaded in this process. What messages have in common is read once, and up to
    `reuse_bytes` of it are kept for later ones (`probes.reuse`)."""

    def __init__(
        self,
        model: ChatModel | Engine,
        probes: Sequence[Probe],
        *,
        token_budget: int,
        max_tokens: int,
        skip_over_long: bool,
        max_windows: int = 8,
        second_readings: bool = True,
        reuse_bytes: int = 0,
    ) -> None:
        engine = model if isinstance(model, Engine) else TransformersEngine(model)
        self._chat = chat = engine.chat
        self._probes = tuple(probes)
        readers = [p.reader for p in probes]
        self._settings = replace(
            ReadingSettings.of(readers, max_tokens=max_tokens, max_windows=max_windows), second=second_readings
        )
        self._session = engine.session(readers, token_budget=token_budget, reuse_bytes=reuse_bytes)
        self._trial = f"reuse {reuse_bytes > 0}"
        if engine.name != TransformersEngine.name:
            self._trial += f" {engine.conditions}"
        self._skip_over_long = skip_over_long
        self._tokens = tokens_of(chat)
        self._outcomes = Outcomes(probes)
        self.tokens = 0
        self.seconds = 0.0

    def settle(self, once: Once = _again) -> list[str]:
        """Try on the model which ways to read no token twice are right, and leave the others; they are named. `once`
        may know what an earlier start found (`monitor.service.start_checks`)."""
        exact = self._chat.dtype == torch.float32
        tolerance = 1e-4 if exact else max(probe.card.tolerance for probe in self._probes)
        digests = " ".join(probe.digest for probe in self._probes)
        found = once(f"{self._trial} {tolerance:g} {digests}", lambda: self._session.try_out(tolerance))
        self._session.adopt(found)
        return [str(reason) for reason in found["reasons"]]

    def __call__(self, messages: Sequence[WireMessage], wanted: Callable[[], bool] = _wanted) -> list[Outcome]:
        """`prepare` and `score` in one."""
        return self.score(self.prepare(messages), wanted)

    def prepare(self, messages: Sequence[WireMessage]) -> list[Prepared]:
        """What needs no model: rendered and tokenised; another thread may do it while the model works."""
        with metrics.stage("tokenize"):
            return [self._prepared(message) for message in messages]

    def score(self, prepared: Sequence[Prepared], wanted: Callable[[], bool] = _wanted) -> list[Outcome]:
        """`wanted` is asked before each forward pass; where it says no, AbandonedError is raised."""

        def before_pass() -> None:
            if not wanted():
                raise AbandonedError("nobody waits for the outcomes")

        self._session.before_pass = before_pass
        outcomes = {i: one for i, one in enumerate(prepared) if isinstance(one, Outcome)}
        read = {i: one.again() for i, one in enumerate(prepared) if isinstance(one, ReadMessage)}
        items = [item for i, one in read.items() for item in _items(i, one)]
        started, before = time.perf_counter(), self.tokens
        run = self._session.tokens_run
        with metrics.stage("forward"):
            self._score(items, read, outcomes)
        self.seconds += time.perf_counter() - started
        metrics.TOKENS.inc(self.tokens - before)
        metrics.REUSED_TOKENS.inc(max(0, self.tokens - before - (self._session.tokens_run - run)))
        metrics.REUSE_BYTES.set(self._session.kept_bytes)
        metrics.SECOND_TOKENS.inc(sum(one.readings.second_tokens for one in read.values()))
        for i, one in read.items():
            if i not in outcomes:
                outcomes[i] = self._outcomes(one)
        return [outcomes[i] for i in range(len(prepared))]

    def _prepared(self, message: WireMessage) -> Prepared:
        base = Outcome("skipped")
        try:
            base = replace(base, special_tokens=self._control_tokens(message))
            one = self._read(message, base)
        except ModelError as error:  # its text is ours, and holds none of the message's
            return replace(base, reason=str(error))
        except Exception as error:
            return replace(base, status="failed", reason=_failure(error, "tokenising"))
        return one.base if one.base.reason is not None else one

    def _control_tokens(self, message: WireMessage) -> int:
        written = [text for turn in message.turns for text in strings(turn)]
        return self._chat.control_tokens([*written, message.response or ""])

    def _read(self, message: WireMessage, base: Outcome) -> ReadMessage:
        """What is read of a message; `base.reason` is set where nothing is."""
        conversation = Conversation(message.turns, message.response, message.tools)
        read = readings(self._chat, conversation, self._settings, self._tokens)
        plain = read.plain
        base = replace(
            base,
            rendered=plain.rendered,
            notes=plain.adapted,
            second_tokens=read.second_tokens,
            unreadable=read.unreadable,
        )
        if not plain.ids:
            return ReadMessage(read, replace(base, reason="nothing to read: no tokens"))
        if plain.truncated and self._skip_over_long:
            limit = token_limit(self._chat, self._settings.max_tokens)
            which = f"max_tokens={limit}" if limit == self._settings.max_tokens else f"the model's {limit} positions"
            return ReadMessage(read, replace(base, reason=f"longer than {which} (over_long=skip)"))
        partial = tuple(why for why, so in (("length", plain.truncated), ("media", message.unread)) if so)
        base = replace(base, status="truncated" if plain.truncated else "scored", partial=partial)
        return ReadMessage(read, base, tuple(str(turn.get("role")) for turn in message.turns))

    def _score(
        self, items: Sequence[_Item], read: dict[int, ReadMessage], outcomes: dict[int, Outcome], *, again: bool = True
    ) -> None:
        if not items:
            return
        try:
            self._forward(items, read)
        except (AbandonedError, EngineLostError):
            raise
        except Exception as error:
            memory = _out_of_memory(error)
            if memory and (most := self._session.shrink()) is not None:
                logs.logger().warning("out of memory: what was kept of earlier messages is let go", now_at_most=most)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if again and not memory:
                # A transient error (a kernel that timed out, a full queue) should not cost a message its score.
                self._score(items, read, outcomes, again=False)
            elif len(items) == 1:
                if items[0].reading == 0:
                    base = replace(read[items[0].message].base, partial=())
                    outcomes[items[0].message] = replace(base, status="failed", reason=_failure(error, "scoring"))
            else:
                metrics.BATCH_SPLITS.labels("out_of_memory" if memory else "error").inc()
                half = len(items) // 2
                for part in (slice(half), slice(half, None)):
                    self._score(items[part], read, outcomes, again=False)

    def _forward(self, items: Sequence[_Item], read: dict[int, ReadMessage]) -> None:
        done: list[tuple[_Item, list[Value]]] = []
        for batch, scores in self._session.score([item.encoded for item in items], turns=True):
            self.tokens += sum(len(item.ids) for item in batch.items)
            totals, counts = scores.total.tolist(), scores.counts.tolist()
            parts = [part.tolist() for part in scores.parts]
            for position, row in enumerate(batch.rows):
                item = items[row]
                kind = read[item.message].readings.all[item.reading].kind
                turns = scores.turns
                done.append(
                    (
                        item,
                        [
                            Value(
                                kind,
                                totals[position][p],
                                counts[position][p],
                                tuple(parts[p][position]),
                                # Whatever else is in the batch.
                                turns[p][position] if turns is not None and len(item.encoded.turns) > 1 else (),
                            )
                            for p in range(len(self._probes))
                        ],
                    )
                )
        for item, values in done:
            read[item.message].values[item.reading] = values


def _items(message: int, one: ReadMessage) -> Iterator[_Item]:
    for number, reading in enumerate(one.readings.all):
        yield _Item(message, number, reading.encoded)


def _out_of_memory(error: Exception) -> bool:
    # A host out of memory is MemoryError, or a RuntimeError of torch's CPU allocator.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _failure(error: Exception, doing: str) -> str:
    return f"{doing} failed: {type(error).__name__}"
