"""One live alert a key, exact counts, and which events are enqueued."""

from __future__ import annotations

import threading
import time
from typing import Any

from sqlalchemy import Engine, func, select, text, update

from alerts.lifecycle import actions
from alerts.lifecycle.lifecycle import Opened, record_flagged
from alerts.rules.model import Flagged
from storage.coordinates import Coordinates
from storage.database import connect
from storage.schema import alert_messages, alerts
from storage.writer import BatchRows, write_batch
from tests.conftest import url_of
from tests.support.alerts.alert_rows import all_alerts, all_outbox, flagged, open_alerts, set_state
from tests.support.alerts.alert_scenes import (
    ANNA,
    audit_rows,
    in_transaction,
    only_alert,
    open_one,
    pass_time,
    rules,
)
from tests.support.rows import message, score, wait_until_blocked


def test_an_alert_opens_once_and_counts(engine: Engine) -> None:
    (opened,) = open_alerts(engine, [flagged(3, 0.7), flagged(4, 0.8), flagged(5, 0.6)])
    assert (opened.event, opened.dedup_key, opened.severity) == ("alert.opened", "threshold:drift:shop:smol", "warning")
    assert open_alerts(engine, [flagged(6, 0.75)]) == []
    (row,) = all_alerts(engine)
    assert (row.id, row.count, row.state, row.severity, row.top_score) == (opened.alert_id, 4, "open", "warning", 0.8)
    assert row.first_message == {"source": "topic", "partition": 0, "offset": 3, "id": "m3", "score": 0.7}
    assert row.top_message == {"source": "topic", "partition": 0, "offset": 4, "id": "m4", "score": 0.8}
    assert len(all_outbox(engine)) == 1


def test_keys_are_apart(engine: Engine) -> None:
    opened = open_alerts(engine, [flagged(1), flagged(2, tenant="bank"), flagged(3, probe="other"), flagged(4)])
    assert len(opened) == 3
    assert {r.dedup_key: r.count for r in all_alerts(engine)} == {
        "threshold:drift:shop:smol": 2,
        "threshold:drift:bank:smol": 1,
        "threshold:other:shop:smol": 1,
    }


def test_severity_increases_and_is_notified_once(engine: Engine) -> None:
    open_alerts(engine, [flagged(1, 0.6)])
    (worsened,) = open_alerts(engine, [flagged(2, 1.2)])
    assert (worsened.event, worsened.severity) == ("alert.worsened", "error")
    assert open_alerts(engine, [flagged(3, 1.3)]) == []
    assert open_alerts(engine, [flagged(4, 0.6)]) == []
    (again,) = open_alerts(engine, [flagged(5, 2.0)])
    assert (again.event, again.severity) == ("alert.worsened", "critical")
    (row,) = all_alerts(engine)
    assert (row.severity, row.count, row.top_score) == ("critical", 5, 2.0)
    assert [(r.event, r.body["data"]["severity"]) for r in all_outbox(engine)] == [
        ("alert.opened", "warning"),
        ("alert.worsened", "error"),
        ("alert.worsened", "critical"),
    ]


def test_it_opens_at_its_highest_severity(engine: Engine) -> None:
    (opened,) = open_alerts(engine, [flagged(1, 0.6), flagged(2, 1.7)])
    assert (opened.event, opened.severity) == ("alert.opened", "critical")


def test_silenced_counts_and_sends_nothing(engine: Engine) -> None:
    open_alerts(engine, [flagged(1)])
    set_state(engine, "silenced")
    assert open_alerts(engine, [flagged(2)]) == []
    (row,) = all_alerts(engine)
    assert (row.count, row.severity, row.state) == (2, "warning", "silenced")
    assert len(all_outbox(engine)) == 1


def test_silenced_notifies_anyway_once_it_is_more_severe(engine: Engine) -> None:
    open_alerts(engine, [flagged(1)])
    set_state(engine, "silenced")
    (worsened,) = open_alerts(engine, [flagged(2, 5.0)])
    assert (worsened.event, worsened.severity, worsened.suppressed) == ("alert.worsened", "critical", False)
    (row,) = all_alerts(engine)
    assert (row.count, row.severity, row.state) == (2, "critical", "open")
    assert [(r.event, r.body["data"]["state"]) for r in all_outbox(engine)] == [
        ("alert.opened", "open"),
        ("alert.worsened", "open"),
    ]


def test_acknowledged_counts_and_notifies_when_its_severity_increases(engine: Engine) -> None:
    open_alerts(engine, [flagged(1)])
    set_state(engine, "acknowledged")
    assert open_alerts(engine, [flagged(2)]) == []
    assert [o.event for o in open_alerts(engine, [flagged(3, 5.0)])] == ["alert.worsened"]
    assert [(r.state, r.count) for r in all_alerts(engine)] == [("acknowledged", 3)]


