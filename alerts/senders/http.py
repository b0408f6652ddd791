"""Posts JSON to a configured URL: no redirects, one deadline for the whole exchange, no private addresses (SSRF guard).

Contract: `Poster.post` returns when the status is 2xx, else it raises DeliveryError, which names the status or the kind
of failure and nothing of the URL. The deadline covers the whole exchange, also when a receiver sends byte by byte. A
host name is resolved once, all its addresses are checked, and the connection goes to one of those: DNS that changes in
between (rebinding) has no effect. Each post has a connection of its own.

Proxies of the environment are not used, since they would bypass the check; a destination names its own, and then the
proxy decides where it may connect to.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpcore2
import httpx2

from alerts.senders.base import DeliveryError, Fault
from alerts.senders.tls import tls_context
from awry.deadline import DeadlineBackend, seconds_of

TIMEOUT_SECONDS = 15.0
# No more of a response is read: only its status counts.
_RESPONSE_BYTES = 65536
# Statuses that reject this notification; all others mean that the destination is down.
_REFUSALS = {400, 405, 406, 409, 411, 413, 414, 415, 422, 431}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Networks that some versions of Python take for public: site-local, protocol assignments, relays, documentation.
# The last is public by its number, and in Azure the host of whoever asks (WireServer).
_NEVER = tuple(
    map(
        ipaddress.ip_network,
        ("fec0::/10", "192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "5f00::/16", "168.63.129.16/32"),
    )
)


class PrivateAddressError(Exception):
    """A host name has an address that is not public."""


class Poster:
    """Posts to one URL."""

    def __init__(
        self,
        url: str,
        *,
        allow_private: bool = False,
        headers: Mapping[str, str] | None = None,
        proxy: str = "",
        ca_file: Path | None = None,
    ) -> None:
        self._url = httpx2.URL(url)
        self._allow_private = allow_private
        self._proxy = proxy
        self._headers = {"user-agent": "awry", "content-type": "application/json", **(headers or {})}
        if self._url.userinfo:
            credentials = f"{self._url.username}:{self._url.password}".encode()
            self._headers.setdefault("authorization", "Basic " + base64.b64encode(credentials).decode())
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None

    def post(self, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Post it once. Raises DeliveryError."""
        try:
            with self._pool() as pool:
                status, retry_after = self._exchange(pool, payload, {**self._headers, **(headers or {})})
        except PrivateAddressError:
            raise DeliveryError("a private address: set allow_private = true where that is meant") from None
        except httpcore2.TimeoutException:
            raise DeliveryError(f"no answer within {TIMEOUT_SECONDS:g} s") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError, OSError) as error:
            raise DeliveryError(f"not reachable ({type(error).__name__})") from None
        if not 200 <= status < 300:
            raise DeliveryError(f"status {status}", fault=_fault(status), retry_after=seconds_of(retry_after))

    def _exchange(
        self, pool: AbstractContextManager[Any], payload: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str | None]:
        url = httpcore2.URL(
            scheme=self._url.raw_scheme, host=self._url.raw_host, port=self._url.port, target=self._url.raw_path
        )
        host = self._url.netloc
        sent = [(b"host", host), (b"content-length", str(len(payload)).encode())]
        sent += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        limits = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_SECONDS)
        # Typed loosely because the pool of a proxy is another class.
        with pool.stream(  # type: ignore[attr-defined]
            "POST", url, headers=sent, content=payload, extensions={"timeout": limits}
        ) as response:
            status = int(response.status)
            retry_after = [value for name, value in response.headers if name.lower() == b"retry-after"]
            read = 0
            try:
                for chunk in response.iter_stream():
                    read += len(chunk)
                    if read > _RESPONSE_BYTES:
                        break
            except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException):
                pass  # the status is there, and only it counts
        return status, retry_after[0].decode("latin-1") if retry_after else None

    def _pool(self) -> Any:
        if self._tls is None:
            self._tls = tls_context(self._ca_file)
        backend = DeadlineBackend(self._addresses)
        backend.start(TIMEOUT_SECONDS)
        if self._proxy:
            proxy = httpx2.Proxy(self._proxy)
            return httpcore2.HTTPProxy(
                proxy_url=httpcore2.URL(
                    scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=b"/"
                ),
                proxy_auth=proxy.raw_auth,
                ssl_context=self._tls,
                network_backend=backend,
            )
        return httpcore2.ConnectionPool(ssl_context=self._tls, network_backend=backend)

    def _addresses(self, host: str, port: int) -> list[str]:
        """Checked ones; behind a proxy, which decides itself where it may connect to, those of the proxy."""
        try:
            return checked_addresses(host, port, self._allow_private or bool(self._proxy))
        except (socket.gaierror, UnicodeError):
            raise httpcore2.ConnectError("no such name") from None


def checked_addresses(host: str, port: int, allow_private: bool = False) -> list[str]:
    """All addresses of a host. PrivateAddressError when one of them is not public and that is not allowed."""
    resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(info[4][0]) for info in resolved))
    if not allow_private and not all(is_public(address) for address in addresses):
        raise PrivateAddressError
    return addresses


def is_public(address: str) -> bool:
    """Whether an address is public; an IPv4 address that is mapped, translated or tunnelled counts as what it is."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo or (None, None))[1]
        if parsed in _NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    special = parsed.is_multicast or parsed.is_reserved or any(parsed in network for network in _NEVER)
    return parsed.is_global and not special


def _fault(status: int) -> Fault:
    if status == 410:
        return "gone"
    return "notification" if status in _REFUSALS else "destination"
