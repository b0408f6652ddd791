"""Whether an answer that is JSON in a string is the body of a response, or text of a model that looks like one.

Contract: `is_whole(within, request)` is true where every text in the decoded value is in what is read of it, or in the
request (which some providers repeat). False is safe: the string is then read as it is, and nothing is lost.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats.content import read_response
from monitor.stream.formats.joined import joined
from monitor.stream.formats.reading import Reading
from monitor.stream.formats.strings import strings

# Characters that are searched for texts, times the texts.
_BUDGET = 200_000_000
_HEADERS = 512
_DEPTH = 8
_OF_CALLS = frozenset(("function", "function_call", "delta"))
_MARKS = str.maketrans("", "", "\"'\\")


def is_whole(within: Any, request: dict[str, Any]) -> bool:
    """Whether nothing of a decoded answer is lost where it is read as one."""
    if not isinstance(within, dict | list):
        return False
    said = joined(within) if isinstance(within, list) else within
    if said is None:
        return False
    into = Reading()
    read = _squeezed(read_response(said, into) or "")
    texts = {_squeezed(each) for each in strings(_pruned(within), into)}
    texts = {each for each in texts if each not in read} if len(texts) * len(read) <= _BUDGET else texts
    return not texts or texts <= {_squeezed(each) for each in strings(request, into)}


def _few_words(headers: Any) -> bool:
    """Whether the headers of a response, which SDKs keep, hold no more than such do."""
    return sum(len(each) for each in strings(headers, Reading())) <= _HEADERS


def _squeezed(text: str) -> str:
    """A text without white space and marks: arguments of calls are read as objects, and written anew."""
    return "".join(text.split()).translate(_MARKS)


def _pruned(value: Any, parent: str = "", depth: int = 0) -> Any:
    """An answer without what is read, but not as it stands: arguments of calls, which are JSON in pieces; and without
    tokens, which are the text once more and what else might have been said."""
    if depth > _DEPTH:
        return value
    if isinstance(value, list):
        return [_pruned(each, parent, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    kind = str(value.get("type"))
    in_pieces = "function_call" in kind or "arguments" in kind or "input_json" in kind
    return {
        key: _pruned(each, key, depth + 1)
        for key, each in value.items()
        if not (
            (key == "logprobs" and parent == "choices")
            or (key == "sdkHttpResponse" and _few_words(each))
            or (isinstance(each, str) and key in ("arguments", "partial_json") and (in_pieces or parent in _OF_CALLS))
            or (isinstance(each, str) and key == "delta" and in_pieces)
        )
    }
