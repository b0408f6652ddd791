"""How much waits for the model by tenant, and how long, read at each scrape.

Contract: within `watching_waiting(waiting)` the metrics are on the registry. Tenants are what senders write, so only
MOST_TENANTS of them are shown, those that have waited longest; the rest are one, `(others)`. A tenant of which nothing
waits has no series. What names no tenant is `-`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from monitor.telemetry.metrics import REGISTRY, WAITING_MESSAGES, WAITING_SECONDS, family

MOST_TENANTS = 10
OTHERS = "(others)"
NONE = "-"


@dataclass(frozen=True)
class Waiting:
    """The number of records that wait, and the timestamp of the first of them."""

    records: int
    oldest: datetime | None


class WaitingCollector(Collector):
    """Asks `waiting` at each scrape, which gives what waits by tenant."""

    def __init__(self, waiting: Callable[[], dict[str | None, Waiting]]) -> None:
        self._waiting = waiting

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [family(WAITING_MESSAGES), family(WAITING_SECONDS)]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        number, age = self.describe()
        now = datetime.now(UTC)
        for tenant, waiting in _longest(self._waiting()).items():
            number.add_metric((tenant,), waiting.records)
            if waiting.oldest is not None:
                age.add_metric((tenant,), max(0.0, (now - waiting.oldest).total_seconds()))
        return [number, age]


def _longest(waiting: dict[str | None, Waiting]) -> dict[str, Waiting]:
    """The tenants that wait longest, by the labels they have, and the rest together."""
    latest = datetime.max.replace(tzinfo=UTC)
    ordered = sorted(waiting.items(), key=lambda item: (item[1].oldest or latest, -item[1].records))
    shown: dict[str, Waiting] = {}
    for n, (tenant, each) in enumerate(ordered):
        label = OTHERS if n >= MOST_TENANTS else NONE if tenant is None else tenant
        before = shown.get(label, Waiting(0, None))
        shown[label] = Waiting(before.records + each.records, before.oldest or each.oldest)
    return shown


@contextmanager
def watching_waiting(waiting: Callable[[], dict[str | None, Waiting]]) -> Iterator[None]:
    """What waits is shown within the block."""
    collector = WaitingCollector(waiting)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
