"""Who sent a request: `vllm serve --middleware probes.vllm.middleware.TrustedHeaders`.

Contract, for every POST with a JSON object as its body, whatever its path:

- `kv_transfer_params` keeps `awry` alone: the rest of it moves KV blocks between servers, and would alter what is
  computed here, and so what is scored. `vllm_xargs` cannot bring it in again.
- `awry` keeps the fields of `KEPT`, as the client wrote them, without anything that says that they are verified.
- What is missing there is taken from `metadata`, `user` and `traceparent`, then from the gateway's headers.
- Where the gateway's key is right, what its headers say of tenant and user wins, and is signed (`probes.vllm.claims`):
  it alone counts as verified. A header that comes twice, as it does where a client wrote it and a gateway appended,
  is neither's word and is left out.

A body that is no JSON object goes on as it came, byte by byte: nothing in it can be signed. A body over the limit is
refused with 413, for it cannot be looked at. Answers, streams and disconnects pass untouched. No value is logged.
Standard library alone; settings come from the file that AWRY_TRUSTED_HEADERS names (deploy/vllm/trusted.json).
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from awry.errors import AwryError
from probes.vllm.claims import FIELDS, kept_attributes, key_of, sign

FILE_VARIABLE = "AWRY_TRUSTED_HEADERS"
GATEWAY_KEY_VARIABLE = "AWRY_GATEWAY_KEY"
GATEWAY_KEY_HEADER = "x-awry-gateway-key"
# What of `kv_transfer_params.awry` a client may say. `steer` asks for mitigation.
KEPT = ("tenant", "user", "conversation_id", "trace_id", "attributes", "steer")
_TEXTS = ("tenant", "user", "conversation_id", "trace_id")
_HEADERS = {"tenant": "x-awry-tenant", "user": "x-awry-user", "conversation_id": "x-awry-conversation-id"}
# What a record holds of a name.
_LONGEST = 512
_MAX_BODY = 64 * 2**20
_SHORTEST_KEY = 16
_SETTINGS = ("headers", "gateway_key_file", "max_body_bytes")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)


class TrustedHeadersError(AwryError):
    """A setting of the middleware that cannot be used."""


@dataclass(frozen=True)
class Trusted:
    """The file's settings, and the gateway's key: without one, no header is trusted."""

    headers: Mapping[str, str] = field(default_factory=lambda: dict(_HEADERS))
    gateway_key: bytes | None = None
    max_body_bytes: int = _MAX_BODY

    @classmethod
    def load(cls, environment: Mapping[str, str] = os.environ) -> Trusted:
        path = environment.get(FILE_VARIABLE)
        given: Any = {}
        if path:
            try:
                given = json.loads(Path(path).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise TrustedHeadersError(f"{FILE_VARIABLE}: {path} cannot be read as JSON: {error}") from None
        if not isinstance(given, dict):
            raise TrustedHeadersError(f"{FILE_VARIABLE}: {path} is not a JSON object")
        unknown = sorted(set(given) - set(_SETTINGS))
        if unknown:
            raise TrustedHeadersError(f"{path}: {unknown[0]} is unknown; it may have {', '.join(_SETTINGS)}")
        return cls(
            _headers(given.get("headers", _HEADERS)),
            _gateway_key(environment, given.get("gateway_key_file")),
            _limit(given.get("max_body_bytes", _MAX_BODY)),
        )


class _NotReadError(Exception):
    """A request whose answer would go unread."""


class TrustedHeaders:
    def __init__(self, app: App, trusted: Trusted | None = None, key: bytes | None = None) -> None:
        self._app = app
        self._trusted = Trusted.load() if trusted is None else trusted
        self._key = key_of() if key is None else key
        self._told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or _is_form(scope):
            await self._app(scope, receive, send)
            return
        body, rest = await self._body(receive)
        if body is None:
            await _refuse(send, 413, f"the body is larger than {self._trusted.max_body_bytes} bytes")
            return
        if rest is not None:
            # The client is gone before its body was whole: vLLM sees what it would have seen.
            await self._app(
                scope, _again([{"type": "http.request", "body": body, "more_body": True}, rest], receive), send
            )
            return
        try:
            changed = self._rewritten(body, _headers_of(scope))
        except _NotReadError as error:
            await _refuse(send, 400, str(error))
            return
        if changed is not None:
            body = changed
            scope = {**scope, "headers": _with_length(scope["headers"], len(body))}
        await self._app(scope, _again([{"type": "http.request", "body": body, "more_body": False}], receive), send)

    async def _body(self, receive: Receive) -> tuple[bytes | None, Message | None]:
        """The whole body, or None where it is over the limit; and a disconnect that came before its end."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return b"".join(parts), message
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._trusted.max_body_bytes:
                return None, None
            if not message.get("more_body", False):
                return b"".join(parts), None

    def _rewritten(self, body: bytes, headers: Mapping[str, list[bytes]]) -> bytes | None:
        """The body with what awry may believe; None where it is no JSON object."""
        try:
            request = json.loads(body)
        except (ValueError, RecursionError):
            return None
        if not isinstance(request, dict):
            return None
        sampling = request.get("sampling_params")
        for extra in (request.get("vllm_xargs"), sampling.get("extra_args") if isinstance(sampling, dict) else None):
            if isinstance(extra, dict):
                extra.pop("kv_transfer_params", None)
        if request.get("use_beam_search"):
            # vLLM makes a request of each beam and token: no answer would be read, and its prompt many times.
            raise _NotReadError("use_beam_search: this server reads its answers, and not those of a beam search")
        said = self._said(request, headers)
        request.pop("kv_transfer_params", None)
        if said:
            request["kv_transfer_params"] = {"awry": said}
        try:
            return json.dumps(request, separators=(",", ":")).encode()
        except (ValueError, RecursionError):
            return None

    def _said(self, request: dict[str, Any], headers: Mapping[str, list[bytes]]) -> dict[str, Any]:
        params = request.get("kv_transfer_params")
        own = params.get("awry") if isinstance(params, dict) else None
        said = {name: own[name] for name in KEPT if name in own} if isinstance(own, dict) else {}
        for name in _TEXTS:
            if name in said and not _is_name(said[name]):
                del said[name]
        if "attributes" in said and kept_attributes(said["attributes"]) is None:
            del said["attributes"]
        metadata = request.get("metadata")
        for name in _TEXTS:
            if isinstance(metadata, dict) and _is_name(metadata.get(name)):
                said.setdefault(name, metadata[name])
        if _is_name(request.get("user")):
            said.setdefault("user", request["user"])
        trace = _one(headers, "traceparent")
        if trace is not None and len(trace.split("-")) >= 4:
            said.setdefault("trace_id", trace.split("-")[1])
        of_headers = {name: value for name, header in self._trusted.headers.items() if (value := _one(headers, header))}
        if self._from_gateway(headers):
            said.update(of_headers)
            vouched = {name: value for name, value in of_headers.items() if name in FIELDS}
            if vouched:
                said["verified"] = sign(vouched, self._key, secrets.token_hex(16))
        else:
            for name, value in of_headers.items():
                said.setdefault(name, value)
        return said

    def _from_gateway(self, headers: Mapping[str, list[bytes]]) -> bool:
        given = headers.get(GATEWAY_KEY_HEADER, [])
        if self._trusted.gateway_key is None or not given:
            return False
        right = len(given) == 1 and hmac.compare_digest(given[0], self._trusted.gateway_key)
        if not right and not self._told:
            self._told = True
            log.warning(
                "a request came with a wrong %s: its tenant and user count as unverified (said once)",
                GATEWAY_KEY_HEADER,
            )
        return right


