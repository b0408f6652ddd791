"""A stored text as turns for the page, whatever its JSON holds.

Contract: `turns` and `tools` take the column `text` of a message, `{"messages": [...], "tools": [...], "response":
"..."}`. Any part of it may be absent or of another type, since senders write it and older versions stored it. Nothing
is left out: what is no text is shown as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_KNOWN = ("role", "content", "name", "tool_calls", "tool_call_id")


@dataclass(frozen=True)
class Call:
    """A function call of a turn; `arguments` as JSON."""

    name: str
    arguments: str
    id: str


@dataclass(frozen=True)
class Turn:
    """One turn; `content` is None where there is none. `facts` is what stands beside the role."""

    role: str
    facts: str
    content: str | None
    calls: tuple[Call, ...] = ()


def turns(text: Any) -> list[Turn]:
    """The conversation and its response, in order."""
    if not isinstance(text, Mapping):
        return [Turn("text", "", _shown(text))] if text is not None else []
    messages = text.get("messages")
    found = [_turn(message) for message in messages] if isinstance(messages, list) else []
    if messages is not None and not isinstance(messages, list):
        found.append(Turn("messages", "", _shown(messages)))
    for name, value in text.items():
        # Of older versions and of other senders: a prompt, and what else there may be.
        if name not in ("messages", "tools", "response") and value is not None:
            found.append(Turn("user" if name == "prompt" else str(name), "", _shown(value)))
    response = text.get("response")
    return [*found, Turn("response", "", _shown(response))] if response is not None else found


def tools(text: Any) -> list[tuple[str, str]]:
    """Name and description of the functions that the model might call; all of it as JSON where it has no such form."""
    listed = text.get("tools") if isinstance(text, Mapping) else None
    if not listed:
        return []
    return [_tool(one) for one in listed] if isinstance(listed, list) else [("tools", _shown(listed))]


def _turn(message: Any) -> Turn:
    if not isinstance(message, Mapping):
        return Turn("turn", "", _shown(message))
    labels = (("name", "name"), ("tool_call_id", "result of"))
    facts = [f"{label} {_shown(message[key])}" for key, label in labels if message.get(key)]
    facts += [f"{key} {_shown(value)}" for key, value in message.items() if key not in _KNOWN]
    calls = message.get("tool_calls")
    content = message.get("content")
    return Turn(
        _shown(message.get("role") or "no role"),
        ", ".join(facts),
        _shown(content) if content is not None else None,
        tuple(_call(one) for one in calls) if isinstance(calls, list) else (_call(calls),) if calls else (),
    )


def _call(call: Any) -> Call:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return Call("call", _shown(call), "")
    return Call(
        _shown(function.get("name") or "no name"),
        _shown(function.get("arguments", "")),
        _shown(call.get("id") or ""),
    )


def _tool(tool: Any) -> tuple[str, str]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        return "tool", _shown(tool)
    return _shown(function.get("name") or "no name"), _shown(
        {name: value for name, value in function.items() if name != "name"}
    )


def _shown(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
