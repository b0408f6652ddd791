"""The text of an object of an unknown kind: its strings, in order.

Contract: strings under names that mean text are read; so are those under other names that look like prose (they hold
white space, or letters beyond ASCII): ids, URLs and kinds do not. Base64 is counted as data and not read.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats import inner
from monitor.stream.formats.reading import MAX_DEPTH, Reading

_TEXT = frozenset(
    [
        "text",
        "content",
        "contents",
        "value",
        "values",
        "arguments",
        "args",
        "input",
        "output",
        "outputs",
        "query",
        "queries",
        "prompt",
        "message",
        "messages",
        "parts",
        "part",
        "body",
        "title",
        "caption",
        "transcript",
        "code",
        "command",
        "stdout",
        "stderr",
        "result",
        "results",
        "response",
        "answer",
        "question",
        "thinking",
        "reasoning",
        "summary",
        "refusal",
        "description",
        "instructions",
        "instruction",
        "system",
        "context",
        "snippet",
        "document",
        "documents",
        "markdown",
        "html",
        "quote",
        "logs",
        "patch",
        "diff",
        "json",
    ]
)


def strings(raw: Any, into: Reading) -> list[str]:
    """Every string that counts as text, in order. Iterates: any depth is safe, what is over MAX_DEPTH is left out."""
    found: list[str] = []
    waiting: list[tuple[str, Any, int]] = [("text", raw, 0)]
    while waiting:
        key, value, depth = waiting.pop()
        if isinstance(value, str):
            if not value.strip():
                continue
            if inner.is_blob(value):
                into.count("data")
            elif key in _TEXT or not value.isascii() or any(each.isspace() for each in value.strip()):
                found.append(value)
        elif isinstance(value, dict | list):
            if depth >= MAX_DEPTH:
                into.nested()
            elif isinstance(value, dict):
                waiting += [(name, each, depth + 1) for name, each in reversed(value.items())]
            else:
                waiting += [(key, each, depth + 1) for each in reversed(value)]
        elif isinstance(value, int | float) and not isinstance(value, bool) and key in _TEXT:
            found.append(str(value))
    return found
