"""Turns by tenant: nobody's flood delays another's first message, nothing is lost, order within a tenant stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.stream.fair import FairQueue

TENANTS = st.sampled_from([None, "a", "b", "c"])


def filled(*tenants: str | None, priority: tuple[str, ...] = ()) -> FairQueue[tuple[str | None, int]]:
    queue: FairQueue[tuple[str | None, int]] = FairQueue(priority)
    for number, tenant in enumerate(tenants):
        queue.put((tenant, number), tenant, 10)
    return queue


def taken(queue: FairQueue[tuple[str | None, int]], number: int) -> list[tuple[str | None, int]]:
    return [queue.take() for _ in range(number)]


def test_a_flood_does_not_delay_anothers_first() -> None:
    queue = filled(*["a"] * 100, "b", "b", None)
    assert taken(queue, 6) == [("a", 0), ("b", 100), (None, 102), ("a", 1), ("b", 101), ("a", 2)]


def test_of_one_tenant_it_is_first_in_first_out() -> None:
    assert [n for _, n in taken(filled(*["a"] * 5), 5)] == [0, 1, 2, 3, 4]


def test_who_had_a_turn_waits_for_the_others() -> None:
    """Also when it comes back after it had nothing left."""
    queue = filled("a", "b", "c")
    assert queue.take() == ("a", 0)
    queue.put(("a", 9), "a", 1)
    assert [tenant for tenant, _ in taken(queue, 3)] == ["b", "c", "a"]


def test_priority_has_three_turns_of_four() -> None:
    queue = filled(*["a"] * 10, *["p"] * 10, priority=("p", "q"))
    assert "".join(str(tenant) for tenant, _ in taken(queue, 20)) == "pppapppapppapaaaaaaa"


def test_those_with_priority_take_turns_too() -> None:
    queue = filled(*["p"] * 10, "q", priority=("p", "q"))
    assert [tenant for tenant, _ in taken(queue, 3)] == ["p", "q", "p"]


def test_nothing_to_take() -> None:
    with pytest.raises(IndexError):
        filled().take()


@given(st.lists(TENANTS, max_size=30), st.sets(st.sampled_from(["a", "b"])), st.sets(st.integers(0, 29)))
def test_all_that_is_kept_comes_once_in_its_tenants_order(
    tenants: list[str | None], priority: set[str], kept: set[int]
) -> None:
    queue = filled(*tenants, priority=tuple(priority))
    queue.keep(lambda item: item[1] in kept)
    expected = [(tenant, n) for n, tenant in enumerate(tenants) if n in kept]
    assert (len(queue), queue.bytes) == (len(expected), 10 * len(expected))
    by_tenant = {tenant: (number, first) for tenant, number, first in queue.by_tenant()}
    for tenant in set(tenants):
        own = [each for each in expected if each[0] == tenant]
        assert by_tenant.get(tenant) == ((len(own), own[0]) if own else None)
    found = taken(queue, len(queue))
    assert sorted(found, key=lambda item: item[1]) == expected
    for tenant in set(tenants):
        assert [n for t, n in found if t == tenant] == [n for t, n in expected if t == tenant]
    assert (len(queue), queue.bytes, list(queue.by_tenant())) == (0, 0, [])


@given(st.lists(TENANTS, min_size=1, max_size=40))
def test_between_two_turns_of_one_everybody_has_one(tenants: list[str | None]) -> None:
    found = [tenant for tenant, _ in taken(filled(*tenants), len(tenants))]
    left = {tenant: tenants.count(tenant) for tenant in tenants}
    last: dict[str | None, int] = {}
    for turn, tenant in enumerate(found):
        waiting = {other for other, number in left.items() if number and other != tenant}
        if tenant in last:
            assert waiting <= set(found[last[tenant] : turn])
        left[tenant] -= 1
        last[tenant] = turn
