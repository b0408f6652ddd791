"""Answers of every provider: their turns, and what stands beside them.

Contract: `answer(raw)` takes what was logged as a response (a string, an object, events; in a body, as JSON in a
string, as server-sent events) and gives its turns in any shape that contents take, with the facts that are stored. All
choices are read. It never raises; what it does not know it gives as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from monitor.stream.formats import inner
from monitor.stream.formats.joined import joined

# Levels of wrapping: {"response": {"body": {...}}}.
_MAX_WRAPS = 6
_SHAPES = ("choices", "candidates", "output", "outputs", "completion", "generation", "generated_text", "results")
_WRAPS = (
    "body",
    "response",
    "outputBodyJson",
    "response_body",
    "responseBody",
    "result",
    "message",
    "data",
    "predictions",
)
_USAGE = {
    "prompt_tokens": ("prompt_tokens",),
    "completion_tokens": ("completion_tokens",),
    "total_tokens": ("total_tokens", "totalTokenCount", "total_token_count", "totalTokens"),
    "input_tokens": ("input_tokens", "promptTokenCount", "prompt_token_count", "inputTokens"),
    "output_tokens": ("output_tokens", "candidatesTokenCount", "candidates_token_count", "outputTokens"),
    "cached_tokens": ("cache_read_input_tokens", "cachedContentTokenCount", "cached_tokens", "cacheReadInputTokens"),
    "reasoning_tokens": ("thoughtsTokenCount", "reasoning_tokens"),
}
_USAGE_OF = {key: name for name, keys in _USAGE.items() for key in keys}
_FINISHED = ("finish_reason", "finishReason", "stop_reason", "stopReason")


@dataclass(slots=True)
class Answer:
    """What was answered (None: nothing was), and what is known of it under the names of attributes or fields."""

    said: Any = None
    id: Any = None
    model: Any = None
    time: Any = None
    attributes: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def turns_of(raw: Any) -> list[Any]:
    """The turns or parts of an answer that is no string."""
    said = answer(raw).said
    return said if isinstance(said, list) else [] if said is None else [said]


def is_answer(raw: dict[str, Any]) -> bool:
    """Whether an object looks like a provider's answer."""
    return (
        isinstance(raw.get("choices"), list)
        or isinstance(raw.get("candidates"), list)
        or raw.get("object") == "response"
        or (raw.get("type") == "message" and isinstance(raw.get("content"), list) and "stop_reason" in raw)
        or (isinstance(raw.get("output"), dict) and "message" in raw["output"])
    )


def answer(raw: Any, depth: int = 0) -> Answer:
    """Read one."""
    if isinstance(raw, str):
        return _string(raw, depth)
    if isinstance(raw, list):
        whole = joined(raw)
        if whole is not None:
            made = answer(whole, depth + 1)
            made.attributes.setdefault("stream", True)
            return made
        if len(raw) == 1 and isinstance(raw[0], dict) and is_answer(raw[0]):
            return answer(raw[0], depth + 1)
        return Answer(raw)
    if not isinstance(raw, dict):
        return Answer(raw)
    made = _object(raw, depth)
    _facts(raw, made)
    return made


def _string(raw: str, depth: int) -> Answer:
    if depth < _MAX_WRAPS and raw[:1] in '{[dei:r \t\r\n"\ufeff':
        notes: list[str] = []
        within = inner.structure(raw, notes)
        if isinstance(within, dict) and (is_answer(within) or joined([within]) is not None):
            return _noted(answer(within if is_answer(within) else [within], depth + 1), notes)
        if isinstance(within, list) and joined(within) is not None:
            return _noted(answer(within, depth + 1), notes)
    return Answer(raw)


def _noted(made: Answer, notes: list[str]) -> Answer:
    made.notes += notes
    return made


def is_envelope(raw: Any) -> bool:
    """Whether a response is logged without its body."""
    return isinstance(raw, dict) and not raw.get("body") and raw.keys() <= _ENVELOPE


