"""How a worker treats messages and scores, and what it counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from alerts.routing.routing import Destinations
from alerts.rules.model import ThresholdRule
from monitor.service.batch_rows import Privacy
from monitor.service.sampling import Sampling
from monitor.stream.parse import ParseOptions
from storage.known import ScoredBy


@dataclass(frozen=True)
class Policy:
    """How the worker treats messages and scores."""

    probe_names: tuple[str, ...]
    model: str
    destinations: Destinations = ()
    shadow: frozenset[str] = frozenset()
    rules: tuple[ThresholdRule, ...] = (ThresholdRule(),)
    privacy: Privacy = "sha256"
    mitigate: Literal["off", "flagged", "all"] = "off"
    batch_messages: int = 64
    dead_letter_limit: float = 0.5
    parsing: ParseOptions = field(default_factory=ParseOptions)
    # Attributes that are stored beside the listed ones.
    attribute_keys: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    # Write heartbeats, which rules on the monitor itself read; a replay does not.
    heartbeats: bool = True
    # Score a batch while the one before is stored. Off only where a benchmark compares.
    overlap: bool = True
    # By which digests of these probes a message counts as scored; by default by any of an unknown one.
    scored_by: tuple[ScoredBy, ...] = ()
    # Of a source of readings: how late one may come until it counts as lost.
    readings_grace_seconds: float | None = None


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
