"""What was erased: recorded without saying whose it was, written to a file, and found again after a restore.

Contract: `begin` records an erasure: its kind and the SHA-256 of a salt and the value, with one salt for the whole
database. `lines(connection)` gives all erasures and tombstones as JSON lines, which name nobody; who has them and a
guess can test the guess, so they are kept as one keeps a list of pseudonyms. `read(lines)` reads them and refuses what
was cut off (of files without a first and a last line, as awry wrote them before, that cannot be told: `whole`), and
`targets(connection, recorded)` finds the values in this database that they are about, by hashing every one that is
there; `restore_tombstones` puts the tombstones back. The lines are

    {"awry": "erasures", "version": 2}
    {"erasure": ID, "kind": "user", "salt": HEX, "value_sha256": HEX, "at": TIME}
    {"source": ..., "partition": 0, "offset": 7, "sub": 0, "payload_sha256": HEX, "day": DAY, "ingested_at": TIME,
     "conflict": false, "erasure": ID}
    {"end": {"erasures": 1, "tombstones": 1}}

ErasureFileError names the line that is none of these, and what a whole file would have had.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal, cast, get_args

from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from storage.coordinates import clean
from storage.errors import StorageError
from storage.schema import erased_messages, erasures

Kind = Literal["user", "tenant", "id", "conversation"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# The column of `messages` that has it.
COLUMNS: dict[Kind, str] = {
    "user": "user_id",
    "tenant": "tenant",
    "id": "message_id",
    "conversation": "conversation_id",
}
# Every place that has values of a kind, also after retention dropped the messages.
_VALUES: dict[Kind, tuple[tuple[str, str], ...]] = {
    "user": (("messages", "user_id"),),
    "tenant": (("messages", "tenant"), ("alerts", "tenant"), ("score_rollups", "tenant"), ("silences", "tenant")),
    "id": (("messages", "message_id"), ("alert_messages", "message_id")),
    "conversation": (("messages", "conversation_id"), ("alerts", "conversation_id")),
}
_PAGE = 1000
_FIRST = {"awry": "erasures", "version": 2}


class ErasureFileError(StorageError):
    """A file of erasures that cannot be read."""


@dataclass(frozen=True)
class Target:
    """What is to be erased: everything of a user, a tenant or a conversation, or messages with an id."""

    kind: Kind
    value: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", clean(self.value))


@dataclass
class Recorded:
    """The contents of a file: rows of `erasures` and of `erased_messages`."""

    erasures: list[dict[str, Any]] = field(default_factory=list)
    tombstones: list[dict[str, Any]] = field(default_factory=list)
    # Whether the file says how much it has, and has that.
    whole: bool = False

    def counts(self) -> dict[str, int]:
        return {"erasures": len(self.erasures), "tombstones": len(self.tombstones)}


def begin(connection: Connection, target: Target, erasure_id: uuid.UUID | None = None) -> uuid.UUID:
    """Record that an erasure begins; its id. One that is repeated keeps its own."""
    salt = connection.execute(select(erasures.c.salt).order_by(erasures.c.started_at).limit(1)).scalar()
    salt = bytes(salt) if salt is not None else secrets.token_bytes(32)
    row = {
        "id": erasure_id or uuid.uuid4(),
        "kind": target.kind,
        "salt": salt,
        "value_sha256": hashlib.sha256(salt + target.value.encode()).digest(),
    }
    connection.execute(insert(erasures).values(row).on_conflict_do_nothing())
    return cast(uuid.UUID, row["id"])


def finish(connection: Connection, erasure_id: uuid.UUID, messages: int) -> None:
    """It is over; `messages` were erased by this run."""
    values = {"finished_at": func.clock_timestamp(), "messages": erasures.c.messages + messages}
    connection.execute(update(erasures).where(erasures.c.id == erasure_id).values(values))


def lines(connection: Connection) -> Iterator[str]:
    """All erasures and tombstones, without newlines."""
    yield json.dumps(_FIRST)
    written = {"erasures": 0, "tombstones": 0}
    for row in connection.execute(select(erasures).order_by(erasures.c.started_at)):
        written["erasures"] += 1
        yield json.dumps(
            {
                "erasure": str(row.id),
                "kind": row.kind,
                "salt": bytes(row.salt).hex(),
                "value_sha256": bytes(row.value_sha256).hex(),
                "at": row.started_at.isoformat(),
            }
        )
    query = select(erased_messages).execution_options(yield_per=_PAGE)
    for tombstone in connection.execute(query).mappings():
        written["tombstones"] += 1
        told: dict[str, Any] = {name: value for name, value in tombstone.items() if name != "erasure_id"}
        told |= {name: told[name].isoformat() for name in ("day", "ingested_at")}
        yield json.dumps(told | {"erasure": str(tombstone["erasure_id"])})
    yield json.dumps({"end": written})


def read(written: Iterable[str]) -> Recorded:
    """What `lines` wrote."""
    recorded, first, end = Recorded(), False, None
    for number, line in enumerate(written, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if end is not None:
                raise ValueError("behind the end")
            if fields == _FIRST:
                first = True
            elif "end" in fields:
                end = {name: int(fields["end"][name]) for name in recorded.counts()}
            elif "kind" in fields:
                recorded.erasures.append(_erasure(fields))
            else:
                recorded.tombstones.append(_tombstone(fields))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ErasureFileError(
                f"replay: line {number} is no erasure; give a file that awry erase --record wrote"
            ) from None
    if (first and end is None) or end not in (None, recorded.counts()) or (end is not None and not first):
        raise ErasureFileError(
            "replay: the file was cut off, or lines are missing: its last line does not say what it has; give a whole "
            "one that awry erase --record wrote"
        )
    if not recorded.erasures:
        raise ErasureFileError("replay: the file has no erasure; give one that awry erase --record wrote")
    recorded.whole = end is not None
    return recorded


def targets(connection: Connection, recorded: Recorded) -> list[tuple[uuid.UUID, Target]]:
    """The values of this database that were erased by these, each with the erasure's id."""
    found: dict[tuple[uuid.UUID, str], tuple[uuid.UUID, Target]] = {}
    asked: dict[tuple[Kind, bytes], dict[str, uuid.UUID]] = {}
    for each in recorded.erasures:
        asked.setdefault((each["kind"], each["salt"]), {})[each["value_sha256"].hex()] = each["id"]
    for (kind, salt), ids in asked.items():
        for table, column in _VALUES[kind]:
            query = text(
                f"SELECT value, hash FROM (SELECT value, encode(sha256(:salt || convert_to(value, 'UTF8')), 'hex') "  # noqa: S608
                f"AS hash FROM (SELECT DISTINCT {column} AS value FROM {table} WHERE {column} IS NOT NULL) AS v) AS h "
                "WHERE hash = ANY(:hashes)"
            )
            for value, digest in connection.execute(query, {"salt": salt, "hashes": list(ids)}):
                found.setdefault((ids[digest], value), (ids[digest], Target(kind, value)))
    return list(found.values())


