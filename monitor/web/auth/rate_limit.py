"""How often a client may ask: a moving window of a minute for each token, and for each address that fails.

Contract: `Limiter` belongs to one process and keeps its counts in memory; several processes allow that many times as
much. `spend` counts a request of a token and `fail` a wrong token from an address: both give the seconds to wait where
that was one too many, else None. `blocked` asks the same of an address without counting.

An address is one IPv4 address, or an IPv6 network of 64 bits, which is what one customer has. Who has shown a good
token is `known` and is let through whatever its neighbours do: behind one proxy or NAT all have one address.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
import uuid
from collections import OrderedDict

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

REQUESTS_A_MINUTE = 600
FAILURES_A_MINUTE = 30

# The library keeps an empty list for each key that it ever saw.
_KEYS = 10_000
_KNOWN = 1_000


class Limiter:
    """Counts of one API."""

    def __init__(self, requests: int = REQUESTS_A_MINUTE, failures: int = FAILURES_A_MINUTE) -> None:
        self._requests = RateLimitItemPerMinute(requests, namespace="token")
        self._failures = RateLimitItemPerMinute(failures, namespace="address")
        self._storage = MemoryStorage()
        self._windows = MovingWindowRateLimiter(self._storage)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def spend(self, token: uuid.UUID) -> int | None:
        return self._hit(self._requests, str(token))

    def fail(self, address: str) -> int | None:
        return self._hit(self._failures, network(address))

    def blocked(self, address: str) -> int | None:
        with self._lock:
            key = network(address)
            return None if self._windows.test(self._failures, key) else self._wait(self._failures, key)

    def remember(self, digest: bytes) -> None:
        """A token was good; of very many only the latest are known."""
        with self._lock:
            self._known[digest] = None
            self._known.move_to_end(digest)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)

    def forget(self, digest: bytes) -> None:
        with self._lock:
            self._known.pop(digest, None)

    def known(self, digest: bytes) -> bool:
        with self._lock:
            return digest in self._known

    def _hit(self, item: RateLimitItem, key: str) -> int | None:
        with self._lock:
            self._tidy()
            return None if self._windows.hit(item, key) else self._wait(item, key)

    def _wait(self, item: RateLimitItem, key: str) -> int:
        return max(1, math.ceil(self._windows.get_window_stats(item, key).reset_time - time.time()))

    def _tidy(self) -> None:
        events = self._storage.events
        if len(events) > _KEYS:
            for key in [key for key, found in list(events.items()) if not found]:
                self._storage.clear(key)


def network(address: str) -> str:
    """What counts as one address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a socket without an address
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
