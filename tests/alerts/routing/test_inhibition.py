"""Which live alerts hold the notifications of another."""

from __future__ import annotations

import uuid

import pytest
from pydantic import ValidationError

from alerts.routing.inhibition import InhibitRule, LiveAlert, inhibitors


def rule(source: str, target: str, *equal: str) -> InhibitRule:
    return InhibitRule.model_validate({"source_matchers": [source], "target_matchers": [target], "equal": equal})


def live(key: str, **labels: str) -> LiveAlert:
    return LiveAlert(uuid.uuid4(), key, labels)


def held_by(rules: list[InhibitRule], alerts: list[LiveAlert], target: LiveAlert) -> list[str]:
    return [source.dedup_key for source in inhibitors(rules, alerts, target.id, target.labels)]


def test_a_source_holds_targets_with_the_same_labels() -> None:
    critical = live("critical", severity="critical", tenant="shop")
    same = live("same", severity="warning", tenant="shop")
    other = live("other", severity="warning", tenant="bank")
    everything = [critical, same, other]
    rules = [rule('severity="critical"', 'severity="warning"', "tenant")]
    assert held_by(rules, everything, same) == ["critical"]
    assert held_by(rules, everything, other) == []
    assert held_by(rules, everything, critical) == []


def test_two_that_lack_a_label_have_the_same() -> None:
    rules = [rule('severity="critical"', 'severity="warning"', "tenant")]
    assert held_by(rules, [live("c", severity="critical")], live("w", severity="warning")) == ["c"]


def test_an_alert_that_is_both_is_not_held_by_another_that_is_both() -> None:
    rules = [rule('kind="monitor"', 'severity=~".*"')]
    worker, traffic = (
        live("worker", kind="monitor", severity="error"),
        live("traffic", kind="monitor", severity="error"),
    )
    score = live("score", kind="threshold", severity="error")
    assert held_by(rules, [worker, traffic, score], worker) == []
    assert held_by(rules, [worker, traffic, score], score) == ["traffic", "worker"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"source_matchers": [], "target_matchers": ['rule="a"']}, "at least one matcher"),
        ({"source_matchers": ['rule="a"'], "target_matchers": ['rule="b"'], "equal": ["tennant"]}, "no such label"),
        ({"source_matchers": ['rule="a"']}, "target_matchers"),
    ],
)
def test_what_would_hold_everything_or_nothing_is_refused(written: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        InhibitRule.model_validate(written)
