"""Requests that were flagged while their answer was running, until their final reading comes.

Contract: both functions run in the transaction that writes the rows. `begin` takes a request down once, and says which
of those it was given are the first of theirs. `end` gives back what was taken down of the requests whose final readings
came, and forgets it; `replaced` then takes the scores of partial rows out of every count: the final row's stand for
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, and_, delete, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from storage.coordinates import Coordinates
from storage.schema import reading_partials, scores

# The stream, the engine's instance, the engine's own id of the request (the client's where the engine says none).
Request = tuple[str, str, str]

_p = reading_partials.c


@dataclass(frozen=True)
class Partial:
    """A row of a running answer, and its scores above the threshold."""

    request: Request
    at: Coordinates
    day: date
    scores: dict[str, float]


def begin(connection: Connection, partials: Iterable[Partial]) -> set[Coordinates]:
    """Where the rows are of those that are the first of their request."""
    first: dict[Request, Partial] = {}
    for each in partials:
        first.setdefault(each.request, each)
    if not first:
        return set()
    rows = [
        dict(zip(("stream", "instance", "message_id"), key, strict=True))
        | {"source": each.at.source, "partition": each.at.partition, "offset": each.at.offset, "sub": each.at.sub}
        | {"day": each.day, "scores": each.scores}
        for key, each in sorted(first.items())
    ]
    statement = insert(reading_partials).values(rows).on_conflict_do_nothing()
    new = statement.returning(_p.source, _p.partition, _p.offset, _p.sub)
    return {Coordinates(*row) for row in connection.execute(new)}


def end(connection: Connection, requests: Sequence[Request]) -> dict[Request, Partial]:
    """What was taken down of these requests."""
    if not requests:
        return {}
    these = tuple_(_p.stream, _p.instance, _p.message_id).in_(sorted(set(requests)))
    found = connection.execute(delete(reading_partials).where(these).returning(reading_partials))
    return {
        (row.stream, row.instance, row.message_id): Partial(
            (row.stream, row.instance, row.message_id),
            Coordinates(row.source, row.partition, row.offset, row.sub),
            row.day,
            row.scores,
        )
        for row in found
    }


def replaced(connection: Connection, partial: Partial, probes: Iterable[str]) -> None:
    """A final row has scores of these probes above the threshold as well."""
    at = partial.at
    place = {"source": at.source, "partition": at.partition, "offset": at.offset, "sub": at.sub, "day": partial.day}
    here = and_(*(scores.c[name] == value for name, value in place.items()), scores.c.probe.in_(list(probes)))
    connection.execute(update(scores).where(here).values(shadow=True))
