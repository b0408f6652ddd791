"""From the values of a request's tokens to what each probe says of it: the same arithmetic as awry's own engine.

Contract: `Maker(shape, probes, marks, why_not)` has the planes for the table of values; `maker(values, ids, n_prompt)`
gives for each probe its value, or why it has none: `why_not` is asked of the adapter that a request runs with. A
response ends at the last token of which there are values: what the model gave last was never read by it.

A probe reads a span of the prompt or the response. Where the cut of turns is not known (`probes.vllm.turns`), probes of
turns are refused at start, by `refusals`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from probes.capture.batches import Encoded, collate, nothing_of
from probes.card import Probe
from probes.planes import planes
from probes.reading.readings import PLAIN
from probes.reading.values import Value
from probes.scoring import Arithmetic, directions_of
from probes.vllm.shape import Shape
from probes.vllm.turns import TurnMarks, last_user

_WHOLE = ("prompt", "response")
NOT_COMPUTED = "values of some of its tokens are not known"


@dataclass(frozen=True)
class Said:
    """What a probe says of a request: its value, or why it has none."""

    probe: Probe
    value: Value | None
    reason: str | None = None


def refusals(probes: Sequence[Probe], marks: TurnMarks | None, *, early: bool = False) -> list[str]:
    """Why probes cannot be read from token ids; empty where all can. `early`: a probe of an answer's last token may be
    read at the token before."""
    ends = [
        f"{probe.name} reads {probe.aggregation}: it was made at an answer's last token, which the model never "
        "reads; use a mean or a maximum of the response, awry run, or set response_ends_early where you have compared "
        "the scores"
        for probe in probes
        if not early and (probe.aggregation.kind, probe.aggregation.span) == ("last", "response")
    ]
    if marks is not None:
        return ends
    return ends + [
        f"{probe.name} reads {probe.aggregation}: the chat template marks turns with no control token, so that their "
        "text cannot be told in token ids; use a probe of prompt or response, or awry run --engine vllm"
        for probe in probes
        if probe.aggregation.span not in _WHOLE
    ]


class Maker:
    """See the module."""

    def __init__(
        self,
        shape: Shape,
        probes: Sequence[Probe],
        marks: TurnMarks | None,
        why_not: Callable[[Probe, Any], str | None] = lambda _probe, _lora: None,
    ) -> None:
        self.probes = tuple(probes)
        self.why_not = why_not
        self._marks = marks
        readers = [probe.reader for probe in probes]
        self.planes, order = planes(shape.layout, directions_of(readers))
        self.columns = len(order)
        self._scores = Arithmetic(readers, order)

    def encoded(self, ids: Sequence[int], n_prompt: int) -> Encoded:
        """The message as awry's batches take it."""
        if self._marks is None:
            return Encoded(tuple(ids), min(n_prompt, len(ids)), spans="not known")
        turns = self._marks.spans(ids[:n_prompt])
        return Encoded(tuple(ids), min(n_prompt, len(ids)), turns=turns, last_user=last_user(turns), spans="known")

    def roles(self, ids: Sequence[int], n_prompt: int) -> list[str]:
        """The roles of the prompt's turns, as far as they have text."""
        found = {span.turn: span.role for span in self.encoded(ids, n_prompt).turns}
        return [found.get(turn, "other") for turn in range(max(found, default=-1) + 1)]

    def __call__(self, values: NDArray[np.float32], ids: Sequence[int], n_prompt: int, lora: Any = None) -> list[Said]:
        """`values` (tokens, columns) are of the first tokens of `ids`, which may have one more; `lora` is the request's
        LoRARequest."""
        there = min(len(values), len(ids))
        if not there:
            return [Said(probe, None, "the request ended before the model read it") for probe in self.probes]
        known = torch.from_numpy(values[:there]).isfinite().all(1)
        item = self.encoded(ids[:there], n_prompt)
        batch = collate([item], torch.device("cpu"))
        scores = self._scores(torch.from_numpy(values[None, :there].copy()), batch, turns=True)
        said = []
        for p, probe in enumerate(self.probes):
            span = probe.aggregation.span
            nothing = nothing_of(item, span)
            missing = not known[batch.span(span)[0]].all()
            total = float(scores.total[0, p])
            refused = self.why_not(probe, lora)
            if refused is not None:
                reason = refused
            elif there < n_prompt:
                reason = "the request ended before the model had read its prompt"
            elif nothing is not None or missing or not math.isfinite(total):
                reason = nothing or (NOT_COMPUTED if missing else "no finite value")
            else:
                turns = scores.turns[p][0] if scores.turns is not None and len(item.turns) > 1 else ()
                parts = tuple(scores.parts[p][0].tolist())
                said.append(Said(probe, Value(PLAIN, total, int(scores.counts[0, p]), parts, turns)))
                continue
            said.append(Said(probe, None, reason))
        return said
