"""Finds messages by any name that somebody has: an id, a user, a tenant, a conversation, a time, a probe's score.

Contract: `search(connection, filters, limit, after)` gives at most `limit` messages, the latest first, each with its
scores, and where to go on (`after`), None at the end. Names are matched whole. Times are those at which awry stored a
message (`ingested_at`), or its score where one is asked for (`probe`, `score_from`, `score_to`, `flagged`). Pages
neither repeat nor omit a message that was there at the first page.

Each kind of question has its index (`storage.schema`), so that it reads about as many rows as it gives; one that
combines a name that many messages have with something that few of them have may read more. Where a score is asked for,
each probe is looked up by itself, as the indexes are by probe.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from storage.coordinates import clean

# Column of `messages` by the field of Filters.
_NAMES = {
    "message_id": "message_id",
    "user": "user_id",
    "tenant": "tenant",
    "conversation": "conversation_id",
    "status": "status",
}
_COORDINATES = ("source", "partition", "offset", "sub")
# Scores that are looked through at a time.
_STEP = 1000
_PLACE = 's.source, s.partition, s."offset", s.sub'
_FACTS = (
    "m.payload_sha256, m.message_id, m.tenant, m.user_id, m.model, m.conversation_id, m.status, m.reason, m.tokens, "
    "m.ingested_at"
)
_SAME = (
    'm.source = s.source AND m.partition = s.partition AND m."offset" = s."offset" AND m.sub = s.sub AND m.day = s.day'
)
_KEY = '{0}, {1}.source, {1}.partition, {1}."offset", {1}.sub, {2}'
_AFTER = (
    "(:at, CAST(:source AS text), CAST(:partition AS integer), CAST(:offset AS bigint), CAST(:sub AS integer), :last)"
)
_SCORES = text(
    """
    SELECT s.source, s.partition, s."offset", s.sub, s.probe, s.probe_version AS version, s.probe_digest AS digest,
        s.score, s.threshold, s.flagged, s.created_at
    FROM json_to_recordset(CAST(:rows AS json))
        AS r (source text, partition integer, "offset" bigint, sub integer, day date)
    JOIN scores AS s ON s.source = r.source AND s.partition = r.partition AND s."offset" = r."offset" AND s.sub = r.sub
        AND s.day = r.day
    ORDER BY s.score - s.threshold DESC, s.created_at DESC
    """
)


@dataclass(frozen=True)
class Filters:
    """What is asked for; None matches all. `since` is included, `until` is not."""

    message_id: str | None = None
    user: str | None = None
    tenant: str | None = None
    conversation: str | None = None
    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    probe: str | None = None
    score_from: float | None = None
    score_to: float | None = None
    flagged: bool | None = None

    @property
    def of_scores(self) -> bool:
        """Whether a score is asked for."""
        return any(each is not None for each in (self.probe, self.score_from, self.score_to, self.flagged))


@dataclass(frozen=True)
class After:
    """Where a page ended: the time and the key of its last message. `last` is the payload's hash, or, where a score was
    asked for, probe and digest."""

    at: datetime
    source: str
    partition: int
    offset: int
    sub: int
    last: str


@dataclass(frozen=True)
class Found:
    """A message, as its columns without the text, and its scores."""

    message: dict[str, Any]
    scores: list[dict[str, Any]] = field(default_factory=list)


def search(
    connection: Connection, filters: Filters, limit: int, after: After | None = None
) -> tuple[list[Found], After | None]:
    """The latest messages that match, and where the next page begins."""
    # Plan for these values: a plan for any value would look into all partitions in another way.
    connection.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
    if not filters.of_scores:
        rows = _rows(connection, *_by_name(filters, after), limit + 1)
    elif any(each is not None for each in (filters.message_id, filters.user, filters.conversation)):
        rows = _rows(connection, *_by_score(connection, filters, after), limit + 1)
    else:
        rows = _scanned(connection, filters, after, limit + 1)
    end = _end(rows[limit - 1]) if len(rows) > limit else None
    return _with_scores(connection, rows[:limit]), end


def _rows(connection: Connection, query: str, values: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(text(query), {**values, "limit": limit}).mappings()]


def _end(row: dict[str, Any]) -> After:
    return After(row["found_at"], row["source"], row["partition"], row["offset"], row["sub"], row["found_last"])


def _scanned(connection: Connection, filters: Filters, after: After | None, limit: int) -> list[dict[str, Any]]:
    """Scores in their order, some at a time, each with its message; those of messages that do not match are passed
    over. A join of the two would be planned as if hardly any score had a message, and read all of them."""
    step = limit if filters.tenant is None and filters.status is None else max(limit, _STEP)
    found: list[dict[str, Any]] = []
    while True:
        rows = _rows(connection, *_by_score(connection, filters, after, scanning=True), step)
        found += [row for row in rows if row["status"] is not None]
        if len(found) >= limit or len(rows) < step:
            return found[:limit]
        after = _end(rows[-1])


def _by_name(filters: Filters, after: After | None) -> tuple[str, dict[str, Any]]:
    conditions, values = _of_message(filters)
    _within(conditions, values, filters, after, "m.ingested_at", "m", "m.payload_sha256")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    order = _descending(_KEY.format("m.ingested_at", "m", "m.payload_sha256"))
    query = (
        f'SELECT m.source, m.partition, m."offset", m.sub, m.day, {_FACTS}, m.ingested_at AS found_at, '  # noqa: S608
        f"m.payload_sha256 AS found_last FROM messages AS m {where} ORDER BY {order} LIMIT :limit"
    )
    return query, values


def _by_score(
    connection: Connection, filters: Filters, after: After | None, *, scanning: bool = False
) -> tuple[str, dict[str, Any]]:
    """`scanning`: scores whose message does not match are there too, without anything of it but coordinates."""
    of_message, values = _of_message(filters)
    conditions = []
    if filters.flagged is not None:
        conditions.append("s.flagged" if filters.flagged else "NOT s.flagged")
    for name, sign in (("score_from", ">="), ("score_to", "<=")):
        if getattr(filters, name) is not None:
            conditions.append(f"s.score {sign} :{name}")
            values[name] = getattr(filters, name)
    last = "s.probe || '/' || s.probe_digest"
    _within(conditions, values, filters, after, "s.created_at", "s", last)
    # The message that was scored, among those at the same coordinates.
    on = " AND ".join([_SAME, "m.status IN ('scored', 'truncated')", *of_message])
    order = _descending(_KEY.format("s.created_at", "s", last))
    probes = [clean(filters.probe)] if filters.probe is not None else _probes(connection)
    # A probe is a constant for the planner, which then knows how many scores it has, and in which order an index is.
    of_probes = []
    for number, probe in enumerate(probes):
        values[f"probe_{number}"] = probe
        where = " AND ".join([f"s.probe = :probe_{number}", *conditions])
        taken = f"{_PLACE}, s.day, s.created_at AS found_at, {last} AS found_last"
        joined = "" if scanning else f" JOIN messages AS m ON {on}"
        of_probes.append(
            f"(SELECT {taken} FROM scores AS s{joined} WHERE {where} ORDER BY {order} LIMIT :limit)"  # noqa: S608 - our own names
        )
    order = _descending(_KEY.format("s.found_at", "s", "s.found_last"))
    # One row a score: the key of messages has more than their coordinates.
    message = f"SELECT {_FACTS} FROM messages AS m WHERE {on} LIMIT 1"  # noqa: S608
    query = (
        f"SELECT m.*, {_PLACE}, s.day, s.found_at, s.found_last FROM ("  # noqa: S608
        f"SELECT s.* FROM ({' UNION ALL '.join(of_probes)}) AS s ORDER BY {order} LIMIT :limit) AS s "
        f"LEFT JOIN LATERAL ({message}) AS m ON true ORDER BY {order}"
    )
    return query, values


def _probes(connection: Connection) -> list[str]:
    """The names of probes that have scored; for a role that may not read those, of which it may read sums."""
    readable = connection.execute(text("SELECT has_table_privilege('probes', 'SELECT')")).scalar_one()
    query = "SELECT DISTINCT name FROM probes" if readable else "SELECT DISTINCT probe FROM score_rollups"
    return list(connection.execute(text(query)).scalars()) or [""]


def _of_message(filters: Filters) -> tuple[list[str], dict[str, Any]]:
    given = {name: clean(value) for name in _NAMES if (value := getattr(filters, name)) is not None}
    return [f"m.{_NAMES[name]} = :{name}" for name in given], given


def _within(
    conditions: list[str], values: dict[str, Any], filters: Filters, after: After | None, at: str, table: str, last: str
) -> None:
    if filters.since is not None:
        conditions.append(f"{at} >= :since")
        values["since"] = filters.since
    if filters.until is not None:
        conditions.append(f"{at} < :until")
        values["until"] = filters.until
    if after is not None:
        # The first condition alone is what an index can use.
        conditions += [f"{at} <= :at", f"({_KEY.format(at, table, last)}) < {_AFTER}"]
        values |= {"at": after.at, "last": after.last} | {name: getattr(after, name) for name in _COORDINATES}


def _descending(columns: str) -> str:
    return ", ".join(f"{column} DESC" for column in columns.split(", "))


def _with_scores(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[Found]:
    if not rows:
        return []
    places = [{name: row[name] for name in (*_COORDINATES, "day")} for row in rows]
    scores: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for score in connection.execute(_SCORES, {"rows": json.dumps(places, default=str)}).mappings():
        scores.setdefault(tuple(score[name] for name in _COORDINATES), []).append(dict(score))
    found = []
    for row in rows:
        message = {name: value for name, value in row.items() if not name.startswith("found_")}
        scored = row["status"] in ("scored", "truncated")
        found.append(Found(message, scores.get(tuple(row[n] for n in _COORDINATES), []) if scored else []))
    return found
