"""The formats that awry reads, one module each.

A format is a module with `NAME`, `recognises(value)` (cheap: looks at the names of fields) and `read(value)`, which
gives a `Draft` for each message and raises UnreadableError where nothing can be read. Formats are asked in the order of
FORMATS: what is more special comes first.
"""

from __future__ import annotations

from typing import Any, Protocol

from monitor.stream.formats import anthropic, awry, bedrock, gemini, litellm, openai_chat, openai_responses, otlp, turns
from monitor.stream.formats.draft import Draft


class Format(Protocol):
    """What a module of this package offers."""

    NAME: str

    def recognises(self, value: Any) -> bool:
        """Whether a decoded JSON value looks like this format."""

    def read(self, value: Any) -> list[Draft]:
        """Its messages."""


# otlp is last: a request with messages is none, whatever fields its sender adds.
FORMATS: tuple[Format, ...] = (
    *(litellm, gemini, bedrock, anthropic, openai_responses, openai_chat, turns, awry, otlp),
)
_BY_NAME = {each.NAME: each for each in FORMATS}


def names() -> tuple[str, ...]:
    """What the setting `format` may be, beside `auto`."""
    return (*_BY_NAME, "mapping")


def recognise(value: Any, named: str = "auto") -> Format | None:
    """The format of a value: the one that is named, else the first that recognises it; None where none does."""
    if named in _BY_NAME:
        return _BY_NAME[named]
    return next((each for each in FORMATS if each.recognises(value)), None)
