"""One message as evidence: its coordinates as people write them, its row with any time in it, who read its text.

Contract: `parse_place` and `place_of` read what `str(Coordinates)` writes, also of sources whose names have slashes;
they raise ValueError with words that repeat no input. `message_at` is `storage.queries.messages.message_detail`, but
that times come in UTC, and one that Python cannot hold (a year outside 1 to 9999, infinity) comes as PostgreSQL's text
of it. `record_reading` writes the audit row of a stored text that somebody is about to see: in a transaction of its
own, to be committed before the text is shown. `record_readings` is the same for many, in the caller's transaction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from psycopg import DataError, pq
from psycopg.types.datetime import TimestamptzLoader
from sqlalchemy import Connection, Engine

from alerts.lifecycle.audit import Actor, write_audit_row
from storage.coordinates import Coordinates
from storage.queries.messages import MessageDetail, is_erased, message_detail

_MAX_PARTITION, _MAX_OFFSET, _MAX_SUB = 2**31 - 1, 2**63 - 1, 2**31 - 1
# Longer numbers are not even read: Python refuses to.
_DIGITS = re.compile(r"[0-9]{1,20}")
_TIMESTAMPTZ = 1184


def parse_place(text: str) -> Coordinates:
    """`SOURCE/PARTITION/OFFSET` or `SOURCE/PARTITION/OFFSET.SUB`."""
    source, _, rest = text.rpartition("/")
    source, _, partition = source.rpartition("/")
    if not source:
        raise ValueError("not SOURCE/PARTITION/OFFSET")
    return place_of(source, partition, rest)


def place_of(source: str, partition: str, offset: str) -> Coordinates:
    """The same from its parts."""
    return Coordinates(source, _number(partition, _MAX_PARTITION), *parse_offset(offset))


def parse_offset(text: str) -> tuple[int, int]:
    """Offset and sub-index of `1204` (0) or `1204.7`."""
    offset, point, sub = text.partition(".")
    return _number(offset, _MAX_OFFSET), _number(sub, _MAX_SUB) if point else 0


def _number(text: str, most: int) -> int:
    if text.isascii() and text.isdecimal() and not _DIGITS.fullmatch(text):
        raise ValueError("is too large")
    if not _DIGITS.fullmatch(text):
        raise ValueError("not a number, nor OFFSET.SUB such as 1204.7")
    number = int(text)
    if number > most:
        raise ValueError(f"should be less than or equal to {most}")
    return number


def message_at(connection: Connection, at: Coordinates) -> MessageDetail | None:
    """Everything about one message; None where its coordinates are unknown."""
    with _any_time(connection):
        return message_detail(connection, at)


def erased_words(connection: Connection, at: Coordinates, tenant: str | None) -> str | None:
    """What is said of a message that was erased; None of one that was not. Whose it was is not kept, so a viewer of one
    tenant is told nothing."""
    if tenant is not None or not is_erased(connection, at):
        return None
    return "the message at these coordinates was erased"


def holds_text(detail: MessageDetail) -> bool:
    """Whether a text of the message or of its answers is stored."""
    return bool(detail.message["text"]) or any(answer["text"] for answer in detail.answers)


def record_reading(engine: Engine, actor: Actor, at: Coordinates) -> None:
    """Write down that `actor` reads the stored text of a message."""
    with engine.begin() as connection:
        record_readings(connection, actor, [at])


def record_readings(connection: Connection, actor: Actor, places: Iterable[Coordinates]) -> None:
    """Write down that `actor` reads the stored texts of these messages: a row each."""
    for at in places:
        sub = {"sub": at.sub} if at.sub else {}
        place = {"source": at.source, "partition": at.partition, "offset": at.offset, **sub}
        write_audit_row(connection, actor, "message.read", after={"message": place})


class _AnyTime(TimestamptzLoader):
    def load(self, data: Any) -> Any:
        try:
            at = super().load(data)
            return at.astimezone(UTC) if isinstance(at, datetime) else at
        except (DataError, OverflowError, ValueError):
            return bytes(data).decode("ascii", "replace")


@contextmanager
def _any_time(connection: Connection) -> Iterator[None]:
    """Within the block no time is refused. The loader belongs to the driver's connection, which others use later."""
    adapters = connection.connection.driver_connection.adapters  # type: ignore[union-attr]
    usual = adapters.get_loader(_TIMESTAMPTZ, pq.Format.TEXT)
    adapters.register_loader(_TIMESTAMPTZ, _AnyTime)
    try:
        yield
    finally:
        adapters.register_loader(_TIMESTAMPTZ, usual)
