"""Posting JSON to an address that an owner gave: no redirects, one time limit for all of it, no private addresses.

Contract: `Poster.post` returns when the answer is 2xx, else it raises DeliveryError, which names the status or the kind
of failure and nothing of the address. The limit holds for the whole exchange, also where a receiver dribbles. A name
is looked up once, every address it has is checked, and the connection goes to one of those that were checked: an
answer of the name server that changes in between changes nothing. Each post has a connection of its own.

Proxies of the environment are not used, since they would go around the check; a destination names its own, and then
the proxy decides where it may connect to.
"""

from __future__ import annotations

import base64
import ipaddress
import math
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpcore2
import httpx2

from alerts.senders.base import DeliveryError, Fault
from alerts.senders.tls import tls_context

TIMEOUT_SECONDS = 15.0
# More of an answer is not read: only its status counts.
_ANSWER_BYTES = 65536
# The answers that are about what was sent, not about the receiver.
_REFUSALS = {400, 405, 406, 409, 411, 413, 414, 415, 422, 431}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What Python's own tables, which differ by its version, may take for public: site-local addresses, those of protocols,
# of relays and of documentation.
_NEVER = tuple(map(ipaddress.ip_network, ("fec0::/10", "192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "5f00::/16")))


class PrivateAddressError(Exception):
    """A name has an address that is not of the public internet."""


class Poster:
    """Posts to one address."""

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
            given = f"{self._url.username}:{self._url.password}".encode()
            self._headers.setdefault("authorization", "Basic " + base64.b64encode(given).decode())
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
        # The pool is a context of its own; typed loosely because a proxy's is another class.
        with pool.stream(  # type: ignore[attr-defined]
            "POST", url, headers=sent, content=payload, extensions={"timeout": limits}
        ) as response:
            status = int(response.status)
            found = [value for name, value in response.headers if name.lower() == b"retry-after"]
            seen = 0
            try:
                for chunk in response.iter_stream():
                    seen += len(chunk)
                    if seen > _ANSWER_BYTES:
                        break
            except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException):
                pass  # the status has come, and it is all that counts
        return status, found[0].decode("latin-1") if found else None

    def _pool(self) -> Any:
        if self._tls is None:
            self._tls = tls_context(self._ca_file)
        backend = _Backend(time.monotonic() + TIMEOUT_SECONDS, self._allow_private or bool(self._proxy))
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


class _Backend(httpcore2.NetworkBackend):
    """Connects to addresses that were checked, and gives every stream the same end."""

    def __init__(self, deadline: float, allow_private: bool) -> None:
        self._deadline = deadline
        self._allow_private = allow_private
        self._real = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - what is left of the whole counts
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            addresses = checked_addresses(host, port, self._allow_private)
        except (socket.gaierror, UnicodeError):
            raise httpcore2.ConnectError("no such name") from None
        failed: Exception = httpcore2.ConnectError("no address")
        for address in addresses:
            try:
                stream = self._real.connect_tcp(address, port, _left(self._deadline), local_address, socket_options)
            except httpcore2.ConnectError as error:
                failed = error
            else:
                return _Stream(stream, self._deadline)
        raise failed

    def connect_unix_socket(self, path: str, timeout: Any = None, socket_options: Any = None) -> Any:
        raise NotImplementedError


class _Stream(httpcore2.NetworkStream):
    """A stream whose every wait ends at the deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline)), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore2.ReadTimeout("the time is over")
    return left


def checked_addresses(host: str, port: int, allow_private: bool = False) -> list[str]:
    """Every address of a host, once. PrivateAddressError when one of them is not public and that is not allowed."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    if not allow_private and not all(is_public(address) for address in addresses):
        raise PrivateAddressError
    return addresses


def is_public(address: str) -> bool:
    """Whether an address is of the public internet, also what it is in disguise: mapped, translated or tunnelled."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    special = found.is_multicast or found.is_reserved or any(found in network for network in _NEVER)
    return found.is_global and not special


def _fault(status: int) -> Fault:
    if status == 410:
        return "gone"
    return "page" if status in _REFUSALS else "destination"


def seconds_of(retry_after: str | None) -> float | None:
    """A Retry-After header, in seconds from now; None where it says nothing of use."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)
