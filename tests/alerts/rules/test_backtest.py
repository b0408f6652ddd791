"""Backtests: the notifications that there would have been are those that there are."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from alerts.lifecycle.lifecycle import record_flagged
from alerts.rules.backtest import backtest, cards_that_scored_last, stored_scores
from alerts.rules.model import Flagged, RateRule, Rules
from alerts.rules.queries import measure_rate
from alerts.rules.simulation import BacktestResult
from storage.coordinates import Coordinates
from storage.writer import BatchRows
from tests.support.alerts.alert_rows import all_alerts, all_outbox
from tests.support.alerts.alert_scenes import look, pass_time, rules, scored
from tests.support.alerts.turns import take, turn
from tests.support.rows import counts, dump, message, score, write

DAY = timedelta(days=1)
EVERY = timedelta(seconds=15)


def rehearsed(engine: Engine, found: Rules, since: timedelta = DAY) -> dict[str, BacktestResult]:
    return {one.name: one for one in backtest(engine, found, since, EVERY)[1]}


def test_notifications_of_a_threshold_rule(engine: Engine) -> None:
    for n, (value, ago) in enumerate([(0.6, 900), (0.7, 800), (1.2, 700), (0.6, 600), (3.0, 500)]):
        scored(engine, n, value=value, ago=ago)
    scored(engine, 10, tenant="bank", ago=100)
    scored(engine, 20, tenant="mill", ago=2 * 86400)
    scored(engine, 30, value=0.1)
    found = rehearsed(engine, rules('[[threshold]]\n[[threshold]]\nname = "high"\nabove = 0.5\nseverity = "error"'))
    all_of, high = found["threshold"], found["high"]
    assert (all_of.messages, all_of.alerts, all_of.notifications) == (6, 2, 4)
    assert all_of.keys == {"threshold:drift:shop:smol": 3, "threshold:drift:bank:smol": 1}
    assert (high.messages, high.alerts, high.notifications) == (2, 1, 1)


def test_what_was_stored_together_is_one_batch(engine: Engine) -> None:
    scored(engine, 0, 3, ago=50)
    with engine.begin() as connection:
        connection.execute(text('UPDATE scores SET score = "offset" + 0.6'))
    assert rehearsed(engine, Rules())["threshold"].notifications == 1


def test_quiet_alerts_end_and_come_back(engine: Engine) -> None:
    for n, ago in enumerate((10_000, 7100, 6500, 100)):
        scored(engine, n, ago=ago)
    one = rehearsed(engine, rules('[[threshold]]\nresolve_after = "30m"'))["threshold"]
    assert (one.alerts, one.notifications, one.resolved) == (3, 3, 2)
    one = rehearsed(engine, rules('[[threshold]]\nresolve_after = "30m"\nreopen_within = "20m"'))["threshold"]
    assert (one.alerts, one.notifications, one.resolved) == (2, 3, 2)


def test_probes_in_shadow_are_counted_apart(engine: Engine) -> None:
    scored(engine, 0, 3, shadow=True, ago=100)
    scored(engine, 10, 1, ago=5)
    found = rehearsed(engine, rules('[[threshold]]\n[[rate]]\nname = "burst"\nflagged = 2\nwindow = "1h"'))
    assert (found["threshold"].notifications, found["threshold"].would_notify, found["threshold"].messages) == (1, 1, 1)
    assert (found["burst"].notifications, found["burst"].would_notify) == (0, 1)


def test_a_backtest_changes_nothing(engine: Engine) -> None:
    scored(engine, 0, 5)
    before = (counts(engine), dump(engine))
    backtest(engine, rules('[[threshold]]\n[[rate]]\nname = "burst"\nflagged = 2\nwindow = "1h"'), DAY, EVERY)
    assert (counts(engine), dump(engine)) == before


def test_calm_scores_are_read_only_where_they_count(engine: Engine) -> None:
    scored(engine, 0, 2)
    scored(engine, 10, 7, value=0.1)
    rate = '[[rate]]\nname = "burst"\nflagged = 2\nwindow = "1h"\n'
    assert number_of(engine, rate) == 2
    assert number_of(engine, rate + "of = 5") == 9


def number_of(engine: Engine, written: str) -> int:
    with engine.connect() as connection:
        cards = cards_that_scored_last(connection, DAY)
    return len(list(stored_scores(engine, rules(written), DAY, cards)))


def test_of_two_cards_of_a_name_the_one_counts_that_scored_last(engine: Engine) -> None:
    for n, ago in enumerate((9000, 8000, 7000)):
        scored(engine, n, ago=ago, tenant=f"old{n}", probe_digest="d1")
    scored(engine, 10, 2, ago=6000, tenant="before", probe_digest="")
    scored(engine, 20, 2, ago=5000, tenant="new", probe_digest="d2")
    scored(engine, 30, ago=4000, tenant="other", probe="second", probe_digest="s1")
    # A replay of a third one, later than all: apart from what is live.
    scored(engine, 40, 4, ago=10, tenant="replayed", probe_digest="d3", shadow=True)
    number, (found,), left_out = backtest(engine, rules("[[threshold]]"), DAY, EVERY)
    assert (number, left_out) == (2 + 2 + 1 + 4, 3)
    assert sorted(found.keys) == [
        "threshold:drift:before:smol",
        "threshold:drift:new:smol",
        "threshold:second:other:smol",
    ]
    assert found.would_notify == 1
    # Of unknown digest and another version: another card.
    with engine.begin() as connection:
        connection.execute(text("UPDATE scores SET probe_version = 2 WHERE probe_digest = 'd2'"))
    number, (found,), left_out = backtest(engine, rules("[[threshold]]"), DAY, EVERY)
    assert (number, left_out) == (2 + 1 + 4, 3 + 2)
    assert "threshold:drift:before:smol" not in found.keys
    # After a roll-back the first card counts again.
    scored(engine, 50, tenant="back", probe_digest="d1")
    _, (found,), _ = backtest(engine, rules("[[threshold]]"), DAY, EVERY)
    assert {"threshold:drift:back:smol", "threshold:drift:old0:smol"} <= set(found.keys)
    assert "threshold:drift:new:smol" not in found.keys


def test_before_the_first_score_of_a_known_digest_all_count(engine: Engine) -> None:
    scored(engine, 0, 3, probe_digest="")
    number, (found,), left_out = backtest(engine, rules("[[threshold]]"), DAY, EVERY)
    assert (number, found.notifications, left_out) == (3, 1, 0)
    assert backtest(engine, rules("[[threshold]]"), timedelta(microseconds=1), EVERY)[0] == 0


# Windows that no look falls on the end of.
RATES = [
    'flagged = 3\nwindow = "127s"',
    'flagged = 3\nof = 4\nwindow = "187s"\nclear_for = "0s"',
    'flagged = 2\nwindow = "67s"\nfor = "30s"\nclear_for = "45s"\nclear_at = 0\nreopen_within = "2m"',
    'flagged = 2\nwindow = "97s"\nper = "conversation"\nclear_for = "1m"\nseverity = {warning = 2, critical = 4}',
    'flagged = 3\nof = 4\nwindow = "187s"\nclear_for = "0s"\ncount = "messages"',
]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_backtest_notifies_as_the_evaluator_does(engine: Engine, rate: str, seed: int) -> None:
    """Ten minutes of traffic, looked at every 15 s as it comes; then all of it at once from the tables."""
    found = rules(f'[[rate]]\nname = "burst"\n{rate}')
    draw = random.Random(seed)
    # A moment of its own for each look, so that the rehearsal's looks see what the evaluator's saw.
    scored(engine, 0, 1, value=0.1)
    pages = resolved = 0
    for n in range(40):
        pass_time(engine, 15)
        done = look(engine, found)
        pages, resolved = pages + len(done.opened), resolved + done.resolved
        busy = (n // 8) % 2 == 0
        for i in range(draw.randint(0, 3) if busy else 0):
            value = draw.choice([0.2, 0.9])
            conversation = draw.choice(["x", "x", "y", "z", None, None])
            scored(engine, 10 * n + i + 1, value=value, tenant=draw.choice("ab"), conversation_id=conversation)
    pass_time(engine, 5)
    again = rehearsed(engine, found)["burst"]
    assert (again.notifications, again.resolved) == (pages, resolved)
    assert again.notifications == len(all_outbox(engine)) - resolved
    assert pages > 1


@pytest.mark.parametrize("seed", range(5))
def test_the_value_of_a_rate_is_a_count(engine: Engine, seed: int) -> None:
    """PostgreSQL's answer against a loop over the same messages."""
    draw = random.Random(seed)
    rows = BatchRows()
    found: list[tuple[str | None, str | None, bool]] = []
    for n in range(200):
        tenant, conversation, value = draw.choice(["a", "b", None]), draw.choice(["x", None]), draw.choice([0.1, 0.9])
        rows.messages.append(message(n, f"s{n}", tenant=tenant, conversation_id=conversation))
        rows.scores.append(score(n, value))
        found.append((tenant, conversation, value > 0.5))
    write(engine, rows)
    scored(engine, 1000, 1, value=0.1)
    for of in (None, 7, 30):
        expected: dict[tuple[str | None, str], float] = {}
        for tenant, conversation in {(t, c) for t, c, _ in found if c is not None}:
            whole = [f for t, c, f in found if (t, c) == (tenant, conversation)]
            expected[tenant, str(conversation)] = sum(whole[-(of or len(whole)) :])
        rule = RateRule(name="r", flagged=1, of=of, window="1h", per=("tenant", "conversation"))
        with engine.connect() as connection:
            measured = measure_rate(connection, rule)
        values = {(m.subject.tenant, str(m.subject.conversation_id)): m.value for m in measured}
        assert values == {key: n for key, n in expected.items() if n}


