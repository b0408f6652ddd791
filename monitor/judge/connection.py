"""One POST of JSON with one deadline for the whole exchange and a limit on the answer's size; redirects are not
followed.

Contract: `Connection(...).post(body, seconds)` gives the answer's status, its headers' `retry-after` and its body, or
raises JudgeError: `timeout`, `unreachable`, `too large`. The deadline covers the whole exchange, also where a server
sends byte by byte. A connection is kept for the next question and belongs to one thread. Neither proxies nor
credentials of the environment are used: text goes to the address that the owner set, and nowhere else.

Does not know: what is asked. A name's look-up is the system's, and has its own time limit.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpcore2

from awry.deadline import DeadlineBackend
from monitor.judge.answer import JudgeError

# No verdict is longer; a model that thinks aloud first sends that too.
MAX_ANSWER_BYTES = 262_144


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    retry_after: str | None
    body: bytes


class Connection:
    """Posts to one URL, over one connection at a time."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = httpcore2.URL(url)
        self._headers = [(b"host", _host(self._url)), (b"content-type", b"application/json")]
        self._headers += [(b"accept", b"application/json"), (b"accept-encoding", b"identity")]
        self._headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        self._backend = DeadlineBackend()
        tls = ssl.create_default_context() if self._url.scheme == b"https" else None
        self._pool = httpcore2.ConnectionPool(
            ssl_context=tls, max_connections=1, keepalive_expiry=60, network_backend=self._backend
        )

    def post(self, body: bytes, seconds: float) -> Answer:
        """Post it once. Raises JudgeError."""
        self._backend.start(seconds)
        headers = [*self._headers, (b"content-length", str(len(body)).encode())]
        limits = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
        try:
            with self._pool.stream(
                "POST", self._url, headers=headers, content=body, extensions={"timeout": limits}
            ) as response:
                answer = bytearray()
                for chunk in response.iter_stream():
                    answer += chunk
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise JudgeError("too large")
                after = next((value for name, value in response.headers if name.lower() == b"retry-after"), None)
                return Answer(int(response.status), after.decode("latin-1") if after else None, bytes(answer))
        except httpcore2.TimeoutException:
            raise JudgeError("timeout") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError):
            raise JudgeError("unreachable") from None

    def close(self) -> None:
        """Close what is open."""
        self._pool.close()


def _host(url: httpcore2.URL) -> bytes:
    default = {b"https": 443, b"http": 80}.get(url.scheme)
    host: bytes = b"[" + url.host + b"]" if b":" in url.host else url.host
    return host if url.port in (None, default) else host + b":" + str(url.port).encode()
