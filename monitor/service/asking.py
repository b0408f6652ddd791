"""Between the worker and the judge: which scores of a batch wait for it, and its questions once their rows are there.

Contract: `marked(batch)` decides before the rows are written, and reserves places in the queue; `ask` is called after
the transaction with the scores that are new, and gives back the places of those that are not: what is delivered again
is asked about once. `only_new` takes the marks of those away, for the lines that are written of a batch. None of it
takes longer than rendering the few messages in the band.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from alerts.rules.model import Flagged
from monitor.judge.judging import Judging, Waiting
from monitor.judge.prompt import conversation
from monitor.service.batch_rows import ProbeScore, ProcessedMessage
from monitor.stream.wire import WireMessage
from storage.coordinates import Coordinates
from storage.writer import ScoreRow

# A new score that was decided on, with its message and labels.
Uncertain = tuple[ProcessedMessage, ScoreRow, Flagged]


class Asking:
    """Puts a worker's questions to one judge. `shadow` are probes that open no alerts; with a message of a probe that
    `reads_responses` the response is sent too."""

    def __init__(
        self,
        judging: Judging,
        *,
        shadow: Collection[str],
        reads_responses: Collection[str],
        max_characters: int,
        mask_secrets: bool,
    ) -> None:
        self._judging = judging
        self._shadow = frozenset(shadow)
        self._reads_responses = frozenset(reads_responses)
        self._max_characters = max_characters
        self._mask_secrets = mask_secrets

    def marked(self, batch: list[ProcessedMessage]) -> list[ProcessedMessage]:
        """The batch, with what its rows say of the judge."""
        return [self._mark(each) for each in batch]

    def _mark(self, each: ProcessedMessage) -> ProcessedMessage:
        if each.outcome is None or not each.outcome.scores:
            return each
        scores = tuple(self._decided(score) for score in each.outcome.scores)
        return each if scores == each.outcome.scores else replace(each, outcome=replace(each.outcome, scores=scores))

    def _decided(self, score: ProbeScore) -> ProbeScore:
        decision = self._judging.decide(score.probe.name, score.score)
        if decision is None:
            return score
        if decision == "waiting":
            return replace(score, judge="waiting")
        return replace(score, judge="not asked", judge_reason=decision)

    @staticmethod
    def only_new(batch: Sequence[ProcessedMessage], new: Sequence[ScoreRow]) -> list[ProcessedMessage]:
        """The batch, marked where a score is new: what is known already is not asked about again."""
        asked = {(row.at, row.probe) for row in new if row.judge is not None}
        return [_marked_where(each, asked) for each in batch]

    def ask(self, batch: Sequence[ProcessedMessage], new: Sequence[Uncertain]) -> None:
        """Put the questions of the scores that are new, out of a batch that was marked."""
        reserved = sum(score.judge == "waiting" for each in batch if each.outcome for score in each.outcome.scores)
        put = [question for question in new if question[1].judge == "waiting"]
        self._judging.release(reserved - len(put))
        for each, row, labels in put:
            self._judging.put(self._waiting(each, row, labels))
        for _, row, _ in new:
            if row.judge == "not asked":
                self._judging.count_not_asked(row.probe, row.judge_reason, flagged=row.flagged)

    def _waiting(self, each: ProcessedMessage, row: ScoreRow, labels: Flagged) -> Waiting:
        message = each.parsed
        turns = message.turns if isinstance(message, WireMessage) else ()
        response = message.response if isinstance(message, WireMessage) else None
        text = conversation(
            turns,
            response if row.probe in self._reads_responses else None,
            max_characters=self._max_characters,
            mask_secrets=self._mask_secrets,
        )
        return Waiting(
            # A rule on turns has counted it already, whatever the judge says; those on scores see what it raises.
            replace(labels, waiting=False, flagged=True, trajectory=None, path_length=None),
            row.probe_digest,
            flagged=row.flagged,
            shadow=row.probe in self._shadow,
            text=text,
            since=time.monotonic(),
        )


def _marked_where(each: ProcessedMessage, asked: Collection[tuple[Coordinates, str]]) -> ProcessedMessage:
    if each.outcome is None or all(score.judge is None for score in each.outcome.scores):
        return each
    scores = tuple(
        score if (each.at, score.probe.name) in asked else replace(score, judge=None, judge_reason=None)
        for score in each.outcome.scores
    )
    return replace(each, outcome=replace(each.outcome, scores=scores))
