"""What waits by tenant at a scrape: the longest waits of a bounded number of tenants, and the rest as one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from monitor.telemetry.metrics import REGISTRY
from monitor.telemetry.waiting import MOST_TENANTS, Waiting, watching_waiting


class Source:
    """What the collector asks of a source."""

    def __init__(self, **minutes: float) -> None:
        self.waiting: dict[str | None, Waiting] = {
            tenant: Waiting(2, datetime.now(UTC) - timedelta(minutes=each)) for tenant, each in minutes.items()
        }


@contextmanager
def watched(source: Any) -> Iterator[None]:
    with watching_waiting(lambda: source.waiting):
        yield


def shown(name: str) -> dict[str, float]:
    """The values by tenant."""
    families = {f.name: f for f in REGISTRY.collect()}
    return {s.labels["tenant"]: s.value for s in families[name].samples}


def test_number_and_age_by_tenant() -> None:
    source = Source(shop=2, bank=1)
    source.waiting[None] = Waiting(5, None)
    with watched(source):
        assert shown("awry_tenant_waiting_messages") == {"shop": 2, "bank": 2, "-": 5}
        ages = shown("awry_tenant_waiting_seconds")
    assert ages == {"shop": pytest.approx(120, abs=30), "bank": pytest.approx(60, abs=30)}


def test_the_longest_waits_are_shown_and_the_rest_is_one() -> None:
    tenants = {f"t{n}": float(n) for n in range(MOST_TENANTS + 5)}
    with watched(Source(**tenants)):
        numbers, ages = shown("awry_tenant_waiting_messages"), shown("awry_tenant_waiting_seconds")
    longest = {f"t{n}" for n in range(5, MOST_TENANTS + 5)}
    assert numbers.keys() == ages.keys() == longest | {"(others)"}
    assert numbers["(others)"] == 10
    assert ages["(others)"] == pytest.approx(4 * 60, abs=30)


def test_tenants_whose_names_are_those_labels() -> None:
    """A scrape with two series of one name would be refused whole."""
    source = Source(**{"-": 1, "(others)": 2}, **{f"t{n}": 3.0 for n in range(MOST_TENANTS)})
    source.waiting[None] = Waiting(1, datetime.now(UTC) - timedelta(minutes=9))
    with watched(source):
        families = {f.name: f for f in REGISTRY.collect()}
        labels = [s.labels["tenant"] for s in families["awry_tenant_waiting_messages"].samples]
        assert sum(shown("awry_tenant_waiting_messages").values()) == 2 * (MOST_TENANTS + 2) + 1
    assert len(labels) == len(set(labels))


def test_outside_the_block_there_is_nothing() -> None:
    with watched(Source(shop=1)):
        pass
    assert "awry_tenant_waiting_messages" not in {f.name for f in REGISTRY.collect()}
