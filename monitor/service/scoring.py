"""Scoring one batch of messages with all loaded probes in one prefill; a batch that breaks is split.

Contract: `BatchScorer(...)(messages)` gives one Outcome a message, in order, never fewer: scored, truncated, skipped or
failed with a reason. A batch that runs out of memory is halved; one that breaks otherwise is tried once more, then
halved until the bad message stands alone. Reasons hold the class of an error, never its text, since a library's error
may quote the prompt.

A message whose turns the template refuses in every form is skipped, with the roles in the reason: it is the sender's
doing, and `failed` is awry's own fault. An over-long one is truncated: its score is that of the last tokens, and its
windows (`probes.capture.windows`) are scored in the same batches. Their scores flag nothing, and one that cannot be
made or scored is left out and costs the message nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from monitor.service.batch_rows import Outcome, ProbeScore, WindowScore
from monitor.stream.wire import WireMessage
from monitor.telemetry import metrics
from probes.capture.batches import Encoded, batches, encode, token_limit
from probes.capture.windows import Window, windows
from probes.card import Probe
from probes.errors import ModelError
from probes.model.control_tokens import strings
from probes.model.load import ChatModel
from probes.scoring import Scorer


@dataclass
class _Read:
    """A message with its encoded reading and windows, and what came of each; `scores` is (total, parts) by probe."""

    encoded: Encoded
    windows: tuple[Window, ...] = ()
    base: Outcome = field(default_factory=lambda: Outcome("skipped"))
    window_scores: dict[int, WindowScore] = field(default_factory=dict)


@dataclass(frozen=True)
class _Item:
    """One row of a batch: a message's reading, or (`window` from 0) one of its windows."""

    message: int
    encoded: Encoded
    window: int | None = None


