"""Taking the next page of a destination out of the outbox, and writing down what became of it.

Contract: `claim` gives a page to send and a claim on it, which lapses after LEASE; while a sender works, `renew`
prolongs it. A claim that has lapsed is somebody else's: they send the same page under the same id. `sent` is written
whoever says it, for it is true; `failed` only by whoever holds the claim. Rows of a page live and die together. Loops
take turns at one destination by its row in `destinations`, for as long as a claim takes.

`now` is the caller's: the database's time, unless a test brings its own. Where it goes back, nothing waits for longer
than it would have, but for what was held by a failure: an hour at most.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, RowMapping, and_, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from alerts.delivery.backoff import LONGEST_RETRY_AFTER, MOST_REFUSALS, wait_after
from alerts.delivery.channel import Courier
from alerts.delivery.grouping import MOST_ROWS, LastPage, Waiting, fold, news_of
from alerts.delivery.notification import Folded, make_page
from alerts.senders.base import DeliveryError, Event
from storage.schema import destinations, outbox

LEASE = timedelta(seconds=30)
# No failure holds a page or a destination for longer.
_LONGEST_HOLD = timedelta(seconds=LONGEST_RETRY_AFTER) + LEASE
Result = Literal["sent", "retried", "dead", "gone"]

_PENDING = and_(outbox.c.delivered_at.is_(None), outbox.c.dead_at.is_(None))
_SORT = text(
    "UPDATE outbox AS o SET group_key = k.key FROM "
    "unnest(CAST(:ids AS uuid[]), CAST(:keys AS text[])) AS k (id, key) WHERE o.id = k.id"
)


@dataclass(frozen=True)
class Claim:
    """A page in hand."""

    id: uuid.UUID
    event: Event


def claim(connection: Connection, name: str, courier: Courier, now: datetime) -> Claim | None:
    """The page of this destination that is due the longest; None when there is none, or nothing may be sent."""
    if not open_for_sending(connection, name, courier, now):
        return None
    _sort(connection, name, courier)
    _set_back(connection, name, courier, now)
    while True:
        again = _due_page(connection, name, now)
        group = _due_group(connection, name, now)
        if again is not None and (group is None or again.due_at <= group["due_at"]):
            return _take(connection, again, now)
        if group is None:
            return None
        formed = _form(connection, name, courier, group["group_key"], now)
        if formed is not None:
            return _take(connection, formed, now)


def open_for_sending(connection: Connection, name: str, courier: Courier, now: datetime) -> bool:
    """Whether anything may be sent to this destination now; its row stays locked until the transaction ends."""
    query = select(destinations).where(destinations.c.name == name).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        values = {"name": name, "fingerprint": courier.fingerprint}
        connection.execute(insert(destinations).values(values).on_conflict_do_nothing())
        row = connection.execute(query).one()
    if row.fingerprint != courier.fingerprint:
        changes = {"failures": 0, "held_until": None, "last_error": None, "disabled_at": None, "refreshed_at": None}
        _note(connection, name, {"fingerprint": courier.fingerprint, **changes})
        # Nor does a page wait for what was wrong before.
        connection.execute(
            update(outbox)
            .where(outbox.c.destination == name, _PENDING, outbox.c.claim_id.is_(None), outbox.c.due_at > now)
            .values(due_at=now)
        )
        return True
    return row.disabled_at is None and (row.held_until is None or not now < row.held_until <= now + _LONGEST_HOLD)


def _sort(connection: Connection, name: str, courier: Courier) -> None:
    """Give new rows their group: transactions leave that to whoever knows the destination."""
    query = (
        select(outbox.c.id, outbox.c.body)
        .where(outbox.c.destination == name, _PENDING, outbox.c.group_key.is_(None))
        .order_by(outbox.c.seq)
        .limit(MOST_ROWS)
        .with_for_update(skip_locked=True)
    )
    while rows := connection.execute(query).all():
        keys = [courier.policy.group_key(row.body["data"]) for row in rows]
        connection.execute(_SORT, {"ids": [row.id for row in rows], "keys": keys})


def _set_back(connection: Connection, name: str, courier: Courier, now: datetime) -> None:
    """What is due later than anything can be waits for a clock that was set back: it is due now."""
    farthest = timedelta(seconds=courier.policy.wait + courier.policy.interval) + LEASE
    waiting = and_(outbox.c.page_id.is_(None), outbox.c.group_key.is_not(None), outbox.c.due_at > now + farthest)
    formed = and_(outbox.c.page_id == outbox.c.id, outbox.c.due_at > now + _LONGEST_HOLD)
    # One after the other: each has an index of its own.
    for late in (waiting, formed):
        connection.execute(update(outbox).where(outbox.c.destination == name, _PENDING, late).values(due_at=now))


def _due_page(connection: Connection, name: str, now: datetime) -> Row[Any] | None:
    query = (
        select(outbox)
        .where(outbox.c.destination == name, _PENDING, outbox.c.page_id == outbox.c.id, outbox.c.due_at <= now)
        .order_by(outbox.c.due_at, outbox.c.seq)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return connection.execute(query).one_or_none()


def _due_group(connection: Connection, name: str, now: datetime) -> RowMapping | None:
    """The group that waits longest, of those that have no page on its way."""
    page = outbox.alias("page")
    on_its_way = select(page.c.id).where(
        page.c.destination == name,
        page.c.group_key == outbox.c.group_key,
        page.c.page_id == page.c.id,
        page.c.delivered_at.is_(None),
        page.c.dead_at.is_(None),
    )
    query = (
        select(outbox.c.group_key, outbox.c.due_at)
        .where(
            outbox.c.destination == name,
            _PENDING,
            outbox.c.page_id.is_(None),
            outbox.c.group_key.is_not(None),
            outbox.c.due_at <= now,
            ~on_its_way.exists(),
        )
        .order_by(outbox.c.due_at, outbox.c.seq)
        .limit(1)
    )
    return connection.execute(query).mappings().one_or_none()


def _form(connection: Connection, name: str, courier: Courier, key: str, now: datetime) -> Row[Any] | None:
    """Fold what waits for a group into a page, or let it wait on."""
    query = (
        select(outbox)
        .where(outbox.c.destination == name, outbox.c.group_key == key, _PENDING, outbox.c.page_id.is_(None))
        .order_by(outbox.c.seq)
        .limit(MOST_ROWS)
        .with_for_update(skip_locked=True)
    )
    rows = {row.id: row for row in connection.execute(query)}
    waiting = [Waiting(r.id, r.alert_id, r.event, r.body["data"]["severity"], r.created_at) for r in rows.values()]
    last = _last_page(connection, name, key) if courier.policy.interval else None
    members, until = fold(waiting, courier.policy, now, last)
    if until is not None:
        connection.execute(update(outbox).where(outbox.c.id.in_(rows)).values(due_at=until))
        return None
    if not members:  # somebody else has them in hand
        return None
    folded = [Folded(m.alert_id, m.event, rows[m.id].body) for m in members]
    page = make_page(
        connection,
        folded,
        name,
        key,
        grouped=bool(courier.policy.by),
        links=courier.links,
        include_text=courier.include_text,
    )
    carrier = members[0].id
    ids = [m.id for m in members]
    connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(page_id=carrier, formed_at=now))
    query_back = update(outbox).where(outbox.c.id == carrier).values(page=page).returning(outbox)
    return connection.execute(query_back).one()


def _last_page(connection: Connection, name: str, key: str) -> LastPage | None:
    """The last page about firing alerts of this group, and the gravest thing that it said."""
    query = (
        select(outbox.c.formed_at, outbox.c.event, outbox.c.page)
        .where(outbox.c.destination == name, outbox.c.group_key == key, outbox.c.page.is_not(None))
        .order_by(outbox.c.formed_at.desc())
        .limit(10)
    )
    for row in connection.execute(query):
        if news_of(row.page["type"]) == "firing":
            return LastPage(row.formed_at, row.page["data"]["severity"])
    return None


def _take(connection: Connection, row: Row[Any], now: datetime) -> Claim:
    taken = uuid.uuid4()
    values = {"attempts": row.attempts + 1, "due_at": now + LEASE, "claim_id": taken}
    connection.execute(update(outbox).where(outbox.c.id == row.id).values(values))
    event = Event(row.id, row.destination, row.page["type"], row.page, row.attempts + 1, row.created_at)
    return Claim(taken, event)


def renew(connection: Connection, one: Claim, now: datetime) -> bool:
    """Prolong a claim; False when it is somebody else's by now."""
    held = and_(outbox.c.id == one.event.id, outbox.c.claim_id == one.id)
    done = connection.execute(update(outbox).where(held).values(due_at=now + LEASE))
    return bool(done.rowcount)


