"""Erases names from alerts and what is kept of them: events, silences, states of rules, the audit, sums of a tenant.

Contract: `erase_references` is called with messages that are about to be deleted, in their transaction: it unlinks them
from alerts, takes their ids out of the alerts' events and audit rows, and deletes alerts of conversations that have no
message left. `erase_names` is called once, at the end: it deletes alerts, silences, states of rules, tokens and sums
that name the erased tenant or conversation, and takes the name out of the texts that people wrote and of what waits for
destinations. A name is one as a whole and of its kind (`storage.forget`): silences of a tenant are nothing to the
erasure of a user. An alert of the monitor itself is about all tenants and loses the name of the one that it names.

Names of people who operate awry (who acknowledged an alert, who made a token) stay: they are no subject of monitoring.
With an `Erased` that is `dry` the same is counted and nothing is changed (`storage.erase_preview`).
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Table,
    and_,
    delete,
    false,
    func,
    not_,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.sql import ColumnElement

from storage.coordinates import Coordinates
from storage.erase_rows import Erased, change, contains, forget_audit, forget_events, forget_texts, held
from storage.erasures import Kind, Target
from storage.forget import Forget
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
# A key with more than a rule and what that measures: labels, such as a tenant.
_OF_ONE = "%:%:%"
# Alerts of the monitor itself on all tenants: the tenant that they have is the one with the most of it.
_OF_ALL = and_(alerts.c.kind == "monitor", alerts.c.dedup_key.not_like(_OF_ONE))
PLACE = (
    "(a.{0}->>'source' = gone.source AND a.{0}->'partition' = to_jsonb(gone.partition) "
    "AND a.{0}->'offset' = to_jsonb(gone.\"offset\") AND coalesce(a.{0}->'sub', '0') = to_jsonb(gone.sub))"
)
_GONE = (
    'json_to_recordset(CAST(:rows AS json)) AS gone (source text, partition integer, "offset" bigint, sub integer, '
    "day date)"
)
_REFERRING = text(
    f"SELECT DISTINCT a.id FROM alerts AS a JOIN {_GONE} ON {PLACE.format('first_message')} "  # noqa: S608
    f"OR {PLACE.format('top_message')}"
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
    ids = {name for row in rows for name in (row.message_id, row.trace_id) if name}
    delete_alerts(connection, over, target, ids, places, done)
    forget_in_alerts(connection, referring - over, target, ids, places, done)


def forget_in_alerts(
    connection: Connection,
    touched: Collection[uuid.UUID],
    target: Target,
    ids: Collection[str],
    places: Collection[Coordinates],
    done: Erased,
) -> None:
    """Takes messages, their ids and places, out of alerts that stay, and of their events and audit."""
    if not touched:
        return
    forget = Forget(_names(target, ids), places)
    of_alert = alerts.c.id.in_(sorted(touched))
    for row in held(connection, select(alerts).where(of_alert).order_by(alerts.c.dedup_key), done):
        change(
            connection, alerts, row, {n: forget.json(getattr(row, n)) for n in ("first_message", "top_message")}, done
        )
    pages = select(outbox.c.page_id).where(outbox.c.alert_id.in_(sorted(touched)), outbox.c.page_id.is_not(None))
    of_events = or_(outbox.c.alert_id.in_(sorted(touched)), outbox.c.id.in_(pages))
    forget_events(connection, of_events, forget, done)
    forget_audit(connection, audit.c.alert_id.in_(sorted(touched)), forget, done)


def erase_names(connection: Connection, target: Target, done: Erased) -> None:
    """What names the target itself; the last step, when no message of it is left."""
    silenced = _silences_of(connection, target)
    delete_alerts(connection, alerts_of(connection, target), target, (), (), done)
    _delete_silences(connection, silences.c.id.in_(silenced), done)
    for table, condition in _naming(target).items():
        number = connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one()
        done.count(table.name, number)
        if not done.dry:
            connection.execute(delete(table).where(condition))
    stated = _stated(target)
    done.touch("rule_states", connection.execute(select(rule_states.c.dedup_key).where(stated)).scalars())
    if not done.dry:
        connection.execute(delete(rule_states).where(stated))
    value, names = target.value, [target.value]
    if target.kind == "tenant":
        for row in held(connection, select(alerts).where(alerts.c.tenant == value, _OF_ALL), done):
            change(connection, alerts, row, {"tenant": None}, done)
        for row in held(connection, select(rule_states).where(rule_states.c.subject["tenant"].astext == value), done):
            change(connection, rule_states, row, {"subject": {**row.subject, "tenant": None}}, done)
    if target.kind == "id":
        # Of messages that retention has dropped.
        for name in ("first_message", "top_message"):
            for row in held(connection, select(alerts).where(alerts.c[name]["id"].astext == value), done):
                change(connection, alerts, row, {name: None}, done)
    key = alerts.c.dedup_key
    kept = set(connection.execute(select(key).where(_not_of(target), contains([key], names))).scalars())
    forget = Forget(_names(target, ()), kept=kept)
    columns = (outbox.c.body, outbox.c.page, outbox.c.group_key, outbox.c.last_error)
    forget_events(connection, contains(columns, names), forget, done)
    forget_audit(connection, contains((audit.c.before, audit.c.after), names), forget, done)
    forget_texts(connection, silences, "comment", names, forget, done)
    forget_texts(connection, destinations, "last_error", names, forget, done)


def _naming(target: Target) -> dict[Table, ColumnElement[bool]]:
    """By table, the rows that are of the target and go whole, beside alerts, their states and silences."""
    value = target.value
    if target.kind == "tenant":
        return {
            score_rollups: score_rollups.c.tenant == value[:_ROLLUP_NAME],
            web_sessions: web_sessions.c.tenant == value,
            api_tokens: api_tokens.c.tenant == value,
        }
    return {alert_messages: alert_messages.c.message_id == value} if target.kind == "id" else {}


def _stated(target: Target) -> ColumnElement[bool]:
    """States of rules that are about the target alone."""
    if target.kind == "tenant":
        return and_(rule_states.c.subject["tenant"].astext == target.value, rule_states.c.dedup_key.like(_OF_ONE))
    if target.kind == "conversation":
        return and_(rule_states.c.subject["conversation_id"].astext == target.value)
    return false()


def alerts_of(connection: Connection, target: Target) -> set[uuid.UUID]:
    """Alerts that are of a tenant or a conversation."""
    if target.kind not in ("tenant", "conversation"):
        return set()
    return set(connection.execute(select(alerts.c.id).where(not_(_not_of(target)))).scalars())


def _not_of(target: Target) -> ColumnElement[bool]:
    """Alerts that stay."""
    if target.kind == "tenant":
        return or_(alerts.c.tenant.is_distinct_from(target.value), _OF_ALL)
    if target.kind == "conversation":
        return alerts.c.conversation_id.is_distinct_from(target.value)
    return true()


def _names(target: Target, ids: Collection[str]) -> dict[Kind, set[str]]:
    names: dict[Kind, set[str]] = {"id": set(ids)}
    names.setdefault(target.kind, set()).add(target.value)
    return names


def _silences_of(connection: Connection, target: Target) -> list[uuid.UUID]:
    """Those of a tenant, by its name or a pattern that is the name and `*`; and those of one key that was the tenant's
    or the conversation's, and is no key of an alert that stays."""
    if target.kind not in ("tenant", "conversation"):
        return []
    key = silences.c.dedup_key
    stays = select(alerts.c.dedup_key).where(_not_of(target))
    named = connection.execute(select(silences.c.id, key).where(contains([key], [target.value]), key.not_in(stays)))
    forget = Forget({target.kind: [target.value]}, kept=())
    found = [row.id for row in named if forget.names_key(row.dedup_key)]
    of_alerts = silences.c.dedup_key.in_(select(alerts.c.dedup_key).where(not_(_not_of(target))))
    whole = silences.c.tenant == target.value
    pattern = func.btrim(silences.c.tenant, "*") == target.value
    of = or_(of_alerts, whole, pattern) if target.kind == "tenant" else of_alerts
    return [*found, *connection.execute(select(silences.c.id).where(of)).scalars()]


