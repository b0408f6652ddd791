"""Any other JSON: expressions (JMESPath, https://jmespath.org) that say where the fields of a wire message are.

`messages` (turns, one turn, or text) or `prompt` (text) is needed; FIELDS are the others. `each` gives a list, for
records that hold many messages: the other expressions are then asked of its elements. Turns that are JSON within a
string are read as such.

Contract: a wrong expression, an unknown field and a mapping without turns raise SettingsError when the Mapper is made.
An expression that fails on a record (a function that is given another type) finds nothing there, with a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions

from monitor.errors import SettingsError
from monitor.stream.formats.draft import Draft, UnreadableError
from monitor.stream.formats.text import structured, turns

FIELDS = (
    *("id", "model", "tenant", "user", "conversation_id", "timestamp", "trace_id"),
    *("response", "tools", "attributes", "system"),
)
_TURNS = ("messages", "prompt")
_EACH = "each"


class Mapper:
    """Reads values by expressions. Raises SettingsError for wrong ones."""

    def __init__(self, expressions: Mapping[str, str]) -> None:
        known = (*_TURNS, *FIELDS, _EACH)
        unknown = sorted(set(expressions) - set(known))
        if unknown:
            raise SettingsError(f"mapping.{unknown[0]}: no such field; there are {', '.join(known)}")
        if not any(name in expressions for name in _TURNS):
            raise SettingsError("mapping: needs an expression for messages or for prompt")
        self._compiled = {name: _compiled(name, expression) for name, expression in expressions.items()}
        self._each = self._compiled.pop(_EACH, None)

    def matches(self, value: Any) -> bool:
        """Whether the expression of the turns finds something."""
        return any(self._turns(element, []) for element in self._elements(value, []))

    def read(self, value: Any) -> list[Draft]:
        """A draft for each element with turns. Raises UnreadableError where none has."""
        notes: list[str] = []
        elements = self._elements(value, notes)
        drafts = [self._draft(element, list(notes)) for element in elements]
        if not any(draft.turns for draft in drafts):
            where = "each" if self._each is not None and not elements else "messages"
            raise UnreadableError(f"mapping.{where}: the expression finds nothing")
        return drafts

    def _elements(self, value: Any, notes: list[str]) -> list[Any]:
        if self._each is None:
            return [value]
        found = _search(self._each, value, _EACH, notes)
        return found if isinstance(found, list) else [] if found is None else [found]

    def _turns(self, value: Any, notes: list[str]) -> list[Any]:
        for name in _TURNS:
            if name in self._compiled:
                found = _search(self._compiled[name], value, name, notes)
                if name == "prompt" and isinstance(found, str) and found:
                    return [{"role": "user", "content": found}]
                if made := turns(found, "user", None, notes):
                    return made
        return []

    def _draft(self, value: Any, notes: list[str]) -> Draft:
        found = {
            name: _search(expression, value, name, notes)
            for name, expression in self._compiled.items()
            if name not in _TURNS
        }
        turns_ = self._turns(value, notes)
        system, attributes = found.pop("system", None), found.pop("attributes", None)
        if system and turns_:
            turns_ = [{"role": "system", "content": system}, *turns_]
        if attributes is not None and not isinstance(attributes, dict):
            notes.append("attributes: dropped, not an object")
            attributes = None
        if "tools" in found:
            found["tools"] = structured(found["tools"])
        return Draft(turns_, attributes=attributes or {}, notes=notes, **found)


def _compiled(name: str, expression: Any) -> Any:
    if not isinstance(expression, str):
        raise SettingsError(f"mapping.{name}: must be a JMESPath expression in a string")
    try:
        compiled = jmespath.compile(expression)
        for function, arguments in _calls(compiled.parsed):
            _check_call(function, arguments)
    except (JMESPathError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"mapping.{name}: {expression[:80]!r} is no JMESPath expression ({reason[:200]})") from None
    return compiled


def _calls(node: Any) -> Iterator[tuple[str, int]]:
    """The functions in an expression, with their numbers of arguments: JMESPath itself looks when it is asked."""
    if node["type"] == "function_expression":
        yield node["value"], len(node["children"])
    for child in node["children"]:
        if isinstance(child, dict):
            yield from _calls(child)


def _check_call(name: str, arguments: int) -> None:
    if name not in Functions.FUNCTION_TABLE:
        raise JMESPathError(f"unknown function {name}()")
    signature = Functions.FUNCTION_TABLE[name]["signature"]
    variadic = bool(signature) and signature[-1].get("variadic", False)
    if arguments != len(signature) and not (variadic and arguments >= len(signature)):
        raise JMESPathError(f"{name}() takes {len(signature)} arguments{' or more' if variadic else ''}")


def _search(expression: Any, value: Any, name: str, notes: list[str]) -> Any:
    try:
        return expression.search(value)
    except (JMESPathError, ValueError, TypeError, ArithmeticError, AttributeError, LookupError):
        notes.append(f"{name}: the expression of the mapping failed")
        return None
