"""Rate limits in a moving window of one minute: requests by token, failed authentications by address.

Contract: a `Limiter` belongs to one process and counts in memory; with several processes the limits multiply.
`count_request` counts a request of a token, `count_failure` an invalid token from an address: both return the seconds
to wait where the limit is exceeded, else None. `blocked` asks the same of an address without counting.

An address is one IPv4 address, or an IPv6 /64 network, which is what one customer has. A token that was valid before
is `known` and passes whatever its neighbours do: behind one proxy or NAT all have one address.
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
_MAX_KEYS = 10_000
_MAX_KNOWN = 1_000


class Limiter:
    """The counters of one process."""

    def __init__(self, requests: int = REQUESTS_A_MINUTE, failures: int = FAILURES_A_MINUTE) -> None:
        self._requests = RateLimitItemPerMinute(requests, namespace="token")
        self._failures = RateLimitItemPerMinute(failures, namespace="address")
        self._storage = MemoryStorage()
        self._windows = MovingWindowRateLimiter(self._storage)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def count_request(self, token: uuid.UUID) -> int | None:
        return self._hit(self._requests, str(token))

    def count_failure(self, address: str) -> int | None:
        return self._hit(self._failures, network(address))

    def blocked(self, address: str) -> int | None:
        with self._lock:
            key = network(address)
            return None if self._windows.test(self._failures, key) else self._wait(self._failures, key)

    def remember(self, digest: bytes) -> None:
        """A token was valid; only the latest are remembered."""
        with self._lock:
            self._known[digest] = None
            self._known.move_to_end(digest)
            while len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)

    def forget(self, digest: bytes) -> None:
        with self._lock:
            self._known.pop(digest, None)

    def known(self, digest: bytes) -> bool:
        with self._lock:
            return digest in self._known

    def _hit(self, item: RateLimitItem, key: str) -> int | None:
        with self._lock:
            self._drop_empty()
            return None if self._windows.hit(item, key) else self._wait(item, key)

    def _wait(self, item: RateLimitItem, key: str) -> int:
        return max(1, math.ceil(self._windows.get_window_stats(item, key).reset_time - time.time()))

    def _drop_empty(self) -> None:
        events = self._storage.events
        if len(events) > _MAX_KEYS:
            for key in [key for key, times in list(events.items()) if not times]:
                self._storage.clear(key)


def network(address: str) -> str:
    """The address, or the network, that counts as one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a socket without an address
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
