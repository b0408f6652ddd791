"""What is not scored when the worker is far behind: only a share of the messages that have waited too long.

Contract: off unless it is set. A message that is sampled out gets its row, as skipped, with the reason, and counts as
passed without a score. Which ones are scored depends on their coordinates and content alone, so that a record that is
delivered again has the same outcome; once it is off, what was sampled out is scored where it is delivered again.
Tenants with priority are always scored, and so is what has no timestamp.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from monitor.service.batch_rows import Outcome, ProcessedMessage
from monitor.stream.wire import WireMessage
from monitor.telemetry import metrics
from storage.known import SAMPLED_OUT

_SKIPPED = Outcome("skipped", reason=SAMPLED_OUT)


@dataclass(frozen=True)
class Sampling:
    """Of messages older than `after_seconds` (by their records' timestamps), `share` is scored; None: all are."""

    after_seconds: float | None = None
    share: float = 1.0
    always: frozenset[str] = frozenset()
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def off(self) -> bool:
        return self.after_seconds is None

    def __call__(self, batch: list[ProcessedMessage]) -> list[ProcessedMessage]:
        """The batch, with the outcome of what is sampled out."""
        if self.after_seconds is None:
            return batch
        now = self.clock()
        sampled = [replace(each, outcome=_SKIPPED) if self._is_out(each, now) else each for each in batch]
        metrics.SAMPLED_OUT.inc(sum(each.outcome is _SKIPPED for each in sampled))
        return sampled

    def _is_out(self, each: ProcessedMessage, now: datetime) -> bool:
        sent = each.record.recorded
        if sent is None or self.after_seconds is None or not isinstance(each.parsed, WireMessage):
            return False
        late = (now - sent).total_seconds() > self.after_seconds
        return late and each.parsed.tenant not in self.always and _draw(each) >= self.share


def _draw(each: ProcessedMessage) -> float:
    """Even over [0, 1), and the same whenever it is asked."""
    digest = hashlib.blake2b(f"{each.at} {each.sha256}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2.0**64
