"""What waits for the model, taken in turn by tenant: one tenant's flood does not delay another's first message.

Contract: `take` gives the tenants a turn each, in the order in which they last had one; of one tenant, what came first.
Tenants of `priority` have three turns of four as long as they wait, and the others the fourth, so that nobody starves.
What names no tenant counts as one tenant.

Not thread-safe. Does not know: what it holds.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
Tenant = str | None

# Of so many turns, one is for those without priority.
_TURNS = 4


class FairQueue(Generic[T]):
    """Items by tenant, each with its size in bytes."""

    def __init__(self, priority: Collection[str] = ()) -> None:
        self._priority = frozenset(priority)
        self._first: OrderedDict[Tenant, deque[tuple[T, int]]] = OrderedDict()
        self._others: OrderedDict[Tenant, deque[tuple[T, int]]] = OrderedDict()
        self._length = 0
        self._turns = 0
        self.bytes = 0

    def __len__(self) -> int:
        return self._length

    def put(self, item: T, tenant: Tenant, size: int) -> None:
        """At the end of its tenant's."""
        ring = self._first if tenant in self._priority else self._others
        ring.setdefault(tenant, deque()).append((item, size))
        self._length += 1
        self.bytes += size

    def take(self) -> T:
        """The next one. Raises IndexError where there is none."""
        ring = self._next_ring()
        tenant, waiting = ring.popitem(last=False)
        item, size = waiting.popleft()
        if waiting:
            ring[tenant] = waiting
        self._length -= 1
        self.bytes -= size
        return item

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Drop everything else."""
        for ring in (self._first, self._others):
            for tenant, waiting in list(ring.items()):
                kept = deque(each for each in waiting if wanted(each[0]))
                self._length -= len(waiting) - len(kept)
                self.bytes -= sum(size for _, size in waiting) - sum(size for _, size in kept)
                if kept:
                    ring[tenant] = kept
                else:
                    del ring[tenant]

    def by_tenant(self) -> Iterator[tuple[Tenant, int, T]]:
        """Each tenant with the number of its items and the first of them."""
        for ring in (self._first, self._others):
            for tenant, waiting in ring.items():
                yield tenant, len(waiting), waiting[0][0]

    def _next_ring(self) -> OrderedDict[Tenant, deque[tuple[T, int]]]:
        if not self._length:
            raise IndexError("nothing waits")
        if not self._first or not self._others:
            return self._first or self._others
        self._turns = (self._turns + 1) % _TURNS
        return self._first if self._turns else self._others
