"""Tail drift and the age of calibrations, on real tables."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text, update

from alerts.rules.backtest import backtest
from alerts.rules.builtin import built_in
from alerts.rules.exceedance import HOURS_A_YEAR, Hours, evidence, levels
from alerts.rules.in_use import calibration_age, measure_ages
from alerts.rules.model import MonitorRule, Rules
from alerts.rules.tails import drifting_hours, measure_tails, streams, tails_by_hour
from storage.rollup import roll_up
from storage.schema import rollup_state, score_rollups
from storage.writer import BatchRows
from tests.support.alerts.alert_rows import all_alerts
from tests.support.alerts.alert_scenes import look
from tests.support.alerts.tails import HOUR, NOW, SHARES, card, live_score, register, traffic
from tests.support.rows import message, score, write

RULE = MonitorRule(name="tail", check="tail_drift")


def measured(engine: Engine, rule: MonitorRule = RULE) -> dict[tuple[str, str | None], float]:
    with engine.connect() as connection:
        return measure_tails(connection, rule)


def test_a_heavier_tail_is_a_drift_of_the_probe_and_of_its_tenant(engine: Engine) -> None:
    register(engine)
    traffic(engine, 24 * 7, until=NOW - 10 * HOUR)
    traffic(engine, 24 * 7 + 10, tenant="bank")
    assert set(measured(engine)) == {("drift", None), ("drift", "shop"), ("drift", "bank")}
    assert max(measured(engine).values()) < 0.01
    traffic(engine, 10, factor=6)
    values = measured(engine)
    assert values["drift", None] > 1
    assert values["drift", "shop"] > 1
    assert values["drift", "bank"] < 0.01


def test_the_value_is_that_of_the_statistic(engine: Engine) -> None:
    """Hours without a row are hours without traffic; the hour that is not over does not count."""
    register(engine)
    traffic(engine, 20, until=NOW - 60 * HOUR)
    traffic(engine, 5, factor=3)
    traffic(engine, 1, factor=100, until=NOW + HOUR)
    n = np.zeros(24 * 14)
    n[-80:-60] = n[-5:] = 1000
    above = {name: np.where(np.arange(len(n)) >= len(n) - 5, np.round(3 * n * s), n * s) for name, s in SHARES.items()}
    log = evidence(levels(card()), Hours(n, above))[-1]
    expected = {
        ("drift", None): 0.5 * np.exp(log) / HOURS_A_YEAR,
        ("drift", "shop"): 0.025 * np.exp(log) / HOURS_A_YEAR,
    }
    assert measured(engine) == pytest.approx(expected)
    alone = RULE.model_copy(update={"tenants": 0})
    assert measured(engine, alone) == pytest.approx({("drift", None): np.exp(log) / HOURS_A_YEAR})
    tolerant = RULE.model_copy(update={"tolerance": 3.0})
    assert measured(engine, tolerant)["drift", None] < 0.1 * expected["drift", None]


def test_scores_are_counted_by_the_rollup_that_is_there(engine: Engine) -> None:
    """From scores to the value, nothing made up in between."""
    register(engine)
    number = 0
    for ago in range(8, 0, -1):
        values = [0.995 if i % 4 == 0 else 0.5 for i in range(60)]
        offsets = range(1000 + number, 1000 + number + len(values))
        rows = [message(n, f"r{n}", tenant="shop") for n in offsets]
        found = [score(n, v, probe_digest="d1") for n, v in zip(offsets, values, strict=True)]
        write(engine, BatchRows(rows, found))
        with engine.begin() as connection:
            connection.execute(
                text('UPDATE scores SET created_at = :at WHERE "offset" >= :first'),
                {"at": NOW - ago * HOUR + HOUR / 4, "first": offsets[0]},
            )
        number += len(values)
    assert roll_up(engine) == number
    # As if it had run at that hour: a full hour may have passed since.
    with engine.begin() as connection:
        connection.execute(update(rollup_state).values(until=NOW + HOUR / 3))
    with engine.connect() as connection:
        _, found_streams = streams(connection, RULE, RULE.window)
        (whole,) = (stream for stream in found_streams if stream.tenant is None)
    assert list(whole.hours.n[-8:]) == [60] * 8
    assert list(whole.hours.above["over95"][-8:]) == [15] * 8
    assert list(whole.hours.above["over99"][-8:]) == [15] * 8
    assert whole.hours.above["over999"].sum() == 0
    assert measured(engine)["drift", None] > 1


def test_what_cannot_be_tested_has_no_value(engine: Engine) -> None:
    """A card from before, too small a calibration, too few scores, a digest that is unknown, a probe in shadow."""
    known = card()["calibration"]
    before = {"calibration": {name: value for name, value in known.items() if name != "tail"}}
    for probe, shown in (("old", before), ("small", card(19)), ("few", card()), ("shadow", card()), ("empty", {})):
        register(engine, probe, f"{probe}-digest", shown)
        number = 10 if probe == "few" else 1000
        traffic(engine, 12, number, 20, probe=probe, digest=f"{probe}-digest", shadow=probe == "shadow")
    register(engine)
    traffic(engine, 12, factor=20, digest="")
    assert measured(engine) == {}
    assert look(engine, Rules(threshold=(), monitor=(RULE,))).opened == []


def test_nothing_was_rolled_up_yet(engine: Engine) -> None:
    register(engine)
    assert measured(engine) == {}


def test_a_quantile_that_the_calibration_does_not_know_is_not_tested(engine: Engine) -> None:
    """320 messages: of the 99.9 % quantile there is no figure, whatever the column holds."""
    register(engine, shown=card(320))
    traffic(engine, 24)
    with engine.begin() as connection:
        connection.execute(update(score_rollups).values(over999=500))
    assert measured(engine)["drift", None] < 0.01


def test_the_tables_are_read_when_more_was_rolled_up(engine: Engine) -> None:
    register(engine)
    traffic(engine, 24)
    before = measured(engine)
    with engine.begin() as connection:
        connection.execute(update(score_rollups).values(over95=900))
    assert measured(engine) == before
    assert measured(engine, RULE.model_copy(update={"tenants": 0}))["drift", None] > 1
    assert roll_up(engine) == 0
    assert measured(engine)["drift", None] > 1


def test_a_new_calibration_starts_anew(engine: Engine) -> None:
    register(engine)
    traffic(engine, 24, factor=6, until=NOW - HOUR)
    assert measured(engine)["drift", None] > 1
    register(engine, digest="d2")
    traffic(engine, 1, digest="d2")
    assert measured(engine)["drift", None] < 0.01
    # A replay of old messages with a third card is not the probe that is in use.
    register(engine, digest="d3")
    traffic(engine, 1, factor=20, digest="d3", shadow=True)
    assert measured(engine)["drift", None] < 0.01


def test_two_workers_with_two_cards_are_both_looked_at(engine: Engine) -> None:
    register(engine)
    register(engine, digest="d2")
    traffic(engine, 24)
    traffic(engine, 24, factor=6, digest="d2")
    assert measured(engine)["drift", None] > 1


def test_only_the_largest_tenants_are_tested(engine: Engine) -> None:
    register(engine)
    for place in range(4):
        traffic(engine, 48, 100 * (4 - place), tenant=f"t{place}")
    traffic(engine, 48, 5000, tenant="")
    of_two = RULE.model_copy(update={"tenants": 2})
    assert set(measured(engine, of_two)) == {("drift", None), ("drift", "t0"), ("drift", "t1")}


def test_probes_share_the_false_alarms(engine: Engine) -> None:
    register(engine)
    traffic(engine, 6, factor=3)
    alone = measured(engine)["drift", None]
    register(engine, "other", "o1")
    traffic(engine, 6, probe="other", digest="o1")
    assert measured(engine)["drift", None] == pytest.approx(alone / 2)
    named = RULE.model_copy(update={"probe": ("dr*",)})
    assert measured(engine, named) == pytest.approx({("drift", None): alone, ("drift", "shop"): alone / 20})


# The rule.
def test_the_built_in_rule_opens_an_alert_and_resolves_it(engine: Engine) -> None:
    register(engine)
    traffic(engine, 24, factor=6, until=NOW - HOUR)
    opened = look(engine, built_in(0.5, 1.0)).opened
    assert {alert.dedup_key for alert in opened} == {"tail-drift:drift", "tail-drift:drift:shop"}
    rows = {row.dedup_key: row for row in all_alerts(engine)}
    whole, shop = rows["tail-drift:drift"], rows["tail-drift:drift:shop"]
    assert (whole.severity, whole.threshold, whole.units, whole.tenant) == ("warning", 1, "years without drift", None)
    assert shop.tenant == "shop"
    # The probe is calibrated again, and the tenant is gone.
    register(engine, digest="d2")
    traffic(engine, 1, tenant="bank", digest="d2")
    quick = Rules(threshold=(), monitor=(_quick(built_in(0.5, 1.0).monitor[-1]),))
    assert look(engine, quick).resolved == 2
    assert {row.state for row in all_alerts(engine)} == {"resolved"}


def _quick(rule: MonitorRule) -> MonitorRule:
    return rule.model_copy(update={"clear_for": timedelta()})


def test_a_backtest_says_when_it_would_have_told(engine: Engine) -> None:
    register(engine)
    traffic(engine, 24 * 9, until=NOW - 30 * HOUR)
    traffic(engine, 10, factor=6, until=NOW - 20 * HOUR)
    traffic(engine, 20)
    found = Rules(threshold=(), monitor=(RULE, MonitorRule(name="silence", check="no_traffic")))
    _, results, _ = backtest(engine, found, timedelta(days=3), timedelta(seconds=15))
    (result,) = results
    assert (result.name, result.kind, result.alerts) == ("tail", "monitor", 2)
    assert dict(result.keys) == {"tail:drift": 1, "tail:drift:shop": 1}
    with engine.connect() as connection:
        by_hour = list(tails_by_hour(connection, RULE, timedelta(days=3)))
    assert [at for at, _ in by_hour] == [NOW - ago * HOUR for ago in range(71, -1, -1)]
    over = [at for at, values in by_hour if values["drift", None] > 1]
    assert NOW - 27 * HOUR < over[0] < NOW - 20 * HOUR
    # As it was measured then.
    live_score(engine, NOW - 23 * HOUR)
    with engine.begin() as connection:
        connection.execute(update(rollup_state).values(until=NOW - 22 * HOUR))
    assert measured(engine) == pytest.approx(dict(by_hour)[NOW - 22 * HOUR])


def test_how_long_a_probe_has_drifted(engine: Engine) -> None:
    register(engine)
    register(engine, digest="d2")
    traffic(engine, 24 * 3, until=NOW - 48 * HOUR)
    with engine.connect() as connection:
        assert drifting_hours(connection, RULE, "d1") == 0
    traffic(engine, 48, factor=6)
    with engine.connect() as connection:
        assert 40 <= drifting_hours(connection, RULE, "d1") <= 45
        assert drifting_hours(connection, RULE, "d2") == 0


# The age of calibrations.
def test_a_calibration_has_the_age_that_its_card_says(engine: Engine) -> None:
    stale = MonitorRule(name="stale", check="probe_stale")
    for probe, digest, days in (("drift", "d1", 200), ("drift", "d2", 20), ("other", "o1", 10), ("idle", "i1", 900)):
        register(engine, probe, digest, card(made=(NOW.date() - timedelta(days=days)).isoformat()))
    register(engine, "odd", "x1", {"calibration": {"made": "in spring"}})
    traffic(engine, 1, digest="d1")
    traffic(engine, 1, probe="other", digest="o1")
    traffic(engine, 1, probe="odd", digest="x1")
    traffic(engine, 1, probe="idle", digest="i1", until=NOW - 48 * HOUR)
    with engine.connect() as connection:
        assert measure_ages(connection, stale) == {"drift": 200, "other": 10}
        assert measure_ages(connection, stale.model_copy(update={"probe": ("oth*",)})) == {"other": 10}
    opened = look(engine, Rules(threshold=(), monitor=(stale,))).opened
    assert [alert.dedup_key for alert in opened] == ["stale:drift"]
    traffic(engine, 1, digest="d2", until=NOW + HOUR)
    with engine.connect() as connection:
        assert measure_ages(connection, stale)["drift"] == 20


@pytest.mark.parametrize(
    ("shown", "days"),
    [
        ({"calibration": {"made": "2026-01-31"}}, 29),
        ({"calibration": {"made": "31.1.2026"}}, None),
        ({"calibration": {"made": None}}, None),
        ({"calibration": {}}, None),
        ({"calibration": None}, None),
        ({}, None),
    ],
)
def test_age_of_a_card(shown: dict[str, Any], days: float | None) -> None:
    assert calibration_age(shown, date(2026, 3, 1)) == days
