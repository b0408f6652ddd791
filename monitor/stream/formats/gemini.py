"""Gemini's generateContent, in the API's and in Vertex AI's form: `contents`, `systemInstruction`, `tools`; answers
with `candidates`; streams of them; Vertex AI's `instances`. Names are in camel case or with underscores.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats import exchange
from monitor.stream.formats.draft import Draft
from monitor.stream.formats.openai_chat import read_any

NAME = "gemini"


def recognises(value: Any) -> bool:
    """Whether the request has contents or instances, or the answer candidates."""
    found = exchange.of(value)
    if found is None:
        return False
    if not found.request:
        return isinstance(found.response, dict) and "candidates" in found.response
    return "contents" in found.request or "instances" in found.request


def read(value: Any) -> list[Draft]:
    """A draft for each input."""
    return read_any(value)
