"""From what the model gave for each reading of a message to what its rows say: scores, windows, or why not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from monitor.service.batch_rows import Outcome, ProbeScore, WindowScore
from monitor.telemetry import logs, metrics
from probes.capture.batches import Encoded, nothing_of
from probes.capture.trajectory import trajectory
from probes.card import Probe
from probes.reading.readings import JOINED, WINDOW, Readings
from probes.reading.values import Decided, Value, candidates, decide, reading_of


@dataclass
class ReadMessage:
    """A message with its readings, and what came of each: `values[reading]` has one value a probe."""

    readings: Readings
    base: Outcome
    roles: tuple[str, ...] = ()
    values: dict[int, list[Value]] = field(default_factory=dict)

    def again(self) -> ReadMessage:
        """As it was before anything came of it."""
        return ReadMessage(self.readings, self.base, self.roles)


class Outcomes:
    """Makes outcomes under these probes; a score of more tokens than its probe was calibrated to is warned of once."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes = tuple(probes)
        self._warned: set[str] = set()

    def __call__(self, one: ReadMessage) -> Outcome:
        """What became of a message that was read."""
        scores, reasons = [], []
        made = sorted(one.values)
        read = [one.readings.all[number] for number in made]
        for p, probe in enumerate(self._probes):
            values = [one.values[number][p] for number in made]
            windows = probe.card.calibration.length is not None
            decided = decide(probe.card.calibration, candidates(probe.aggregation, read, values, windows=windows))
            if decided is not None:
                plain = one.values[0][p] if 0 in one.values else None
                scores.append(self.score(probe, decided, plain, one.roles))
            else:
                reasons.append(_why_not(probe, one.readings.plain))
        reason = "; ".join(reasons) or None
        outcome = replace(
            one.base,
            scores=tuple(scores),
            tokens=len(one.readings.plain.ids),
            reason=reason,
            windows=self._window_scores(one),
        )
        if not scores:
            overflow = reason is not None and "finite" in reason
            return replace(outcome, status="failed" if overflow else "skipped", partial=())
        return outcome

    def score(self, probe: Probe, decided: Decided, plain: Value | None, roles: Sequence[str]) -> ProbeScore:
        """A probe's score as its row has it, from the value that decided and that of the message as it is."""
        self._note_length(probe, decided.value)
        return _probe_score(probe, decided, plain, roles)

    def _note_length(self, probe: Probe, value: Value) -> None:
        length = probe.card.calibration.length
        if length is None or value.tokens <= length.longest:
            return
        metrics.BEYOND_LENGTH.labels(probe.name).inc()
        if probe.name not in self._warned:
            self._warned.add(probe.name)
            logs.logger().warning(
                "longer_than_calibrated", probe=probe.name, tokens=value.tokens, calibrated_to=length.longest
            )

    def _window_scores(self, one: ReadMessage) -> tuple[WindowScore, ...]:
        """The scores of the probes that each window is meant for; those that are no number are left out."""
        found = []
        numbers = [n for n, reading in enumerate(one.readings.all) if reading.kind == WINDOW]
        for number, n in enumerate(numbers):
            reading, values = one.readings.all[n], one.values.get(n)
            if values is None or reading.window is None:
                continue
            scores = tuple(
                (probe.name, probe.card.calibration.score(value.value, value.tokens))
                for probe, value in zip(self._probes, values, strict=True)
                if reading.stands_for(probe.aggregation.span) and math.isfinite(value.value)
            )
            if scores:
                found.append(WindowScore(number, reading.window.first_token, reading.window.tokens, scores))
        return tuple(found)


def _probe_score(probe: Probe, decided: Decided, plain: Value | None, roles: Sequence[str]) -> ProbeScore:
    value = decided.value
    joined = value.kind == JOINED
    # What was read joined is one turn. The message's turns are those of the plain reading, and none of them decided.
    turns = _turns(probe, plain) if joined and plain is not None else _turns(probe, value)
    path = trajectory(turns, roles) if turns and value.kind != WINDOW else None
    return ProbeScore(
        probe,
        decided.score,
        _head_scores(probe, value.parts),
        reading=reading_of(value),
        turns=turns if path is not None else (),
        trajectory=path,
        top_turn=path.top_turn if path is not None and not joined else None,
        turn_new=path.turn_new if path is not None and not joined else None,
    )


def _turns(probe: Probe, value: Value) -> tuple[tuple[int, float], ...]:
    """A turn's values are corrected for length as the message's own: the highest of them is its score."""
    rise = value.value - probe.card.calibration.score(value.value, value.tokens)
    return tuple((turn, score - rise) for turn, score in value.turns)


def _why_not(probe: Probe, plain: Encoded) -> str:
    span = probe.aggregation.span
    if span == "response" and plain.n_prompt == len(plain.ids):
        return f"{probe.name} reads responses and the message has none"
    nothing = nothing_of(plain, span)
    if nothing is not None:
        return f"{probe.name} reads {span}: {nothing}"
    return f"{probe.name} gave no finite score (dtype overflow?)"


def _head_scores(probe: Probe, parts: Sequence[float]) -> tuple[tuple[int, int, float], ...]:
    if not parts:  # of a reading that an engine has made without them
        return ()
    sites = [d.site for d in probe.directions]
    return tuple((s.layer, s.head, v) for s, v in zip(sites, parts, strict=True) if s.kind == "head")
