"""Anthropic's Messages: `system` at the top, blocks (text, thinking, tools), answers with a `content` of blocks.

Read are: a request alone; with its response in the same wrappings as chat completions; lines of a message batch
(`custom_id`, `params`); streamed events. A request that has none of what is Anthropic's alone counts as one of chat
completions, which is read to the same turns.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats import exchange
from monitor.stream.formats.draft import Draft
from monitor.stream.formats.openai_chat import read_any

NAME = "anthropic"

_ONLY = frozenset(
    (
        "system",
        "anthropic_version",
        "anthropic_beta",
        "stop_sequences",
        "mcp_servers",
        "container",
        "context_management",
    )
)
_BLOCKS = frozenset(
    ("tool_use", "server_tool_use", "tool_result", "thinking", "redacted_thinking", "document", "search_result")
)
# Turns whose blocks are looked at.
_LOOKED_AT = 6


def recognises(value: Any) -> bool:
    """Whether fields or blocks are Anthropic's."""
    found = exchange.of(value)
    if found is None:
        return False
    request, response = found.request, found.response
    if request and "messages" not in request:
        return False
    if isinstance(response, dict) and (response.get("type") == "message" or "stop_reason" in response):
        return True
    if not request:
        return False
    if not request.keys().isdisjoint(_ONLY) or isinstance(request.get("thinking"), dict):
        return True
    tools = request.get("tools")
    if isinstance(tools, list) and any(isinstance(each, dict) and "input_schema" in each for each in tools[:8]):
        return True
    messages = request["messages"]
    return isinstance(messages, list) and any(_blocks(each) for each in messages[:_LOOKED_AT])


def _blocks(turn: Any) -> bool:
    content = turn.get("content") if isinstance(turn, dict) else None
    return isinstance(content, list) and any(
        isinstance(each, dict)
        and isinstance(each.get("type"), str)
        and (
            each["type"] in _BLOCKS
            or each["type"].endswith("_tool_result")
            or (each["type"] == "image" and "source" in each)
        )
        for each in content[:8]
    )


def read(value: Any) -> list[Draft]:
    """A draft for each input."""
    return read_any(value)
