"""Parts of a turn's content, of every known provider, as text, calls and results.

Contract: `read_content` gives a `Turning` the text of a content in order; what has no text leaves a marker ([image],
[audio], [video], [file], ...) and counts as unread. A part of an unknown kind is read by its strings, never skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monitor.stream.formats import inner, tools
from monitor.stream.formats.fields import storable
from monitor.stream.formats.media import read_file, read_media
from monitor.stream.formats.reading import BESIDE_CONTENT, MAX_DEPTH, Reading
from monitor.stream.formats.strings import strings
from monitor.stream.formats.turning import Turning

Handler = Callable[[Turning, dict[str, Any], int], None]
KeyHandler = Callable[[Turning, Any, dict[str, Any], int], None]

UNKNOWN = "messages: a part of an unknown kind was read by its strings"
THINKING = "messages: thinking was read as text"
ENCRYPTED = "messages: encrypted thinking was not read"

_OUTPUTS = ("stdout", "stderr", "output", "content", "response", "result", "results", "outputs", "error", "parts")


def read_content(turn: Turning, content: Any, depth: int = 0) -> None:
    """Text, parts, or nothing."""
    if isinstance(content, str):
        turn.text(content)
    elif isinstance(content, list):
        if depth > MAX_DEPTH:
            turn.into.nested()
            return
        for part in content:
            if type(part) is dict and len(part) == 2 and part.get("type") == "text" and type(part.get("text")) is str:
                turn.text(part["text"])
            else:
                read_content(turn, part, depth + 1)
    elif isinstance(content, dict):
        _read_part(turn, content, depth)
    elif content is not None:
        turn.text(str(content))


def result_text(content: Any, into: Reading, depth: int = 0) -> str:
    """The result of a tool as text: its string, its parts, else its JSON."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict) and is_json(content):
        only = next(iter(content.values())) if len(content) == 1 and content.keys() <= _OUTPUTS_SET else None
        if isinstance(only, str):
            return only
        if not storable(content):
            into.note("messages: a result nested too deeply was read by its strings")
            return "\n".join(strings(content, into))
        return tools.dumps(content)
    within = Turning("tool", into)
    if is_json(content):
        return tools.dumps(content) if storable(content) else "\n".join(strings(content, into))
    read_content(within, content, depth + 1)
    return "\n".join(
        text
        for each in within.finish()
        for text in (each["content"], *(tools.as_text(made) for made in each.get("tool_calls", ())))
        if text
    )


def is_json(content: Any) -> bool:
    """Whether a result is data of the tool's own, not parts."""
    if isinstance(content, dict):
        return not is_part(content)
    return isinstance(content, list) and bool(content) and not any(isinstance(x, str) or is_part(x) for x in content)


def is_part(raw: Any) -> bool:
    """Whether an object looks like a part, not like a turn or other JSON."""
    if not isinstance(raw, dict):
        return False
    kind = raw.get("type")
    if isinstance(kind, str):
        return kind in _KINDS or kind.endswith(_CALLS + _RESULTS)
    return any(key in _BY_KEY for key in raw)


def _read_part(turn: Turning, part: dict[str, Any], depth: int) -> None:
    if depth > MAX_DEPTH:
        turn.into.nested()
        return
    kind = part.get("type")
    if isinstance(kind, str):
        handler = _KINDS.get(kind)
        if handler is not None:
            handler(turn, part, depth)
            return
        if kind.endswith(_RESULTS):
            _result(turn, part, depth)
            return
        if kind.endswith(_CALLS):
            _call(turn, part, depth)
            return
        _unknown(turn, part)
        return
    rest = {}
    for key, value in part.items():
        if value is None:
            continue
        by_key = _BY_KEY.get(key)
        if by_key is not None:
            by_key(turn, value, part, depth)
        elif key not in _SILENT:
            rest[key] = value
    if rest or not part:
        _unknown(turn, rest, quiet=bool(part) and len(rest) < len(part))


def _unknown(turn: Turning, part: dict[str, Any], quiet: bool = False) -> None:
    found = strings(part, turn.into)
    if found:
        turn.texts += found
        turn.into.note(UNKNOWN)
    elif not quiet:
        turn.marker("unknown")


def says_the_same(turn: Turning, value: Any, depth: int) -> bool:
    """Whether another content of a turn has nothing that is not read already: many senders write the text twice."""
    other = Turning(turn.role, Reading())
    read_content(other, value, depth + 1)
    known = "".join([*(made["content"] for made in turn.turns), *turn.texts])
    return not other.calls and not other.turns and "".join("".join(other.texts).split()) in "".join(known.split())


