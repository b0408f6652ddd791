"""Which source name a log's messages have: a recreated topic, or another file of the same name, is another source.

A *log* is what offsets count: a Kafka topic by its id, a file by its first line. Two logs of one stream (topic, file
name) give the same coordinates to different messages, so each has a source name of its own in the table `sources`: the
first log has the stream's name, the next ones NAME@2, NAME@3.

Contract: `place(connection, records)` gives each record its source name, in order, and creates names where needed:

1. where the same payload is known at the record's coordinates under one of its log's names, it is that message, come
   again;
2. else the first of the log's names under which the coordinates are free. A log has more than one name where its own
   content changed (a truncated partition, a message that was over the size limit and is not any more), or where
   files with the same first line are taken for one;
3. else a new name.

What was erased counts as known, by its tombstone.

Messages from before logs were told apart may be of any log of their stream: each of them counts as known to all of its
logs. The first log none of whose records differs from a message there takes the name over.

Within a transaction that holds `lock_streams`, a place that was given is kept. Without, it may be given to another
record first: ask again before writing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from storage.known import CONFLICT as CONFLICT
from storage.known import SAMPLED, SAMPLED_OUT, known_messages
from storage.locks import SharedLock, lock, lock_names
from storage.schema import sources


class Place(NamedTuple):
    """A record as it is placed: its stream and partition, its offset, its log (None: the stream is the source name),
    the hash of its payload."""

    stream: str
    partition: int
    offset: int
    log: str | None
    payload_sha256: str


@dataclass(frozen=True)
class Known:
    """A message at known coordinates: the hash of its payload, its day and its status: ERASED for a tombstone,
    SAMPLED for what is skipped as it was sampled out."""

    payload_sha256: str
    day: date
    status: str


# Messages by (source, partition, offset), each with its sub-index.
KnownMessages = dict[tuple[str, int, int], list[tuple[int, Known]]]


@dataclass(frozen=True)
class Placed:
    """The source names of the records, in order, and what is known at (source, partition, offset), by sub-index."""

    names: list[str]
    known: KnownMessages


def lock_streams(connection: Connection, streams: Iterable[tuple[str, int]]) -> None:
    """Lock each (stream, partition) against other writers until the transaction ends.

    Two workers may have the same message when its partition was just reassigned. The second must see what the first has
    written: if midnight lies between them, no key would stop it.
    """
    lock_names(connection, [(f"awry {stream}", partition) for stream, partition in set(streams)])


def place(connection: Connection, records: Sequence[Place]) -> Placed:
    """The source name of each record, and the messages that are known at their coordinates."""
    names = _names(connection, {(r.stream, r.log) for r in records if r.log is not None})
    keys = {
        (name, r.partition, r.offset)
        for r in records
        for name in ((r.stream,) if r.log is None else names[r.stream, r.log].all or [r.stream])
    }
    known: KnownMessages = {}
    mixed_until = {n.before: n.mixed_until for n in names.values() if n.before is not None}
    mixed: dict[tuple[str, int, int], set[str]] = {}
    for row in known_messages(connection, keys):
        if row.reason == CONFLICT:  # never scored: it belongs under another name
            continue
        status = SAMPLED if row.reason == SAMPLED_OUT else row.status
        found = Known(row.payload_sha256, row.day, status)
        known.setdefault((row.source, row.partition, row.offset), []).append((row.sub, found))
        if row.source in mixed_until and row.ingested_at < mixed_until[row.source]:
            mixed.setdefault((row.source, row.partition, row.offset), set()).add(row.payload_sha256)
    placing = _Placing(connection, names, known, mixed)
    placing.adopt(records)
    return Placed([placing.name(r) for r in records], known)


@dataclass
class _Names:
    """The names of one log, in order; `before`: the name that holds messages from before logs were told apart, whose
    time ended at `mixed_until`; `free`: no log owns it."""

    own: list[str]
    before: str | None = None
    mixed_until: datetime | None = None
    free: bool = False

    @property
    def all(self) -> list[str]:
        return [*self.own, *([self.before] if self.before is not None else [])]


class _Placing:
    """One call of `place`: names that it creates, and coordinates that it gives away."""

    def __init__(
        self,
        connection: Connection,
        names: dict[tuple[str, str], _Names],
        known: KnownMessages,
        mixed: dict[tuple[str, int, int], set[str]],
    ) -> None:
        self._connection = connection
        self._names = names
        self._mixed = mixed
        self._hashes = {key: {each.payload_sha256 for _, each in found} for key, found in known.items()}

    def adopt(self, records: Sequence[Place]) -> None:
        """Give each log without a name one: that of before where none of its records differs from what is there."""
        for (stream, log), names in self._names.items():
            if names.own:
                continue
            differs = names.before is not None and any(
                r.payload_sha256 not in self._hashes.get((names.before, r.partition, r.offset), {r.payload_sha256})
                for r in records
                if (r.stream, r.log) == (stream, log)
            )
            if names.free and not differs:
                names.own = [_take_over(self._connection, stream, log)]
            else:
                names.own = [_create(self._connection, stream, log, [])]

    def name(self, record: Place) -> str:
        if record.log is None:
            return record.stream
        names = self._names[record.stream, record.log]
        here = (record.partition, record.offset)
        for name in names.own:
            if record.payload_sha256 in self._hashes.get((name, *here), ()):
                return name
        if names.before is not None and record.payload_sha256 in self._mixed.get((names.before, *here), ()):
            return names.before
        free = next((name for name in names.own if (name, *here) not in self._hashes), None)
        if free is None:
            free = _create(self._connection, record.stream, record.log, names.own)
            if free not in names.own:
                names.own.append(free)
        self._hashes[(free, *here)] = {record.payload_sha256}
        return free


def _names(connection: Connection, logs: set[tuple[str, str]]) -> dict[tuple[str, str], _Names]:
    found = {key: _Names([]) for key in sorted(logs)}
    if not found:
        return found
    streams = {stream for stream, _ in logs}
    query = (
        select(sources)
        .where(
            sources.c.stream.in_(streams),
            or_(sources.c.log.in_({log for _, log in logs}), sources.c.mixed_until.is_not(None)),
        )
        .order_by(sources.c.first_seen_at, sources.c.name)
    )
    for row in connection.execute(query):
        for (stream, log), names in found.items():
            if row.stream == stream and row.log == log:
                names.own.append(row.name)
            if row.stream == stream and row.mixed_until is not None:
                names.before, names.mixed_until, names.free = row.name, row.mixed_until, row.log is None
    return found


def _take_over(connection: Connection, stream: str, log: str) -> str:
    """The stream's name of before, now this log's; another name if another log was faster."""
    lock(connection, SharedLock.SOURCES)
    mine = (sources.c.stream == stream, sources.c.log.is_(None))
    name = connection.execute(update(sources).where(*mine).values(log=log).returning(sources.c.name)).scalar()
    return str(name) if name is not None else _create(connection, stream, log, [])


def _create(connection: Connection, stream: str, log: str, but: Sequence[str]) -> str:
    """A name of this log that is none of `but`: one that another worker has just made, else the next free one."""
    lock(connection, SharedLock.SOURCES)
    mine = select(sources.c.name).where(sources.c.stream == stream, sources.c.log == log)
    made = [name for name in connection.execute(mine.order_by(sources.c.first_seen_at)).scalars() if name not in but]
    if made:
        return str(made[0])
    # Those of the stream are numbered without gaps, but for names that another stream has.
    of_stream = select(func.count()).select_from(sources).where(sources.c.stream == stream)
    number = 1 + int(connection.execute(of_stream).scalar_one())
    while True:
        name = stream if number == 1 else f"{stream}@{number}"
        new = insert(sources).values(name=name, stream=stream, log=log).on_conflict_do_nothing()
        if connection.execute(new.returning(sources.c.name)).scalar() is not None:
            return name
        number += 1
