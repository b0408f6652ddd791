"""A channel: a configured destination with its sender and its delivery policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from alerts.delivery.grouping import Policy
from alerts.destinations import Destination
from alerts.links import Links
from alerts.routing.routing import Routing
from alerts.senders.base import Sender


@dataclass(frozen=True)
class Channel:
    """`give_up`: the age at which a notification is dead. `resend_every`: how often all firing alerts are sent again;
    None for destinations that get each event once."""

    sender: Sender
    policy: Policy = Policy()  # noqa: RUF009 - frozen
    give_up: timedelta = timedelta(hours=72)
    resend_every: timedelta | None = None
    links: Links = Links()  # noqa: RUF009
    include_text: bool = False
    fingerprint: str = ""
    # What holds notifications; None: nothing does.
    routing: Routing | None = None


def make_channels(
    destinations: Iterable[Destination],
    links: Links = Links(),  # noqa: B008 - frozen
    routing: Routing | None = None,
) -> dict[str, Channel]:
    """A channel for each configured destination, by name."""
    return {destination.name: make_channel(destination, links, routing) for destination in destinations}


def make_channel(
    destination: Destination,
    links: Links = Links(),  # noqa: B008 - frozen
    routing: Routing | None = None,
) -> Channel:
    """The channel of one destination."""
    from alerts.senders import make_sender  # only a process that sends loads the senders' libraries

    resends = destination.kind == "alertmanager"
    grouped = bool(destination.grouping)
    return Channel(
        sender=make_sender(destination),
        policy=Policy(
            by=destination.grouping,
            wait=destination.group_wait_seconds if grouped else 0.0,
            interval=destination.group_interval_seconds if grouped else 0.0,
            whole=resends,
        ),
        give_up=timedelta(hours=destination.give_up_hours),
        resend_every=timedelta(seconds=destination.resend_seconds) if resends else None,
        links=links,
        include_text=destination.include_text,
        fingerprint=destination.fingerprint,
        routing=routing,
    )
