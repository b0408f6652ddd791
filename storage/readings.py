"""What was read of engines that publish readings, and what is missing of it.

Contract: `track(connection, records)` runs in the transaction that stores what the records hold, and says which of them
were there before under another place: they are not to be stored again. Calling it twice with the same records changes
nothing. A number that is missing is a hole; a record that comes late fills it. Holes count once they are older than
records may come late (`count_gaps`), what an engine dropped counts at once. Of an instance that was never seen, on a
stream that nobody read until a minute ago, what came earlier is no gap.

`watch` keeps the instances of a stream: one that ended without a word while another one, which came no earlier, lives
is a gap of unknown size; should it speak again, the gap is closed. All times are the database's, and of reading: a
worker that is behind says so with `seen_now` and `put_off`, one that has just started with `seen_now`, and judges
nobody.

Workers of one stream wait for each other on the rows of an instance, which are locked in order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby, pairwise
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, insert, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql

from storage.coordinates import clean
from storage.schema import reading_gaps, reading_instances

_i, _g = reading_instances.c, reading_gaps.c
# A stream that was first read within this time may have instances that began before.
_BEFORE = timedelta(minutes=1)


@dataclass(frozen=True)
class Published:
    """A record of an engine: its number, and what it says of the engine. `known`: its message is in the tables at this
    very place."""

    source: str
    instance: str
    sequence: int
    engine: str
    model: str | None = None
    dropped: int = 0
    closed: bool = False
    known: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return (self.source, self.instance)


@dataclass(frozen=True)
class Gap:
    """A gap that counts from now on; `readings` None: nobody knows how many."""

    kind: str
    readings: int | None


def track(connection: Connection, records: Sequence[Published]) -> list[bool]:
    """For each record whether it is a repetition, which another place holds already."""
    repeated = [False] * len(records)
    order = sorted(range(len(records)), key=lambda n: (records[n].key, records[n].sequence))
    for _, numbers in groupby(order, key=lambda n: records[n].key):
        of = list(numbers)
        for n, again in zip(of, _track_one(connection, [records[n] for n in of]), strict=True):
            repeated[n] = again and not records[n].known
    return repeated


def _track_one(connection: Connection, records: Sequence[Published]) -> list[bool]:
    """Of one instance, by rising numbers."""
    first = records[0]
    here = and_(_i.source == first.source, _i.instance == first.instance)
    new = {"source": first.source, "instance": first.instance, "engine": clean(first.engine), "model": first.model}
    connection.execute(
        postgresql.insert(reading_instances)
        .values(new | {"state": "live", "highest": -1, "dropped": 0})
        .on_conflict_do_nothing()
    )
    row = connection.execute(select(_i.highest, _i.dropped, _i.state).where(here).with_for_update()).one()
    highest, repeated, missing = row.highest, [], []
    filling = [each.sequence for each in records if each.sequence <= highest]
    filled = _fill(connection, first, filling) if filling else set()
    for record in records:
        if record.sequence > highest:
            if record.sequence > highest + 1:
                missing.append((highest + 1, record.sequence - 1))
            highest = record.sequence
            repeated.append(False)
        else:
            # Once per number: twice within a batch is a repetition as well.
            repeated.append(record.sequence not in filled)
            filled.discard(record.sequence)
    gaps: list[dict[str, Any]] = [
        {"kind": _kind(connection, first, begin), "first": begin, "last": end, "readings": end - begin + 1}
        for begin, end in missing
    ]
    dropped = max(each.dropped for each in records)
    if dropped > row.dropped:
        gaps.append({"kind": "dropped", "first": None, "last": None, "readings": dropped - row.dropped})
    if gaps:
        connection.execute(insert(reading_gaps), [each | _of(first) for each in gaps])
    # What is delivered again of one that has ended says nothing of it.
    ended = row.state == "replaced" and highest == row.highest
    if row.state == "replaced" and not ended:
        told = and_(_g.source == first.source, _g.instance == first.instance, _g.kind == "new_instance")
        connection.execute(update(reading_gaps).where(told, _g.filled_at.is_(None)).values(filled_at=func.now()))
    closed = row.state == "closed" or any(each.closed for each in records)
    connection.execute(
        update(reading_instances)
        .where(here)
        .values(
            highest=highest,
            dropped=max(dropped, row.dropped),
            state="replaced" if ended else "closed" if closed else "live",
            last_seen_at=func.now(),
        )
    )
    return repeated


def _of(record: Published) -> dict[str, Any]:
    return {"source": record.source, "instance": record.instance}


def _kind(connection: Connection, record: Published, begin: int) -> str:
    """A hole, or what was sent before anybody read this stream."""
    if begin:
        return "hole"
    long_ago = func.now() - _BEFORE
    others = exists().where(_i.source == record.source, _i.first_seen_at < long_ago)
    return "hole" if connection.execute(select(others)).scalar() else "before"


def _fill(connection: Connection, record: Published, numbers: Sequence[int]) -> set[int]:
    """Take these numbers out of the instance's holes: those that were in one."""
    open_ = and_(_g.source == record.source, _g.instance == record.instance, _g.filled_at.is_(None))
    touched = and_(open_, _g.first <= numbers[-1], _g.last >= numbers[0])
    filled: set[int] = set()
    for row in connection.execute(select(reading_gaps).where(touched).order_by(_g.first)).all():
        inside = sorted({number for number in numbers if row.first <= number <= row.last})
        if not inside:
            continue
        filled.update(inside)
        rest = _without(row.first, row.last, inside)
        one = _g.id == row.id
        if rest:
            begin, end = rest[0]
            connection.execute(update(reading_gaps).where(one).values(first=begin, last=end, readings=end - begin + 1))
        elif row.counted_at is not None:
            connection.execute(update(reading_gaps).where(one).values(filled_at=func.now()))
        else:
            connection.execute(delete(reading_gaps).where(one))
        more = {"kind": row.kind, "first_seen_at": row.first_seen_at, "counted_at": row.counted_at} | _of(record)
        if rest[1:]:
            parts = [{"first": begin, "last": end, "readings": end - begin + 1} | more for begin, end in rest[1:]]
            connection.execute(insert(reading_gaps), parts)
    return filled


