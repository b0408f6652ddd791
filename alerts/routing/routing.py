"""Routes, time intervals and inhibition of one configuration, checked against each other.

Contract: `routing_of` gives a `Routing`, or raises ValueError with the field that is wrong. Without a route all alerts
go to all destinations. `Destinations` is what callers hand to whoever makes rows of the outbox: names, or a routing
that decides by the alert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from alerts.routing.inhibition import InhibitRule
from alerts.routing.intervals import TimeInterval, end_after, holding
from alerts.routing.matchers import labels_of
from alerts.routing.tree import Node, Route, build, names_used


@dataclass(frozen=True)
class Held:
    """A notification is held by time intervals: by which, and until when, as far as that is known."""

    by: str
    until: datetime | None


@dataclass(frozen=True)
class Routing:
    """Where alerts go, and when notifications of them are held."""

    root: Node
    intervals: tuple[TimeInterval, ...] = ()
    inhibit_rules: tuple[InhibitRule, ...] = ()

    @cached_property
    def holds(self) -> bool:
        """Whether anything may ever be held."""
        return bool(self.inhibit_rules) or any(node.mute or node.active for node in self.root.walk())

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        """All routes by id."""
        return {node.id: node for node in self.root.walk()}

    def routes(self, alert: Mapping[Any, Any]) -> list[Node]:
        """The routes that an alert goes by, in the order of the tree."""
        return self.root.match(labels_of(alert))

    def destinations(self, alert: Mapping[Any, Any]) -> dict[str, list[str]]:
        """The destinations of an alert, each with the ids of the routes that lead there."""
        found: dict[str, list[str]] = {}
        for node in self.routes(alert):
            for name in node.destinations:
                found.setdefault(name, []).append(node.id)
        return found

    def held(self, routes: Sequence[str] | None, at: datetime) -> Held | None:
        """What holds a notification by these routes: all of them must be muted. One that is no longer there does not
        hold anything."""
        held = None
        for id_ in routes or ():
            node = self.nodes.get(id_)
            found = self._muted(node, at) if node is not None else None
            if found is None:
                return None
            if held is None or (found.until is not None and (held.until is None or found.until < held.until)):
                held = found
        return held

    def _muted(self, node: Node, at: datetime) -> Held | None:
        mute, active = self._named(node.mute), self._named(node.active)
        names = holding(mute, at)
        if names:
            return Held(f"mute time interval {names[0]}", end_after(mute, at))
        if active and not holding(active, at):
            return Held(f"outside of active time interval {active[0].name}", end_after(active, at, inside=False))
        return None

    def _named(self, names: Sequence[str]) -> list[TimeInterval]:
        return [interval for interval in self.intervals if interval.name in names]


# Who is told: all of these, or those that a routing chooses.
Destinations = Sequence[str] | Routing


def routing_of(
    names: Sequence[str],
    route: Route | None,
    inhibit_rules: Sequence[InhibitRule] = (),
    intervals: Sequence[TimeInterval] = (),
) -> Routing:
    """The routing of a configuration with destinations of these names. Raises ValueError."""
    known = [interval.name for interval in intervals]
    if route is None:
        return Routing(Node("{}", tuple(names)), tuple(intervals), tuple(inhibit_rules))
    for where, what, name in names_used(route):
        if what == "destination" and name not in names:
            raise ValueError(f"{where}: there is no destination {name}; there are {', '.join(names)}")
        if what == "interval" and name not in known:
            raise ValueError(f"{where}: there is no time interval {name}; there are {', '.join(known) or 'none'}")
    return Routing(build(route), tuple(intervals), tuple(inhibit_rules))


def chosen(destinations: Destinations, alert: Mapping[Any, Any]) -> dict[str, list[str]]:
    """The destinations of an alert with the routes that lead there."""
    if isinstance(destinations, Routing):
        return destinations.destinations(alert)
    return {name: [] for name in destinations}
