"""The registry of probes: their files in the database, by digest, and in which stage each is.

Contract: stages are `registered` (loaded only where it is named), `shadow`, `live` and `retired`. Of a name at most
one is live; promoting another retires it, and `roll_back` makes that one live again. A digest is never written over; a
name and version stand for one digest. Functions work within the caller's transaction. What the files mean is not known
here. Errors are RegistryErrors that name the field and the fix.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import ColumnElement, Connection, RowMapping, func, insert, select, update

from storage.errors import StorageError
from storage.schema import registered_probes as table

Stage = Literal["registered", "shadow", "live", "retired"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class RegistryError(StorageError):
    """The registry does not have it, or cannot take it."""


@dataclass(frozen=True)
class Entry:
    """A registered probe without its files."""

    digest: str
    name: str
    version: int
    stage: Stage
    added_at: datetime
    added_by: str
    staged_at: datetime

    def __str__(self) -> str:
        return f"{self.name}@{self.version} ({self.digest[:8]})"


_ENTRY = (table.c.digest, table.c.name, table.c.version, table.c.stage, table.c.added_at, table.c.added_by)


def add(
    connection: Connection, *, digest: str, name: str, version: int, card: bytes, tensors: bytes, by: str
) -> tuple[Entry, bool]:
    """Its entry, and whether it is new. A digest that is there already stays as it is."""
    _lock(connection, name)
    known = _by_digest(connection, digest)
    if known is not None:
        return known, False
    other = connection.execute(select(table.c.digest).where(table.c.name == name, table.c.version == version)).scalar()
    if other is not None:
        highest = connection.execute(select(func.max(table.c.version)).where(table.c.name == name)).scalar_one()
        raise RegistryError(
            f"probe: {name} version {version} is registered with another digest ({other[:8]}); add this one with "
            f"--as-version {highest + 1}"
        )
    connection.execute(
        insert(table).values(
            digest=digest, name=name, version=version, stage="registered", card=card, tensors=tensors, added_by=by
        )
    )
    return find(connection, digest), True


def entries(connection: Connection, name: str | None = None) -> list[Entry]:
    """By name and version."""
    query = select(*_ENTRY, table.c.staged_at).order_by(table.c.name, table.c.version)
    return [
        _entry(row)
        for row in connection.execute(query if name is None else query.where(table.c.name == name)).mappings()
    ]


def find(connection: Connection, named: str) -> Entry:
    """NAME (the live one, else the latest), NAME@VERSION, or a digest of at least eight of its digits."""
    name, _, version = named.partition("@")
    found = entries(connection, name)
    if version:
        chosen = [entry for entry in found if str(entry.version) == version]
    elif found:
        live = [entry for entry in found if entry.stage == "live"]
        chosen = live or found[-1:]
    elif len(named) >= 8:
        chosen = [entry for entry in entries(connection) if entry.digest.startswith(named.lower())]
    else:
        chosen = []
    if not chosen:
        known = ", ".join(map(str, found or entries(connection))) or "nothing; awry probes add CARD adds one"
        raise RegistryError(f"probe: {named!r} is not in the registry, which has {known}")
    if len(chosen) > 1:
        raise RegistryError(f"probe: {named!r} begins {len(chosen)} digests; give more digits")
    return chosen[0]


def files(connection: Connection, digest: str) -> tuple[bytes, bytes]:
    """The card's file and the tensors' file, byte for byte as they were added."""
    row = connection.execute(select(table.c.card, table.c.tensors).where(table.c.digest == digest)).one()
    return bytes(row.card), bytes(row.tensors)


def promote(connection: Connection, entry: Entry, stage: Literal["shadow", "live"]) -> tuple[Entry, Entry | None]:
    """The entry in its new stage, and the one that was live before and is retired now."""
    _lock(connection, entry.name)
    before = None
    if stage == "live":
        lives = [each for each in entries(connection, entry.name) if each.stage == "live"]
        before = next((each for each in lives if each.digest != entry.digest), None)
        if before is not None:
            _stage(connection, before.digest, "retired", live_until=func.clock_timestamp())
    _stage(connection, entry.digest, stage)
    return find(connection, entry.digest), before


def retire(connection: Connection, entry: Entry) -> Entry:
    """A rollback does not bring it back."""
    _lock(connection, entry.name)
    _stage(connection, entry.digest, "retired")
    return find(connection, entry.digest)


def roll_back(connection: Connection, name: str) -> tuple[Entry, Entry | None]:
    """As `promote`, of the one that was live before."""
    _lock(connection, name)
    was_live = table.c.live_until.is_not(None)
    newest = select(table.c.digest).where(table.c.name == name, was_live).order_by(table.c.live_until.desc()).limit(1)
    digest = connection.execute(newest).scalar()
    if digest is None:
        raise RegistryError(f"probe: no other version of {name!r} was live before; awry probes list shows all")
    return promote(connection, find(connection, digest), "live")


def in_stage(connection: Connection, stage: Stage) -> list[Entry]:
    """By name and version."""
    return [entry for entry in entries(connection) if entry.stage == stage]


def _by_digest(connection: Connection, digest: str) -> Entry | None:
    row = (
        connection.execute(select(*_ENTRY, table.c.staged_at).where(table.c.digest == digest)).mappings().one_or_none()
    )
    return _entry(row) if row is not None else None


def _entry(row: RowMapping) -> Entry:
    return Entry(**row)


def _stage(
    connection: Connection, digest: str, stage: Stage, live_until: ColumnElement[datetime] | None = None
) -> None:
    # By the clock, and not by the start of the transaction: order within one transaction counts too.
    changed = {"stage": stage, "staged_at": func.clock_timestamp(), "live_until": live_until}
    connection.execute(update(table).where(table.c.digest == digest).values(changed))


def _lock(connection: Connection, name: str) -> None:
    """Changes of one name take turns."""
    connection.execute(select(table.c.digest).where(table.c.name == name).order_by(table.c.digest).with_for_update())
