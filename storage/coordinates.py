"""Where a message came from, and text as PostgreSQL can hold it: what readers and writers of the tables share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class Coordinates:
    """Where a message came from; for JSON lines partition is 0 and offset the byte offset. `sub` counts the messages
    within one record, from 0."""

    source: str
    partition: int
    offset: int
    sub: int = 0

    def __post_init__(self) -> None:
        # A file's name may not be valid text; coordinates must equal what the tables give back.
        object.__setattr__(self, "source", clean(self.source))

    def __str__(self) -> str:
        return f"{self.source}/{self.partition}/{self.offset}{f'.{self.sub}' if self.sub else ''}"


def clean(value: Any) -> Any:
    """What PostgreSQL can hold of a string, list or dict: NUL becomes its picture, a lone surrogate U+FFFD."""
    if isinstance(value, str):
        if not _may_need_cleaning(value):
            return value
        return value.replace("\x00", "\u2400").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {clean(k): clean(v) for k, v in value.items()}
    if isinstance(value, list):
        return [clean(v) for v in value]
    return value


def _may_need_cleaning(text: str) -> bool:
    return not text.isascii() or "\x00" in text
