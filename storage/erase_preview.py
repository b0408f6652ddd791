"""Counts what an erasure would delete or change, by table, and changes nothing.

Contract: `preview(engine, target)` gives the numbers that `storage.erase.erase` would give now. It only reads: a role
that may not delete can ask, and nobody is held up.
"""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Connection, Engine, text

from storage.coordinates import Coordinates
from storage.database import transact
from storage.erase_alerts import PLACE, alerts_of, delete_alerts, erase_names, forget_in_alerts
from storage.erase_rows import Erased
from storage.erasures import COLUMNS, Target
from storage.known import CONFLICT
from storage.schema import BY_DAY, messages

_SAME = (
    't.source = gone.source AND t.partition = gone.partition AND t."offset" = gone."offset" AND t.sub = gone.sub '
    "AND t.day = gone.day"
)
_OF = "gone.{column} = :value AND gone.reason IS DISTINCT FROM :conflict"


def preview(engine: Engine, target: Target) -> dict[str, int]:
    """Rows that `erase` would delete or change, by table."""

    def count(connection: Connection) -> dict[str, int]:
        done = Erased(dry=True)
        asked = {"value": target.value, "conflict": CONFLICT}
        column = COLUMNS[target.kind]
        stored = text(f"SELECT count(*) FROM messages WHERE {column} = :value")  # noqa: S608 - our own names
        done.count("messages", connection.execute(stored, {"value": target.value}).scalar_one())
        of = _OF.format(column=column)
        for table in BY_DAY:
            if table is not messages:
                query = text(f"SELECT count(*) FROM messages AS gone JOIN {table.name} AS t ON {_SAME} WHERE {of}")  # noqa: S608
                done.count(table.name, connection.execute(query, asked).scalar_one())
        deleted = _alerts(connection, target, of, asked, done)
        erase_names(connection, target, done)
        linked = text(
            "SELECT count(*) FROM alert_messages AS t WHERE t.alert_id = ANY(:deleted) "  # noqa: S608
            f"OR EXISTS (SELECT FROM messages AS gone WHERE {_SAME} AND {of}) OR (:by_id AND t.message_id = :value)"
        )
        number = connection.execute(
            linked, {**asked, "deleted": list(deleted), "by_id": target.kind == "id"}
        ).scalar_one()
        return done.rows | ({"alert_messages": number} if number else {})

    return transact(engine, count)


def _alerts(connection: Connection, target: Target, of: str, asked: dict[str, Any], done: Erased) -> set[uuid.UUID]:
    """Counts what hangs on the target's messages; the alerts that go whole."""
    column = COLUMNS[target.kind]
    members = connection.execute(
        text(
            f'SELECT t.alert_id, t.source, t.partition, t."offset", t.sub, gone.message_id, gone.trace_id '  # noqa: S608
            f"FROM messages AS gone JOIN alert_messages AS t ON {_SAME} WHERE {of}"
        ),
        asked,
    ).all()
    referring = text(
        f"SELECT DISTINCT a.id FROM alerts AS a JOIN messages AS gone ON {PLACE.format('first_message')} "  # noqa: S608
        f"OR {PLACE.format('top_message')} WHERE {of}"
    )
    over = text(
        "SELECT a.id FROM alerts AS a WHERE a.conversation_id IN "  # noqa: S608
        f"(SELECT gone.conversation_id FROM messages AS gone WHERE {of}) "
        "AND NOT EXISTS (SELECT FROM messages AS m WHERE m.conversation_id = a.conversation_id "
        f"AND m.tenant IS NOT DISTINCT FROM a.tenant AND m.{column} IS DISTINCT FROM :value)"
    )
    deleted = set(connection.execute(over, asked).scalars()) | alerts_of(connection, target)
    touched = {row.alert_id for row in members} | set(connection.execute(referring, asked).scalars())
    ids = {name for row in members for name in (row.message_id, row.trace_id) if name}
    places = {Coordinates(row.source, row.partition, row.offset, row.sub) for row in members}
    delete_alerts(connection, deleted, target, ids, places, done)
    forget_in_alerts(connection, touched - deleted, target, ids, places, done)
    return deleted