class BatchScorer:
    """Scores batches with one model and its probes; `tokens` and `seconds` are totals since the start."""

    def __init__(
        self,
        chat: ChatModel,
        probes: Sequence[Probe],
        *,
        token_budget: int,
        max_tokens: int,
        skip_over_long: bool,
        max_windows: int = 8,
    ) -> None:
        self._chat = chat
        self._probes = tuple(probes)
        self._scorer = Scorer(chat.layout, [p.reader for p in probes], chat.device)
        self._reads_responses = any(p.aggregation.span == "response" for p in probes)
        self._token_budget = token_budget
        self._max_tokens = max_tokens
        self._skip_over_long = skip_over_long
        self._max_windows = max_windows
        self.tokens = 0
        self.seconds = 0.0

    def __call__(self, messages: Sequence[WireMessage]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        with metrics.stage("tokenize"):
            read = self._read_all(messages, outcomes)
        items = [item for i, one in read.items() for item in _items(i, one)]
        started, before = time.perf_counter(), self.tokens
        with metrics.stage("forward"):
            self._score(items, read, outcomes)
        self.seconds += time.perf_counter() - started
        metrics.TOKENS.inc(self.tokens - before)
        for i, one in read.items():
            made = tuple(score for _, score in sorted(one.window_scores.items()))
            outcomes[i] = replace(outcomes[i], windows=made)
        return [outcomes[i] for i in range(len(messages))]

    def _read_all(self, messages: Sequence[WireMessage], outcomes: dict[int, Outcome]) -> dict[int, _Read]:
        """Encoded messages by index; those that cannot be scored get their outcome here."""
        read: dict[int, _Read] = {}
        for i, message in enumerate(messages):
            base = Outcome("skipped")
            try:
                base = replace(base, special_tokens=self._control_tokens(message))
                one = self._read(message, base)
            except ModelError as error:  # its text is ours, and holds none of the message's
                outcomes[i] = replace(base, reason=str(error))
            except Exception as error:
                outcomes[i] = replace(base, status="failed", reason=_failure(error, "tokenising"))
            else:
                if one.base.reason is not None:
                    outcomes[i] = one.base
                else:
                    read[i] = one
        return read

    def _control_tokens(self, message: WireMessage) -> int:
        written = [text for turn in message.turns for text in strings(turn)]
        return self._chat.control_tokens([*written, message.response or ""])

    def _read(self, message: WireMessage, base: Outcome) -> _Read:
        """What is read of a message; `base.reason` is set where nothing is."""
        response = message.response if self._reads_responses else None
        encoded = encode(self._chat, message.turns, response, self._max_tokens, tools=message.tools)
        base = replace(base, rendered=encoded.rendered, notes=encoded.adapted)
        if not encoded.ids:
            return _Read(encoded, base=replace(base, reason="nothing to read: no tokens"))
        if encoded.truncated and self._skip_over_long:
            limit = token_limit(self._chat, self._max_tokens)
            which = f"max_tokens={limit}" if limit == self._max_tokens else f"the model's {limit} positions"
            return _Read(encoded, base=replace(base, reason=f"longer than {which} (over_long=skip)"))
        partial = tuple(why for why, so in (("length", encoded.truncated), ("media", message.unread)) if so)
        base = replace(base, status="truncated" if encoded.truncated else "scored", partial=partial)
        return _Read(encoded, self._windows(message, encoded, response), base)

    def _windows(self, message: WireMessage, encoded: Encoded, response: str | None) -> tuple[Window, ...]:
        if not encoded.truncated or not self._max_windows:
            return ()
        try:
            found = windows(self._chat, message.turns, encoded, response, self._max_tokens, self._max_windows)
        except Exception:
            # The message has its score without them, and its `partial` says that it was not read whole.
            return ()
        return found.windows

    def _score(
        self, items: Sequence[_Item], read: dict[int, _Read], outcomes: dict[int, Outcome], *, again: bool = True
    ) -> None:
        if not items:
            return
        try:
            self._forward(items, read, outcomes)
        except Exception as error:
            memory = _out_of_memory(error)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if again and not memory:
                # A transient error (a kernel that timed out, a full queue) should not cost a message its score.
                self._score(items, read, outcomes, again=False)
            elif len(items) == 1:
                if items[0].window is None:
                    base = replace(read[items[0].message].base, partial=())
                    outcomes[items[0].message] = replace(base, status="failed", reason=_failure(error, "scoring"))
            else:
                metrics.BATCH_SPLITS.labels("out_of_memory" if memory else "error").inc()
                half = len(items) // 2
                for part in (slice(half), slice(half, None)):
                    self._score(items[part], read, outcomes, again=False)

    def _forward(self, items: Sequence[_Item], read: dict[int, _Read], outcomes: dict[int, Outcome]) -> None:
        encoded = [item.encoded for item in items]
        done: list[tuple[_Item, list[float], list[list[float]]]] = []
        for batch in batches(encoded, self._chat.device, token_budget=self._token_budget):
            scores = self._scorer(batch)
            self.tokens += batch.tokens
            for position, row in enumerate(batch.rows):
                parts = [part[position].tolist() for part in scores.parts]
                done.append((items[row], scores.total[position].tolist(), parts))
        for item, totals, parts in done:
            one = read[item.message]
            if item.window is None:
                outcomes[item.message] = self._outcome(one, totals, parts)
            else:
                score = self._window_score(item.window, one.windows[item.window], totals)
                if score.scores:
                    one.window_scores[item.window] = score

    def _outcome(self, one: _Read, totals: Sequence[float], parts: Sequence[Sequence[float]]) -> Outcome:
        scores, reasons = [], []
        for probe, total, heads in zip(self._probes, totals, parts, strict=True):
            if math.isfinite(total):
                scores.append(ProbeScore(probe, total, _head_scores(probe, heads)))
            elif probe.aggregation.span == "response" and one.encoded.n_prompt == len(one.encoded.ids):
                reasons.append(f"{probe.name} reads responses and the message has none")
            else:
                reasons.append(f"{probe.name} gave no finite score (dtype overflow?)")
        reason = "; ".join(reasons) or None
        made = replace(one.base, scores=tuple(scores), tokens=len(one.encoded.ids), reason=reason)
        if not scores:
            overflow = reason is not None and "finite" in reason
            return replace(made, status="failed" if overflow else "skipped", partial=())
        return made

    def _window_score(self, number: int, window: Window, totals: Sequence[float]) -> WindowScore:
        """The scores of the probes that read this window's span; those that are no number are left out."""
        scores = tuple(
            (probe.name, total)
            for probe, total in zip(self._probes, totals, strict=True)
            if probe.aggregation.span == window.reads and math.isfinite(total)
        )
        return WindowScore(number, window.first_token, window.tokens, scores)


def _items(message: int, one: _Read) -> Iterator[_Item]:
    yield _Item(message, one.encoded)
    for number, window in enumerate(one.windows):
        yield _Item(message, window.encoded, number)


def _head_scores(probe: Probe, parts: Sequence[float]) -> tuple[tuple[int, int, float], ...]:
    sites = [d.site for d in probe.directions]
    return tuple((s.layer, s.head, v) for s, v in zip(sites, parts, strict=True) if s.kind == "head")


def _out_of_memory(error: Exception) -> bool:
    # A host out of memory is MemoryError, or a RuntimeError of torch's CPU allocator.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _failure(error: Exception, doing: str) -> str:
    return f"{doing} failed: {type(error).__name__}"
