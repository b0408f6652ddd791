"""Rate limits in a moving window of one minute: requests by token, failed authentications by address.

Contract: a `Limiter` belongs to one process and counts in memory; with several processes the limits multiply.
`count_request` counts a request of a token, `count_failure` an invalid token from an address, `count_sign_on` a single
sign-on that begins there: each returns the seconds to wait where the limit is exceeded, else None. `blocked` asks the
same of an address without counting.

An address is one IPv4 address, or an IPv6 /64 network, which is what one customer has. Behind one proxy or NAT all have
one address: who asks lets a good token pass there whatever its neighbours do (`monitor.web.auth.live`).
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
import uuid

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

REQUESTS_A_MINUTE = 600
FAILURES_A_MINUTE = 30
SIGN_ONS_A_MINUTE = 30

# The library keeps an empty list for each key that it ever saw.
_MAX_KEYS = 10_000


class Limiter:
    """The counters of one process."""

    def __init__(self, requests: int = REQUESTS_A_MINUTE, failures: int = FAILURES_A_MINUTE) -> None:
        self._requests = RateLimitItemPerMinute(requests, namespace="token")
        self._failures = RateLimitItemPerMinute(failures, namespace="address")
        self._sign_ons = RateLimitItemPerMinute(SIGN_ONS_A_MINUTE, namespace="sign-on")
        self._storage = MemoryStorage()
        self._windows = MovingWindowRateLimiter(self._storage)
        self._lock = threading.Lock()

    def count_request(self, token: uuid.UUID) -> int | None:
        return self._hit(self._requests, str(token))

    def count_failure(self, address: str) -> int | None:
        return self._hit(self._failures, network(address))

    def count_sign_on(self, address: str) -> int | None:
        return self._hit(self._sign_ons, network(address))

    def blocked(self, address: str) -> int | None:
        with self._lock:
            key = network(address)
            return None if self._windows.test(self._failures, key) else self._wait(self._failures, key)

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
