"""What rules on the monitor can measure: the units, the limit and the window where a rule gives none.

Contract: silence (`no_traffic`, `no_worker`, `readings_silent`) is measured against the window itself and has no limit
here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

Check = Literal[
    "no_traffic",
    "no_worker",
    "lag",
    "delay",
    "dead_letters",
    "fail_open",
    "partial",
    "unreadable",
    "score_drift",
    "tail_drift",
    "probe_stale",
    "reading_gaps",
    "readings_silent",
]

# What each check measures, and the limit where a rule gives none. Silence is measured against the window itself.
UNITS: dict[Check, str] = {
    "no_traffic": "seconds",
    "no_worker": "seconds",
    "lag": "messages",
    "delay": "seconds",
    "dead_letters": "messages",
    "fail_open": "messages",
    "partial": "messages",
    "unreadable": "messages",
    "score_drift": "PSI",
    # Traffic without drift comes so far once in so many years.
    "tail_drift": "years without drift",
    "probe_stale": "days",
    "reading_gaps": "gaps",
    "readings_silent": "seconds",
}
LIMITS: dict[Check, float] = {
    "lag": 1000.0,
    "delay": 300.0,
    "dead_letters": 0.0,
    "fail_open": 0.0,
    "partial": 0.0,
    "unreadable": 0.0,
    "score_drift": 0.25,
    "tail_drift": 1.0,
    "probe_stale": 180.0,
    "reading_gaps": 0.0,
}
# Where a rule gives none and it is not a quarter of an hour.
WINDOWS: dict[Check, timedelta] = {"tail_drift": timedelta(days=14), "probe_stale": timedelta(days=1)}
