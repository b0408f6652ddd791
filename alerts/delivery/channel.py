"""A courier: a destination with its sender, and how it wants things sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from alerts.delivery.grouping import Policy
from alerts.links import Links
from alerts.destinations import Destination
from alerts.senders.base import Sender


@dataclass(frozen=True)
class Courier:
    """`give_up`: so long after a page was made it is dead. `refresh`: so often everything that stands is told anew."""

    sender: Sender
    policy: Policy = Policy()  # noqa: RUF009 - frozen
    give_up: timedelta = timedelta(hours=72)
    refresh: timedelta | None = None
    links: Links = Links()  # noqa: RUF009
    include_text: bool = False
    fingerprint: str = ""


def make_couriers(destinations: Iterable[Destination], links: Links = Links()) -> dict[str, Courier]:  # noqa: B008 - frozen
    """A courier for each configured destination, by name."""
    return {one.name: make_courier(one, links) for one in destinations}


def make_courier(one: Destination, links: Links = Links()) -> Courier:  # noqa: B008 - frozen
    """The courier of one destination."""
    from alerts.senders import make_sender  # the senders' libraries are loaded by who sends

    standing = one.kind == "alertmanager"
    return Courier(
        sender=make_sender(one),
        policy=Policy(
            by=one.grouping,
            wait=one.group_wait_seconds if one.grouping else 0.0,
            interval=one.group_interval_seconds if one.grouping else 0.0,
            whole=standing,
        ),
        give_up=timedelta(hours=one.give_up_hours),
        refresh=timedelta(seconds=one.resend_seconds) if standing else None,
        links=links,
        include_text=one.include_text,
        fingerprint=one.fingerprint,
    )
