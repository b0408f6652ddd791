"""The route tree, as Alertmanager's: an alert enters at the root and goes to the destinations of routes that match it.

Contract: an alert goes down into every child that matches, in order, up to and with the first one without `continue`;
where no child matches, the route itself is meant. A route without `destinations` has its parent's. The root matches
everything and names destinations, so that no alert is without one; it has no time intervals. While an interval in
`mute_time_intervals` holds, or while none in `active_time_intervals` does, notifications by that route are held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from alerts.routing.matchers import Matcher, Matchers, match_all


class Route(BaseModel):
    """One route as it is written in the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True)

    destinations: tuple[str, ...] | None = None
    matchers: Matchers = ()
    continue_: bool = Field(False, alias="continue")
    mute_time_intervals: tuple[str, ...] = ()
    active_time_intervals: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()

    @field_validator("destinations", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list | tuple) and not value:
            raise ValueError("name at least one; what nobody is to be told of is an [[exception]] or a shadow rule")
        return value

    @model_validator(mode="after")
    def _matches_something(self) -> Route:
        for i, child in enumerate(self.routes):
            if not child.matchers and not child.continue_ and i + 1 < len(self.routes):
                raise ValueError(f"routes[{i}]: matches every alert, so the routes after it are never reached")
        return self


@dataclass(frozen=True)
class Node:
    """A route with what it inherits. `id` is readable and the same as long as the route is: its matchers from the root,
    and its place among children with the same."""

    id: str
    destinations: tuple[str, ...]
    matchers: tuple[Matcher, ...] = ()
    continues: bool = False
    mute: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
    children: tuple[Node, ...] = ()

    def match(self, labels: Mapping[str, str]) -> list[Node]:
        """The routes that an alert with these labels goes by."""
        if not match_all(self.matchers, labels):
            return []
        found: list[Node] = []
        for child in self.children:
            matched = child.match(labels)
            found += matched
            if matched and not child.continues:
                break
        return found or [self]

    def walk(self) -> Iterator[Node]:
        """This route and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def build(root: Route, at: str = "route") -> Node:
    """The tree; ValueError names the field of what cannot be."""
    if not root.destinations:
        raise ValueError(f"{at}.destinations: is missing; the root names where alerts go that no other route matches")
    for name in ("matchers", "continue_", "mute_time_intervals", "active_time_intervals"):
        if getattr(root, name):
            raise ValueError(f"{at}.{name.rstrip('_')}: the root has none: it takes what no other route does")
    return _node(root, "{}", root.destinations)


def _node(route: Route, id_: str, inherited: tuple[str, ...]) -> Node:
    destinations = route.destinations or inherited
    children, seen = [], dict[str, int]()
    for child in route.routes:
        name = f"{id_}/{{{','.join(sorted(map(str, child.matchers)))}}}"
        seen[name] = seen.get(name, -1) + 1
        children.append(_node(child, f"{name}#{seen[name]}" if seen[name] else name, destinations))
    return Node(
        id=id_,
        destinations=destinations,
        matchers=route.matchers,
        continues=route.continue_,
        mute=route.mute_time_intervals,
        active=route.active_time_intervals,
        children=tuple(children),
    )


def names_used(route: Route, at: str = "route") -> Iterator[tuple[str, str, str]]:
    """(where it is written, `destination` or `interval`, the name) of everything that routes refer to."""
    for name in route.destinations or ():
        yield f"{at}.destinations", "destination", name
    for field in ("mute_time_intervals", "active_time_intervals"):
        for name in getattr(route, field):
            yield f"{at}.{field}", "interval", name
    for i, child in enumerate(route.routes):
        yield from names_used(child, f"{at}.routes[{i}]")
