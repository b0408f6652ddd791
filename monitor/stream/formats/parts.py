"""Parts of a turn's content, of every known provider, as text, calls and results.

Contract: `read_content` gives a `Turning` the text of a content in order; what has no text leaves a marker ([image],
[audio], [video], [file], ...) and counts as unread. A part of an unknown kind is read by its strings, never skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monitor.stream.formats import inner, tools
from monitor.stream.formats.fields import storable
from monitor.stream.formats.reading import MAX_DEPTH, Reading
from monitor.stream.formats.strings import strings
from monitor.stream.wire import Turn

UNKNOWN = "messages: a part of an unknown kind was read by its strings"
THINKING = "messages: thinking was read as text"
ENCRYPTED = "messages: encrypted thinking was not read"

_IDS = ("tool_call_id", "tool_use_id", "toolUseId", "toolCallId", "call_id", "id")
_NAMES = ("name", "toolName", "tool_name")
_OUTPUTS = ("stdout", "stderr", "output", "content", "response", "result", "results", "outputs", "error", "parts")


class Turning:
    """One turn while it is read: text and calls; results of tools within it become turns of their own, in order."""

    __slots__ = ("call_id", "calls", "into", "name", "role", "texts", "turns")

    def __init__(self, role: str, into: Reading) -> None:
        self.role = role
        self.into = into
        self.name: str | None = None
        self.call_id: str | None = None
        self.texts: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.turns: list[Turn] = []

    def text(self, text: str) -> None:
        """Add text."""
        if text:
            self.texts.append(text)

    def marker(self, kind: str) -> None:
        """Say where a part without text was."""
        self.into.count(kind)
        self.texts.append(f"[{kind}]")

    def result(self, raw: dict[str, Any], content: Any, name: str | None, depth: int) -> None:
        """Add the result of a tool: a turn of its own."""
        self._flush()
        text = result_text(content, self.into, depth)
        turn: Turn = {"role": "tool", "content": text}
        call_id = tools.first(raw, _IDS) or self.call_id
        if call_id is not None:
            turn["tool_call_id"] = call_id[: tools.MAX_NAME]
        name = name or tools.first(raw, _NAMES) or self.name
        if name is not None:
            turn["name"] = name[: tools.MAX_NAME]
        self.turns.append(turn)

    def finish(self) -> list[Turn]:
        """The turns; one at least."""
        self._flush()
        if not self.turns:
            self.turns.append(self._made())
        return self.turns

    def _flush(self) -> None:
        if self.texts or self.calls:
            self.turns.append(self._made())
            self.texts, self.calls = [], []

    def _made(self) -> Turn:
        turn: Turn = {"role": self.role, "content": "\n".join(self.texts)}
        if self.calls:
            turn["tool_calls"] = self.calls
        if self.call_id is not None and self.role in ("tool", "function"):
            turn["tool_call_id"] = self.call_id[: tools.MAX_NAME]
        if self.name is not None:
            turn["name"] = self.name[: tools.MAX_NAME]
        return turn


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


def _text(turn: Turning, part: dict[str, Any], depth: int) -> None:
    said: list[Any] = []
    for key in ("text", "content", "refusal", "value"):
        value = part.get(key)
        if value is not None and value not in said:
            said.append(value)
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
                turn.result(part, value, made["function"]["name"], depth)


def _result(turn: Turning, part: dict[str, Any], depth: int) -> None:
    values = [part[key] for key in _OUTPUTS if part.get(key) not in (None, "", [], {})]
    nested = part.get("output")
    if isinstance(nested, dict) and nested.get("type") in ("text", "json", "error-text", "error-json", "content"):
        # The Vercel AI SDK's {"type": "text", "value": ...}.
        values = [nested.get("value")]
    if not values:
        values = ["\n".join(strings(part, turn.into))]
    turn.result(part, values[0], None, depth)
    for value in values[1:]:
        turn.turns[-1]["content"] = "\n".join(
            each for each in (turn.turns[-1]["content"], result_text(value, turn.into, depth)) if each
        )


def _media(kind: str) -> Callable[[Turning, dict[str, Any], int], None]:
    def read(turn: Turning, part: dict[str, Any], depth: int) -> None:
        turn.marker(kind)
        # Captions and the like; and nothing hides beside a picture.
        within = [part, *(each for each in part.values() if isinstance(each, dict))]
        for each in within:
            for key in ("text", "title", "context", "caption", "alt_text", "transcript", "content"):
                value = each.get(key)
                if isinstance(value, str) and not inner.is_blob(value):
                    if key != "content" or any(character.isspace() for character in value):
                        turn.text(value)
                elif isinstance(value, list):
                    read_content(turn, value, depth + 1)

    return read


def _file(turn: Turning, part: dict[str, Any], depth: int) -> None:
    """A file: its text where it is given inline, whatever it is called; else a marker."""
    holders = [part]
    for key in ("file", "source", "document", "inlineData", "inline_data", "data"):
        value = part.get(key)
        if isinstance(value, dict):
            holders.append(value)
    mime = next((each[key] for each in holders for key in _MIMES if isinstance(each.get(key), str)), "")
    modality = str(part.get("modality") or mime).split("/")[0]
    for each in holders:
        for key in ("filename", "title", "context", "name"):
            if isinstance(each.get(key), str):
                turn.text(each[key])
    before = len(turn.texts)
    kind = modality if modality in ("image", "audio", "video") and "svg" not in mime else "file"
    for each in holders:
        for key in ("text", "content", "data", "file_data", "fileData", "bytes"):
            value = each.get(key)
            if isinstance(value, str) and key != "text" and each.get("type") != "text":
                inline = inner.inline_text(value) if kind == "file" else None
                if inline is not None:
                    turn.text(inline)
            elif isinstance(value, str | list) or (isinstance(value, dict) and key == "content"):
                read_content(turn, value, depth + 1)
    if len(turn.texts) == before:
        turn.marker(kind)


def _silent(turn: Turning, part: dict[str, Any], _depth: int) -> None:
    if any(isinstance(each, str) and " " in each.strip() for each in part.values()):
        _unknown(turn, part)
    elif part.get("encrypted_content"):
        turn.into.note(ENCRYPTED)


def _marker(kind: str) -> Callable[[Turning, dict[str, Any], int], None]:
    def read(turn: Turning, _part: dict[str, Any], _depth: int) -> None:
        turn.marker(kind)

    return read


def _content(turn: Turning, part: dict[str, Any], depth: int) -> None:
    """What wraps other parts: a search result, guarded or cited content."""
    for key in ("title", "text", "content", "parts", "document", "summary"):
        if part.get(key) is not None:
            read_content(turn, part[key], depth + 1)


def _code(turn: Turning, value: Any, _part: dict[str, Any], depth: int) -> None:
    code = value.get("code", value.get("output")) if isinstance(value, dict) else value
    read_content(turn, code, depth + 1)


def _keyed(
    handler: Callable[[Turning, dict[str, Any], int], None],
) -> Callable[[Turning, Any, dict[str, Any], int], None]:
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


Handler = Callable[[Turning, dict[str, Any], int], None]
KeyHandler = Callable[[Turning, Any, dict[str, Any], int], None]

_MIMES = ("media_type", "mime_type", "mimeType", "mime", "mediaType")
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
