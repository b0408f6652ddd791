"""The rules without a rules file."""

from __future__ import annotations

from alerts.rules.model import Rules

# A few messages that cannot be read are everyday; somebody who hides, or a broken producer, makes more of them.
_UNSCORED = {
    "name": "unscored",
    "id": "awry-unscored",
    "check": "fail_open",
    "above": 20,
    "window": "15m",
    "severity": {"error": 20, "critical": 1000},
    "clear_at": 5,
    "clear_for": "30m",
    "reopen_within": "6h",
}
# Long conversations and images come every day: told once, and again after a day without.
_PARTIAL = {
    "name": "partial",
    "id": "awry-partial",
    "check": "partial",
    "above": 20,
    "window": "1h",
    "severity": "warning",
    "clear_at": 5,
    "clear_for": "24h",
}
# Nearly no everyday message is called so; somebody who tries encodings makes a few dozen.
_UNREADABLE = {
    "name": "unreadable",
    "id": "awry-unreadable",
    # Obfuscated prompts; a prompt that is hidden from a filter is there to be injected.
    "tags": ["AML.T0068", "LLM01:2025"],
    "check": "unreadable",
    "above": 20,
    "window": "1h",
    "severity": "warning",
    "clear_at": 5,
    "clear_for": "6h",
    "reopen_within": "24h",
}
# One false alarm a year: it is for whoever looks after the probe, in the morning.
_TAIL_DRIFT = {
    "name": "tail-drift",
    "id": "awry-tail-drift",
    "check": "tail_drift",
    "severity": "warning",
    "clear_at": 0.1,
    "clear_for": "6h",
}


# Whoever stops the server without its last word hides what it was asked; so does a broker that lost records.
_READING_GAPS = {
    "name": "reading-gaps",
    "id": "awry-reading-gaps",
    "check": "reading_gaps",
    "window": "1h",
    "severity": "error",
    "clear_for": "1h",
    "reopen_within": "6h",
}
_READINGS_SILENT = {
    "name": "readings-silent",
    "id": "awry-readings-silent",
    "check": "readings_silent",
    "window": "2m",
    "severity": "error",
    "clear_for": "5m",
    "reopen_within": "6h",
}


def built_in(error_from: float, critical_from: float) -> Rules:
    """The rules without a rules file: on scores, on messages without one, on messages that were not read whole or could
    not be made sense of, on probes whose scores are not what their calibration promises, and on engines whose readings
    are missing."""
    bands = {"warning": 0.0, "error": error_from, "critical": critical_from}
    monitor = [_UNSCORED, _PARTIAL, _UNREADABLE, _READING_GAPS, _READINGS_SILENT, _TAIL_DRIFT]
    return Rules.model_validate({"threshold": [{"id": "awry-threshold", "severity": bands}], "monitor": monitor})
