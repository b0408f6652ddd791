"""What a backtest keeps of a rule: its alerts by key, when they open, reopen, become more severe and resolve.

Contract: a key is (in shadow, dedup key); what is in shadow is counted apart, in `would_notify`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from alerts.rules.hysteresis import ConditionState, Limits, step
from alerts.rules.model import SEVERITIES, Conversation, MonitorRule, RateRule, max_severity


@dataclass
class BacktestResult:
    """What one rule would have done. `messages`: flagged ones that it matched; `keys`: notifications by dedup key."""

    name: str
    kind: str
    shadow: bool
    messages: int = 0
    alerts: int = 0
    resolved: int = 0
    keys: Counter[str] = field(default_factory=Counter)
    would_notify: int = 0

    @property
    def notifications(self) -> int:
        return self.keys.total()


@dataclass
class SimulatedAlert:
    """An alert of the backtest; `conversations`: the highest score over the threshold of each one in it."""

    live: bool = False
    severity: str = SEVERITIES[0]
    last_seen: datetime | None = None
    resolved: datetime | None = None
    conversations: dict[Conversation, float] = field(default_factory=dict)


class Conditions:
    """The states and alerts of a rate or monitor rule, by key, evaluated every so often."""

    def __init__(self, rule: RateRule | MonitorRule, every: timedelta, result: BacktestResult) -> None:
        self._rule, self._every, self._result = rule, every, result
        self._limits = Limits(rule.limit, rule.clear_limit, rule.for_, rule.clear_for)
        self._alerts: dict[tuple[bool, str], SimulatedAlert] = {}
        self.states: dict[tuple[bool, str], ConditionState] = {}

    def advance(self, key: tuple[bool, str], value: float, now: datetime) -> None:
        """One evaluation of a key."""
        before = self.states.pop(key, None)
        after, event = step(before, value, self._every.total_seconds() if before else 0.0, self._limits)
        alert = self._alerts.setdefault(key, SimulatedAlert())
        if event == "fired" or (after == ConditionState("firing") and alert.live):
            record_breach(self._result, key, alert, self._rule.grade(value), now, self._rule.reopen_within)
        if event == "cleared":
            resolve_alert(self._result, key, alert, now)
        if after is not None:
            self.states[key] = after


def record_breach(
    result: BacktestResult,
    key: tuple[bool, str],
    alert: SimulatedAlert,
    severity: str,
    at: datetime,
    reopen_within: timedelta,
) -> None:
    """An alert of the key is live from now on; count what would have been sent."""
    shadow, dedup_key = key
    more_severe = max_severity(alert.severity, severity) != alert.severity
    if not alert.live:
        result.alerts += not reopens(alert, at, reopen_within) and not shadow
        alert.severity = severity
    elif more_severe:
        alert.severity = severity
    if not alert.live or more_severe:
        if shadow:
            result.would_notify += 1
        else:
            result.keys[dedup_key] += 1
    alert.live, alert.last_seen = True, at


def reopens(alert: SimulatedAlert, at: datetime, within: timedelta) -> bool:
    """Whether a breach now would reopen the alert that was resolved."""
    return alert.resolved is not None and at - alert.resolved < within


def resolve_alert(result: BacktestResult, key: tuple[bool, str], alert: SimulatedAlert, at: datetime) -> None:
    """It is over."""
    alert.live, alert.resolved = False, at
    result.resolved += not key[0]
