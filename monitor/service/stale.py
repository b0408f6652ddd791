"""Refuses, or tells of, probes that are stale: an old calibration, or a drift that nobody did anything about.

Contract: `check_stale` looks once, at a worker's start, by the settings `stale_*`. Probes in shadow are left out: they
open no alerts. A drift is that of `alerts.rules.tails`, of the probe's digest and of all its traffic, by the limit and
the tolerance of the first rule on `tail_drift` that names the probe, else of the built-in one; a probe that was
calibrated again has none. What cannot be known (no date in the card, no rollups) is not stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from alerts.rules.in_use import calibration_age
from alerts.rules.model import MonitorRule, Rules
from alerts.rules.patterns import matches
from alerts.rules.tails import drifting_hours
from monitor.errors import SettingsError
from monitor.settings import Settings
from monitor.telemetry import metrics

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from probes.card import Probe

_LOOKS_BACK = timedelta(days=14)


def check_stale(
    engine: Engine, probes: Sequence[Probe], settings: Settings, rules: Rules, report: Callable[[str], object]
) -> None:
    """Raises SettingsError for a stale probe under `refuse`; reports it under `warn`."""
    if settings.stale_probe == "ignore":
        return
    found = [f"probe {probe.name}: {why}" for probe in probes for why in _reasons(engine, probe, settings, rules)]
    if found and settings.stale_probe == "refuse":
        raise SettingsError("\n".join([*found, "or set stale_probe = warn to start all the same"]))
    for line in found:
        report(f"stale {line}")


def show_age(probe: Probe) -> None:
    """The age of a loaded probe's calibration in the metrics; nothing where its card has no date."""
    made = probe.card.calibration.made
    if calibration_age({"calibration": {"made": made}}, date.today()) is not None:
        begun = datetime.combine(date.fromisoformat(made), time(), UTC)
        age = metrics.PROBE_CALIBRATION_AGE.labels(probe.name)
        age.set_function(lambda: (datetime.now(UTC) - begun).total_seconds())


def _reasons(engine: Engine, probe: Probe, settings: Settings, rules: Rules) -> Iterator[str]:
    if probe.name in settings.shadow:
        return
    made = probe.card.calibration.made
    age = calibration_age({"calibration": {"made": made}}, datetime.now(UTC).date())
    if age is not None and age > settings.stale_calibration_days:
        yield (
            f"its calibration of {made} is {age:.0f} days old (stale_calibration_days = "
            f"{settings.stale_calibration_days}); calibrate it with awry calibrate"
        )
    with engine.connect() as connection:
        days = drifting_hours(connection, _rule(rules, probe.name), probe.digest) / 24
    if days > settings.stale_drift_days:
        yield (
            f"its traffic has not been what it was calibrated on for {days:.0f} days (tail_drift, stale_drift_days = "
            f"{settings.stale_drift_days}); awry calibrate --from-tables, or awry fit, makes a new one"
        )


def _rule(rules: Rules, probe: str) -> MonitorRule:
    on_tails = (rule for rule in rules.monitor if rule.check == "tail_drift" and matches(rule.probe, probe))
    rule = next(on_tails, MonitorRule(name="tail-drift", check="tail_drift"))
    return rule.model_copy(update={"window": max(rule.window, _LOOKS_BACK)})
