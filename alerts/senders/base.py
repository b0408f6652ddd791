"""What every sender shares: the event it gets, the error it raises, how a destination is configured."""

from __future__ import annotations

import base64
import binascii
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


@dataclass(frozen=True)
class Event:
    """One outbox row on its way out. `id` is the idempotency key: the same on every try."""

    id: uuid.UUID
    destination: str
    event: str
    body: dict[str, Any]
    attempts: int
    created_at: datetime


class DeliveryError(Exception):
    """A try that failed. `gone`: never try again. `retry_after`: seconds that the receiver asked for."""

    def __init__(self, message: str, *, gone: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.gone = gone
        self.retry_after = retry_after


class Sender(Protocol):
    """Sends one event, or raises DeliveryError."""

    def send(self, event: Event) -> None: ...


class Destination(BaseModel):
    """Where alerts go: `kind` console, or webhook with `url` and `secret` (`whsec_` and base64, Standard Webhooks)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")
    kind: Literal["console", "webhook"]
    url: str = ""
    secret: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _complete(self) -> Destination:
        if self.kind == "webhook":
            if not _is_web_address(self.url):
                raise ValueError(f"destination {self.name}: url must be http(s)://HOST/...")
            _check_secret(self.name, self.secret.get_secret_value())
        return self


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # .port raises for what is no port, which the sender would trip over later.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_secret(name: str, secret: str) -> None:
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not secret.startswith("whsec_") or not 24 <= size <= 64:
        raise ValueError(
            f"destination {name}: secret must be whsec_ and 24 to 64 bytes in base64; make one with: "
            "python -c \"import base64, secrets; print('whsec_' + "
            'base64.b64encode(secrets.token_bytes(32)).decode())"'
        )
