"""Who excludes whom: rows of the table `locks`, which only roles that write can lock.

Contract: a lock is held until the caller's transaction ends, and whoever waits for it does so for the transaction's
`lock_timeout` at most. PostgreSQL's advisory locks would be open to every role that may connect, so that one who may
only read could hold up the workers; to lock a row one needs the right to change it.

The number of a lock that is one for the whole database never changes, and none is used again. Locks on one row or
partition are the hash of a text; two texts with the same hash would wait for each other, and nothing worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from sqlalchemy import Connection, text


class SharedLock(IntEnum):
    """Any number will do, as long as every process of awry uses the same one."""

    PARTITIONS = 0x41575250  # who makes or drops partitions
    RULES = 0x41575252  # who evaluates rate and monitor rules
    SOURCES = 0x41575253  # who gives a log a source name
    ROLLUP = 0x41575255  # who brings the rollups up to date
    INDEXES = 0x41575256  # who builds indexes of partitions


# In the order of their keys: two that take several of them never wait for each other.
_LOCK = text(
    "SELECT count(*) FROM (SELECT key FROM locks WHERE key = ANY(CAST(:keys AS bigint[])) ORDER BY key FOR UPDATE) AS l"
)
_ADD = text(
    "INSERT INTO locks (key) SELECT DISTINCT key FROM unnest(CAST(:keys AS bigint[])) AS k (key) ORDER BY key "
    "ON CONFLICT DO NOTHING"
)
_TRY = text("SELECT key FROM locks WHERE key = :key FOR UPDATE SKIP LOCKED")
_HASH = text(
    "SELECT hashtextextended(name, part) FROM "
    "unnest(CAST(:names AS text[]), CAST(:parts AS bigint[])) AS asked (name, part)"
)
_DELETE = text(
    "DELETE FROM locks WHERE key IN (SELECT key FROM locks WHERE key <> ALL(CAST(:kept AS bigint[])) "
    "FOR UPDATE SKIP LOCKED)"
)


def lock(connection: Connection, which: SharedLock) -> None:
    """Wait for a lock of the whole database."""
    _lock(connection, [int(which)])


def try_lock(connection: Connection, which: SharedLock) -> bool:
    """Take a lock of the whole database if nobody holds it."""
    if connection.execute(_TRY, {"key": int(which)}).first() is not None:
        return True
    connection.execute(_ADD, {"keys": [int(which)]})  # of a table that was emptied
    return connection.execute(_TRY, {"key": int(which)}).first() is not None


def make_lock(connection: Connection, which: SharedLock) -> None:
    """See that its row is there, committed: one who takes the lock then never waits for another's insert."""
    connection.execute(_ADD, {"keys": [int(which)]})


def lock_names(connection: Connection, names: Sequence[tuple[str, int]]) -> None:
    """Wait for the locks of these names, each with a number within it."""
    asked = {"names": [name for name, _ in names], "parts": [part for _, part in names]}
    _lock(connection, list(connection.execute(_HASH, asked).scalars()))


def delete_unused(connection: Connection) -> int:
    """Delete the rows of names that nobody holds now; the next one who needs one makes it again."""
    return int(connection.execute(_DELETE, {"kept": [int(each) for each in SharedLock]}).rowcount)


def _lock(connection: Connection, keys: Sequence[int]) -> None:
    wanted = len(set(keys))
    values = {"keys": sorted(set(keys))}
    # A row may be deleted by `delete_unused` while this waits for it.
    while connection.execute(_LOCK, values).scalar_one() < wanted:
        connection.execute(_ADD, values)
