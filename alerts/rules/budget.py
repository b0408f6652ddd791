"""What a threshold costs in alerts, before it is used: Bayes' rule over a million messages.

Contract: `budget(prevalence, tpr, fpr)` with rates from 0 to 1. Precision is None where nothing would be flagged. The
messages are counted one by one: an alert that groups many messages is one notification, so these are upper bounds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Flagged messages, true positives, missed bad messages, and the precision."""

    alerts: float
    true_alerts: float
    missed: float
    precision: float | None


def budget(prevalence: float, tpr: float, fpr: float, messages: float = 1_000_000) -> Budget:
    """The budget for so many messages."""
    for name, value in (("prevalence", prevalence), ("tpr", tpr), ("fpr", fpr)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: {value:g} is not a rate from 0 to 1")
    bad = messages * prevalence
    true, false = bad * tpr, (messages - bad) * fpr
    return Budget(true + false, true, bad - true, true / (true + false) if true + false > 0 else None)


def fpr_for(precision: float, prevalence: float, tpr: float) -> float | None:
    """The largest false-positive rate at which so large a share of alerts is right; None where any rate will do."""
    if not 0 < precision <= 1:
        raise ValueError(f"precision: {precision:g} is not a rate above 0")
    if prevalence >= 1:
        return None
    fpr = prevalence * tpr * (1 - precision) / (precision * (1 - prevalence))
    return fpr if fpr < 1 else None