def test_after_it_was_resolved_a_new_one_opens(engine: Engine) -> None:
    (first,) = open_alerts(engine, [flagged(1, 3.0)])
    with engine.begin() as connection:
        connection.execute(update(alerts).values(state="resolved", resolved_at=func.now()))
    (second,) = open_alerts(engine, [flagged(2, 0.6)])
    assert (second.event, second.severity) == ("alert.opened", "warning")
    assert second.alert_id != first.alert_id
    assert [(r.state, r.count) for r in all_alerts(engine)] == [("resolved", 1), ("open", 1)]
    assert len(all_outbox(engine)) == 2


def test_without_destinations_there_is_only_the_alert(engine: Engine) -> None:
    assert len(open_alerts(engine, [flagged(1)], ())) == 1
    assert all_outbox(engine) == []


def test_nothing_flagged_opens_nothing(engine: Engine) -> None:
    assert open_alerts(engine, []) == []
    assert all_alerts(engine) == []


def test_odd_names_can_be_stored(engine: Engine) -> None:
    odd = Flagged("drift", 0.6, 0.5, "a\x00\ud800", "m\x00", Coordinates("s\x00", 0, 1), "\udfff")
    open_alerts(engine, [odd])
    open_alerts(engine, [odd])
    (row,) = all_alerts(engine)
    assert (row.count, row.tenant, row.dedup_key) == (2, "a\u2400\ufffd", "threshold:drift:a\u2400\ufffd:m\u2400")


def test_redelivered_scores_count_nothing_twice(engine: Engine) -> None:
    """As the worker does it: alerts are fed with what the writer says is new."""
    batch = BatchRows([message(i, f"s{i}") for i in range(3)], [score(i) for i in range(3)])

    def deliver(rows: BatchRows) -> int:
        with engine.begin() as connection:
            new = write_batch(connection, rows).scores
            record_flagged(connection, [flagged(s.at.offset, s.score) for s in new], ["pager"])
            return len(new)

    assert deliver(batch) == 3
    assert deliver(batch) == 0
    assert deliver(BatchRows([*batch.messages, message(9, "s9")], [*batch.scores, score(9)])) == 1
    assert [r.count for r in all_alerts(engine)] == [4]
    assert len(all_outbox(engine)) == 1


def test_a_rolled_back_batch_leaves_no_alert(engine: Engine) -> None:
    with engine.connect() as connection:
        assert len(record_flagged(connection, [flagged(1)], ["pager"])) == 1
        connection.rollback()
    assert all_alerts(engine) == []
    assert all_outbox(engine) == []


def test_a_connection_that_lives_long(engine: Engine) -> None:
    """After a few executions the driver prepares statements and PostgreSQL plans them without their values."""
    with engine.connect() as connection:
        for n in range(25):
            assert len(record_flagged(connection, [flagged(n, tenant=f"t{n}")], [])) == 1
            connection.commit()
    assert len(all_alerts(engine)) == 25


def test_two_workers_at_once_notify_once(engine: Engine) -> None:
    """Both increase the severity at the same moment; the second waits for the first and sees its change."""
    open_alerts(engine, [flagged(1, 0.6)])
    notified: list[Opened] = []
    second = threading.Thread(target=lambda: notified.extend(open_alerts(engine, [flagged(3, 1.2)])))
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = :name")
    with engine.connect() as connection, engine.connect() as watcher:
        notified += record_flagged(connection, [flagged(2, 1.2)], ["pager"])
        second.start()
        until = time.monotonic() + 20
        while not watcher.execute(waiting, {"name": engine.url.database}).scalar():
            assert time.monotonic() < until
            watcher.rollback()
            time.sleep(0.02)
        connection.commit()
        second.join()
    assert [o.event for o in notified] == ["alert.worsened"]
    assert [(r.count, r.severity) for r in all_alerts(engine)] == [(3, "error")]
    assert len(all_outbox(engine)) == 2


