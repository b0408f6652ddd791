"""The values that count, where each comes from, and no secret among them.

Contract: a value is shown as JSON would write it. Secrets are `***`: settings that are secrets, the options of
destinations that are, passwords and tokens inside URLs, and whatever is called like a secret in tables and arguments of
programs. Of a URL that is a secret, its scheme and its host stay where they are no token themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, SecretStr

from monitor.setting_sources import Gathered, Place
from monitor.settings import Settings, reference

MASK = "***"
_SECRET_NAME = re.compile(
    r"pass|secret|token|credential|auth|signature|(^|[_.-])(api)?key($|[_.-])|apikey", re.IGNORECASE
)
# Tables whose keys are names of fields and probes.
_NAMED_BY_USER = ("mapping", "judge_questions", "judge_bands")
# Their host is a person's address or a token: slack://TOKEN/..., mailto://...
_WEB = ("http", "https", "syslog+udp", "syslog+tcp", "syslog+tls")
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")


@dataclass(frozen=True)
class Shown:
    """A setting as it is shown."""

    name: str
    value: Any
    places: list[Place]


def show(settings: Settings, given: Gathered) -> list[Shown]:
    """All settings, in the order of the reference."""
    return [Shown(name, shown_value(name, getattr(settings, name)), given.places(name)) for name, *_ in reference()]


def shown_value(name: str, value: Any) -> Any:
    """The value of a setting in JSON's types, without its secrets."""
    if name.endswith("_command"):
        return _arguments(value)
    return _masked(value, by_name=name not in _NAMED_BY_USER)


def _masked(value: Any, *, by_name: bool) -> Any:
    """With `by_name`, whatever is called like a secret in a table is masked."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, SecretStr):
        return _secret(value.get_secret_value())
    if isinstance(value, BaseModel):
        return {name: _masked(getattr(value, name), by_name=False) for name in sorted(value.model_fields_set)}
    if isinstance(value, Mapping):
        return {
            str(key): MASK if by_name and _is_secret(str(key)) else _masked(inner, by_name=by_name)
            for key, inner in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_masked(inner, by_name=by_name) for inner in value]
    return _text(str(value))


def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _secret(text: str) -> str:
    """`***`, or of a URL what is no secret in it."""
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        return MASK
    if parts.scheme in _POSTGRES:
        return _text(text)
    if parts.scheme in _WEB and host:
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{MASK}"
    return f"{parts.scheme}://{MASK}" if parts.scheme and "://" in text else MASK if text else ""


def _text(text: str) -> str:
    """A text with the passwords of URLs in it masked."""
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return MASK
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    netloc = f"{name}{colon}{MASK if colon else ''}{at}{host}"
    query = "&".join(_argument(part) for part in parts.query.split("&"))
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def _argument(written: str) -> str:
    name, equals, _ = written.partition("=")
    return f"{name}={MASK}" if equals and _is_secret(name.strip("-")) else written


def _arguments(words: Sequence[Any]) -> list[str]:
    """A program's arguments: what stands after --api-key, or in --api-key=..., is masked."""
    shown: list[str] = []
    for i, word in enumerate(map(str, words)):
        before = str(words[i - 1]) if i else ""
        follows = before.startswith("-") and "=" not in before and _is_secret(before.strip("-"))
        shown.append(MASK if follows and not word.startswith("-") else _argument(_text(word)))
    return shown
