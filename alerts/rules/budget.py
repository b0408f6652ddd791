"""What a threshold costs in alerts, before it is used: Bayes' rule over a million messages; and what a judge saves.

Contract: `budget(prevalence, tpr, fpr)` with rates from 0 to 1. Precision is None where nothing would be flagged. The
messages are counted one by one: an alert that groups many messages is one notification, so these are upper bounds.
`saving(band, days)` is what a judge said of messages in the uncertain band, by day; whether it is right, nobody knows
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt


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


@dataclass(frozen=True)
class Share:
    """k of n, with the 95 % interval of the share (Wilson)."""

    k: int
    n: int

    @property
    def value(self) -> float | None:
        return self.k / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        if not self.n:
            return 0.0, 1.0
        z, n, p = 1.959964, self.n, self.k / self.n
        centre, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        # Rounding must not put the share outside.
        return max(0.0, min(p, (centre - half) / scale)), min(1.0, max(p, (centre + half) / scale))


@dataclass(frozen=True)
class Band:
    """What a judge said of one probe's messages in the uncertain band within some days. `flagged` ones are those that
    the probe flagged, `unjudged` those of them without a verdict."""

    flagged_harmful: int
    flagged_harmless: int
    passed_harmful: int
    passed_harmless: int
    flagged_unjudged: int
    passed_unjudged: int


@dataclass(frozen=True)
class Saving:
    """What asking a judge changes, in messages a day: in the band, judged, `fewer` flagged ones that it calls harmless,
    `more` that the probe missed and it calls harmful; the same if all of the band were judged (None where too little is
    known); and the share of flagged ones that it calls harmful, which is the probe's precision in the band if the judge
    is right."""

    band: float
    judged: float
    fewer: float
    more: float
    fewer_if_all: float | None
    more_if_all: float | None
    precision: Share
    missed: Share


def saving(band: Band, days: float) -> Saving:
    """Messages, counted one by one as in `budget`: alerts group them, so pages are fewer. ValueError without days."""
    if not days > 0:
        raise ValueError("days: there are none to count by")
    flagged = Share(band.flagged_harmful, band.flagged_harmful + band.flagged_harmless)
    passed = Share(band.passed_harmful, band.passed_harmful + band.passed_harmless)
    judged, unjudged = flagged.n + passed.n, band.flagged_unjudged + band.passed_unjudged
    return Saving(
        band=(judged + unjudged) / days,
        judged=judged / days,
        fewer=band.flagged_harmless / days,
        more=band.passed_harmful / days,
        fewer_if_all=_if_all(flagged.n - flagged.k, flagged.n, band.flagged_unjudged, days),
        more_if_all=_if_all(passed.k, passed.n, band.passed_unjudged, days),
        precision=flagged,
        missed=passed,
    )


def _if_all(found: int, judged: int, unjudged: int, days: float) -> float | None:
    if not unjudged:
        return found / days
    return found / judged * (judged + unjudged) / days if judged else None
