"""Messages whose text is in the tables (privacy `full`) as a source, for scoring them with a new probe.

Coordinates, day and payload hash are those of the stored row, so that new scores join it. Reads in pages by key;
memory does not grow. `commit` has nothing to do: a second run finds its scores in the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from typing import Any

from sqlalchemy import Engine

from monitor.stream.formats import awry
from monitor.stream.parse import FORMAT_HEADER
from monitor.stream.record import Record
from monitor.telemetry.waiting import Waiting
from storage.coordinates import Coordinates
from storage.queries.messages import StoredMessage, stored_messages

# Whatever format the settings name, stored messages are in awry's own.
_OWN = ((FORMAT_HEADER, awry.NAME.encode()),)
_FIELDS = ("tenant", "model", "conversation_id", "trace_id", "attributes")


class StoredSource:
    """Every message with its text since the day of `since`."""

    name = "stored"
    lag_unit = "messages"
    oldest: datetime | None = None
    trouble: str | None = None
    lag: int | None = None

    @property
    def waiting(self) -> dict[str | None, Waiting]:
        return {}

    def __init__(self, engine: Engine, since: datetime) -> None:
        self._rows = stored_messages(engine, since.astimezone(UTC).date())
        self._ended = False

    def poll(self, limit: int, wait_seconds: float) -> list[Record]:
        del wait_seconds
        records = [_record(row) for row in _next(self._rows, limit)]
        self._ended = len(records) < limit
        return records

    def commit(self, _records: Sequence[Record]) -> None:
        return None

    @property
    def finished(self) -> bool:
        return self._ended

    def close(self) -> None:
        return None


def _next(rows: Iterator[StoredMessage], limit: int) -> list[StoredMessage]:
    return [row for _, row in zip(range(limit), rows, strict=False)]


def _record(row: StoredMessage) -> Record:
    message: dict[str, Any] = {"id": row.message_id, **row.text}
    message |= {name: value for name in _FIELDS if (value := getattr(row, name)) is not None}
    if row.user_id is not None:
        message["user"] = row.user_id
    payload = json.dumps(message).encode()
    noon = datetime.combine(row.day, time(12), UTC)
    at = Coordinates(row.source, row.partition, row.offset, row.sub)
    return Record(at, payload, len(payload), noon, _OWN, sha256=row.payload_sha256)
