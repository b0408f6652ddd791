"""What stands beside the text: ids, names, times and attributes, from wherever a provider or a gateway has them.

Contract: `drafts(exchange)` makes the drafts of an exchange. A name is looked for in this order: in the objects around
the request (outermost first), in the request, in their `metadata` (and labels, properties); under awry's own name
first, then under those of others. Ids and times of the answer come last. Values are as they came: `fields.py` checks
them.
"""

from __future__ import annotations

import re
from typing import Any

from monitor.stream.formats import answers, asked
from monitor.stream.formats.draft import Draft, UnreadableError
from monitor.stream.formats.exchange import Exchange

_METADATA = ("metadata", "labels", "requestMetadata", "properties", "request_properties", "custom_metadata")
_NAMES: dict[str, tuple[str, ...]] = {
    "tenant": ("tenant", "tenant_id", "tenantId", "team", "team_id", "teamId", "organization_id", "workspace_id"),
    "user": ("user", "safety_identifier", "user_id", "userId", "end_user", "end_user_id", "_user", "username"),
    "conversation_id": (
        *("conversation_id", "conversationId", "conversation", "session_id", "sessionId", "thread_id", "threadId"),
        *("chat_id", "chatId"),
    ),
    "trace_id": ("trace_id", "traceId"),
}
_NAME_KEYS = frozenset(key for keys in _NAMES.values() for key in keys)
_IDS = ("custom_id", "id", "request_id", "requestId", "call_id")
_TIMES = ("timestamp", "start_time", "startTime", "created_at", "createdAt", "started_at", "time")
_MODELS = ("model", "modelId", "model_id", "request_model")
_ATTRIBUTES = (
    "provider",
    "environment",
    "region",
    "gateway",
    "route",
    "deployment",
    "operation",
    "request_id",
    "status",
)
_ATTRIBUTE_OF = {each: each for each in (*_ATTRIBUTES, "latency_ms", "cost")} | {
    "provider_name": "provider",
    "requestId": "request_id",
}
_MODEL_IN_PATH = re.compile(r"/models?/([A-Za-z0-9._:@-]{1,200}?)(?::[A-Za-z]+|/[a-z-]+)?(?:\?|$)")
# What is read elsewhere: not kept as an attribute, even where the owner stores all.
_READ = frozenset(
    (
        *asked.SYSTEM_KEYS,
        *asked.INPUT_KEYS,
        *asked.TOOL_KEYS,
        *asked.SETTING_KEYS,
        *_METADATA,
        *_IDS,
        *_TIMES,
        *_MODELS,
        *(key for keys in _NAMES.values() for key in keys),
        *("attributes", "response", "request", "body", "output", "choices", "candidates", "chat_history", "usage"),
        *("response_body", "request_body", "content", "params", "result", "completion", "documents", "object"),
    )
)


def drafts(exchange: Exchange) -> list[Draft]:
    """A draft for each input of the request. Raises UnreadableError where there is neither a request nor an answer."""
    request, around = exchange.request, exchange.around
    notes: list[str] = []
    conversations = asked.conversations(request, notes)
    answer = answers.answer(exchange.response) if exchange.response is not None else answers.Answer()
    if not conversations and answer.said is None:
        raise UnreadableError("request: holds no messages, input or prompt")
    sources = [*around, request]
    metadata = [each[key] for each in sources for key in _METADATA if isinstance(each.get(key), dict)]
    holders = [each for each in (*sources, *metadata) if not _NAME_KEYS.isdisjoint(each)]
    named = {name: _first(holders, keys) for name, keys in _NAMES.items()}
    if isinstance(named["conversation_id"], dict):
        named["conversation_id"] = named["conversation_id"].get("id")
    consumer = next((each["consumer"] for each in around if isinstance(each.get("consumer"), dict)), None)
    if consumer is not None and named["user"] is None:
        named["user"] = _first([consumer], ("username", "custom_id", "id"))
    notes += answer.notes
    if request.get("previous_response_id"):
        notes.append("previous_response_id: the turns before were not in the payload")
    model = _first(sources, _MODELS) or _model_in_path(sources) or answer.model
    said = _shared(answer.said, len(conversations), exchange)
    return [
        Draft(
            turns,
            said[number],
            asked.tools(request),
            id=_first(sources, _IDS) or answer.id,
            model=model,
            timestamp=_first(sources, _TIMES) or answer.time,
            attributes=_attributes(exchange, sources, metadata, answer, model),
            notes=list(notes),
            **named,
        )
        for number, turns in enumerate(conversations or [[]])
    ]


def _shared(said: Any, many: int, exchange: Exchange) -> list[Any]:
    """The answer to each of several prompts: the choices come in the order of the prompts, n each."""
    prompts = exchange.request.get("prompt")
    if isinstance(prompts, list) and len(prompts) == many > 1 and isinstance(said, list) and len(said) % many == 0:
        each = len(said) // many
        return [said[number * each : (number + 1) * each] for number in range(many)]
    return [said] * max(1, many)


def _first(sources: list[dict[str, Any]], keys: tuple[str, ...]) -> Any:
    """The first string or number; else the first value there is, so that its loss is noted."""
    other = None
    for source in sources:
        for key in keys:
            value = source.get(key)
            if value is None or value == "":
                continue
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                return value
            if other is None:
                other = value
    return other


def _model_in_path(sources: list[dict[str, Any]]) -> str | None:
    for source in sources:
        for key in ("url", "uri", "path"):
            if isinstance(source.get(key), str):
                found = _MODEL_IN_PATH.search(source[key][:1000])
                if found:
                    return found[1]
    return None


def _attributes(
    exchange: Exchange,
    sources: list[dict[str, Any]],
    metadata: list[dict[str, Any]],
    answer: answers.Answer,
    model: Any,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    outer = sources[0]
    for each in metadata:
        found |= {
            key: value for key, value in each.items() if key not in _READ and isinstance(value, str | int | float)
        }
    # Other fields at the top, as in awry's own JSON; objects there would be copies of the request.
    found |= {key: value for key, value in outer.items() if key not in _READ and isinstance(value, str | int | float)}
    for source in sources:
        for key, value in source.items():
            if key in _ATTRIBUTE_OF and isinstance(value, str | int | float):
                found.setdefault(_ATTRIBUTE_OF[key], value)
    found |= asked.settings(exchange.request)
    found |= answer.attributes
    if answer.id is not None:
        found["response_id"] = answer.id
    if answer.model is not None and answer.model != model:
        found["response_model"] = answer.model
    for source in sources:
        if isinstance(source.get("attributes"), dict):
            found |= source["attributes"]
    return found
