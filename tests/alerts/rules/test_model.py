from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from alerts.rules.builtin import built_in
from alerts.rules.model import SEVERITIES, MonitorRule, RateRule, ThresholdRule, max_severity
from tests.support.alerts.alert_rows import flagged


@pytest.mark.parametrize(
    ("value", "severity"),
    [(0.51, "warning"), (0.99, "warning"), (1.0, "error"), (1.49, "error"), (1.5, "critical"), (9.0, "critical")],
)
def test_severity_is_the_excess_over_the_threshold(value: float, severity: str) -> None:
    assert ThresholdRule().severity_of(flagged(value=value, threshold=0.5)) == severity


def test_bands_can_be_moved() -> None:
    rule = built_in(error_from=0.1, critical_from=0.2).threshold[0]
    assert rule.severity_of(flagged(value=0.65)) == "error"
    assert rule.severity_of(flagged(value=0.75)) == "critical"


def test_the_built_in_rules_watch_the_monitor_too() -> None:
    found = built_in(error_from=0.5, critical_from=1.0)
    assert [(rule.name, rule.check) for rule in found.monitor] == [
        ("unscored", "fail_open"),
        ("partial", "partial"),
        ("unreadable", "unreadable"),
        ("reading-gaps", "reading_gaps"),
        ("readings-silent", "readings_silent"),
        ("tail-drift", "tail_drift"),
    ]
    unscored, partial, unreadable, gaps, silent, tail = found.monitor
    # One gap is told at once; so is an engine that says nothing for two minutes.
    assert (gaps.limit, gaps.grade(1), silent.limit, silent.units) == (0, "error", 120, "seconds")
    # Once a year by chance.
    assert (tail.limit, tail.units, tail.grade(10**6)) == (1, "years without drift", "warning")
    # A flood calls somebody, a few do not; and what comes and goes with the day is not told each morning.
    assert (unscored.grade(21), unscored.grade(1000), partial.grade(10**6)) == ("error", "critical", "warning")
    assert all(0 < rule.clear_limit < rule.limit for rule in (unscored, partial, unreadable, tail))
    assert partial.clear_for.total_seconds() >= 86_400
    assert (unreadable.limit, unreadable.units, unreadable.grade(10**6)) == (20, "messages", "warning")


@pytest.mark.parametrize(
    ("more", "counted"),
    [
        ({}, "conversations"),
        ({"per": ("tenant", "conversation")}, "messages"),
        ({"count": "messages"}, "messages"),
        ({"per": "conversation", "count": "conversations", "flagged": 1}, "conversations"),
    ],
)
def test_what_a_rate_rule_counts(more: dict[str, Any], counted: str) -> None:
    rule = RateRule.model_validate({"name": "r", "flagged": 3, "window": "1h", **more})
    assert (rule.counted, rule.units) == (counted, f"flagged {counted}")


def test_a_conversation_is_a_tenants() -> None:
    one = replace(flagged(), conversation_id="c")
    assert one.conversation == ("shop", "c")
    assert replace(one, tenant=None).conversation == (None, "c")
    assert replace(one, conversation_id=None).conversation is None
    assert replace(one, conversation_id="").conversation is None


def test_the_key_is_readable_and_differs_by_probe_tenant_and_model() -> None:
    rule = ThresholdRule()
    assert rule.dedup_key(flagged()) == "threshold:drift:shop:smol"
    assert rule.dedup_key(flagged(tenant=None, model=None)) == "threshold:drift:-:-"
    keys = {
        rule.dedup_key(f)
        for f in (flagged(), flagged(probe="other"), flagged(tenant="t"), flagged(model="m"), flagged(tenant=None))
    }
    assert len(keys) == 5


@given(st.text(max_size=600), st.text(max_size=600))
def test_the_key_fits_a_pager(tenant: str, model: str) -> None:
    key = ThresholdRule().dedup_key(flagged(tenant=tenant, model=model))
    assert len(key) <= 255
    assert key.startswith("threshold:drift:")


def test_max_severity() -> None:
    assert [max_severity(a, b) for a in SEVERITIES for b in SEVERITIES] == [
        "warning",
        "error",
        "critical",
        "error",
        "error",
        "critical",
        "critical",
        "critical",
        "critical",
    ]


def test_windows_of_drift_are_whole_hours_of_days() -> None:
    found = [MonitorRule(name="a", check=check).window for check in ("tail_drift", "probe_stale", "score_drift")]
    assert found == [timedelta(days=14), timedelta(days=1), timedelta(minutes=15)]
    assert MonitorRule.model_validate({"name": "a", "check": "tail_drift", "window": "28d"}).window.days == 28
    for wrong in ("23h", "29d", "25h30m"):
        with pytest.raises(ValidationError, match="must be whole hours, from 1d to 28d"):
            MonitorRule.model_validate({"name": "a", "check": "tail_drift", "window": wrong})
    with pytest.raises(ValidationError, match="must be from 1s to 7d"):
        MonitorRule.model_validate({"name": "a", "check": "score_drift", "window": "8d"})
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        MonitorRule.model_validate({"name": "a", "check": "tail_drift", "tolerance": 0.9})
