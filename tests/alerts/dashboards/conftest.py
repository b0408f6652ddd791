from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from storage.coordinates import Coordinates
from storage.partitions import utc_today
from storage.writer import BatchRows, MessageRow, ScoreRow, write_batch
from tests.conftest import _database, _fresh_name
from tests.support.web.dashboard_rows import DRIFT, QUIET, write_production


@pytest.fixture(scope="package")
def production(postgres_url: str, _template: str) -> Iterator[Engine]:
    """One database with the rows of `stored`, for tests that only read."""
    with _database(postgres_url, _fresh_name(), _template) as engine:
        write_production(engine)
        _read_in_part(engine)
        yield engine


def _read_in_part(engine: Engine) -> None:
    """Over-long messages, and a record with a second message in it, whose scores are its own."""
    second = MessageRow(
        Coordinates("topic", 0, QUIET, 1),
        "ab" * 32,
        utc_today(),
        "scored",
        message_id="second",
        tenant="shop",
        format="otel",
        rendered="adapted",
        notes=("system joined to the first user turn",),
        unread={"image": 2},
        special_tokens=3,
        partial="media",
        trace_id="t1",
    )
    later = Coordinates("audit/2026.03@2", 3, 7, 12)
    third = MessageRow(later, "cd" * 32, utc_today(), "scored", message_id="third", tenant="shop")
    values = ((second, -0.2), (third, -0.3))
    scores = [ScoreRow(row.at, "drift", 1, value, 0.5, False, probe_digest=DRIFT) for row, value in values]
    with engine.begin() as connection:
        write_batch(connection, BatchRows([second, third], scores))
        connection.execute(text("UPDATE messages SET partial = 'length', windows = 4 WHERE status = 'truncated'"))
