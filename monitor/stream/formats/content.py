"""Contents as text: strings, parts of any known shape, tool calls; what has no text leaves a marker and a count.

Contract: `read_turns(raw, into)` gives turns as chat templates take them. Text parts of a turn are joined by newlines.
A part without text (an image, audio, a file by reference) becomes a marker ([image], [audio], ...) and counts in
`into.unread`. No text is lost: a part of an unknown shape is read by its strings. A turn that holds results of tools
gives one turn for each, in order; items that a provider lists one by one (a call, its thinking) become one turn again.
Of several fields for the text of one turn (`content`, `parts`, `text`, ...) the first that holds something is read, and
BESIDE_CONTENT notes that others say something else.

Turns may also be in the shapes of others: `parts` for `content`, `from` and `value`, `author`, LangChain's messages.
"""

from __future__ import annotations

import re
from typing import Any

from monitor.stream.formats import answers, tools
from monitor.stream.formats.parts import THINKING, is_json, is_part, read_content, result_text, says_the_same
from monitor.stream.formats.reading import BESIDE_CONTENT, MAX_DEPTH, Reading
from monitor.stream.formats.strings import strings
from monitor.stream.formats.turning import Turning
from monitor.stream.wire import Turn

__all__ = ["Reading", "read_response", "read_tools", "read_turns"]

_ROLES = {
    **{each: each for each in ("system", "developer", "user", "assistant", "tool", "function")},
    **dict.fromkeys(("human", "customer", "prompter", "humanmessage", "humanmessagechunk"), "user"),
    **dict.fromkeys(("ai", "model", "bot", "gpt", "chatgpt", "chatbot", "aimessage", "aimessagechunk"), "assistant"),
    **dict.fromkeys(("systemmessage", "system_prompt"), "system"),
    **dict.fromkeys(("toolmessage", "toolresult", "tool_result", "ipython"), "tool"),
    "functionmessage": "function",
}
_PLAIN = frozenset(("system", "user", "assistant", "developer"))
_ROLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ROLE_KEYS = ("role", "author", "from", "speaker", "sender")
_CONTENT_KEYS = ("content", "parts", "value", "text", "message", "contents", "body", "refusal")
# Items and parts that only an assistant writes.
_OF_ASSISTANT = ("_call", "_use", "-call")
_KINDS_OF_ASSISTANT = frozenset(
    ("reasoning", "thinking", "redacted_thinking", "output_text", "refusal", "summary_text", "mcp_approval_request")
)


def read_turns(raw: list[Any], into: Reading, default: str = "user") -> list[Turn]:
    """Turns ready for a chat template; `default` is the role of a turn that has none."""
    found = _Turns()
    turns = found.turns
    for each in raw:
        if type(each) is dict and len(each) == 2 and not found.open:
            # Almost every turn there is.
            content, role = each.get("content"), each.get("role")
            if type(role) is str and role in _PLAIN:
                if type(content) is str:
                    turns.append(each)
                    continue
                text = _plain(content) if type(content) is list else None
                if text is not None:
                    turns.append({"role": role, "content": text})
                    continue
        found.add(*_read(each, into, default, 0))
    found.close()
    return turns


def read_response(raw: Any, into: Reading) -> str | None:
    """The text of an answer: of all its choices, with thinking and calls; None where it has none."""
    if raw is None or isinstance(raw, str):
        return raw
    turns = read_turns(answers.turns_of(raw), into, "assistant")
    pieces = [
        text
        for turn in turns
        for text in (turn["content"], *(tools.as_text(made) for made in turn.get("tool_calls", ())))
        if text
    ]
    return "\n".join(pieces) if pieces else None


def read_tools(raw: Any, into: Reading) -> list[dict[str, Any]]:
    """Declarations of functions in OpenAI's form."""
    if not isinstance(raw, list | dict | str):
        into.note("tools: dropped, not a list")
        return []
    return tools.declarations(raw, into)


def _plain(parts: list[Any]) -> str | None:
    """The text of parts that are nothing but text."""
    texts = []
    for part in parts:
        if type(part) is not dict or len(part) != 2 or part.get("type") != "text" or type(part.get("text")) is not str:
            return None
        if part["text"]:
            texts.append(part["text"])
    return "\n".join(texts)


