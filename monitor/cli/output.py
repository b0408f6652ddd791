"""What commands write besides tables: notes on standard error, JSON on standard output."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from datetime import UTC, date, datetime
from typing import Any

import typer


def say(text: str) -> None:
    """A note for the person at the terminal, on standard error: standard output is for results."""
    typer.echo(f"awry: {text}", err=True)


def print_json(document: Any) -> None:
    """One JSON document on standard output.

    Times are ISO 8601 in UTC; dataclasses are objects; numbers that JSON has not (NaN, Infinity) are null; the rest is
    text.
    """
    plain = json.loads(json.dumps(document, default=_plain), parse_constant=lambda _: None)
    typer.echo(json.dumps(plain, indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
