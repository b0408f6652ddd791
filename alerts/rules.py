"""From a flagged score to an alert's identity and severity.

A threshold rule opens one alert for each (probe, tenant, model); its severity comes from how far the score is above
the probe's threshold, in class gaps. The dedup key is readable on purpose: it is what a pager shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["warning", "error", "critical"]
SEVERITIES: tuple[Severity, ...] = ("warning", "error", "critical")


@dataclass(frozen=True)
class Flagged:
    """A score above its threshold, and whose message it was. Coordinates are (source, partition, offset)."""

    probe: str
    score: float
    threshold: float
    tenant: str | None
    model: str | None
    coordinates: tuple[str, int, int]
    message_id: str | None


@dataclass(frozen=True)
class ThresholdRule:
    """Severity bands: the excess over the threshold, in class gaps, from which a severity holds."""

    name: str = "threshold"
    error_from: float = 0.5
    critical_from: float = 1.0

    def severity(self, flagged: Flagged) -> Severity:
        excess = flagged.score - flagged.threshold
        if excess >= self.critical_from:
            return "critical"
        return "error" if excess >= self.error_from else "warning"

    def dedup_key(self, flagged: Flagged) -> str:
        """At most 255 characters, as pagers want it."""
        parts = (self.name, flagged.probe, flagged.tenant or "-", flagged.model or "-")
        return ":".join(part.replace(":", "_") for part in parts)[:255]


def worse(a: str, b: str) -> str:
    """The graver of two severities."""
    return max(a, b, key=SEVERITIES.index)
