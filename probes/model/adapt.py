"""Other forms of a conversation, for templates that refuse or drop what was sent. No form loses text.

Contract: `adapt(turns, tools, steps)` applies steps in the order of STEPS, whatever order they come in, and says in
closed wording what each of them did; a step that finds nothing to do says nothing. With all steps there is one user
turn, which every chat template takes. Inputs are not changed.

What the steps make:

    developer      a developer turn is a system turn
    arguments      arguments of tool calls are a JSON string and no object (says nothing: a form, no change)
    unknown        a turn of an unknown role is a user turn
    calls          tool calls are text of their turn: <tool_call>, a line of JSON, </tool_call>
    results        a tool or function turn is a user turn: <tool_response>, the content, </tool_response>
    tools          definitions of tools are a system turn: <tools>, a line of JSON each, </tools>
    system         a system turn is joined to the user turn after it, else it is a user turn
    consecutive    turns of one role that follow each other are one
    first          a conversation that starts with the assistant starts with an empty user turn
    plain          everything is one user turn: each turn as ROLE: content

Joined texts have an empty line between them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from probes.model.template import KNOWN_ROLES

Turn = dict[str, Any]
Tools = list[dict[str, Any]]
_BETWEEN = "\n\n"
# A role goes into the template's own markup, so it has to be a word.
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def is_word(role: object) -> bool:
    """Whether a role may be handed to a template."""
    return isinstance(role, str) and _WORD.fullmatch(role) is not None


def compact_json(value: Any) -> str:
    """JSON on one line, letters as they are."""
    return json.dumps(value, ensure_ascii=False, default=str)


def call_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """Name and arguments of a tool call; arguments as an object where they are the JSON of one."""
    function = call.get("function", call)
    return {"name": function.get("name", ""), "arguments": _as_object(function.get("arguments"))}


def _as_object(arguments: Any) -> Any:
    if isinstance(arguments, str):
        try:
            value = json.loads(arguments)
        except (ValueError, RecursionError):
            return arguments
        return value if isinstance(value, dict) else arguments
    return arguments if arguments is not None else {}


def with_arguments(turns: Sequence[Mapping[str, Any]], *, as_text: bool = False) -> list[Turn]:
    """The turns, with arguments of tool calls as objects, or as JSON strings."""
    made = []
    for turn in turns:
        if turn.get("tool_calls"):
            calls = []
            for call in turn["tool_calls"]:
                function = call_of(call)
                if as_text and not isinstance(function["arguments"], str):
                    function["arguments"] = compact_json(function["arguments"])
                calls.append({**call, "type": "function", "function": function})
            made.append({**turn, "tool_calls": calls})
        else:
            made.append(dict(turn))
    return made


def _developer(turns: list[Turn], tools: Tools, said: list[str]) -> tuple[list[Turn], Tools]:
    return _roles(turns, {"developer": "system"}, "developer turn rendered as system", said), tools


def _arguments(turns: list[Turn], tools: Tools, _said: list[str]) -> tuple[list[Turn], Tools]:
    return with_arguments(turns, as_text=True), tools


def _unknown(turns: list[Turn], tools: Tools, said: list[str]) -> tuple[list[Turn], Tools]:
    new = {role: "user" for turn in turns if (role := turn.get("role")) not in KNOWN_ROLES}
    return _roles(turns, new, "turn of unknown role rendered as user", said), tools


def _roles(turns: list[Turn], new: Mapping[Any, str], words: str, said: list[str]) -> list[Turn]:
    if any(turn.get("role") in new for turn in turns):
        said.append(words)
    return [{**turn, "role": new[turn.get("role")]} if turn.get("role") in new else turn for turn in turns]


def _calls(turns: list[Turn], tools: Tools, said: list[str]) -> tuple[list[Turn], Tools]:
    made = []
    for turn in turns:
        if turn.get("tool_calls"):
            said.append("tool calls rendered as text")
            parts = [content_of(turn), *(_call_text(call) for call in turn["tool_calls"])]
            turn = {key: value for key, value in turn.items() if key != "tool_calls"}
            turn["content"] = "\n".join(filter(None, parts))
        made.append(turn)
    return made, tools


def _call_text(call: Mapping[str, Any]) -> str:
    return f"<tool_call>\n{compact_json(call_of(call))}\n</tool_call>"


def _results(turns: list[Turn], tools: Tools, said: list[str]) -> tuple[list[Turn], Tools]:
    made = []
    for turn in turns:
        if turn.get("role") in ("tool", "function"):
            said.append("tool result rendered as user text")
            turn = {"role": "user", "content": f"<tool_response>\n{content_of(turn)}\n</tool_response>"}
        made.append(turn)
    return made, tools


def _tools(turns: list[Turn], tools: Tools, said: list[str]) -> tuple[list[Turn], Tools]:
    if not tools:
        return turns, tools
    said.append("tools rendered as text")
    text = "\n".join(["<tools>", *map(compact_json, tools), "</tools>"])
    if turns and turns[0].get("role") == "system":
        first = {**turns[0], "content": _BETWEEN.join(filter(None, (content_of(turns[0]), text)))}
        return [first, *turns[1:]], []
    return [{"role": "system", "content": text}, *turns], []


def _system(turns: list[Turn], tools: Tools, said: list[str]) -> tuple[list[Turn], Tools]:
    made: list[Turn] = []
    waiting: list[str] = []
    leading = True
    for turn in [*turns, {}]:
        role = turn.get("role")
        if role == "system":
            waiting.append(content_of(turn))
            continue
        if waiting and role == "user":
            words = "system turn joined to the first user turn" if leading else "system turn joined to a user turn"
            said.append(words)
            turn = {**turn, "content": _BETWEEN.join(filter(None, (*waiting, content_of(turn))))}
        elif waiting:
            said.append("system turn rendered as user text")
            made.append({"role": "user", "content": _BETWEEN.join(filter(None, waiting))})
        waiting, leading = [], False
        if turn:
            made.append(turn)
    return made, tools


def _consecutive(turns: list[Turn], tools: Tools, said: list[str]) -> tuple[list[Turn], Tools]:
    runs: list[list[Turn]] = []
    for turn in turns:
        same = runs and runs[-1][0].get("role") == turn.get("role") and turn.get("role") not in ("tool", "function")
        if same:
            runs[-1].append(turn)
        else:
            runs.append([turn])
    made = []
    for run in runs:
        if len(run) == 1:
            made.append(run[0])
            continue
        role = run[0].get("role")
        said.append(f"consecutive {role if role in KNOWN_ROLES else 'other'} turns joined")
        joined = {**run[0], "content": _BETWEEN.join(filter(None, map(content_of, run)))}
        calls = [call for turn in run for call in turn.get("tool_calls") or ()]
        made.append({**joined, "tool_calls": calls} if calls else joined)
    return made, tools


def _first(turns: list[Turn], tools: Tools, said: list[str]) -> tuple[list[Turn], Tools]:
    place = next((i for i, turn in enumerate(turns) if turn.get("role") != "system"), None)
    if place is None or turns[place].get("role") != "assistant":
        return turns, tools
    said.append("empty user turn put before the first assistant turn")
    return [*turns[:place], {"role": "user", "content": ""}, *turns[place:]], tools


def _plain(turns: list[Turn], tools: Tools, said: list[str]) -> tuple[list[Turn], Tools]:
    said.append("conversation rendered as one user turn")
    if len(turns) == 1:
        return [{"role": "user", "content": content_of(turns[0])}], tools
    return [{"role": "user", "content": _BETWEEN.join(f"{t.get('role')}: {content_of(t)}" for t in turns)}], tools


def content_of(turn: Mapping[str, Any]) -> str:
    """The text of a turn."""
    content = turn.get("content")
    return content if isinstance(content, str) else "" if content is None else compact_json(content)


_DO: dict[str, Callable[[list[Turn], Tools, list[str]], tuple[list[Turn], Tools]]] = {
    "developer": _developer,
    "arguments": _arguments,
    "unknown": _unknown,
    "calls": _calls,
    "results": _results,
    "tools": _tools,
    "system": _system,
    "consecutive": _consecutive,
    "first": _first,
    "plain": _plain,
}
STEPS = tuple(_DO)


def adapt(
    turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], steps: Collection[str]
) -> tuple[list[Turn], Tools, tuple[str, ...]]:
    """Turns and tools after the steps, and what was done, each thing once."""
    made, left = with_arguments(turns), [dict(tool) for tool in tools]
    said: list[str] = []
    for name, do in _DO.items():
        if name in steps:
            made, left = do(made, left, said)
    return made, left, tuple(dict.fromkeys(said))
