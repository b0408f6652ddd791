"""Migration 0004: what waits keeps its order, what was tried keeps its id, and the way back."""

from __future__ import annotations

import uuid

from sqlalchemy import Engine, text

from alerts.delivery.deliver import deliver_due
from tests.storage.test_database import differences, rules
from tests.storage.test_migrations import migrate
from tests.support.alerts.delivery import GROUPED, Recorder, channels

ALERT = (
    "INSERT INTO alerts (id, dedup_key, rule, probe, severity, state, count, top_score, threshold) "
    "VALUES (:id, 'threshold:drift:-:-', 'threshold', 'drift', 'warning', 'open', 1, 0.6, 0.5)"
)
ROW = (
    "INSERT INTO outbox (id, alert_id, destination, event, body, created_at, attempts, delivered_at) "
    "VALUES (:id, :alert, 'pager', :event, CAST(:body AS jsonb), now() - make_interval(secs => :age), :attempts, "
    "CASE WHEN :delivered THEN now() END)"
)
BODY = (
    '{"type": "%s", "timestamp": "2026-03-01T00:00:00+00:00", "data": {"alert_id": "a", "dedup_key": "k", '
    '"rule": "threshold", "probe": "drift", "severity": "warning", "score": 0.6, "threshold": 0.5, "count": 1}}'
)


def test_rows_of_before(empty_engine: Engine) -> None:
    migrate(empty_engine, "0003")
    before = rules(empty_engine)
    alert, ids = uuid.uuid4(), [uuid.uuid4() for _ in range(4)]
    # (event, seconds ago, tries, delivered): written in another order than it happened.
    rows = [
        ("alert.worsened", 10, 0, False),
        ("alert.opened", 30, 2, False),
        ("alert.opened", 900, 1, True),
        ("alert.worsened", 20, 0, False),
    ]
    with empty_engine.begin() as connection:
        connection.execute(text(ALERT), {"id": alert})
        for one, (event, age, attempts, delivered) in zip(ids, rows, strict=True):
            connection.execute(
                text(ROW),
                {
                    "id": one,
                    "alert": alert,
                    "event": event,
                    "body": BODY % event,
                    "age": age,
                    "attempts": attempts,
                    "delivered": delivered,
                },
            )
    migrate(empty_engine, "head")
    assert differences(empty_engine) == []
    recorder = Recorder()
    assert deliver_due(empty_engine, channels("pager", sender=recorder, policy=GROUPED)).sent == 2
    first, second = recorder.sent
    assert {first.id, second.id} == {ids[1], ids[3]}
    assert next(e for e in recorder.sent if e.id == ids[1]).attempts == 3, "it goes on where it was"
    grouped = next(e for e in recorder.sent if e.id == ids[3])
    assert grouped.body["data"]["group"]["events"] == 2
    with empty_engine.begin() as connection:
        order = connection.execute(text("SELECT id FROM outbox ORDER BY seq")).scalars().all()
        assert order == [ids[2], ids[1], ids[3], ids[0]]
        later = {"event": "alert.resolved", "body": BODY % "alert.resolved", "age": 0, "attempts": 0}
        connection.execute(text(ROW), {"id": uuid.uuid4(), "alert": alert, "delivered": False, **later})
        assert connection.execute(text("SELECT max(seq) = 5 FROM outbox")).scalar()
    migrate(empty_engine, "0003", down=True)
    assert rules(empty_engine) == before
    with empty_engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM outbox WHERE delivered_at IS NULL")).scalar() == 1
