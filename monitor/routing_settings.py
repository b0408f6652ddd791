"""The settings of notifications (`monitor.settings.Settings` has them): destinations, routes, intervals, inhibition.

Contract: they are checked against each other when the settings are read; `routing` is what decides where an alert goes.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from alerts.destinations import Destination
from alerts.routing.inhibition import InhibitRule
from alerts.routing.intervals import TimeInterval
from alerts.routing.routing import Routing, routing_of
from alerts.routing.tree import Route


class RoutingSettings(BaseSettings):
    """Part of all settings."""

    destinations: tuple[Destination, ...] = Field(
        (Destination(name="console", kind="console"),),
        description="where alerts go: a list of tables, for each kind as in docs/destinations.md",
    )
    time_intervals: tuple[TimeInterval, ...] = Field(
        (), description="named time intervals, in which routes hold notifications (docs/routing.md)"
    )
    inhibit_rules: tuple[InhibitRule, ...] = Field(
        (), description="which live alerts hold the notifications of which others (docs/routing.md)"
    )
    # After what it refers to.
    route: Route | None = Field(
        None,
        description="which alerts go to which destinations: a tree of routes (docs/routing.md); without it all "
        "go to all",
    )

    @field_validator("destinations")
    @classmethod
    def _names_differ(cls, value: tuple[Destination, ...]) -> tuple[Destination, ...]:
        names = [d.name for d in value]
        if len(set(names)) != len(names):
            raise ValueError("two destinations share a name")
        return value

    @field_validator("time_intervals")
    @classmethod
    def _intervals_differ(cls, value: tuple[TimeInterval, ...]) -> tuple[TimeInterval, ...]:
        names = [interval.name for interval in value]
        if len(set(names)) != len(names):
            raise ValueError("two time intervals share a name")
        return value

    @field_validator("route")
    @classmethod
    def _refers_to_what_there_is(cls, value: Route | None, info: Any) -> Route | None:
        if value is not None and {"destinations", "time_intervals"} <= info.data.keys():
            names = [destination.name for destination in info.data["destinations"]]
            routing_of(names, value, (), info.data["time_intervals"])
        return value

    @cached_property
    def routing(self) -> Routing:
        """Where alerts go, and what holds notifications of them."""
        names = [destination.name for destination in self.destinations]
        return routing_of(names, self.route, self.inhibit_rules, self.time_intervals)