@pytest.mark.parametrize("seed", range(5))
def test_the_value_of_a_rate_counts_a_conversation_once(engine: Engine, seed: int) -> None:
    draw = random.Random(seed)
    rows = BatchRows()
    seen: list[tuple[str | None, object, bool]] = []
    for n in range(200):
        tenant, talk, value = draw.choice(["a", "b", None]), draw.choice(["x", "y", "z", None]), draw.choice([0.1, 0.9])
        rows.messages.append(message(n, f"s{n}", tenant=tenant, conversation_id=talk))
        rows.scores.append(score(n, value))
        seen.append((tenant, n if talk is None else talk, value > 0.5))
    write(engine, rows)
    with engine.begin() as connection:
        # A moment of its own for each.
        connection.execute(text('UPDATE scores SET created_at = created_at + make_interval(secs => "offset" / 1000.0)'))
    scored(engine, 1000, 1, value=0.1, tenant="other")
    for of in (None, 3, 20):
        expected: dict[str | None, float] = {}
        for tenant in ("a", "b", None):
            units: dict[object, bool] = {}
            for _, unit, passed in [one for one in seen if one[0] == tenant]:
                units[unit] = units.pop(unit, False) or passed
            expected[tenant] = sum(list(units.values())[-(of or len(units)) :])
        with engine.connect() as connection:
            measured = measure_rate(connection, RateRule(name="r", flagged=1, of=of, window="1h"))
        assert {m.subject.tenant: m.value for m in measured} == {key: n for key, n in expected.items() if n}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_backtest_knows_repeats_as_the_worker_does(engine: Engine, seed: int) -> None:
    """Conversations that come back after their alert was resolved, by the rule itself."""
    found = rules('[[threshold]]\nresolve_after = "40s"\nrepeat_within = "203s"\nreopen_within = "61s"')
    draw = random.Random(seed)
    scored(engine, 100_000, 1, value=0.1)
    pages = resolved = 0
    for n in range(60):
        pass_time(engine, 10)
        resolved += look(engine, found).resolved
        turns = [
            turn(10 * n + i, draw.choice(["x", "y", "z", None]), draw.choice("ab"), draw.choice([0.2, 0.6, 1.2]))
            for i in range(draw.choice([0, 0, 0, 1, 2]))
        ]
        if turns:
            pages += len(take(engine, *turns, rules=found.threshold))
    look(engine, found)
    again = rehearsed(engine, found)["threshold"]
    assert again.notifications == pages
    assert again.resolved == resolved
    assert again.alerts == len(all_alerts(engine))
    without = found.model_copy(
        update={"threshold": (found.threshold[0].model_copy(update={"repeat_within": timedelta()}),)}
    )
    assert rehearsed(engine, without)["threshold"].notifications > pages


def test_the_built_in_rule_notifies_as_the_worker_did(engine: Engine) -> None:
    draw = random.Random(3)
    for n in range(30):
        value, tenant = draw.choice([0.6, 1.1, 2.0]), draw.choice("abc")
        scored(engine, n, value=value, tenant=tenant)
        with engine.begin() as connection:
            one = Flagged("drift", value, 0.5, tenant, "smol", Coordinates("topic", 0, n), f"m{n}")
            record_flagged(connection, [one], ["pager"])
    assert rehearsed(engine, Rules())["threshold"].notifications == len(all_outbox(engine))
    assert len(all_alerts(engine)) == 3