def _text(turn: Turning, part: dict[str, Any], depth: int) -> None:
    """The first field with text: a model reads one, and the others may be long."""
    read = False
    for key in ("text", "content", "refusal", "value"):
        value = part.get(key)
        if value and read:
            if not says_the_same(turn, value, depth):
                turn.into.note(BESIDE_CONTENT)
        elif value or value == 0:
            read = True
            if isinstance(value, dict) and "type" not in value:
                # Assistants API: {"text": {"value": ..., "annotations": []}}.
                value = value["value"] if isinstance(value.get("value"), str) else value
            read_content(turn, value, depth + 1)


def _thinking(turn: Turning, part: dict[str, Any], depth: int) -> None:
    before = len(turn.texts)
    for key in ("thinking", "text", "summary", "content", "reasoning", "reasoningText"):
        if part.get(key) is not None:
            read_content(turn, part[key], depth + 1)
    if len(turn.texts) > before:
        turn.into.note(THINKING)
    elif any(part.get(key) for key in ("encrypted_content", "signature", "redactedContent")):
        turn.into.note(ENCRYPTED)


def _call(turn: Turning, part: dict[str, Any], depth: int) -> None:
    kind = str(part.get("type", ""))
    name = next((kind[: -len(end)] for end in _CALLS if kind.endswith(end)), kind)
    if not any(part.get(key) is not None for key in ("arguments", "args", "input", *tools.INNER)):
        # A provider's own tool: what it was asked is under names of its own.
        asked = part.get("action")
        if not isinstance(asked, dict):
            asked = {key: each for key, each in part.items() if key not in _OF_CALLS and key not in _OUTPUTS}
        part = {**part, "arguments": asked}
    made = tools.call(part, turn.into, name)
    turn.calls.append(made)
    for key in ("output", "outputs", "results", "result", "error"):
        if part.get(key):
            value = part[key]
            if isinstance(value, str) and inner.is_blob(value):
                turn.marker("image" if "image" in kind else "data")
            else:
                turn.result(part, result_text(value, turn.into, depth), made["function"]["name"])


def _result(turn: Turning, part: dict[str, Any], depth: int) -> None:
    values = [part[key] for key in _OUTPUTS if part.get(key) not in (None, "", [], {})]
    nested = part.get("output")
    if isinstance(nested, dict) and nested.get("type") in ("text", "json", "error-text", "error-json", "content"):
        # The Vercel AI SDK's {"type": "text", "value": ...}.
        values = [nested["value"] if each is nested and nested.get("value") is not None else each for each in values]
    if not values:
        values = ["\n".join(strings(part, turn.into))]
    turn.result(part, result_text(values[0], turn.into, depth))
    for value in values[1:]:
        turn.turns[-1]["content"] = "\n".join(
            each for each in (turn.turns[-1]["content"], result_text(value, turn.into, depth)) if each
        )


def _media(kind: str) -> Handler:
    def read(turn: Turning, part: dict[str, Any], depth: int) -> None:
        read_media(kind, turn, part, depth, read_content)

    return read


def _file(turn: Turning, part: dict[str, Any], depth: int) -> None:
    read_file(turn, part, depth, read_content)


def _silent(turn: Turning, part: dict[str, Any], _depth: int) -> None:
    """What mostly has no text, and is then not worth a marker."""
    _unknown(turn, _without_data(part), quiet=True)
    if part.get("encrypted_content"):
        turn.into.note(ENCRYPTED)


def _marker(kind: str) -> Handler:
    def read(turn: Turning, part: dict[str, Any], _depth: int) -> None:
        turn.marker(kind)
        if len(part) > 1:
            _unknown(turn, _without_data(part), quiet=True)

    return read


def _without_data(part: dict[str, Any]) -> dict[str, Any]:
    """A part without its kind, its id, and what is encrypted (one word of ASCII)."""
    return {
        key: each
        for key, each in part.items()
        if key not in ("type", "id")
        and not (key in _ENCRYPTED and isinstance(each, str) and each.isascii() and len(each.split()) < 2)
    }


def _content(turn: Turning, part: dict[str, Any], depth: int) -> None:
    """What wraps other parts: a search result, guarded or cited content."""
    for key in ("title", "text", "content", "parts", "document", "summary"):
        if part.get(key) is not None:
            read_content(turn, part[key], depth + 1)


def _code(turn: Turning, value: Any, _part: dict[str, Any], depth: int) -> None:
    code = value.get("code", value.get("output")) if isinstance(value, dict) else value
    read_content(turn, code, depth + 1)


