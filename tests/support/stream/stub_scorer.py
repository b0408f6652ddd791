"""A scorer that needs no model, behind the same interface as the real one: faults are about everything around it.

A message's score is a function of its id, so that an independent count knows what must be in the tables.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from monitor.service.batch_rows import Outcome, ProbeScore
from monitor.service.reading_scores import ReadingScorer
from monitor.stream.wire import WireMessage

NAME = "stub"
THRESHOLD = 0.8
# What an engine says that it reads by.
DIGEST = "ab" * 16
PROBE: Any = SimpleNamespace(name=NAME, digest="", card=SimpleNamespace(name=NAME, version=1, threshold=THRESHOLD))


def score_of(message_id: str) -> float:
    """Between 0 and 1; about one in five is above the threshold."""
    return hashlib.sha256(message_id.encode()).digest()[0] / 255


class StubScorer:
    """`delay` seconds a message, as a model would take."""

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay
        self.tokens = 0
        self.seconds = 0.0

    def prepare(self, messages: Sequence[WireMessage]) -> list[WireMessage]:
        return list(messages)

    def score(self, messages: Sequence[WireMessage]) -> list[Outcome]:
        time.sleep(self._delay * len(messages))
        self.tokens += 5 * len(messages)
        return [Outcome("scored", (ProbeScore(PROBE, score_of(m.id or "")),), tokens=5) for m in messages]


class SlowReadings(ReadingScorer):
    """Readings of the same probe, `delay` seconds each."""

    def __init__(self, delay: float = 0.0) -> None:
        calibration = SimpleNamespace(length=None, score=lambda value, _: value)
        card = SimpleNamespace(name=NAME, version=1, threshold=THRESHOLD, calibration=calibration)
        probe: Any = SimpleNamespace(name=NAME, digest=DIGEST, card=card, directions=())
        super().__init__([probe])
        self._delay = delay

    def score(self, prepared: Sequence[WireMessage]) -> list[Outcome]:
        time.sleep(self._delay * len(prepared))
        return super().score(prepared)
