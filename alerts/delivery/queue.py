"""The outbox as a queue of notifications with leases: claim the next one of a destination, and record the result.

Contract: `claim` gives a notification and a claim on it, which expires after LEASE; while a sender works, `renew`
extends it. After that another loop may claim the notification, and sends it under the same id. `record_sent` applies
whoever calls it, for it is true; `record_failure` only for the holder of the claim. All rows of a notification are
delivered or dead together. Loops take turns at one destination by a lock on its row in `destinations`, for as long as
claiming takes.

`now` is the caller's: the database's time, unless a test brings its own. When it goes back, nothing waits for longer
than it would have, except for a pause after a failure: an hour at most.

In the table, `page_id` and `page` are the id and the body of a notification: the row whose own id is the `page_id`
carries it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, RowMapping, and_, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from alerts.delivery.backoff import MAX_REFUSALS, MAX_RETRY_AFTER, wait_after
from alerts.delivery.channel import Channel
from alerts.delivery.grouping import MAX_EVENTS, LastNotification, PendingEvent, Policy, is_quiet, next_group
from alerts.delivery.holding import let_go
from alerts.delivery.notification import AlertEvent, notification_body
from alerts.senders.base import DeliveryError, Notification, kind_of_event
from storage.database import try_row
from storage.schema import destinations, outbox

LEASE = timedelta(seconds=30)
# No failure pauses a notification or a destination for longer.
_MAX_PAUSE = timedelta(seconds=MAX_RETRY_AFTER) + LEASE
Result = Literal["sent", "retried", "dead", "gone"]

_PENDING = and_(outbox.c.delivered_at.is_(None), outbox.c.dead_at.is_(None))
_SET_GROUP_KEYS = text(
    "UPDATE outbox AS o SET group_key = k.key FROM "
    "unnest(CAST(:ids AS uuid[]), CAST(:keys AS text[])) AS k (id, key) WHERE o.id = k.id"
)


@dataclass(frozen=True)
class Claim:
    """A notification that one loop sends until the lease expires. `id` is another one with each claim."""

    id: uuid.UUID
    notification: Notification


def claim(connection: Connection, name: str, channel: Channel, now: datetime) -> Claim | None:
    """Claim the notification of this destination that is due the longest; None when none is, or none may be sent."""
    if not may_send(connection, name, channel, now):
        return None
    _assign_groups(connection, name, channel)
    _release_after_clock_change(connection, name, channel, now)
    while True:
        retry = _due_notification(connection, name, now)
        group = _due_group(connection, name, now)
        if retry is not None and (group is None or retry.due_at <= group["due_at"]):
            return _claim_row(connection, retry, now)
        if group is None:
            return None
        formed = _form_notification(connection, name, channel, group["group_key"], now)
        if formed is not None:
            return _claim_row(connection, formed, now)


def may_send(connection: Connection, name: str, channel: Channel, now: datetime) -> bool:
    """Whether anything may be sent to this destination now; its row stays locked until the transaction ends."""
    query = select(destinations).where(destinations.c.name == name).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        values = {"name": name, "fingerprint": channel.fingerprint}
        connection.execute(insert(destinations).values(values).on_conflict_do_nothing())
        row = connection.execute(query).one()
    if row.fingerprint != channel.fingerprint:
        changes = {"failures": 0, "held_until": None, "last_error": None, "disabled_at": None, "refreshed_at": None}
        _update_destination(connection, name, {"fingerprint": channel.fingerprint, **changes})
        # Retries do not wait for what was wrong before.
        connection.execute(
            update(outbox)
            .where(outbox.c.destination == name, _PENDING, outbox.c.claim_id.is_(None), outbox.c.due_at > now)
            .values(due_at=now)
        )
        return True
    return row.disabled_at is None and (row.held_until is None or not now < row.held_until <= now + _MAX_PAUSE)


def _assign_groups(connection: Connection, name: str, channel: Channel) -> None:
    """Set the group of new rows: only the delivery knows the destination's policy, who enqueues does not."""
    query = (
        select(outbox.c.id, outbox.c.body)
        .where(outbox.c.destination == name, _PENDING, outbox.c.group_key.is_(None))
        .order_by(outbox.c.seq)
        .limit(MAX_EVENTS)
        .with_for_update(skip_locked=True)
    )
    while rows := connection.execute(query).all():
        keys = [channel.policy.group_key(row.body["data"]) for row in rows]
        connection.execute(_SET_GROUP_KEYS, {"ids": [row.id for row in rows], "keys": keys})