class _Turns:
    """Turns one by one; an item goes on with the turn of its speaker, and so does what follows an item."""

    __slots__ = ("_texts", "open", "turns")

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        # Whether the last one was an item, not a whole turn.
        self.open = False
        # The text of the last turn, where something was joined to it.
        self._texts: list[str] | None = None

    def add(self, made: list[Turn], item: bool) -> None:
        """Add the turns of one element."""
        if made and self.turns and (item or self.open) and self._goes_on(made[0]):
            self._join(made[0])
            made = made[1:]
        if made:
            self.close()
            self.turns += made
        self.open = item

    def close(self) -> None:
        """Nothing more is joined to the last one."""
        if self._texts is not None:
            self.turns[-1]["content"] = "\n".join(self._texts)
            self._texts = None

    def _goes_on(self, this: Turn) -> bool:
        role = this["role"]
        return bool(role == self.turns[-1]["role"] and role in ("assistant", "user"))

    def _join(self, this: Turn) -> None:
        if self._texts is None:
            # A copy: the last one may be the payload's own.
            last = self.turns[-1] = dict(self.turns[-1])
            self._texts = [last["content"]] if last["content"] else []
            if "tool_calls" in last:
                last["tool_calls"] = list(last["tool_calls"])
        if this["content"]:
            self._texts.append(this["content"])
        if "tool_calls" in this:
            self.turns[-1].setdefault("tool_calls", []).extend(this["tool_calls"])


def _read(raw: Any, into: Reading, default: str, depth: int) -> tuple[list[Turn], bool]:
    """The turns of one element, and whether it was an item."""
    if depth > MAX_DEPTH:
        into.nested()
        return [], False
    if isinstance(raw, list):
        found = _Turns()
        for each in raw:
            found.add(*_read(each, into, default, depth + 1))
        found.close()
        return found.turns, False
    if not isinstance(raw, dict):
        if raw is None:
            into.note("messages: an empty turn was dropped")
            return [], False
        return [{"role": default, "content": raw if isinstance(raw, str) else str(raw)}], False
    return _read_object(raw, into, default, depth)


def _read_object(raw: dict[str, Any], into: Reading, default: str, depth: int) -> tuple[list[Turn], bool]:
    raw = _unwrapped(raw)
    within = raw.get("message")
    if isinstance(within, dict) and not any(raw.get(key) for key in ("role", *_CONTENT_KEYS) if key != "message"):
        return _read(within, into, default, depth + 1)
    named = next((raw[key] for key in _ROLE_KEYS if raw.get(key) is not None), None)
    kind = raw.get("type")
    if named is None and isinstance(kind, str) and kind.lower() in _ROLES and kind not in ("function", "tool_result"):
        named = kind
    if named is None:
        several = kind is None and "parts" in raw and any(raw.get(key) for key in _CONTENT_KEYS if key != "parts")
        if is_part(raw) and not ("content" in raw and kind is None) and not several:
            role = default
            if isinstance(kind, str) and (kind.endswith(_OF_ASSISTANT) or kind in _KINDS_OF_ASSISTANT):
                role = "assistant"
            turn = Turning(role, into)
            read_content(turn, raw, depth + 1)
            return turn.finish(), True
        if default == "user":
            into.note("messages: a turn without a role was read as the user's")
        role = "assistant" if raw.get("tool_calls") else default
        turn = Turning(role, into)
    else:
        turn = Turning("", into)
        turn.role = _role(named, turn)
    _fill(turn, raw, depth)
    return turn.finish(), False


def _unwrapped(raw: dict[str, Any]) -> dict[str, Any]:
    """LangChain's two ways to write a message, as one object. What has a content or a role of its own is none."""
    if "content" in raw or "role" in raw:
        return raw
    data = raw.get("data")
    if isinstance(data, dict) and "content" in data and isinstance(raw.get("type"), str):
        return {**data, "type": raw["type"]}
    kwargs = raw.get("kwargs")
    if isinstance(kwargs, dict) and "lc" in raw:
        names = raw.get("id")
        kind = names[-1] if isinstance(names, list) and names and isinstance(names[-1], str) else None
        return {"role": kind, **{key: each for key, each in kwargs.items() if key not in ("role", "type")}}
    return raw


