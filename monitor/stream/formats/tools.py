"""Calls and declarations of functions, in OpenAI's form, from every provider's.

Contract: values are what a chat template can take: JSON, finite, within `fields.MAX_DEPTH` levels. Text is not lost for
being too deep: it is then read by its strings.
"""

from __future__ import annotations

import json
from typing import Any

from monitor.stream.formats import inner
from monitor.stream.formats.fields import storable
from monitor.stream.formats.reading import Reading
from monitor.stream.formats.strings import strings

# Characters of a function's name, an id of a call.
MAX_NAME = 256

_IDS = ("call_id", "id", "toolUseId", "tool_call_id", "tool_use_id", "toolCallId")
_NAMES = ("name", "toolName", "tool_name")
_ARGUMENTS = ("arguments", "args", "input", "parameters", "params", "partialArgs")
INNER = ("function", "custom", "functionCall", "function_call", "toolUse", "tool")
_SCHEMAS = ("parameters", "input_schema", "inputSchema", "parametersJsonSchema", "parameters_json_schema", "schema")
_DECLARED = frozenset((*_SCHEMAS, "name", "description", "type", "function", "cache_control", "strict"))
# Fields beside a function within a declaration, read or of no text.
_PLAIN = ("type", "description", "cache_control", "strict")
_LISTS = ("functionDeclarations", "function_declarations", "tools", "functions")


def call(raw: Any, into: Reading, name: str | None = None) -> dict[str, Any]:
    """One call: id where there is one, name, arguments (an object where they parse as one, else a string)."""
    if not isinstance(raw, dict):
        return _made(None, name or "", raw, into)
    holders = [raw[key] for key in INNER if isinstance(raw.get(key), dict) and raw[key]]
    within = holders[0] if holders else raw
    found = first(within, _NAMES) or first(raw, _NAMES) or name or ""
    sources = (raw,) if within is raw else (within, raw)
    given = [each[key] for each in sources for key in _ARGUMENTS if each.get(key) is not None] + holders[1:]
    arguments = given[0] if given else None
    if len(given) > 1:
        # Which of them a model reads is not known here.
        filled: list[Any] = []
        for each in given:
            made = _arguments(each, into)
            if made not in (*filled, "", {}, "[]"):
                filled.append(made)
        if filled:
            texts = [each if isinstance(each, str) else dumps(each) for each in filled]
            arguments = filled[0] if len(filled) == 1 else "\n".join(texts)
    return _made(first(raw, _IDS) or first(within, _IDS), found, arguments, into)


def _made(identity: str | None, name: str, arguments: Any, into: Reading) -> dict[str, Any]:
    made: dict[str, Any] = {} if identity is None else {"id": identity[:MAX_NAME]}
    arguments = _arguments(arguments, into)
    if len(name) > MAX_NAME:
        # It is text that a model reads, but no name.
        into.note("messages: a function's name was too long, read with its arguments")
        name, arguments = name[:MAX_NAME], f"{name}\n{arguments if isinstance(arguments, str) else dumps(arguments)}"
    return made | {"type": "function", "function": {"name": name, "arguments": arguments}}


def _arguments(raw: Any, into: Reading) -> Any:
    if raw is None:
        return {}
    if isinstance(raw, str):
        notes: list[str] = []
        parsed = inner.loads(raw, notes) if raw[:16].lstrip().startswith("{") else None
        # As it was written, where an object names a field twice: nothing is lost.
        return parsed if isinstance(parsed, dict) and not notes and storable(parsed) else raw
    if not storable(raw):
        into.note("messages: arguments nested too deeply were read by their strings")
        return "\n".join(strings(raw, into))
    return raw if isinstance(raw, dict) else dumps(raw)


def as_text(made: dict[str, Any]) -> str:
    """A call as models write one."""
    function = made["function"]
    return f"<tool_call>\n{dumps({'name': function['name'], 'arguments': function['arguments']})}\n</tool_call>"


def dumps(value: Any) -> str:
    """JSON as a model reads it."""
    return json.dumps(value, ensure_ascii=False)