def _delete_silences(connection: Connection, condition: ColumnElement[bool], done: Erased) -> None:
    done.touch("silences", connection.execute(select(silences.c.id).where(condition)).scalars())
    if not done.dry:
        connection.execute(delete(silences).where(condition))


def delete_alerts(
    connection: Connection,
    ids: Collection[uuid.UUID],
    target: Target,
    message_ids: Collection[str],
    places: Collection[Coordinates],
    done: Erased,
) -> None:
    """Alerts with their events; what is grouped with one of those is grouped anew. `message_ids` and `places` are of
    messages that they had."""
    if not ids:
        return
    wanted = sorted(ids)
    rows = held(connection, select(alerts).where(alerts.c.id.in_(wanted)).order_by(alerts.c.dedup_key), done)
    keys = sorted({row.dedup_key for row in rows})
    names = _names(target, message_ids)
    names.setdefault("conversation", set()).update(row.conversation_id for row in rows if row.conversation_id)
    members = select(alert_messages).where(alert_messages.c.alert_id.in_(wanted)).limit(_MEMBERS)
    for each in connection.execute(members):
        names["id"] |= {each.message_id} if each.message_id is not None else set()
        places = {*places, Coordinates(each.source, each.partition, each.offset, each.sub)}
    forget = Forget(names, places, keys=keys, only={str(each) for each in wanted})
    of_them = select(outbox.c.id).where(outbox.c.alert_id.in_(wanted))
    freed = {"page_id": None, "page": None, "formed_at": None, "claim_id": None}
    if not done.dry:
        left = and_(outbox.c.page_id.in_(of_them), outbox.c.alert_id.not_in(wanted))
        connection.execute(update(outbox).where(left).values(freed))
    pages = select(outbox.c.page_id).where(outbox.c.alert_id.in_(wanted), outbox.c.page_id.is_not(None))
    carried = and_(outbox.c.id.in_(pages), outbox.c.alert_id.not_in(wanted))
    forget_events(connection, carried, forget, done)
    forget_audit(connection, audit.c.alert_id.in_(wanted), forget, done)
    _delete_silences(connection, silences.c.dedup_key.in_(keys), done)
    done.touch("outbox", connection.execute(of_them).scalars())
    done.touch("alerts", wanted)
    stated = rule_states.c.dedup_key.in_(keys)
    done.touch("rule_states", connection.execute(select(rule_states.c.dedup_key).where(stated)).scalars())
    if done.dry:
        return
    connection.execute(delete(outbox).where(outbox.c.alert_id.in_(wanted)))
    connection.execute(delete(rule_states).where(stated))
    linked = connection.execute(delete(alert_messages).where(alert_messages.c.alert_id.in_(wanted)))
    done.count("alert_messages", linked.rowcount)
    connection.execute(delete(alerts).where(alerts.c.id.in_(wanted)))