def _keyed(handler: Handler) -> KeyHandler:
    """A handler for parts that say their kind by the name of their only field."""

    def read(turn: Turning, value: Any, _part: dict[str, Any], depth: int) -> None:
        if isinstance(value, dict):
            handler(turn, value, depth + 1)
        elif isinstance(value, str) and handler in (_MEDIA["image"], _MEDIA["audio"], _MEDIA["video"]):
            handler(turn, {}, depth)
        else:
            read_content(turn, value, depth + 1)

    return read


def _plain(turn: Turning, value: Any, part: dict[str, Any], depth: int) -> None:
    if part.get("thought") is True and value:
        turn.into.note(THINKING)
    read_content(turn, value, depth + 1)


def _key_result(turn: Turning, value: Any, _part: dict[str, Any], depth: int) -> None:
    if isinstance(value, dict):
        _result(turn, value, depth + 1)
    else:
        read_content(turn, value, depth + 1)


def _key_call(turn: Turning, value: Any, _part: dict[str, Any], _depth: int) -> None:
    turn.calls.append(tools.call(value, turn.into))


def _json(turn: Turning, value: Any, _part: dict[str, Any], depth: int) -> None:
    turn.text(result_text(value, turn.into, depth + 1))


_ENCRYPTED = ("encrypted_content", "data", "signature")
_CALLS = ("_call", "_use", "-call", "_approval_request")
_RESULTS = ("_result", "_output", "_tool_response", "_call_response", "-result", "_approval_response")
_OUTPUTS_SET = frozenset(_OUTPUTS)
_OF_CALLS = frozenset(
    ["type", "id", "status", "call_id", "name", "tool_use_id", "action", "created_by", "container_id"]
)
# Names beside a part's own that hold no text.
_SILENT = frozenset(
    [
        "type",
        "thought",
        "thoughtSignature",
        "thought_signature",
        "cachePoint",
        "cache_control",
        "videoMetadata",
        "video_metadata",
        "content_type",
        "metadata",
        "role",
        "id",
        "index",
        "annotations",
        "logprobs",
        "citations",
        "mediaResolution",
        "signature",
        "finish_reason",
        "status",
        "phase",
    ]
)
_MEDIA = {kind: _media(kind) for kind in ("image", "audio", "video")}
_KINDS: dict[str, Handler] = {
    **dict.fromkeys(("text", "input_text", "output_text", "summary_text", "reasoning_text", "text_delta"), _text),
    **dict.fromkeys(("refusal", "string", "markdown"), _text),
    **dict.fromkeys(("thinking", "reasoning", "reasoning_content", "thought"), _thinking),
    "redacted_thinking": _marker("redacted_thinking"),
    **dict.fromkeys(("tool_use", "tool_call", "function_call", "tool-call", "function", "custom"), _call),
    **dict.fromkeys(
        ("tool_result", "tool_call_response", "tool_response", "function_response", "tool-result"), _result
    ),
    **dict.fromkeys(("image_url", "input_image", "image", "image_file", "computer_screenshot"), _MEDIA["image"]),
    **dict.fromkeys(("input_audio", "audio", "audio_url", "output_audio"), _MEDIA["audio"]),
    **dict.fromkeys(("video", "video_url", "input_video"), _MEDIA["video"]),
    **dict.fromkeys(("file", "input_file", "document", "blob", "uri", "media", "file_data", "container_upload"), _file),
    **dict.fromkeys(("search_result", "web_search_result", "web_fetch_result"), _content),
    "token_ids": _marker("token_ids"),
    "item_reference": _marker("item_reference"),
    "stored_prompt": _marker("stored_prompt"),
    "unread_data": _marker("data"),
    **dict.fromkeys(("compaction", "mcp_list_tools", "cache_point", "step-start"), _silent),
}
_BY_KEY: dict[str, KeyHandler] = {
    **dict.fromkeys(("text", "content", "parts", "refusal", "thinking"), _plain),
    **dict.fromkeys(("image", "image_url", "input_image"), _keyed(_MEDIA["image"])),
    **dict.fromkeys(("audio", "input_audio", "audio_url"), _keyed(_MEDIA["audio"])),
    **dict.fromkeys(("video", "video_url"), _keyed(_MEDIA["video"])),
    **dict.fromkeys(("inlineData", "inline_data", "fileData", "file_data", "document", "file"), _keyed(_file)),
    **dict.fromkeys(("functionCall", "function_call", "toolUse"), _key_call),
    **dict.fromkeys(("functionResponse", "function_response", "toolResult"), _key_result),
    **dict.fromkeys(("executableCode", "executable_code"), _code),
    **dict.fromkeys(("codeExecutionResult", "code_execution_result"), _code),
    **dict.fromkeys(("reasoningContent", "reasoningText"), _keyed(_thinking)),
    **dict.fromkeys(("guardContent", "citationsContent", "searchResult"), _keyed(_content)),
    "json": _json,
}