def _release_after_clock_change(connection: Connection, name: str, channel: Channel, now: datetime) -> None:
    """A row that is due later than is possible was written before the clock was set back: it is due now."""
    farthest = timedelta(seconds=channel.policy.wait + channel.policy.interval) + LEASE
    waiting = and_(outbox.c.page_id.is_(None), outbox.c.group_key.is_not(None), outbox.c.due_at > now + farthest)
    formed = and_(outbox.c.page_id == outbox.c.id, outbox.c.due_at > now + _MAX_PAUSE)
    # Two statements: each has an index of its own.
    for too_late in (waiting, formed):
        connection.execute(update(outbox).where(outbox.c.destination == name, _PENDING, too_late).values(due_at=now))


def _due_notification(connection: Connection, name: str, now: datetime) -> Row[Any] | None:
    query = (
        select(outbox)
        .where(outbox.c.destination == name, _PENDING, outbox.c.page_id == outbox.c.id, outbox.c.due_at <= now)
        .order_by(outbox.c.due_at, outbox.c.seq)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return connection.execute(query).one_or_none()


def _due_group(connection: Connection, name: str, now: datetime) -> RowMapping | None:
    """The group that is due the longest, of those with no notification in flight."""
    earlier = outbox.alias("earlier")
    in_flight = select(earlier.c.id).where(
        earlier.c.destination == name,
        earlier.c.group_key == outbox.c.group_key,
        earlier.c.page_id == earlier.c.id,
        earlier.c.delivered_at.is_(None),
        earlier.c.dead_at.is_(None),
    )
    query = (
        select(outbox.c.group_key, outbox.c.due_at)
        .where(
            outbox.c.destination == name,
            _PENDING,
            outbox.c.page_id.is_(None),
            outbox.c.group_key.is_not(None),
            outbox.c.due_at <= now,
            ~in_flight.exists(),
        )
        .order_by(outbox.c.due_at, outbox.c.seq)
        .limit(1)
    )
    return connection.execute(query).mappings().one_or_none()


def _form_notification(connection: Connection, name: str, channel: Channel, key: str, now: datetime) -> Row[Any] | None:
    """Form a notification of the pending events of a group, or let them wait."""
    query = (
        select(outbox)
        .where(outbox.c.destination == name, outbox.c.group_key == key, _PENDING, outbox.c.page_id.is_(None))
        # What is held and not due would be in the way of what is not.
        .where(or_(outbox.c.held_by.is_(None), outbox.c.due_at <= now))
        .order_by(outbox.c.seq)
        .limit(MAX_EVENTS)
        .with_for_update(skip_locked=True)
    )
    found = list(connection.execute(query).all())
    if channel.routing is not None:
        found = let_go(connection, name, channel.routing, found, now)
    rows = {row.id: row for row in found}
    pending = [PendingEvent(r.id, r.alert_id, r.event, r.body["data"]["severity"], r.created_at) for r in rows.values()]
    last = _last_notification(connection, name, key, channel.policy) if channel.policy.by else None
    members, until = next_group(pending, channel.policy, now, last)
    if until is not None:
        connection.execute(update(outbox).where(outbox.c.id.in_(rows)).values(due_at=until))
        return None
    if not members:  # all are held, or another loop has locked them
        return None
    body = notification_body(
        connection,
        [AlertEvent(member.alert_id, member.event, rows[member.id].body) for member in members],
        name,
        key,
        grouped=bool(channel.policy.by),
        links=channel.links,
        include_text=channel.include_text,
    )
    carrier = members[0].id
    ids = [member.id for member in members]
    formed = update(outbox).where(outbox.c.id.in_(ids)).values(page_id=carrier, formed_at=now, held_by=None)
    carried = update(outbox).where(outbox.c.id == carrier).values(page=body)
    refused = try_row(connection, lambda: (connection.execute(formed), connection.execute(carried)))
    if refused is not None:  # it would be refused again, and nothing behind it would be sent
        dead = update(outbox).where(outbox.c.id.in_(ids))
        connection.execute(dead.values(dead_at=now, last_error=f"the database refused the notification ({refused})"))
        return None
    return connection.execute(select(outbox).where(outbox.c.id == carrier)).one()


def _last_notification(connection: Connection, name: str, key: str, policy: Policy) -> LastNotification | None:
    """When the group's last notification about firing alerts was formed, its highest severity, and whether it was the
    first after a quiet time."""
    query = (
        select(outbox.c.formed_at, outbox.c.event, outbox.c.page)
        .where(outbox.c.destination == name, outbox.c.group_key == key, outbox.c.page.is_not(None))
        .order_by(outbox.c.formed_at.desc())
        .limit(10)
    )
    firing = [row for row in connection.execute(query) if kind_of_event(row.page["type"]) == "firing"]
    if not firing:
        return None
    last = firing[0]
    after_quiet = len(firing) == 1 or is_quiet(firing[1].formed_at, last.formed_at, policy)
    return LastNotification(last.formed_at, last.page["data"]["severity"], after_quiet)


def _claim_row(connection: Connection, row: Row[Any], now: datetime) -> Claim:
    claim_id = uuid.uuid4()
    values = {"attempts": row.attempts + 1, "due_at": now + LEASE, "claim_id": claim_id}
    connection.execute(update(outbox).where(outbox.c.id == row.id).values(values))
    attempt = row.attempts + 1
    return Claim(claim_id, Notification(row.id, row.destination, row.page["type"], row.page, attempt, row.created_at))


def renew(connection: Connection, claimed: Claim, now: datetime) -> bool:
    """Extend a claim; False when another loop has the notification by now."""
    ours = and_(outbox.c.id == claimed.notification.id, outbox.c.claim_id == claimed.id)
    renewed = connection.execute(update(outbox).where(ours).values(due_at=now + LEASE))
    return bool(renewed.rowcount)


def record_sent(connection: Connection, claimed: Claim, now: datetime) -> Result:
    """The notification was delivered."""
    mark_reachable(connection, claimed.notification.destination)
    connection.execute(
        update(outbox)
        .where(outbox.c.page_id == claimed.notification.id, outbox.c.delivered_at.is_(None))
        .values(delivered_at=now, dead_at=None, last_error=None, claim_id=None)
    )
    return "sent"


def record_failure(
    connection: Connection, claimed: Claim, channel: Channel, error: DeliveryError, now: datetime
) -> Result:
    """The attempt failed: retry later, give up, or stop sending to this destination."""
    notification, message = claimed.notification, str(error)[:500]
    name = notification.destination
    if error.fault == "notification":
        mark_reachable(connection, name)
        until = now + timedelta(seconds=wait_after(notification.attempts, error.retry_after))
    else:
        until = mark_unreachable(connection, name, error, now)
    ours = and_(outbox.c.id == notification.id, outbox.c.claim_id == claimed.id, _PENDING)
    changes: dict[str, Any] = {"due_at": until, "last_error": message, "claim_id": None}
    if error.fault == "notification":
        changes["refusals"] = outbox.c.refusals + 1
    row = connection.execute(update(outbox).where(ours).values(changes).returning(outbox)).one_or_none()
    if error.fault == "gone":
        return "gone"
    if row is not None and (row.refusals >= MAX_REFUSALS or now - row.formed_at >= channel.give_up):
        dead = update(outbox).where(outbox.c.page_id == row.id, _PENDING)
        connection.execute(dead.values(dead_at=now, last_error=message))
        return "dead"
    return "retried"


def mark_reachable(connection: Connection, name: str) -> None:
    """Reset the failures of a destination that answered."""
    connection.execute(
        update(destinations)
        .where(destinations.c.name == name, destinations.c.failures > 0)
        .values(failures=0, held_until=None, last_error=None)
    )


def mark_unreachable(connection: Connection, name: str, error: DeliveryError, now: datetime) -> datetime:
    """Count a failure of a destination; returns until when nothing is sent to it. One that is gone is disabled."""
    row = connection.execute(select(destinations).where(destinations.c.name == name).with_for_update()).one()
    until = now + timedelta(seconds=wait_after(row.failures + 1, error.retry_after))
    values: dict[str, Any] = {"failures": row.failures + 1, "held_until": until, "last_error": str(error)[:500]}
    if error.fault == "gone":
        # Its notifications stay pending, until somebody enables it again.
        until = now
        values |= {"disabled_at": now, "held_until": None}
    _update_destination(connection, name, values)
    return until


def _update_destination(connection: Connection, name: str, values: dict[str, Any]) -> None:
    connection.execute(update(destinations).where(destinations.c.name == name).values(values))


def database_now(connection: Connection) -> datetime:
    """The database's time: the one clock that all loops share."""
    now: datetime = connection.execute(select(func.now())).scalar_one()
    return now