def _again(messages: list[Message], receive: Receive) -> Receive:
    """`receive` for the application: what was read, then what comes, which is the client's disconnect."""
    left = iter(messages)

    async def following() -> Message:
        for message in left:
            return message
        return await receive()

    return following


def _headers_of(scope: Scope) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value)
    return found


def _with_length(headers: list[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name.lower() not in (b"content-length", b"transfer-encoding")]
    return [*kept, (b"content-length", str(length).encode())]


def _is_form(scope: Scope) -> bool:
    """Files, for transcription: vLLM reads no `kv_transfer_params` from a form."""
    given = _headers_of(scope).get("content-type", [b""])
    return given[0].lower().startswith(b"multipart/form-data")


def _one(headers: Mapping[str, list[bytes]], name: str) -> str | None:
    """A header's value where it is there once and can be a name."""
    given = headers.get(name, [])
    if len(given) != 1:
        return None
    try:
        text = given[0].decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
    return text if _is_name(text) else None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable()


async def _refuse(send: Send, status: int, why: str) -> None:
    error = {"error": {"message": why, "type": "BadRequestError", "code": status}}
    body = json.dumps(error).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _headers(given: Any) -> dict[str, str]:
    fits = isinstance(given, dict) and all(
        name in _TEXTS and isinstance(header, str) and header.isascii() and header for name, header in given.items()
    )
    if not fits:
        raise TrustedHeadersError(f"headers is not an object of {', '.join(_TEXTS)} with header names")
    return {name: header.lower() for name, header in given.items()}


def _gateway_key(environment: Mapping[str, str], file: Any) -> bytes | None:
    text = environment.get(GATEWAY_KEY_VARIABLE)
    where = GATEWAY_KEY_VARIABLE
    if text is None and file is not None:
        where = "gateway_key_file"
        try:
            text = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, TypeError, ValueError):
            raise TrustedHeadersError(f"{where}: {file} cannot be read") from None
    if text is None or (text == "" and where == GATEWAY_KEY_VARIABLE):
        return None
    if len(text) < _SHORTEST_KEY:
        raise TrustedHeadersError(f"{where} is shorter than {_SHORTEST_KEY} characters: openssl rand -hex 32")
    return text.encode()


def _limit(given: Any) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise TrustedHeadersError("max_body_bytes is not a number of bytes above 0")
    return given
