"""Scores, messages and alerts as rows for other programs: read by a cursor of the server, some thousand at a time.

Contract: `rows(engine, kind, since, until, with_text=...)` gives batches of rows, as dictionaries with names and types
of `columns(kind, text=...)`, in no order. They are one snapshot; memory is one batch. `since` is included, `until` is
not; both are of the time that a row was stored (a score: scored, an alert: opened). Texts are left out unless asked
for. A transaction as long as an export holds the roll-ups back where its role may write scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Column, Engine, Select, and_, select, text

from storage.schema import alerts, messages, scores

Kind = Literal["scores", "messages", "alerts"]
Type = Literal["text", "integer", "number", "boolean", "time", "day", "json"]

BATCH = 5000

_COORDINATES: dict[str, Type] = {"source": "text", "partition": "integer", "offset": "integer", "sub": "integer"}
_COLUMNS: dict[Kind, dict[str, Type]] = {
    "scores": {
        **_COORDINATES,
        "day": "day",
        "message_id": "text",
        "tenant": "text",
        "user_id": "text",
        "model": "text",
        "conversation_id": "text",
        "status": "text",
        "probe": "text",
        "probe_version": "integer",
        "probe_digest": "text",
        "score": "number",
        "threshold": "number",
        "flagged": "boolean",
        "shadow": "boolean",
        "reading": "text",
        "judge": "text",
        "judge_reason": "text",
        "created_at": "time",
    },
    "messages": {
        **_COORDINATES,
        "payload_sha256": "text",
        "day": "day",
        "message_id": "text",
        "tenant": "text",
        "user_id": "text",
        "model": "text",
        "conversation_id": "text",
        "status": "text",
        "reason": "text",
        "tokens": "integer",
        "format": "text",
        "trace_id": "text",
        "rendered": "text",
        "partial": "text",
        "unreadable": "number",
        "text_sha256": "text",
        "ingested_at": "time",
    },
    "alerts": {
        "id": "text",
        "dedup_key": "text",
        "rule": "text",
        "kind": "text",
        "probe": "text",
        "tenant": "text",
        "model": "text",
        "conversation_id": "text",
        "severity": "text",
        "state": "text",
        "count": "integer",
        "top_score": "number",
        "threshold": "number",
        "units": "text",
        "first_message": "json",
        "top_message": "json",
        "opened_at": "time",
        "last_seen_at": "time",
        "acknowledged_at": "time",
        "acknowledged_by": "text",
        "resolved_at": "time",
        "resolved_by": "text",
        "verdict": "text",
        "verdict_by": "text",
    },
}
_TIME: dict[Kind, Column[Any]] = {
    "scores": scores.c.created_at,
    "messages": messages.c.ingested_at,
    "alerts": alerts.c.opened_at,
}


def columns(kind: Kind, *, text: bool = False) -> dict[str, Type]:
    """Names and types of the columns, in order."""
    with_text: dict[str, Type] = {"text": "json"} if text and kind == "messages" else {}
    return _COLUMNS[kind] | with_text


def rows(
    engine: Engine, kind: Kind, since: datetime | None, until: datetime | None, *, with_text: bool = False
) -> Iterator[list[dict[str, Any]]]:
    """Batches of rows. A time that Python cannot hold is a DBAPIError of the driver's."""
    query = _query(kind, columns(kind, text=with_text))
    if since is not None:
        query = query.where(_TIME[kind] >= since)
    if until is not None:
        query = query.where(_TIME[kind] < until)
    with engine.connect() as connection:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        reading = connection.execution_options(**options)
        # Whoever takes the rows may be slow.
        reading.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        result = reading.execution_options(yield_per=BATCH).execute(query)
        for partition in result.mappings().partitions():
            yield [dict(row) for row in partition]


def _query(kind: Kind, wanted: dict[str, Type]) -> Select[Any]:
    if kind != "scores":
        table = messages if kind == "messages" else alerts
        return select(*(table.c[name] for name in wanted))
    on = and_(
        *(messages.c[name] == scores.c[name] for name in (*_COORDINATES, "day")),
        messages.c.status.in_(("scored", "truncated")),
    )
    own = [scores.c[name] if name in scores.c else messages.c[name] for name in wanted]
    return select(*own).select_from(scores.join(messages, on))
