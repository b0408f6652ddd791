"""What the reader of a format finds in a payload, before it is checked.

A reader fills in a `Draft` with values as they came: it knows where a format keeps things, and nothing of what they may
look like. `monitor.stream.parse` checks the side fields, flattens contents (`content.py`) and makes the wire message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class UnreadableError(ValueError):
    """Nothing can be read: the text is the reason, which names the field and quotes nothing."""


@dataclass(slots=True)
class Draft:
    """Raw values of one message.

    `turns` are turns in any known shape (role; content as a string, parts or nothing; tool calls); `response` is a
    string, parts, one turn, or a list of turns; `tools` are declarations in any known shape. Names and times are
    whatever the payload has. `attributes` is what else there is: only listed keys of it are stored, unless the owner
    stores text. `skip` is the reason why a message has nothing to read (its names still count).
    """

    turns: list[Any]
    response: Any = None
    tools: Any = None
    id: Any = None
    model: Any = None
    tenant: Any = None
    user: Any = None
    conversation_id: Any = None
    timestamp: Any = None
    trace_id: Any = None
    attributes: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skip: str | None = None
