"""Scores of messages that an engine has read itself: its values under the cards that are loaded here, no model.

Contract: `ReadingScorer(probes)` is a scorer as the worker wants one. A probe's value becomes its score as one that is
read here: corrected for length, with its turns, against the card's threshold. What the engine read by another card than
the one that is loaded, known by its digest, is no score of this one:

    a known probe with a value     scored; others of the message that are not known are named in the reason
    none known                     invalid, with the probes and both digests
    no value at all                skipped, with the engine's reasons

Engines and workers may load other probes for a while, as when one is promoted: an invalid message is scored when it is
delivered again to a worker that knows its probes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from monitor.readings.schema import HEARTBEAT, PARTIAL, ProbeValue, Reading
from monitor.service.batch_rows import Outcome, ProbeScore
from monitor.service.outcomes import Outcomes
from monitor.stream.wire import WireMessage
from probes.card import Probe
from probes.reading.values import PLAIN, Value, decide

# A reading of an answer that was still running.
RUNNING = "running"
PARTIAL_READING = "partial reading: the answer was still running"
# Of the names in a reason.
_NAMED = 5


class ReadingScorer:
    """See the module. `tokens` are those that engines have read."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes = tuple(probes)
        self._by_name = {probe.name: probe for probe in probes}
        self._digests = {probe.name: probe.digest for probe in probes}
        self._outcomes = Outcomes(probes)
        self.tokens = 0
        self.seconds = 0.0

    def prepare(self, messages: Sequence[WireMessage]) -> list[WireMessage]:
        """As they are."""
        return list(messages)

    def score(self, prepared: Sequence[WireMessage]) -> list[Outcome]:
        begun = time.monotonic()
        outcomes = [self._outcome(message.reading) for message in prepared]
        self.tokens += sum(outcome.tokens or 0 for outcome in outcomes)
        self.seconds += time.monotonic() - begun
        return outcomes

    def _outcome(self, reading: Reading | None) -> Outcome:
        if reading is None or reading.kind == HEARTBEAT:
            return Outcome("skipped")
        scores: list[ProbeScore] = []
        unknown: list[str] = []
        values = {value.name: value for value in reading.probes}
        for value in reading.probes:
            if (why := self._other(value)) is not None:
                unknown.append(why)
        for probe in self._probes:
            found = values.get(probe.name)
            if found is not None and self._other(found) is None:
                scores.append(self._scored(probe, found, reading.roles))
        unread = [f"{each.name}: {each.reason}" for each in reading.not_scored]
        named = {*values, *(each.name for each in reading.not_scored)}
        absent = [f"{probe.name}: the engine does not read it" for probe in self._probes if probe.name not in named]
        reason = "; ".join(_first(unknown) + _first(unread) + _first(absent)) or None
        tokens = reading.tokens.prompt + reading.tokens.response
        running = (PARTIAL_READING,) if reading.kind == PARTIAL else ()
        if scores:
            partial = (RUNNING,) if running else ()
            return Outcome("scored", tuple(scores), tokens, reason, notes=running, partial=partial)
        return Outcome("invalid" if unknown else "skipped", (), tokens, reason or "no probe was read", notes=running)

    def _scored(self, probe: Probe, found: ProbeValue, roles: tuple[str, ...]) -> ProbeScore:
        several = len(found.turns) > 1 or len(roles) > 1
        known = bool(found.turns) and max(turn for turn, _ in found.turns) < len(roles)
        value = Value(PLAIN, found.value, found.tokens, found.parts, found.turns if several else ())
        decided = decide(probe.card.calibration, [value])
        assert decided is not None  # noqa: S101 - one value decides
        # Without roles it is not known whether somebody has answered the turn.
        whose = roles if known else ("user",) * (1 + max((turn for turn, _ in value.turns), default=-1))
        score = self._outcomes.score(probe, decided, value, whose)
        return score if known else replace(score, turn_new=None)

    def _other(self, value: ProbeValue) -> str | None:
        """Why a value is no score of a loaded probe."""
        probe = self._by_name.get(value.name)
        if probe is None:
            return f"{value.name}: no such probe is loaded here (the engine's has the digest {value.digest})"
        if value.digest != self._digests[value.name]:
            return f"{value.name}: the engine read by {value.digest}, the card here is {self._digests[value.name]}"
        if value.parts and len(value.parts) != len(probe.directions):
            return f"{value.name}: {len(value.parts)} parts, the card has {len(probe.directions)} directions"
        if len({turn for turn, _ in value.turns}) < len(value.turns):
            return f"{value.name}: one of its turns is there twice"
        return None


def _first(reasons: Sequence[str]) -> list[str]:
    more = [f"and {len(reasons) - _NAMED} more"] if len(reasons) > _NAMED else []
    return [*reasons[:_NAMED], *more]