def _role(named: Any, turn: Turning) -> str:
    if isinstance(named, dict):
        named = next((named[key] for key in ("role", "name", "type") if isinstance(named.get(key), str)), None)
    if isinstance(named, str):
        known = _ROLES.get(named) or _ROLES.get(named.strip().lower())
        if known is not None:
            return known
        if _ROLE.fullmatch(named):
            return named
        # No name of a role; but a model that took it would read it.
        turn.text(named)
    turn.into.note("messages: a role that is no name was read as the user's")
    return "user"


def _fill(turn: Turning, raw: dict[str, Any], depth: int) -> None:
    turn.name = tools.first(raw, ("name",))
    if turn.name is not None and len(turn.name) > tools.MAX_NAME:
        turn.text(turn.name)
    if turn.role in ("tool", "function"):
        turn.call_id = tools.first(raw, ("tool_call_id", "tool_use_id", "toolCallId", "call_id"))
    content = raw.get("content")
    if len(raw) == 2 and isinstance(content, str):
        turn.text(content)
        return
    for key in ("reasoning_content", "reasoning", "thinking"):
        if raw.get(key) and (key == "reasoning_content" or raw[key] != raw.get("reasoning_content")):
            read_content(turn, raw[key], depth + 1)
            turn.into.note(THINKING)
    held, read = _fill_content(turn, raw, depth)
    held |= _fill_beside(turn, raw, read)
    if not held and raw.get("content", ...) is ...:
        found = strings({key: each for key, each in raw.items() if key not in ("name", "id", *_ROLE_KEYS)}, turn.into)
        if found:
            turn.texts += found
            turn.into.note("messages: a turn of an unknown shape was read by its strings")


def _fill_content(turn: Turning, raw: dict[str, Any], depth: int) -> tuple[bool, bool]:
    """The first content that holds something. Gives whether there is any, and whether one was read."""
    held, read = False, False
    for key in _CONTENT_KEYS:
        value = raw.get(key)
        if value is None:
            continue
        held = True
        if not value and isinstance(value, str | list | dict):
            continue
        if not read:
            read = True
            before = len(turn.texts)
            if turn.role in ("tool", "function") and is_json(value):
                turn.text(result_text(value, turn.into, depth + 1))
            else:
                read_content(turn, value, depth + 1)
            # A content of empty parts is none.
            read = bool(turn.calls or turn.turns) or any(each.strip() for each in turn.texts[before:])
        elif not says_the_same(turn, value, depth):
            turn.into.note(BESIDE_CONTENT)
    return held, read


def _fill_beside(turn: Turning, raw: dict[str, Any], read: bool) -> bool:
    """Media, calls and results that stand beside a content. Text of theirs is none where a content was `read`."""
    held = False
    audio = raw.get("audio")
    if isinstance(audio, dict):
        held = True
        turn.marker("audio")
        transcript = audio.get("transcript")
        if isinstance(transcript, str) and not read:
            turn.text(transcript)
        elif isinstance(transcript, str) and not says_the_same(turn, transcript, 0):
            turn.into.note(BESIDE_CONTENT)
    if isinstance(raw.get("images"), list):
        held = True
        for _ in raw["images"]:
            turn.marker("image")
    beside = raw.get("additional_kwargs")
    for holder in (raw, beside) if isinstance(beside, dict) else (raw,):
        calls = holder.get("tool_calls")
        if calls is not None and not (holder is beside and raw.get("tool_calls")):
            held = True
            if not isinstance(calls, list | dict | str):
                turn.into.note("tool_calls: dropped, not a list")
                continue
            listed = calls if isinstance(calls, list) else [calls]
            turn.calls += [tools.call(each, turn.into) for each in listed if each is not None]
        if holder.get("function_call") is not None:
            held = True
            turn.calls.append(tools.call(holder["function_call"], turn.into))
    results = raw.get("tool_results")
    if isinstance(results, list) and read:
        turn.into.note(BESIDE_CONTENT)
    elif isinstance(results, list):
        held = True
        for each in results:
            turn.result(each if isinstance(each, dict) else {}, result_text(each, turn.into, 1))
    return held
