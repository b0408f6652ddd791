"""Exceptions: what they keep from opening, until when, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from alerts.errors import RulesError
from alerts.lifecycle.lifecycle import excepted_alerts
from alerts.rules.exceptions import warnings
from alerts.rules.model import Rules
from tests.support.alerts.alert_rows import all_alerts, flagged
from tests.support.alerts.alert_scenes import BURST, in_transaction, look, rules, scored

TODAY = datetime.now(UTC).date()
THRESHOLD = '[[threshold]]\nname = "threshold"\n'


def with_exception(matchers: str, until: object, more: str = THRESHOLD) -> Rules:
    return rules(f'{more}[[exception]]\nmatchers = {matchers}\nowner = "anna"\nreason = "SEC-77"\nuntil = {until}\n')


def matched(found: Rules, **names: Any) -> bool:
    return any(rule.matches(flagged(1, **names)) for rule in found.threshold)


def test_what_it_matches_opens_no_alert_and_is_counted(engine: Engine) -> None:
    from alerts.lifecycle.lifecycle import record_flagged

    found = with_exception("""['tenant=~"red-.*"', 'severity!="critical"']""", TODAY + timedelta(days=30))
    scores = [flagged(1, 0.6, tenant="red-1"), flagged(2, 2.0, tenant="red-1"), flagged(3, 0.6, tenant="bank")]
    in_transaction(engine, record_flagged, scores, ("pager",), found.threshold)
    assert {(row.tenant, row.severity, row.count) for row in all_alerts(engine)} == {
        ("red-1", "critical", 1),
        ("bank", "warning", 1),
    }
    assert excepted_alerts(scores, found.threshold) == [("drift", "warning")]


def test_it_holds_on_its_last_day_and_not_after_it() -> None:
    assert not matched(with_exception("""['tenant="shop"']""", TODAY), tenant="shop")
    assert matched(with_exception("""['tenant="shop"']""", TODAY - timedelta(days=1)), tenant="shop")
    a_minute_ago = (datetime.now(UTC) - timedelta(minutes=1)).isoformat(timespec="seconds")
    assert matched(with_exception("""['tenant="shop"']""", a_minute_ago), tenant="shop")


def test_a_rate_rule_keeps_its_state_and_opens_its_alert_when_the_exception_ends(engine: Engine) -> None:
    scored(engine, 1, 3, tenant="shop")
    done = look(engine, with_exception("""['tenant="shop"']""", TODAY + timedelta(days=1), BURST))
    assert (done.opened, done.excepted) == ([], [("drift", "error")])
    assert all_alerts(engine) == []
    done = look(engine, with_exception("""['tenant="shop"']""", TODAY - timedelta(days=1), BURST))
    assert [(alert.event, alert.severity) for alert in done.opened] == [("alert.opened", "error")]


def test_the_alert_of_a_message_is_excepted_by_its_own_tenant_whatever_its_rule_is_per() -> None:
    found = with_exception("""['tenant="shop"']""", TODAY, '[[threshold]]\nname = "threshold"\nper = []\n')
    assert not matched(found, tenant="shop")
    assert matched(found, tenant="bank")


def test_those_that_end_are_named() -> None:
    for days, said in ((30, []), (10, ["ends on"]), (-1, ["has no effect any more: it ended on"])):
        found = with_exception("""['tenant="shop"']""", TODAY + timedelta(days=days))
        lines = warnings(found.exception, datetime.now(UTC))
        assert [f'exception {{tenant="shop"}} of anna {each}' for each in said] == [
            line[: line.rindex(" 20")] for line in lines
        ]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "matchers = ['tenant=\"a\"']\nowner = 'anna'\nreason = 'x'\n",
            "rules.toml:1: exception number 1: until: is missing",
        ),
        ("matchers = ['tenant=\"a\"']\nreason = 'x'\nuntil = 2026-01-01\n", "owner: is missing"),
        (
            "matchers = ['tenant=\"a\"']\nowner = ' '\nreason = 'x'\nuntil = 2026-01-01\n",
            "owner: must be one line of text",
        ),
        (
            "matchers = ['tenant=\"a\"']\nowner = 'a'\nreason = 'x'\nuntil = 2099-01-01\n",
            "until: is more than a year ahead",
        ),
        ("matchers = ['tenant=\"a\"']\nowner = 'a'\nreason = 'x'\nuntil = 'soon'\n", "until: 'soon' is no date"),
        ("matchers = []\nowner = 'a'\nreason = 'x'\nuntil = 2026-01-01\n", "matchers: write at least one"),
        (
            "matchers = ['tennant=\"a\"']\nowner = 'a'\nreason = 'x'\nuntil = 2026-01-01\n",
            "matchers: tennant: no such label",
        ),
        (
            "matcher = ['tenant=\"a\"']\nowner = 'a'\nreason = 'x'\nuntil = 2026-01-01\n",
            "matcher: no such field; there are matchers",
        ),
    ],
)
def test_without_an_owner_and_a_near_end_it_is_refused(written: str, said: str) -> None:
    with pytest.raises(RulesError) as refused:
        rules(f"[[exception]]\n{written}")
    assert said in str(refused.value)