def test_two_workers_and_many_batches_keep_one_live_alert_a_key(engine: Engine) -> None:
    """Real transactions at once, over the same keys in opposite orders, with increasing severity."""
    rounds, tenants = 30, ("a", "b", "c")
    barrier = threading.Barrier(2)
    notified: list[tuple[str, str, str]] = []
    errors: list[Exception] = []

    def work(worker: int) -> None:
        own = connect(url_of(engine))
        order = tenants if worker == 0 else tenants[::-1]
        barrier.wait()
        try:
            for n in range(rounds):
                value = 0.6 if n < 10 else 1.1 if n < 20 else 2.0
                batch = [flagged(n, value, tenant=t) for t in order]
                with own.begin() as connection:
                    opened = record_flagged(connection, batch, ["pager", "siem"])
                notified.extend((o.dedup_key, o.event, o.severity) for o in opened)
        except Exception as error:
            errors.append(error)
        own.dispose()

    threads = [threading.Thread(target=work, args=(w,)) for w in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {r.dedup_key: r.count for r in all_alerts(engine)} == {f"threshold:drift:{t}:smol": 60 for t in tenants}
    assert {r.severity for r in all_alerts(engine)} == {"critical"}
    keys = [f"threshold:drift:{t}:smol" for t in tenants]
    events = [("alert.opened", "warning"), ("alert.worsened", "error"), ("alert.worsened", "critical")]
    assert sorted(notified) == sorted((k, *e) for k in keys for e in events)
    assert len(all_outbox(engine)) == len(keys) * len(events) * 2


# Reopening by a rule, and the messages of an alert.
def test_a_threshold_alert_is_reopened_within_its_time(engine: Engine) -> None:
    again = rules('[[threshold]]\nreopen_within = "30m"').threshold
    with engine.begin() as connection:
        (first,) = record_flagged(connection, [flagged(1, 3.0)], ["pager"], again)
    in_transaction(engine, actions.acknowledge, first.alert_id, ANNA)
    in_transaction(engine, actions.resolve, first.alert_id, ANNA)
    with engine.begin() as connection:
        (second,) = record_flagged(connection, [flagged(2)], ["pager"], again)
    assert (second.alert_id, second.event, second.severity) == (first.alert_id, "alert.reopened", "warning")
    found = only_alert(engine)
    assert (found.count, found.reopened, found.acknowledged_at, found.top_score) == (2, 1, None, 3.0)
    assert [r.before for r in audit_rows(engine)][-1] == {"state": "resolved", "severity": "critical"}
    in_transaction(engine, actions.resolve, first.alert_id, ANNA)
    pass_time(engine, 1801)
    with engine.begin() as connection:
        (third,) = record_flagged(connection, [flagged(3)], ["pager"], again)
    assert third.event == "alert.opened"


def test_two_workers_reopen_it_once(engine: Engine) -> None:
    again = rules('[[threshold]]\nreopen_within = "30m"').threshold
    in_transaction(engine, actions.resolve, open_one(engine), ANNA)
    notified: list[Any] = []
    thread = threading.Thread(
        target=lambda: notified.extend(in_transaction(engine, record_flagged, [flagged(3)], ["pager"], again))
    )
    with engine.begin() as connection:
        notified += record_flagged(connection, [flagged(2)], ["pager"], again)
        thread.start()
        wait_until_blocked(engine)
    thread.join()
    assert [o.event for o in notified] == ["alert.reopened"]
    assert (only_alert(engine).count, only_alert(engine).reopened) == (3, 1)


def test_its_messages_are_stored_once_each(engine: Engine) -> None:
    open_alerts(engine, [flagged(n, 0.6 + n / 100) for n in range(9)])
    open_alerts(engine, [flagged(20, 2.0), flagged(20, 2.0)])
    with engine.connect() as connection:
        kept = connection.execute(select(alert_messages).order_by(alert_messages.c.offset)).all()
    assert [r.offset for r in kept] == [*range(9), 20]
    top = all_outbox(engine)[-1].body["data"]["top_messages"]
    assert [m["id"] for m in top] == ["m20", "m8", "m7", "m6", "m5"]
    assert set(top[0]) == {"source", "partition", "offset", "id", "score"}


def test_rules_of_a_file_each_have_their_alerts(engine: Engine) -> None:
    found = rules(
        '[[threshold]]\nname = "all"\n'
        '[[threshold]]\nname = "high"\nabove = 0.5\nseverity = "critical"\nper = "tenant"\n'
        '[[threshold]]\nname = "bank"\ntenant = "bank"\n'
        '[[threshold]]\nname = "quiet"\nshadow = true\n'
        '[[threshold]]\nname = "talk"\nper = ["conversation"]\n'
    ).threshold
    with engine.begin() as connection:
        record_flagged(connection, [flagged(1), flagged(2, 1.2)], ["pager"], found)
    assert {r.dedup_key: (r.count, r.severity) for r in all_alerts(engine)} == {
        "all:drift:shop:smol": (2, "error"),
        "high:drift:shop": (1, "critical"),
        "talk:drift:-": (2, "error"),
    }


def test_prepared_statements_find_the_index(engine: Engine) -> None:
    """After a few executions a statement is planned without its values."""
    with engine.connect() as connection:
        for n in range(15):
            record_flagged(connection, [flagged(n, tenant=f"t{n % 3}")], [])
            connection.commit()
            connection.execute(text("SELECT 1"))
    assert sorted(r.count for r in all_alerts(engine)) == [5, 5, 5]
