"""Events in the outbox: a row for each destination, and what is in it."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Engine

from storage.coordinates import Coordinates
from tests.support.alerts.alert_rows import all_outbox, flagged, open_alerts


def test_each_destination_has_a_row_of_its_own(engine: Engine) -> None:
    open_alerts(engine, [flagged(1)], ("pager", "siem", "console"))
    rows = all_outbox(engine)
    assert [r.destination for r in rows] == ["console", "pager", "siem"]
    assert len({r.id for r in rows}) == 3
    assert {r.attempts for r in rows} == {0}


def test_an_enqueued_body_has_ids_and_scores(engine: Engine) -> None:
    open_alerts(engine, [flagged(1, 0.6123456789)])
    (row,) = all_outbox(engine)
    assert set(row.body) == {"type", "timestamp", "data"}
    data = row.body["data"]
    assert set(data) == {
        "alert_id",
        "dedup_key",
        "rule",
        "kind",
        "state",
        "severity",
        "probe",
        "tenant",
        "model",
        "conversation_id",
        "count",
        "score",
        "threshold",
        "units",
        "first_message",
        "top_message",
        "top_messages",
        "opened_at",
        "last_seen_at",
    }
    assert set(data["top_message"]) == {"source", "partition", "offset", "id", "score"}
    assert (row.body["type"], data["score"], data["count"]) == ("alert.opened", 0.612346, 1)


def test_a_message_within_a_record_is_named_with_its_place(engine: Engine) -> None:
    second = replace(flagged(7, 0.9), coordinates=Coordinates("topic", 0, 7, 2))
    open_alerts(engine, [flagged(7), second])
    data = all_outbox(engine)[0].body["data"]
    assert data["top_message"] == {"source": "topic", "partition": 0, "offset": 7, "sub": 2, "id": "m7", "score": 0.9}
    assert "sub" not in data["first_message"]
    assert [m.get("sub") for m in data["top_messages"]] == [2, None]
