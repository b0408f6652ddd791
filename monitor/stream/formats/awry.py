"""awry's own JSON: one object a message.

`prompt` (a string) or `messages` (turns), and any of `id`, `response`, `tools`, `model`, `tenant`, `user`,
`conversation_id`, `timestamp` (ISO 8601, or seconds), `trace_id`, `attributes`. Unknown fields count as attributes.
Where both are given, `messages` is read.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats import text
from monitor.stream.formats.draft import Draft, UnreadableError

NAME = "awry"
PROMPT_NOT_READ = "prompt: not read, messages was given too"

_FIELDS = ("id", "response", "tools", "model", "tenant", "user", "conversation_id", "timestamp", "trace_id")
_KNOWN = frozenset((*_FIELDS, "prompt", "messages", "attributes"))


def recognises(value: Any) -> bool:
    """Whether there is a prompt or there are turns."""
    return isinstance(value, dict) and ("messages" in value or "prompt" in value)


def read(value: dict[str, Any]) -> list[Draft]:
    """One draft. Raises UnreadableError."""
    prompt, messages = value.get("prompt"), value.get("messages")
    notes = []
    if messages is not None and (messages or prompt is None):
        turns = _listed(messages)
        if prompt is not None:
            notes.append(PROMPT_NOT_READ)
    elif prompt is not None:
        turns = [{"role": "user", "content": prompt}]
    else:
        raise UnreadableError("messages: missing; give messages (a list of turns) or prompt (a string)")
    attributes = {key: each for key, each in value.items() if key not in _KNOWN}
    given = value.get("attributes")
    if isinstance(given, dict):
        attributes |= given
    elif given is not None:
        notes.append("attributes: dropped, not an object")
    return [Draft(turns, attributes=attributes, notes=notes, **{name: value.get(name) for name in _FIELDS})]


def _listed(messages: Any) -> list[Any]:
    """Turns that were logged as JSON in a string, or one turn by itself, as a list."""
    if isinstance(messages, str):
        messages = text.told(messages) or messages
    return messages if isinstance(messages, list) else [messages]
