"""What stored messages and their alerts count in the metrics."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from alerts.lifecycle.lifecycle import Opened, excepted_alerts, would_alert
from alerts.rules.model import Flagged, ThresholdRule
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


def count_flagged(
    flagged: Sequence[Flagged], opened: Sequence[Opened], rules: Sequence[ThresholdRule], shadow: Collection[str]
) -> None:
    """Count the scores that were decided on, and what their rules did."""
    for score in flagged:
        if score.flagged:
            metrics.FLAGGED.labels(score.probe, "shadow" if score.probe in shadow else "live").inc()
    for probe, severity in would_alert(flagged, rules, shadow):
        metrics.ALERTS.labels(probe, severity, "would_alert").inc()
    in_use = [score for score in flagged if score.probe not in shadow]
    for probe, severity in excepted_alerts(in_use, rules):
        metrics.ALERTS.labels(probe, severity, "excepted").inc()
    for alert in opened:
        result = "suppressed" if alert.suppressed else "alerted"
        metrics.ALERTS.labels(alert.probe, alert.severity, result).inc()