def _without(first: int, last: int, inside: Sequence[int]) -> list[tuple[int, int]]:
    """What is left of a range."""
    edges = [first - 1, *inside, last + 1]
    return [(a + 1, b - 1) for a, b in pairwise(edges) if b - a > 1]


def seen_now(connection: Connection, sources: Collection[str]) -> None:
    """Nothing can be said of how long the instances of streams have been silent: they are not read to their end."""
    connection.execute(update(reading_instances).where(_these(_live(sources))).values(last_seen_at=func.now()))


def put_off(connection: Connection, sources: Collection[str]) -> None:
    """Nothing can be said of how long the numbers of streams have been missing: they may be in what was not read."""
    waiting = and_(_g.source.in_(sources), _g.kind == "hole", _g.counted_at.is_(None))
    connection.execute(update(reading_gaps).where(_those(waiting)).values(first_seen_at=func.now()))


def leave(connection: Connection, sources: Collection[str]) -> None:
    """The streams have ended: their instances are not waited for. They are again once more of them is read."""
    connection.execute(update(reading_instances).where(_these(_live(sources))).values(state="unwatched"))


def watch(connection: Connection, sources: Collection[str], grace: timedelta) -> None:
    """Instances of streams that have been silent for longer than `grace`, while another one that came no earlier was
    heard, have ended: a gap each.

    By order of birth: when one was last seen says when it was read, and a worker that was away reads the new one first.
    Of two that came at once only the silent one has ended; where all are silent, it is the stream that is.
    """
    newer, lately = reading_instances.alias(), func.now() - grace
    replaced = exists().where(
        newer.c.source == _i.source,
        newer.c.instance != _i.instance,
        newer.c.first_seen_at >= _i.first_seen_at,
        newer.c.last_seen_at >= lately,
        newer.c.state != "replaced",
    )
    ended = (
        update(reading_instances)
        .where(_these(and_(_live(sources), _i.last_seen_at < lately, replaced)))
        .values(state="replaced")
        .returning(_i.source, _i.instance)
    )
    gaps = [
        {"source": row.source, "instance": row.instance, "kind": "new_instance"} for row in connection.execute(ended)
    ]
    if gaps:
        connection.execute(insert(reading_gaps), gaps)


def count_gaps(connection: Connection, grace: timedelta, sources: Collection[str], *, holes: bool = True) -> list[Gap]:
    """The gaps of streams that count from now on, each told once; without `holes` only those that nothing can fill."""
    certain = _g.kind.in_(("dropped", "new_instance"))
    late = and_(_g.kind == "hole", _g.first_seen_at < func.now() - grace)
    open_ = and_(_g.source.in_(sources), _g.counted_at.is_(None), _g.filled_at.is_(None))
    counted = (
        update(reading_gaps)
        .where(_those(and_(open_, or_(late, certain) if holes else certain)))
        .values(counted_at=func.now())
        .returning(_g.kind, _g.readings)
    )
    return [Gap(row.kind, row.readings) for row in connection.execute(counted)]


def _live(sources: Collection[str]) -> ColumnElement[bool]:
    return and_(_i.source.in_(sources), _i.state == "live")


def _these(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Instances that no worker is storing readings of at this moment: those need no look, and nobody is waited for."""
    free = select(_i.source, _i.instance).where(condition).with_for_update(skip_locked=True)
    return tuple_(_i.source, _i.instance).in_(free)


def _those(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Gaps that no worker is filling at this moment."""
    return _g.id.in_(select(_g.id).where(condition).with_for_update(skip_locked=True))