def declarations(raw: Any, into: Reading, depth: int = 0) -> list[dict[str, Any]]:
    """Declarations of functions; tools of a provider (search, a shell) by their name and settings."""
    if isinstance(raw, str):
        raw = inner.structure(raw) or [{"name": "tools", "description": raw}]
    if isinstance(raw, dict):
        listed = [raw[key] for key in _LISTS if isinstance(raw.get(key), list)]
        if not listed and all(isinstance(each, dict) for each in raw.values()) and not _DECLARED & raw.keys():
            # By name.
            listed = [[{"name": key} | each for key, each in raw.items()]]
        raw = [each for some in listed for each in some] if listed else [raw]
    if not isinstance(raw, list):
        return []
    found: list[dict[str, Any]] = []
    for each in raw:
        if isinstance(each, list | dict) and depth < 4 and (isinstance(each, list) or any(k in each for k in _LISTS)):
            found += declarations(each, into, depth + 1)
            if isinstance(each, list):
                continue
            # Tools of Gemini's stand beside its functions in one object.
            each = {key: value for key, value in each.items() if key not in _LISTS}
            if not each:
                continue
        if isinstance(each, dict):
            found.append(_declaration(each, into))
        elif isinstance(each, str) and each:
            found.append({"type": "function", "function": {"name": each[:MAX_NAME], "description": each}})
    return found


def _declaration(raw: dict[str, Any], into: Reading) -> dict[str, Any]:
    holder = next((key for key in ("function", "toolSpec", "custom") if isinstance(raw.get(key), dict)), None)
    within = raw if holder is None else raw[holder]
    kind = raw.get("type")
    named = first(within, _NAMES)
    name = named or first(raw, _NAMES) or (kind if isinstance(kind, str) else None)
    # Templates write a declaration as JSON: a field that no API knows is read by a model all the same.
    rest = {key: value for key, value in within.items() if key not in _DECLARED or _odd(key, value)}
    beside = {} if holder is None else {k: v for k, v in raw.items() if k not in (holder, *_PLAIN) or _odd(k, v)}
    if holder is not None and named is None:
        beside = {key: value for key, value in beside.items() if key not in _NAMES}
    if name is None and len(rest) == 1:
        # Gemini: {"googleSearch": {}}.
        name, settings = rest.popitem()
        rest = settings if isinstance(settings, dict) else {}
    said = [each["description"] for each in ((within,) if holder is None else (within, raw)) if each.get("description")]
    description = "\n".join(
        dict.fromkeys(text for each in said for text in ([each] if isinstance(each, str) else strings(each, into)))
    )
    schemas = [within[key] for key in _SCHEMAS if within.get(key) is not None]
    schema, more = _schemas(schemas)
    if holder != "function" and rest and any(not isinstance(each, bool | None) for each in rest.values()):
        clash = {key: value for key, value in rest.items() if isinstance(schema, dict) and key in schema}
        schema = {**rest, **(schema if isinstance(schema, dict) else {})}
        rest = {key: value for key, value in clash.items() if key != "name"}
    elif holder != "function":
        rest = {}
    made: dict[str, Any] = {"name": (name or "tool")[:MAX_NAME]}
    if name is not None and len(name) > MAX_NAME:
        description = f"{name}\n{description}"
    for each in (schema, rest, beside, more):
        if not storable(each):
            into.note("tools: a declaration nested too deeply was read by its strings")
            description = "\n".join([*([description] if description else []), *strings(each, into)])
    if description:
        made["description"] = description
    if isinstance(schema, dict):
        made["parameters"] = schema if storable(schema) else {}
    elif schema is not None:
        made["parameters"] = {"description": dumps(schema)} if storable(schema) else {}
    if storable(rest):
        made = {**{key: each for key, each in rest.items() if key not in made}, **made}
    if more:
        made["schemas"] = more if storable(more) else []
    declared: dict[str, Any] = {"type": "function", "function": made}
    return {**beside, **declared} if beside and storable(beside) else declared


def _schemas(given: list[Any]) -> tuple[Any, list[Any]]:
    """The schema of a declaration, and further ones that differ."""
    found: list[Any] = []
    for each in given:
        if isinstance(each, str):
            each = inner.loads(each) or {"description": each}
        if isinstance(each, dict) and isinstance(each.get("json"), dict) and len(each) == 1:
            each = each["json"]
        if each not in found:
            found.append(each)
    full = [each for each in found if each]
    schema = full[0] if full else found[0] if found else None
    return schema, full[1:]


def _odd(key: str, value: Any) -> bool:
    """Whether a field whose name is known holds what it should not: text."""
    if key == "type":
        return isinstance(value, list | dict) or (isinstance(value, str) and len(value.split()) > 1)
    if key == "strict":
        return not isinstance(value, bool | None)
    if key == "cache_control":
        return not isinstance(value, dict) or any(
            not isinstance(each, str) or len(each) > 16 or len(each.split()) > 1 for each in (*value, *value.values())
        )
    return False


def first(within: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """The first value that is a string with something in it; numbers count as strings."""
    for key in keys:
        value = within.get(key)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 256:
            return str(value)
    return None