def _object(raw: dict[str, Any], depth: int) -> Answer:
    if isinstance(raw.get("choices"), list):
        return _choices(raw["choices"])
    if isinstance(raw.get("candidates"), list):
        return _candidates(raw["candidates"])
    output = raw.get("output")
    if isinstance(output, dict) and depth < _MAX_WRAPS:
        return answer(output, depth + 1)
    if output is not None:
        return Answer(output)
    if isinstance(raw.get("role"), str) or raw.get("type") == "message" or (raw.get("content") is not None):
        return Answer([raw if "role" in raw else {"role": "assistant", **raw}])
    for key in ("completion", "generation", "generated_text", "output_text", "outputText", "text"):
        if isinstance(raw.get(key), str):
            return Answer(raw[key])
    for key in ("results", "outputs", "generations"):
        if isinstance(raw.get(key), list):
            return Answer([answer(each, depth + 1).said for each in raw[key]] if depth < _MAX_WRAPS else raw[key])
    for key in _WRAPS:
        if raw.get(key) is not None and depth < _MAX_WRAPS:
            return answer(raw[key], depth + 1)
    if raw.get("error") is not None:
        made = Answer()
        kind = raw["error"].get("type") if isinstance(raw["error"], dict) else None
        made.attributes["error_type"] = kind if isinstance(kind, str) else "error"
        return made
    # An envelope without a body, a list of vectors: no text. Anything else by its strings.
    if not raw or raw.keys() <= _ENVELOPE or isinstance(raw.get("data"), list):
        return Answer()
    return Answer([{"role": "assistant", "content": raw}])


_ENVELOPE = frozenset(
    [
        "status",
        "status_code",
        "body",
        "statusCode",
        "headers",
        "request_id",
        "id",
        "object",
        "model",
        "usage",
        "size",
        "latency",
        "url",
    ]
)


def _choices(raw: list[Any]) -> Answer:
    said: list[Any] = []
    made = Answer(said)
    for choice in raw:
        if not isinstance(choice, dict):
            said.append(choice)
            continue
        found = next(
            (choice[key] for key in ("message", "delta", "text", "content") if choice.get(key) is not None), None
        )
        if isinstance(found, str):
            found = {"role": "assistant", "content": found}
        if found is not None:
            said.append(found)
        _finished(choice, made)
    if len(raw) > 1:
        made.attributes["n_choices"] = len(raw)
        made.notes.append("response: has several choices, all were read")
    return made


def _candidates(raw: list[Any]) -> Answer:
    said: list[Any] = []
    made = Answer(said)
    for each in raw:
        if not isinstance(each, dict):
            said.append(each)
            continue
        content = each.get("content", each.get("output"))
        if content is not None:
            said.append(content if isinstance(content, dict) else {"role": "assistant", "content": content})
        _finished(each, made)
    if len(raw) > 1:
        made.attributes["n_choices"] = len(raw)
        made.notes.append("response: has several choices, all were read")
    return made


def _finished(raw: dict[str, Any], made: Answer) -> None:
    for key in _FINISHED:
        if isinstance(raw.get(key), str):
            made.attributes.setdefault("finish_reason", raw[key])
            return


def _facts(raw: dict[str, Any], made: Answer) -> None:
    _finished(raw, made)
    for key in ("id", "responseId", "response_id", "requestId", "request_id"):
        if made.id is None and isinstance(raw.get(key), str):
            made.id = raw[key]
    for key in ("model", "modelVersion", "model_version"):
        if made.model is None and isinstance(raw.get(key), str):
            made.model = raw[key]
    for key in ("created", "created_at", "createTime", "create_time"):
        if made.time is None and isinstance(raw.get(key), int | float | str):
            made.time = raw[key]
    if isinstance(raw.get("service_tier"), str):
        made.attributes.setdefault("service_tier", raw["service_tier"])
    code = raw.get("status_code", raw.get("statusCode"))
    if isinstance(code, int):
        made.attributes.setdefault("status_code", code)
    usage = next(
        (raw[key] for key in ("usage", "usageMetadata", "usage_metadata") if isinstance(raw.get(key), dict)), None
    )
    if usage is not None:
        _usage(usage, made.attributes)


def _usage(usage: dict[str, Any], into: dict[str, Any]) -> None:
    details = [usage]
    for key in ("prompt_tokens_details", "input_tokens_details", "completion_tokens_details", "output_tokens_details"):
        if isinstance(usage.get(key), dict):
            details.append(usage[key])
    for each in details:
        for key, count in each.items():
            if key in _USAGE_OF and isinstance(count, int):
                into.setdefault(_USAGE_OF[key], count)
