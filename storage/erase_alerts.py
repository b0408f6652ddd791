"""Erases names from alerts and what is kept of them: events, silences, states of rules, the audit, sums of a tenant.

Contract: `erase_references` is called with messages that are about to be deleted, in their transaction: it unlinks them
from alerts, takes their ids out of the alerts' events and audit rows, and deletes alerts of conversations that have no
message left. `erase_names` is called once, at the end: it deletes alerts, silences, states of rules, tokens and sums
that name the erased tenant or conversation, and takes the name out of the texts that people wrote and of what waits for
destinations. `name_counts` counts what that would be.

Names of people who operate awry (who acknowledged an alert, who made a token) stay: they are no subject of monitoring.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Table, Text, and_, cast, delete, func, or_, select, text, update
from sqlalchemy.sql import ColumnElement

from storage.coordinates import Coordinates
from storage.erasures import Target
from storage.forget import Forget, like_forms
from storage.schema import (
    alert_messages,
    alerts,
    api_tokens,
    audit,
    destinations,
    outbox,
    rule_states,
    score_rollups,
    silences,
    web_sessions,
)

# Messages of deleted alerts whose ids are looked for in what was sent of others with them, and in the audit.
_MEMBERS = 10_000
# Characters of a name in the rollups (`storage.rollup`).
_ROLLUP_NAME = 250
_PLACE = (
    "(a.{0}->>'source' = gone.source AND a.{0}->'partition' = to_jsonb(gone.partition) "
    "AND a.{0}->'offset' = to_jsonb(gone.\"offset\") AND coalesce(a.{0}->'sub', '0') = to_jsonb(gone.sub))"
)
_GONE = (
    'json_to_recordset(CAST(:rows AS json)) AS gone (source text, partition integer, "offset" bigint, sub integer, '
    "day date)"
)
_REFERRING = text(
    f"SELECT DISTINCT a.id FROM alerts AS a JOIN {_GONE} ON {_PLACE.format('first_message')} "  # noqa: S608
    f"OR {_PLACE.format('top_message')}"
)
_UNLINK = text(
    f"DELETE FROM alert_messages AS t USING {_GONE} WHERE t.source = gone.source AND t.partition = gone.partition "  # noqa: S608
    'AND t."offset" = gone."offset" AND t.sub = gone.sub AND t.day = gone.day RETURNING t.alert_id'
)
# The message itself is still there: those that are about to go are not counted.
_OVER = text(
    "SELECT a.id FROM alerts AS a WHERE a.conversation_id = ANY(:conversations) AND NOT EXISTS ("  # noqa: S608
    "SELECT FROM messages AS m WHERE m.conversation_id = a.conversation_id "
    "AND m.tenant IS NOT DISTINCT FROM a.tenant AND NOT EXISTS ("
    f"SELECT FROM {_GONE} WHERE m.source = gone.source AND m.partition = gone.partition "
    'AND m."offset" = gone."offset" AND m.sub = gone.sub AND m.day = gone.day))'
)


@dataclass
class Erased:
    """Numbers of rows by table."""

    rows: dict[str, int] = field(default_factory=dict)

    def count(self, name: str, rows: int) -> None:
        self.rows[name] = self.rows.get(name, 0) + max(0, rows)

    def add(self, other: Erased) -> None:
        for name, rows in other.rows.items():
            self.count(name, rows)


def erase_references(
    connection: Connection, rows: Sequence[Row[Any]], encoded: str, target: Target, done: Erased
) -> None:
    """Of messages that were scored; `encoded` are their coordinates and days as JSON."""
    if not rows:
        return
    unlinked = list(connection.execute(_UNLINK, {"rows": encoded}).scalars())
    done.count("alert_messages", len(unlinked))
    referring = set(connection.execute(_REFERRING, {"rows": encoded}).scalars()) | set(unlinked)
    conversations = sorted({row.conversation_id for row in rows if row.conversation_id is not None})
    over = set(
        connection.execute(_OVER, {"rows": encoded, "conversations": conversations}).scalars() if conversations else ()
    )
    places = {Coordinates(row.source, row.partition, row.offset, row.sub) for row in rows}
    names = {name for row in rows for name in (row.message_id, row.trace_id) if name} | {target.value}
    _delete_alerts(connection, over, names, places, done)
    touched = sorted(referring - over)
    if not touched:
        return
    forget = Forget(names, places)
    of_alert = alerts.c.id.in_(touched)
    locked = select(alerts).where(of_alert).order_by(alerts.c.dedup_key).with_for_update()
    for row in connection.execute(locked).all():
        left = {name: forget.json(getattr(row, name)) for name in ("first_message", "top_message")}
        if any(left[name] != getattr(row, name) for name in left):
            connection.execute(update(alerts).where(alerts.c.id == row.id).values(left))
            done.count("alerts", 1)
    pages = select(outbox.c.page_id).where(outbox.c.alert_id.in_(touched), outbox.c.page_id.is_not(None))
    _forget_events(connection, or_(outbox.c.alert_id.in_(touched), outbox.c.id.in_(pages)), forget, done)
    _forget_audit(connection, audit.c.alert_id.in_(touched), forget, done)


def name_counts(connection: Connection, target: Target) -> dict[str, int]:
    """Rows that `erase_names` would delete or change, by table, beside those of `erase_references`."""
    found = {
        table.name: connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one()
        for table, condition in _naming(target).items()
    }
    for table, columns in ((outbox, (outbox.c.body, outbox.c.page)), (audit, (audit.c.before, audit.c.after))):
        query = select(func.count()).select_from(table).where(_contains(columns, [target.value]))
        found[table.name] = connection.execute(query).scalar_one()
    return found


def erase_names(connection: Connection, target: Target, done: Erased) -> None:
    """What names the target itself; the last step, when no message of it is left."""
    forget = Forget([target.value])
    naming = _naming(target)
    ids = (
        set(connection.execute(select(alerts.c.id).where(naming.pop(alerts))).scalars()) if alerts in naming else set()
    )
    _delete_alerts(connection, ids, [target.value], (), done)
    for table, condition in naming.items():
        done.count(table.name, connection.execute(delete(table).where(condition)).rowcount)
    if target.kind == "id":
        # Of messages that retention has dropped.
        referred = (alerts.c.first_message["id"].astext, alerts.c.top_message["id"].astext)
        for name, column in zip(("first_message", "top_message"), referred, strict=True):
            changed = connection.execute(update(alerts).where(column == target.value).values({name: None}))
            done.count("alerts", changed.rowcount)
    names = [target.value]
    _forget_events(
        connection,
        _contains((outbox.c.body, outbox.c.page, outbox.c.group_key, outbox.c.last_error), names),
        forget,
        done,
    )
    _forget_audit(connection, _contains((audit.c.before, audit.c.after), names), forget, done)
    _forget_texts(connection, silences, ("comment", "dedup_key", "tenant"), names, forget, done)
    _forget_texts(connection, destinations, ("last_error",), names, forget, done)


def _naming(target: Target) -> dict[Table, ColumnElement[bool]]:
    """By table, the rows that are of the target and go whole."""
    value = target.value
    found: dict[Table, ColumnElement[bool]] = {}
    if target.kind == "tenant":
        found = {
            alerts: alerts.c.tenant == value,
            silences: or_(silences.c.tenant == value, silences.c.dedup_key.in_(_keys(alerts.c.tenant == value))),
            rule_states: rule_states.c.subject["tenant"].astext == value,
            score_rollups: score_rollups.c.tenant == value[:_ROLLUP_NAME],
            web_sessions: web_sessions.c.tenant == value,
            api_tokens: api_tokens.c.tenant == value,
        }
    elif target.kind == "conversation":
        of = alerts.c.conversation_id == value
        found = {
            alerts: of,
            silences: silences.c.dedup_key.in_(_keys(of)),
            rule_states: rule_states.c.subject["conversation_id"].astext == value,
        }
    elif target.kind == "id":
        found = {alert_messages: alert_messages.c.message_id == value}
    return found


def _keys(condition: ColumnElement[bool]) -> Any:
    return select(alerts.c.dedup_key).where(condition)


def _delete_alerts(
    connection: Connection,
    ids: Collection[uuid.UUID],
    names: Collection[str],
    places: Collection[Coordinates],
    done: Erased,
) -> None:
    """Alerts with their events; what is grouped with one of those is grouped anew. `names` and `places` are of messages
    that they had."""
    if not ids:
        return
    wanted = sorted(ids)
    rows = connection.execute(
        select(alerts).where(alerts.c.id.in_(wanted)).order_by(alerts.c.dedup_key).with_for_update()
    ).all()
    keys = sorted({row.dedup_key for row in rows})
    gone = {name for row in rows for name in (row.conversation_id, row.dedup_key) if name} | set(names)
    members = select(alert_messages).where(alert_messages.c.alert_id.in_(wanted)).limit(_MEMBERS)
    for each in connection.execute(members):
        gone |= {each.message_id} if each.message_id is not None else set()
        places = {*places, Coordinates(each.source, each.partition, each.offset, each.sub)}
    forget = Forget(gone, places)
    of_them = select(outbox.c.id).where(outbox.c.alert_id.in_(wanted))
    freed = {"page_id": None, "page": None, "formed_at": None, "claim_id": None}
    left = and_(outbox.c.page_id.in_(of_them), outbox.c.alert_id.not_in(wanted))
    connection.execute(update(outbox).where(left).values(freed))
    pages = select(outbox.c.page_id).where(outbox.c.alert_id.in_(wanted), outbox.c.page_id.is_not(None))
    carried = and_(outbox.c.id.in_(pages), outbox.c.alert_id.not_in(wanted))
    _forget_events(connection, carried, forget, done)
    done.count("outbox", connection.execute(delete(outbox).where(outbox.c.alert_id.in_(wanted))).rowcount)
    _forget_audit(connection, audit.c.alert_id.in_(wanted), forget, done)
    for table in (silences, rule_states):
        done.count(table.name, connection.execute(delete(table).where(table.c.dedup_key.in_(keys))).rowcount)
    linked = connection.execute(delete(alert_messages).where(alert_messages.c.alert_id.in_(wanted)))
    done.count("alert_messages", linked.rowcount)
    done.count("alerts", connection.execute(delete(alerts).where(alerts.c.id.in_(wanted))).rowcount)


def _forget_events(connection: Connection, condition: ColumnElement[bool], forget: Forget, done: Erased) -> None:
    for row in connection.execute(select(outbox).where(condition).order_by(outbox.c.seq).with_for_update()).all():
        left: dict[str, Any] = {name: forget.json(getattr(row, name)) for name in ("body", "page")}
        left |= {n: forget.text(v) if (v := getattr(row, n)) is not None else None for n in ("group_key", "last_error")}
        _change(connection, outbox, row, left, done)


def _forget_audit(connection: Connection, condition: ColumnElement[bool], forget: Forget, done: Erased) -> None:
    for row in connection.execute(select(audit).where(condition).order_by(audit.c.id)).all():
        _change(connection, audit, row, {name: forget.json(getattr(row, name)) for name in ("before", "after")}, done)


def _forget_texts(
    connection: Connection, table: Table, columns: Sequence[str], names: Sequence[str], forget: Forget, done: Erased
) -> None:
    for row in connection.execute(select(table).where(_contains([table.c[name] for name in columns], names))).all():
        left = {name: forget.text(value) if (value := getattr(row, name)) is not None else None for name in columns}
        _change(connection, table, row, left, done)


def _change(connection: Connection, table: Table, row: Row[Any], left: dict[str, Any], done: Erased) -> None:
    changed = {name: value for name, value in left.items() if value != getattr(row, name)}
    if changed:
        (key,) = table.primary_key.columns
        connection.execute(update(table).where(key == row._mapping[key.name]).values(changed))
        done.count(table.name, 1)


def _contains(columns: Sequence[Any], names: Collection[str]) -> ColumnElement[bool]:
    """Rows whose columns, as text, hold one of the names; which words those are is looked at afterwards."""
    return or_(
        *(
            func.strpos(func.coalesce(cast(column, Text), ""), form) > 0
            for column in columns
            for form in like_forms(names)
        )
    )
