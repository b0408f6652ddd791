"""Where the request and the answer are in what a gateway logged.

Contract: `of(value)` finds a request (an object with messages, contents, an input or a prompt) at the top or within the
usual wrappings, and the answer beside it; None where there is neither. JSON within strings is read. A line of a batch
API is such a wrapping, and so are the logs of Kong, Helicone, Portkey, Langfuse, Bedrock's invocations, API gateways
that log bodies. `around` are the objects around the request, outermost first: their ids and names count before its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monitor.stream.formats import answers, asked, inner
from monitor.stream.formats.covered import is_whole
from monitor.stream.formats.joined import joined

_MAX_WRAPS = 6
_REQUESTS = (
    *("request_body", "requestBody", "inputBodyJson", "body", "request", "req", "params", "payload", "input", "inputs"),
    *("kwargs", "request_data", "requestData", "modelInput", "data", "json"),
)
_RESPONSES = (
    *("response_body", "responseBody", "outputBodyJson", "response", "res", "output", "result", "completion", "answer"),
    *("response_data", "responseData", "modelOutput", "outputs", "chunks", "events"),
)
# Where the text of the answer may be JSON, not the body of a response.
_TEXTS = frozenset(("response", "res", "output", "result", "answer", "completion", "outputs"))
_ANSWERED = ("choices", "candidates", "output", "content")
_OBJECTS = ("messages", "contents", "instances")
_STRINGS = ("prompt", "input", "inputs", "inputText", "message")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request (empty where only an answer was logged) and what was answered, as it came."""

    request: dict[str, Any]
    response: Any
    around: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def keys(self) -> set[str]:
        """The names of the request's fields."""
        return set(self.request)


# The last one found: every format asks for the exchange of the same value. It holds the value, so its identity is sure.
_last: tuple[Any, Exchange | None] = (None, None)


def of(value: Any) -> Exchange | None:
    """The exchange in a payload, which must not change between two calls."""
    global _last
    last = _last
    if last[0] is value:
        return last[1]
    found = _of(value)
    _last = (value, found)
    return found


def taken(value: Any) -> Exchange | None:
    """The same, and nothing of it is held any more."""
    global _last
    found = of(value)
    _last = (None, None)
    return found


def _of(value: Any) -> Exchange | None:
    if not isinstance(value, dict):
        return None
    notes: list[str] = []
    found = _find(value, (), 0, notes)
    if found is None:
        if answers.is_answer(value):
            return Exchange({}, value)
        response = _response(value, {}, notes)
        if isinstance(response, dict) and answers.is_answer(_unwrapped(response)):
            return Exchange({}, response, (value,), tuple(notes))
        return None
    request, around = found
    return Exchange(request, _answered(request, around, notes), around, tuple(notes))


def _answered(request: dict[str, Any], around: tuple[dict[str, Any], ...], notes: list[str]) -> Any:
    """The answer: around the request, nearest first; in the request only where there is none: its fields are the
    client's."""
    empty = None
    for each in reversed(around):
        response = _response(each, request, notes)
        if response is not None and not answers.is_envelope(response):
            return response
        if response is None and answers.is_answer(each) and any(each.get(key) for key in _ANSWERED):
            return each
        empty = response if empty is None else empty
    if answers.is_answer(request) and any(request.get(key) for key in _ANSWERED):
        # One object with the fields of both.
        return request
    own = _response(request, request, notes)
    return own if own is not None else empty


def is_request(value: dict[str, Any]) -> bool:
    """Whether an object itself holds what a model is asked."""
    for key in _OBJECTS:
        if value.get(key) is not None:
            return True
    for key in _STRINGS:
        asked = value.get(key)
        if isinstance(asked, list) or (
            isinstance(asked, str) and (key != "message" or "model" in value or "chat_history" in value)
        ):
            return True
    # Stored prompts of the Responses API.
    return isinstance(value.get("prompt"), dict)


def _find(
    value: dict[str, Any], around: tuple[dict[str, Any], ...], depth: int, notes: list[str]
) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]] | None:
    if is_request(value):
        return value, around
    if depth >= _MAX_WRAPS:
        return None
    for key in _REQUESTS:
        within = value.get(key)
        if isinstance(within, str):
            within = inner.structure(within, notes)
        if isinstance(within, list) and within and all(isinstance(each, dict) for each in within[:4]):
            # Turns alone: what the model may call then stands beside them.
            beside = {each: value[each] for each in asked.TOOL_KEYS if each in value}
            within = {"messages": within, **beside} if _turns(within[0]) else None
        if isinstance(within, dict):
            found = _find(within, (*around, value), depth + 1, notes)
            if found is not None:
                return found
    for key in ("input", "inputs"):
        if isinstance(value.get(key), dict) and value[key]:
            # A turn by itself, or an input of a chain's own shape.
            return value, around
    plugins = value.get("ai")
    for plugin in plugins.values() if isinstance(plugins, dict) else ():
        if isinstance(plugin, dict) and isinstance(plugin.get("payload"), dict):
            meta = plugin.get("meta")
            outer = (*around, value, *([meta] if isinstance(meta, dict) else []))
            found = _find(plugin["payload"], outer, depth + 1, notes)
            if found is not None:
                return found[0], (*found[1], plugin["payload"])
    return None


def _turns(raw: dict[str, Any]) -> bool:
    return ("role" in raw or "type" in raw) and ("content" in raw or "parts" in raw)


def _response(value: dict[str, Any], request: dict[str, Any], notes: list[str]) -> Any:
    for key in _RESPONSES:
        response = value.get(key)
        if response is not None and response != "":
            if isinstance(response, str) and key != "completion":
                logged = _logged(response, request, notes, key in _TEXTS)
                return response if logged is None else logged
            return response
    return None


def _logged(text: str, request: dict[str, Any], notes: list[str], may_be_text: bool) -> Any:
    """A provider's answer as it went over the wire; None for an answer that happens to be JSON."""
    within = inner.structure(text, notes, whole=may_be_text)
    if may_be_text and not is_whole(within, request):
        return None
    if isinstance(within, list):
        return joined(within)
    return within if isinstance(within, dict) and answers.is_answer(within) else None


def _unwrapped(response: dict[str, Any]) -> dict[str, Any]:
    for key in ("body", "message"):
        within = response.get(key)
        if isinstance(within, str):
            within = inner.structure(within)
        if isinstance(within, dict):
            return within
    return response