def restore_tombstones(connection: Connection, recorded: Recorded) -> int:
    """Put them back, and the rows of the erasures; the number of tombstones that were not there."""
    for each in recorded.erasures:
        connection.execute(insert(erasures).values(each).on_conflict_do_nothing())
    added = 0
    for first in range(0, len(recorded.tombstones), _PAGE):
        page = recorded.tombstones[first : first + _PAGE]
        new = insert(erased_messages).values(page).on_conflict_do_nothing().returning(erased_messages.c.source)
        added += len(connection.execute(new).all())
    return added


def _erasure(fields: dict[str, Any]) -> dict[str, Any]:
    if fields["kind"] not in KINDS:
        raise ValueError("kind")
    return {
        "id": uuid.UUID(fields["erasure"]),
        "kind": fields["kind"],
        "salt": bytes.fromhex(fields["salt"]),
        "value_sha256": bytes.fromhex(fields["value_sha256"]),
        "started_at": datetime.fromisoformat(fields["at"]),
    }


def _tombstone(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": str(fields["source"]),
        "partition": int(fields["partition"]),
        "offset": int(fields["offset"]),
        "sub": int(fields["sub"]),
        "payload_sha256": str(fields["payload_sha256"]),
        "day": date.fromisoformat(fields["day"]),
        "ingested_at": datetime.fromisoformat(fields["ingested_at"]),
        "conflict": bool(fields["conflict"]),
        "erasure_id": uuid.UUID(fields["erasure"]),
    }
