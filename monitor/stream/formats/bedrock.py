"""Amazon Bedrock's Converse: parts without a type, `toolUse`, `inferenceConfig`; and the log of its model invocations,
whatever the body within.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats import exchange
from monitor.stream.formats.draft import Draft
from monitor.stream.formats.openai_chat import read_any

NAME = "bedrock"

_ONLY = frozenset(
    (
        "inferenceConfig",
        "toolConfig",
        "guardrailConfig",
        "additionalModelRequestFields",
        "performanceConfig",
        "inputText",
    )
)
_PARTS = frozenset(("toolUse", "toolResult", "guardContent", "cachePoint", "reasoningContent"))


def recognises(value: Any) -> bool:
    """Whether fields or parts are Converse's."""
    found = exchange.of(value)
    if found is None:
        return False
    if any(each.get("schemaType") == "ModelInvocationLog" for each in found.around):
        return True
    request = found.request
    if not request.keys().isdisjoint(_ONLY):
        return True
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        return False
    content = messages[0].get("content") if isinstance(messages[0], dict) else None
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and "type" not in first and ("text" in first or not first.keys().isdisjoint(_PARTS))


def read(value: Any) -> list[Draft]:
    """A draft for each input."""
    return read_any(value)
