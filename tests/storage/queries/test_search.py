"""Every filter finds what it names and nothing else; pages neither repeat nor omit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from storage.partitions import ensure_ahead, utc_today
from storage.queries.search import After, Filters, search
from storage.writer import BatchRows, register_probe
from tests.support.alerts.alert_scenes import in_transaction
from tests.support.rows import digest_of, message, score, write

NUMBER = 40


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """Message n: user n % 4, conversation n % 8, stored n minutes before noon; a score of n hundredths by `drift`, and
    one by `fire` for each tenth; each ninth failed."""
    assert ensure_ahead(engine)
    good = [n for n in range(NUMBER) if n % 9]
    rows = [
        message(
            n,
            f"s{n}",
            "scored" if n % 9 else "failed",
            day=utc_today() - timedelta(days=n % 3),
            message_id=f"m{n}",
            user_id=f"u{n % 4}",
            tenant="shop" if n % 2 else "bank",
            conversation_id=f"c{n % 8}",
        )
        for n in range(NUMBER)
    ]
    fire = [score(n, 0.9, "fire") for n in good if n % 10 == 0]
    write(engine, BatchRows(rows, [score(n, n / 100, threshold=0.3) for n in good] + fire))
    with engine.begin() as connection:
        for name in ("drift", "fire"):
            register_probe(connection, digest_of(name), name, 1, "h", {})
        for table, column in (("messages", "ingested_at"), ("scores", "created_at")):
            made = f"""{column} = timestamptz '2026-03-01 12:00Z' - "offset" * interval '1 minute'"""
            connection.execute(text(f"UPDATE {table} SET {made}"))  # noqa: S608
    return engine


def found(engine: Engine, limit: int = 100, **filters: Any) -> list[int]:
    with engine.connect() as connection:
        page, end = search(connection, Filters(**filters), limit)
    assert end is None
    return [each.message["offset"] for each in page]


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, lambda _: True),
        ({"message_id": "m7"}, lambda n: n == 7),
        ({"message_id": "m"}, lambda _: False),
        ({"user": "u1"}, lambda n: n % 4 == 1),
        ({"tenant": "bank"}, lambda n: n % 2 == 0),
        ({"conversation": "c3"}, lambda n: n % 8 == 3),
        ({"conversation": "c3", "tenant": "bank"}, lambda _: False),
        ({"status": "failed"}, lambda n: n % 9 == 0),
        ({"status": "failed", "user": "u1"}, lambda n: n % 9 == 0 and n % 4 == 1),
        ({"probe": "fire"}, lambda n: n % 10 == 0 and n % 9),
        ({"probe": "none"}, lambda _: False),
        ({"probe": "drift", "score_from": 0.1, "score_to": 0.2}, lambda n: 10 <= n <= 20 and n % 9),
        ({"probe": "drift", "flagged": True}, lambda n: n > 30 and n % 9),
        ({"probe": "drift", "flagged": False, "user": "u1"}, lambda n: n <= 30 and n % 9 and n % 4 == 1),
        ({"score_from": 0.5}, lambda n: n % 10 == 0 and n % 9),
    ],
)
def test_each_filter(filled: Engine, filters: dict[str, Any], wanted: Any) -> None:
    assert found(filled, **filters) == [n for n in range(NUMBER) if wanted(n)]


def test_times(filled: Engine) -> None:
    from datetime import UTC, datetime

    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    since, until = noon - timedelta(minutes=5), noon - timedelta(minutes=2)
    assert found(filled, since=since, until=until) == [3, 4, 5]
    assert found(filled, since=since, until=until, probe="drift") == [3, 4, 5]


@pytest.mark.parametrize("filters", [{}, {"tenant": "shop"}, {"flagged": False}, {"score_from": 0.0}])
def test_pages_are_the_whole(filled: Engine, filters: dict[str, Any]) -> None:
    """Also where all have the same time."""
    for moment in (None, "2026-03-01T12:00Z"):
        if moment is not None:
            with filled.begin() as connection:
                for table, column in (("messages", "ingested_at"), ("scores", "created_at")):
                    connection.execute(text(f"UPDATE {table} SET {column} = :at"), {"at": moment})  # noqa: S608
        with filled.connect() as connection:
            whole, _ = search(connection, Filters(**filters), 1000)
        pages: list[Any] = []
        after: After | None = None
        while True:
            with filled.connect() as connection:
                page, after = search(connection, Filters(**filters), 7, after)
            pages += page
            if after is None:
                break
        assert [p.message["offset"] for p in pages] == [p.message["offset"] for p in whole]
        assert len(whole) > 14


def test_a_message_has_its_scores_and_no_text(filled: Engine) -> None:
    with filled.connect() as connection:
        ((only,), _) = search(connection, Filters(message_id="m10"), 5)
    assert [(s["probe"], s["score"], s["digest"]) for s in only.scores] == [
        ("fire", 0.9, digest_of("fire")),
        ("drift", 0.1, digest_of("drift")),
    ]
    assert not {"text", "attributes"} & only.message.keys()


def test_a_later_payload_at_known_coordinates_has_no_scores(filled: Engine) -> None:
    write(filled, BatchRows([message(1, "other", day=utc_today(), message_id="late", user_id="late")]))
    with filled.connect() as connection:
        ((late,), _) = search(connection, Filters(user="late"), 5)
    assert (late.message["status"], late.scores) == ("failed", [])
    assert found(filled, user="late", probe="drift") == []
    assert in_transaction(filled, search, Filters(user="\x00"), 5) == ([], None)
