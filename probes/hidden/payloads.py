"""What was found in a text, and how much may be spent on finding it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Payload:
    """Text that stood at `[start, stop)` in another form.

    `kind` names the outermost encoding; `depth` counts how many were taken off.
    """

    kind: str
    text: str
    start: int
    stop: int
    depth: int = 1


@dataclass(frozen=True)
class Budget:
    """Bounds for one message.

    `depth`: encodings within each other; `payloads` and `characters`: what is decoded; `looked`: characters that are
    looked at, the last ones of a longer message; `readings`: second readings.
    """

    depth: int = 6
    payloads: int = 64
    characters: int = 65_536
    looked: int = 131_072
    readings: int = 4


DEFAULT_BUDGET = Budget()
