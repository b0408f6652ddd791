"""The wire message: one conversation as a model reads it, whatever the format that it came in.

Contract: `WireMessage` holds what is scored (turns, tools, response) and what is stored beside the score. Readers of
formats (`monitor.stream.formats`) make it through a `Draft`; nothing else does. Side fields are checked by then: names
are strings within limits, the time is one that PostgreSQL can show, text has no lone surrogates.

`Invalid` is a payload, or one message of it, in which nothing could be read: its reason names the field and holds none
of the text.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from monitor.readings.schema import Reading

# One turn as chat templates take it: role and content; where there are any, tool_calls ({"id", "type": "function",
# "function": {"name", "arguments"}}), tool_call_id, name.
Turn = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Invalid:
    """What could not be read, or (`skipped`) has nothing to read; ids and names where they could be."""

    reason: str
    message_id: str | None = None
    status: Literal["invalid", "skipped"] = "invalid"
    tenant: str | None = None
    user: str | None = None
    model: str | None = None
    conversation_id: str | None = None
    format: str | None = None
    notes: tuple[str, ...] = ()
    unread: dict[str, int] = field(default_factory=dict)
    reading: Reading | None = None


@dataclass(frozen=True, slots=True)
class WireMessage:
    """A message as it came in. `id` is None where the sender gave none: it is then made from the coordinates."""

    id: str | None
    turns: list[Turn]
    response: str | None = None
    # Functions that the model may call, in OpenAI's form.
    tools: list[dict[str, Any]] = field(default_factory=list)
    model: str | None = None
    tenant: str | None = None
    user: str | None = None
    conversation_id: str | None = None
    timestamp: datetime | None = None
    trace_id: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    format: str = "awry"
    # What was dropped or changed, in closed wording.
    notes: tuple[str, ...] = ()
    # Parts without text, by kind: {"image": 2}.
    unread: dict[str, int] = field(default_factory=dict)
    # In place of turns, of a message that an engine has read itself.
    reading: Reading | None = None

    @property
    def stored_text(self) -> dict[str, Any]:
        """What privacy `full` keeps."""
        text: dict[str, Any] = {"messages": self.turns}
        if self.tools:
            text["tools"] = self.tools
        return text | {"response": self.response} if self.response is not None else text

    def as_json(self) -> dict[str, Any]:
        """As a line of awry's own JSON, what is not there left out."""
        fields = ("response", "tools", "model", "tenant", "user", "conversation_id", "trace_id", "attributes")
        line: dict[str, Any] = {"id": self.id, "messages": self.turns}
        if len(self.turns) == 1 and self.turns[0].keys() == {"role", "content"} and self.turns[0]["role"] == "user":
            line = {"id": self.id, "prompt": self.turns[0]["content"]}
        line |= {name: value for name in fields if (value := getattr(self, name))}
        return line | ({"timestamp": self.timestamp.isoformat()} if self.timestamp is not None else {})

    @property
    def text_sha256(self) -> str:
        """A hash of the conversation and its response."""
        return hashlib.sha256(json.dumps(self.stored_text, sort_keys=True).encode()).hexdigest()
