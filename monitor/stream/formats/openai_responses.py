"""OpenAI's Responses API: `input` (a string or items) and `instructions`; embeddings and moderations, which have an
`input` too; and pairs of `input` and `output`, as tracing tools log them.

Read are the same wrappings as for chat completions, and streamed events. Items that one answer of the assistant gave
one by one become one turn. What a request only points at (the response before, stored prompts and items) is not in a
payload: it is noted or counts as unread.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats import exchange
from monitor.stream.formats.draft import Draft
from monitor.stream.formats.openai_chat import read_any

NAME = "openai_responses"


def recognises(value: Any) -> bool:
    """Whether the request has an input and no messages."""
    found = exchange.of(value)
    if found is None:
        return False
    request = found.request
    if not request:
        response = found.response
        return isinstance(response, dict) and response.get("object") == "response"
    return "messages" not in request and (
        isinstance(request.get("input"), str | list | dict) or isinstance(request.get("prompt"), dict)
    )


def read(value: Any) -> list[Draft]:
    """A draft for each input."""
    return read_any(value)
