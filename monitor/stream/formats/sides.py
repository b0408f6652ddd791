"""What stands beside the text: ids, names, times and attributes, from wherever a provider or a gateway has them.

Contract: `drafts(exchange)` makes the drafts of an exchange. A name is looked for in this order: in the objects around
the request (outermost first), each with its `metadata` (and labels, properties), in the request and its own; under
awry's own name first, then under those of others. A consumer that Kong names is the user. Ids and times of the answer
come last. Values are as they came: `fields.py` checks them.
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
_KNOWN = frozenset((*_ATTRIBUTE_OF.values(), *asked.SETTING_KEYS))
# Of many inputs: attributes of each, characters of one.
_FEW, _SHORT = 64, 256
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
    said = exchange.response
    # A string is text: JSON in one was decoded by then, where it is the body of a response.
    answer = answers.Answer(said) if said is None or isinstance(said, str) else answers.answer(said)
    if not conversations and answer.said is None:
        raise UnreadableError("request: holds no messages, input or prompt")
    sources = [*around, request]
    metadata: list[dict[str, Any]] = []
    holders: list[dict[str, Any]] = []
    for source in sources:
        own = [source[key] for key in _METADATA if isinstance(source.get(key), dict)]
        holders += [each for each in (source, *own) if not _NAME_KEYS.isdisjoint(each)]
        metadata += own
    named = {name: _first(holders, keys) for name, keys in _NAMES.items()}
    if isinstance(named["conversation_id"], dict):
        named["conversation_id"] = named["conversation_id"].get("id")
    consumer = next((each["consumer"] for each in around if isinstance(each.get("consumer"), dict)), None)
    if consumer is not None:
        # Whom the gateway knows counts more than whom the body names.
        named["user"] = _first([consumer], ("username", "custom_id", "id")) or named["user"]
    notes += [*exchange.notes, *answer.notes]
    if request.get("previous_response_id"):
        notes.append("previous_response_id: the turns before were not in the payload")
    model = _first(sources, _MODELS) or _model_in_path(sources) or answer.model
    many = len(conversations)
    shared = _shared(answer.said, many, exchange)
    tools, identity = asked.tools(request), _first(sources, _IDS) or answer.id
    timestamp = _first(sources, _TIMES) or answer.time
    attributes = _attributes(exchange, sources, metadata, answer, model)
    if many > asked.MAX_SHARING:
        few = _few(attributes)
        if len(few) < len(attributes):
            notes.append("attributes: some dropped, long or many, of a request with many inputs")
        attributes = few
    return [
        Draft(
            turns,
            shared[number],
            tools if number == 0 or many <= asked.MAX_SHARING else None,
            id=identity,
            model=model,
            timestamp=timestamp,
            attributes=attributes if many <= 1 else dict(attributes),
            notes=list(notes),
            **named,
        )
        for number, turns in enumerate(conversations or [[]])
    ]


def _shared(said: Any, many: int, exchange: Exchange) -> list[Any]:
    """The answer to each of several prompts: the choices come in the order of the prompts, n each."""
    prompts = exchange.request.get("prompt")
    asking = len(prompts) if isinstance(prompts, list) else 0
    # One more, where the instructions are a conversation of their own.
    if 1 < asking <= many <= asking + 1 and isinstance(said, list) and len(said) % asking == 0:
        each = len(said) // asking
        return [said[number * each : (number + 1) * each] or None for number in range(many)]
    if many > asked.MAX_SHARING:
        return [said] + [None] * (many - 1)
    return [said] * max(1, many)


def _few(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes that each of many inputs gets: short ones, the known ones first."""
    short = [
        key
        for key, each in attributes.items()
        if isinstance(each, int | float) or (isinstance(each, str) and len(each) <= _SHORT)
    ]
    short.sort(key=lambda key: key not in _KNOWN)
    return {key: attributes[key] for key in short[:_FEW]}


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
    for each in reversed(metadata):
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
    for source in reversed(sources):
        if isinstance(source.get("attributes"), dict):
            found |= source["attributes"]
    return found
