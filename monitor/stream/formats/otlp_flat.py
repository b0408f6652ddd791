"""Messages that are spread over attributes of a span: OpenLLMetry's and OpenInference's names.

`gen_ai.prompt.0.content` and `llm.input_messages.0.message.content` are one value each; here they become turns and
declarations of tools as chat formats have them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from monitor.stream.formats.text import structured, told

_MAX_PARTS = 16
_NAMES = frozenset(("role", "content", "tool_calls", "function_call"))
_NAMES_OF_OPENINFERENCE = _NAMES | {"contents", "function_call_name"}


def nested(attributes: dict[str, Any], prefix: str) -> list[Any]:
    """The values under `prefix.N.`, in the order of N, as objects; what is under a number is a list."""
    tree: dict[str, Any] = {}
    start = prefix + "."
    for key, value in attributes.items():
        if not key.startswith(start):
            continue
        *path, last = key[len(start) :].split(".", _MAX_PARTS)
        place = tree
        for part in path:
            inner = place.get(part)
            if not isinstance(inner, dict):
                # A value where others have a branch keeps its place under an empty name.
                inner = place[part] = {} if inner is None else {"": inner}
            place = inner
        if isinstance(place.get(last), dict) and not isinstance(value, dict):
            place[last][""] = value
        else:
            place[last] = value
    listed = _listed(tree)
    return listed if isinstance(listed, list) else []


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    numbers = [key for key in value if key.isdecimal()]
    other = {key: _listed(each) for key, each in value.items() if not key.isdecimal()}
    if not numbers:
        return other
    numbers.sort(key=lambda key: (len(key.lstrip("0")), key.lstrip("0")))
    # What stands beside the numbers is an element of its own.
    return [*(_listed(value[key]) for key in numbers), *([other] if other else [])]


def openllmetry_turns(attributes: dict[str, Any], prefix: str, role: str) -> list[dict[str, Any]]:
    """Turns under `gen_ai.prompt` or `gen_ai.completion`."""
    found = _objects(nested(attributes, prefix))
    return [_openllmetry_turn(each, role) for each in found if not _NAMES.isdisjoint(each)]


def _openllmetry_turn(raw: dict[str, Any], role: str) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": raw.get("role") or role, "content": _parts(raw.get("content"))}
    calls = raw.get("tool_calls") or ([raw["function_call"]] if isinstance(raw.get("function_call"), dict) else None)
    if isinstance(calls, list):
        turn["tool_calls"] = [_call(each.get("id"), each) for each in _objects(calls)]
    return turn | {name: raw[name] for name in ("tool_call_id", "name", "reasoning") if raw.get(name)}


def openllmetry_tools(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    """Functions under `llm.request.functions`."""
    return [
        {"type": "function", "function": {**each, "parameters": structured(each.get("parameters"))}}
        for each in _objects(nested(attributes, "llm.request.functions"))
    ]


def openinference_turns(attributes: dict[str, Any], prefix: str, role: str) -> list[dict[str, Any]]:
    """Turns under `llm.input_messages` or `llm.output_messages`."""
    found = (_inner(each, "message") for each in _objects(nested(attributes, prefix)))
    return [_openinference_turn(each, role) for each in found if not _NAMES_OF_OPENINFERENCE.isdisjoint(each)]


def _openinference_turn(raw: dict[str, Any], role: str) -> dict[str, Any]:
    content = raw.get("content")
    contents = _objects(raw.get("contents"))
    if contents:
        parts = [_openinference_part(_inner(each, "message_content")) for each in contents]
        content = parts if content is None else [{"type": "text", "text": content}, *parts]
    turn: dict[str, Any] = {"role": raw.get("role") or role, "content": content}
    calls = [_inner(each, "tool_call") for each in _objects(raw.get("tool_calls"))]
    if raw.get("function_call_name"):
        calls.append({"name": raw["function_call_name"], "arguments": raw.get("function_call_arguments_json")})
    if calls:
        turn["tool_calls"] = [_call(each.get("id"), _inner(each, "function")) for each in calls]
    return turn | {name: raw[name] for name in ("tool_call_id", "name") if raw.get(name)}


def _openinference_part(part: dict[str, Any]) -> dict[str, Any]:
    if isinstance(part.get("text"), str) and part.get("type") in (None, "text", "reasoning"):
        return {"type": "text", "text": part["text"]}
    kind = part.get("type")
    return {**part, "type": kind} if isinstance(kind, str) else {**part, "type": next(iter(part), "unknown")}


def openinference_tools(attributes: dict[str, Any]) -> list[Any]:
    """Declarations under `llm.tools`."""
    found = (_inner(each, "tool") for each in _objects(nested(attributes, "llm.tools")))
    return [structured(each["json_schema"]) if "json_schema" in each else each for each in found]


def texts(attributes: dict[str, Any], prefix: str, inner: str) -> list[str]:
    """Strings under `prefix.N.inner.text`, as completions without roles have them."""
    found = (_inner(each, inner).get("text") for each in _objects(nested(attributes, prefix)))
    return [each for each in found if isinstance(each, str)]


def _call(id_: Any, function: dict[str, Any]) -> dict[str, Any]:
    called = {"name": function.get("name"), "arguments": function.get("arguments")}
    return {"id": id_, "type": "function", "function": called}


def _parts(content: Any) -> Any:
    """Parts that were written as JSON into the one string that an attribute takes."""
    if isinstance(content, str) and content.startswith("[{"):
        parts = told(content)
        if isinstance(parts, list) and all(isinstance(each, dict) and "type" in each for each in parts):
            return parts
    return content


def _inner(place: dict[str, Any], name: str) -> dict[str, Any]:
    inner = place.get(name)
    return inner if isinstance(inner, dict) else place


def _objects(value: Any) -> Iterable[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
