"""Whatever people, rules and time do in whatever order: what the tables say of an alert hangs together."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from alerts.errors import AlertsError
from alerts.lifecycle import actions
from alerts.lifecycle.expiry import end_silences, resolve_quiet
from alerts.rules.model import SEVERITIES
from storage.queries.alerts import active_silences
from storage.schema import alert_messages
from tests.support.alerts.alert_rows import all_alerts, all_outbox
from tests.support.alerts.alert_scenes import ANNA, audit_rows, pass_time, rules
from tests.support.alerts.turns import take, turn

HOUR = timedelta(hours=1)
FOUND = rules('[[threshold]]\nresolve_after = "3h"\nreopen_within = "40m"').threshold


class History:
    """Does things at random and keeps what it did."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.draw = engine, random.Random(seed)
        self.offset = 0
        self.recorded: Counter[str] = Counter()

    def step(self) -> None:
        action = self.draw.choice(
            [
                self.see,
                self.see,
                self.see,
                self.see,
                self.decide,
                self.decide,
                self.silence,
                self.silence_all,
                self.unsilence,
                self.judge,
                self.wait,
                self.wait,
            ]
        )
        action()

    def see(self) -> None:
        found = []
        for _ in range(self.draw.randint(1, 4)):
            self.offset += 1
            tenant, talk = self.draw.choice("ab"), self.draw.choice(["x", "y", None])
            self.recorded[f"threshold:drift:{tenant}:smol"] += 1
            found.append(turn(self.offset, talk, tenant, self.draw.choice([0.6, 1.2, 2.0])))
        take(self.engine, *found, rules=FOUND)

    def decide(self) -> None:
        self.on_one(self.draw.choice([actions.acknowledge, actions.resolve, actions.reopen]), ANNA)

    def judge(self) -> None:
        self.on_one(actions.judge, self.draw.choice(actions.VERDICTS), ANNA)

    def silence(self) -> None:
        self.on_one(actions.silence_alert, self.draw.choice([HOUR, 3 * HOUR]), ANNA)

    def silence_all(self) -> None:
        with self.engine.begin() as connection:
            severity = self.draw.choice(SEVERITIES)
            actions.silence(connection, {"tenant": self.draw.choice(["a", "*"])}, HOUR, ANNA, "", severity)

    def unsilence(self) -> None:
        with self.engine.begin() as connection:
            found = active_silences(connection)
            if found:
                actions.end_silence(connection, self.draw.choice(found)["id"], ANNA)

    def wait(self) -> None:
        pass_time(self.engine, self.draw.choice([60, 1800, 5400]))
        if self.draw.random() < 0.7:
            end_silences(self.engine, ["pager"])
            resolve_quiet(self.engine, FOUND)

    def on_one(self, action: Any, *arguments: Any) -> None:
        found = all_alerts(self.engine)
        if found:
            try:
                with self.engine.begin() as connection:
                    action(connection, self.draw.choice(found).id, *arguments)
            except AlertsError:
                pass


@pytest.mark.parametrize("seed", range(6))
def test_what_the_tables_say_hangs_together(engine: Engine, seed: int) -> None:
    history = History(engine, seed)
    for _ in range(70):
        history.step()
    found = all_alerts(engine)
    counted: Counter[str] = Counter()
    for row in found:
        counted[row.dedup_key] += row.count
    assert counted == history.recorded
    live = Counter(row.dedup_key for row in found if row.state != "resolved")
    assert all(n == 1 for n in live.values())
    with engine.connect() as connection:
        held = connection.execute(select(alert_messages.c.alert_id, func.count()).group_by(alert_messages.c.alert_id))
        assert {alert: n for alert, n in held} == {row.id: row.count for row in found}  # noqa: C416 - a row is no pair
    for row in found:
        notified = [r.event.removeprefix("alert.") for r in all_outbox(engine) if r.alert_id == row.id]
        check_record(row, [r for r in audit_rows(engine) if r.alert_id == row.id and r.action != "verdict"])
        check_notified(row, notified)


def check_record(row: Any, changes: list[Any]) -> None:
    """Each change begins where the one before ended, and the last one is what the row says."""
    assert changes[0].before is None
    for earlier, later in pairwise(changes):
        assert later.before == earlier.after, (earlier.action, later.action)
    assert changes[-1].after == {"state": row.state, "severity": row.severity}
    assert (row.resolved_at is None) == (row.state != "resolved")
    assert row.reopened == sum(c.before is not None and c.before["state"] == "resolved" for c in changes)


def check_notified(row: Any, notified: list[str]) -> None:
    """Nobody hears of the end of what they never heard of, nor twice of its beginning."""
    assert notified[:1] in ([], ["opened"], ["worsened"], ["reopened"])
    assert notified.count("opened") <= 1
    for earlier, later in pairwise(notified):
        if earlier == "resolved":
            assert later in ("reopened", "worsened")
    if row.state == "resolved" and notified:
        assert notified[-1] == "resolved"