def sent(connection: Connection, one: Claim, now: datetime) -> Result:
    """It arrived."""
    answered(connection, one.event.destination)
    connection.execute(
        update(outbox)
        .where(outbox.c.page_id == one.event.id, outbox.c.delivered_at.is_(None))
        .values(delivered_at=now, dead_at=None, last_error=None, claim_id=None)
    )
    return "sent"


def failed(connection: Connection, one: Claim, courier: Courier, error: DeliveryError, now: datetime) -> Result:
    """It did not arrive: wait, give up, or stop sending to this destination at all."""
    name, why = one.event.destination, str(error)[:500]
    if error.fault == "page":
        answered(connection, name)
        until = now + timedelta(seconds=wait_after(one.event.attempts, error.retry_after))
    else:
        until = refused(connection, name, error, now)
    held = and_(outbox.c.id == one.event.id, outbox.c.claim_id == one.id, _PENDING)
    changes: dict[str, Any] = {"due_at": until, "last_error": why, "claim_id": None}
    if error.fault == "page":
        changes["refusals"] = outbox.c.refusals + 1
    row = connection.execute(update(outbox).where(held).values(changes).returning(outbox)).one_or_none()
    if error.fault == "gone":
        return "gone"
    if row is not None and (row.refusals >= MOST_REFUSALS or now - row.formed_at >= courier.give_up):
        dead = update(outbox).where(outbox.c.page_id == row.id, _PENDING)
        connection.execute(dead.values(dead_at=now, last_error=why))
        return "dead"
    return "retried"


def answered(connection: Connection, name: str) -> None:
    """The destination is there."""
    connection.execute(
        update(destinations)
        .where(destinations.c.name == name, destinations.c.failures > 0)
        .values(failures=0, held_until=None, last_error=None)
    )


def refused(connection: Connection, name: str, error: DeliveryError, now: datetime) -> datetime:
    """The destination is not there: until when nothing is sent to it. For good, it is disabled."""
    row = connection.execute(select(destinations).where(destinations.c.name == name).with_for_update()).one()
    until = now + timedelta(seconds=wait_after(row.failures + 1, error.retry_after))
    values: dict[str, Any] = {"failures": row.failures + 1, "held_until": until, "last_error": str(error)[:500]}
    if error.fault == "gone":
        # Pages wait for the day when somebody enables it again.
        until = now
        values |= {"disabled_at": now, "held_until": None}
    _note(connection, name, values)
    return until


def _note(connection: Connection, name: str, values: dict[str, Any]) -> None:
    connection.execute(update(destinations).where(destinations.c.name == name).values(values))


def database_now(connection: Connection) -> datetime:
    """The database's time: the one clock that all loops share."""
    found: datetime = connection.execute(select(func.now())).scalar_one()
    return found
