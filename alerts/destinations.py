"""Destinations of alerts in the settings: one table for each, validated when the settings are read.

Contract: a `Destination` is complete for its kind, and has no option that its kind does not support: that is an error,
rather than ignored. URLs may hold tokens, so they are secrets like keys are; errors name the destination and the
option, never its value.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

from alerts.truth_values import check_truth_value

Kind = Literal["console", "webhook", "alertmanager", "pagerduty", "apprise", "syslog", "file"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Format = Literal["awry", "ocsf", "ecs"]
GroupBy = Literal["rule", "probe", "tenant", "model"]

PAGERDUTY = "https://events.pagerduty.com"
SYSLOG_SCHEMES = {"syslog+udp": 514, "syslog+tcp": 514, "syslog+tls": 6514}

_GROUPING = {"group_by", "group_wait_seconds", "group_interval_seconds"}
_HTTP = {"url", "headers", "allow_private", "proxy", "ca_file"}
_ALWAYS = {"name", "kind", "give_up_hours"}
# The options that each kind requires, and those that it supports besides.
_OPTIONS: dict[Kind, tuple[set[str], set[str]]] = {
    "console": (set(), set()),
    "webhook": ({"url", "secret"}, _HTTP | _GROUPING | {"format", "include_text"}),
    "alertmanager": ({"url"}, _HTTP | {"resend_seconds"}),
    "pagerduty": ({"routing_key"}, _HTTP | _GROUPING),
    "apprise": ({"url"}, _GROUPING | {"include_text"}),
    "syslog": ({"url"}, {"ca_file", "format", "include_text"}),
    "file": ({"path"}, {"format", "include_text"}),
}
_GROUPED: set[Kind] = {"webhook", "pagerduty", "apprise"}


class Destination(BaseModel):
    """One receiver of alerts; docs/destinations.md has an example of each kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")
    kind: Kind
    url: SecretStr = SecretStr("")
    path: Path | None = None
    # whsec_ and base64; while it is rotated several, with spaces between them: each of them signs.
    secret: SecretStr = SecretStr("")
    routing_key: SecretStr = SecretStr("")
    headers: dict[str, SecretStr] = {}
    format: Format = "awry"
    group_by: tuple[GroupBy, ...] | None = None
    group_wait_seconds: float = Field(10.0, ge=0, le=600)
    group_interval_seconds: float = Field(300.0, ge=0, le=86400)
    give_up_hours: float = Field(72.0, gt=0, le=24 * 30)
    resend_seconds: float = Field(60.0, ge=1, le=600)
    include_text: bool = False
    allow_private: bool | None = None
    proxy: SecretStr = SecretStr("")
    ca_file: Path | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_for_a_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        return check_truth_value(value, cls.model_fields[str(info.field_name)].annotation)

    @field_validator("secret")
    @classmethod
    def _signable(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        for secret in value.get_secret_value().split():
            _check_secret(str(info.data.get("name")), secret)
        return value

    @field_validator("routing_key")
    @classmethod
    def _key_of_pagerduty(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        key = value.get_secret_value()
        if key and not (len(key) == 32 and key.isascii() and key.isalnum()):
            raise _wrong(info.data.get("name"), "routing_key must be PagerDuty's 32 letters and digits")
        return value

    @field_validator("proxy")
    @classmethod
    def _proxy_address(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        if value.get_secret_value() and not _is_web_address(value.get_secret_value()):
            raise _wrong(info.data.get("name"), "proxy must be http(s)://HOST:PORT")
        return value

    @field_validator("headers")
    @classmethod
    def _sendable(cls, value: dict[str, SecretStr], info: ValidationInfo) -> dict[str, SecretStr]:
        for name, header in value.items():
            text = name + header.get_secret_value()
            if not name or not name.replace("-", "").isalnum() or not text.isascii() or not text.isprintable():
                raise _wrong(info.data.get("name"), "headers must be NAME = printable ASCII")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Destination:
        required, supported = _OPTIONS[self.kind]
        unknown = sorted(self.model_fields_set - supported - required - _ALWAYS)
        if unknown:
            raise _wrong(self.name, f"{unknown[0]} is not an option of kind {self.kind}; leave it out")
        self._check_url()
        for option in sorted(required):
            if not _is_set(getattr(self, option)):
                raise _wrong(self.name, f"{option} is needed for kind {self.kind}")
        if self.format != "awry" and self.group_by:
            raise _wrong(self.name, f"group_by must be left out with format {self.format}: it is an event each")
        return self

    def _check_url(self) -> None:
        url = self.url.get_secret_value()
        if self.kind in ("webhook", "alertmanager") or (self.kind == "pagerduty" and url):
            if not _is_web_address(url):
                raise _wrong(self.name, "url must be http(s)://HOST/...")
        elif self.kind == "syslog" and not _is_address(url, tuple(SYSLOG_SCHEMES)):
            raise _wrong(self.name, "url must be syslog+udp, syslog+tcp or syslog+tls, then ://HOST:PORT")
        elif self.kind == "apprise" and "://" not in url:
            raise _wrong(self.name, "url must be one of Apprise's, for example slack://... or mailto://...")

    @property
    def grouping(self) -> tuple[GroupBy, ...]:
        """The labels by which alerts are grouped into a notification; empty: one notification for each event."""
        if self.kind not in _GROUPED or self.format != "awry":
            return ()
        return ("rule", "probe") if self.group_by is None else self.group_by

    @property
    def may_be_private(self) -> bool:
        """Whether it may be in loopback and private networks. An Alertmanager usually is."""
        return self.kind == "alertmanager" if self.allow_private is None else self.allow_private

    @property
    def fingerprint(self) -> str:
        """A hash that changes with the configuration."""
        values = {name: _plain(getattr(self, name)) for name in type(self).model_fields}
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _wrong(name: object, what: str) -> ValueError:
    return ValueError(f"destination {name}: {what}")


def _is_set(value: object) -> bool:
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def parts_of(url: str) -> SplitResult:
    """The parts of a URL; ValueError where it is invalid, also its port."""
    parts = urlsplit(url)
    if not parts.hostname or parts.port == 0 or not url.isprintable():
        raise ValueError("not a URL")
    return parts


def _is_address(url: str, schemes: tuple[str, ...]) -> bool:
    try:
        return parts_of(url).scheme in schemes
    except ValueError:
        return False


def _is_web_address(url: str) -> bool:
    if not _is_address(url, ("http", "https")):
        return False
    # As the sender will take it apart: a name that no DNS can hold is no address.
    import httpx2

    try:
        httpx2.URL(url)
    except httpx2.InvalidURL:
        return False
    return True


def _check_secret(name: str, secret: str) -> None:
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not secret.startswith("whsec_") or not 24 <= size <= 64:
        raise _wrong(
            name,
            "secret must be whsec_ and 24 to 64 bytes in base64 (two, with a space between them, while it is changed); "
            "make one with: python -c \"import base64, secrets; print('whsec_' + "
            'base64.b64encode(secrets.token_bytes(32)).decode())"',
        )
