"""What one stored message counts in the metrics."""

from __future__ import annotations

from monitor.service.batch_rows import ProcessedMessage
from monitor.service.output_lines import is_dead_letter
from monitor.telemetry import metrics
from probes.hidden import UNREADABLE


def count_message(message: ProcessedMessage) -> None:
    """Count one stored message in the metrics."""
    status = message.status
    metrics.MESSAGES.labels(status).inc()
    if status in metrics.FAIL_OPEN:
        metrics.FAIL_OPEN_MESSAGES.labels(status).inc()
    if is_dead_letter(message):
        metrics.DEAD_LETTERS.labels(status).inc()
    if message.mitigation is not None:
        metrics.ANSWERS.inc()
    metrics.FORMATS.labels(message.parsed.format or "unknown").inc()
    for why in message.partial:
        metrics.PARTIAL.labels(why).inc()
    outcome = message.outcome
    if outcome is not None and (outcome.unreadable or 0.0) >= UNREADABLE:
        metrics.UNREADABLE.inc()
    if outcome is not None and outcome.rendered == "adapted":
        metrics.ADAPTED.inc()
    if outcome is not None and outcome.special_tokens:
        metrics.CONTROL_TOKENS.inc()
    if message.parsed.notes:
        metrics.NOTED.inc()
    for score in message.scores:
        metrics.SCORE.labels(score.probe.name).observe(score.score)
