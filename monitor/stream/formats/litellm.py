"""LiteLLM's StandardLoggingPayload, as its callbacks send it (`generic_api`, S3, GCS and others).

One object a call: `messages` (turns, a string, or turns as JSON in a string) and `response` (a chat completion, a
Responses object, a text completion, a string). A call that failed still has its request, which is read. What the
gateway redacted, and calls that no chat model reads (embeddings, speech, images, files), are skipped with the reason.

A client's own body (`extra_body`) may hold other turns in place of these: which a model read is not known here, each is
read. Words of a redaction are taken for one only where nothing else is in the call: anybody can write them.
"""

from __future__ import annotations

from typing import Any

from monitor.stream.formats import asked, text
from monitor.stream.formats.draft import Draft, UnreadableError

NAME = "litellm"
CUT_SHORT = "messages: cut short by the gateway"

_REDACTED = "redacted-by-litellm"
# Parts of names of calls that hold nothing which a chat model reads.
_OTHER_CALLS = (
    *("embedding", "rerank", "moderation", "transcription", "translation", "speech", "image", "video", "ocr", "file"),
    *(
        "batch",
        "fine_tuning",
        "vector_store",
        "container",
        "skill",
        "client_secret",
        "list_",
        "_list",
        "delete",
        "retrieve",
    ),
    *("cancel", "health"),
)
# Names of this payload that no request has.
_OWN = frozenset(
    ("startTime", "hidden_params", "model_map_information", "response_cost", "litellm_call_id", "model_group")
)
# As many of them tell such a payload from a body that only says it is one.
_ENOUGH = 3
_OF_REQUESTS = frozenset((*asked.INPUT_KEYS, *asked.SYSTEM_KEYS, *asked.TOOL_KEYS, *asked.OTHER_KEYS)) - {"messages"}
_COPIED = ("cache_hit", "stream", "prompt_tokens", "completion_tokens", "total_tokens")
# At the end of what its callbacks with a limit of size (Datadog, files) cut off.
_CUT_SHORT = "...truncated by litellm"
_NO_MESSAGES = "messages: none; LiteLLM did not log them"


def recognises(value: Any) -> bool:
    """Whether there are names that only this payload has, and none that a client's own body has."""
    return (
        isinstance(value, dict)
        and "call_type" in value
        and "messages" in value
        and not _OWN.isdisjoint(value)
        and _OF_REQUESTS.isdisjoint(value)
    )


def read(value: dict[str, Any]) -> list[Draft]:
    """One draft. Raises UnreadableError."""
    if not isinstance(value, dict) or "messages" not in value:
        raise UnreadableError("messages: missing; this is no payload of LiteLLM's logging")
    notes: list[str] = []
    metadata = _object(value.get("metadata"))
    parameters = _object(value.get("model_parameters"))
    requester = _object(metadata.get("requester_metadata"))
    raw = value.get("response")
    if isinstance(value.get("messages"), str) and _CUT_SHORT in value["messages"][-120:]:
        notes.append(CUT_SHORT)
    before, others = _beside(parameters, notes)
    own, several = _conversations(value.get("messages"), notes)
    turns = _with(before, _object(raw).get("instructions"), own)
    others = several + others
    tools = asked.tools(parameters) or asked.tools(_object(value.get("messages")))
    skip = _why_skipped(value, turns, bool(tools))
    response = None if skip else _response(raw, notes)
    attributes = _attributes(value, metadata, parameters)
    conversations = [turns, *others] if turns or not others else others
    return [
        Draft(
            each,
            response=response if number < asked.MAX_SHARING else None,
            tools=tools if number < asked.MAX_SHARING else None,
            id=_first(value, "id", "litellm_call_id"),
            model=_first(value, "model", "model_group"),
            tenant=_first(
                metadata,
                *("user_api_key_team_id", "user_api_key_team_alias", "team_id", "team_alias", "user_api_key_org_id"),
            ),
            user=_first(value, "end_user")
            or _first(metadata, "user_api_key_end_user_id")
            or _first(parameters, "user")
            or _first(metadata, "user_api_key_user_id"),
            # Without a session id, trace_id holds the client's own session where it gave one, else one id a call.
            conversation_id=_first(value, "session_id")
            or _first(metadata, "session_id")
            or _first(requester, "session_id", "conversation_id")
            or _first(value, "trace_id"),
            timestamp=value.get("startTime"),
            trace_id=value.get("trace_id"),
            attributes=attributes if number < asked.MAX_SHARING else {},
            notes=list(dict.fromkeys(notes)),
            skip=None if each is not turns else skip,
        )
        for number, each in enumerate(conversations)
    ]


def _beside(parameters: dict[str, Any], notes: list[str]) -> tuple[list[Any], list[list[Any]]]:
    """What the request has beside its turns: instructions and documents, and inputs that the client's own body would
    put in place of the turns."""
    extra = _object(parameters.get("extra_body"))
    others = [
        each
        for place in (parameters, extra)
        if any(place.get(name) for name in asked.INPUT_KEYS)
        for each in asked.conversations(place, notes)
    ]
    plain = {name: each for name, each in parameters.items() if name not in asked.INPUT_KEYS}
    return next(iter(asked.conversations(plain, notes)), []), others


def _with(before: list[Any], instructions: Any, turns: list[Any]) -> list[Any]:
    """The turns after what comes before them, once."""
    if instructions and isinstance(instructions, str) and all(instructions != _content(each) for each in before):
        before = [*before, {"role": "system", "content": instructions}]
    elif instructions and not isinstance(instructions, str):
        before = [*before, *(instructions if isinstance(instructions, list) else [instructions])]
    first = _content(turns[0]) if turns else None
    return [*(each for each in before if _content(each) not in (first, _REDACTED)), *turns]


def _content(turn: Any) -> Any:
    """The content of a system turn."""
    return turn.get("content") if isinstance(turn, dict) and turn.get("role") == "system" else None


def _why_skipped(value: dict[str, Any], turns: list[Any], tools: bool) -> str | None:
    call = value.get("call_type")
    # A client's body that is logged as it is may call itself an embedding, and hold turns.
    theirs = len(_OWN & value.keys()) < _ENOUGH and any(isinstance(turn, dict) and turn.get("role") for turn in turns)
    if isinstance(call, str) and not theirs and any(part in call for part in _OTHER_CALLS):
        return "call_type: no call of a chat model"
    if not turns:
        return _NO_MESSAGES
    # Nothing else may be in it: anybody can write these words.
    redacted = all(isinstance(turn, dict) and turn.get("content") == _REDACTED and len(turn) <= 2 for turn in turns)
    if redacted and not tools and _redacted(_response(value.get("response"), [])):
        return "messages: redacted by the gateway"
    return None


def _conversations(messages: Any, notes: list[str]) -> tuple[list[Any], list[list[Any]]]:
    """The turns, and those of other inputs where there is a whole request in their place."""
    made = _turns(messages)
    if len(made) == 1 and isinstance(made[0], dict) and "role" not in made[0] and "type" not in made[0]:
        found = asked.conversations(made[0], notes)
        return (found[0], found[1:]) if found else (made, [])
    return made, []


def _turns(messages: Any) -> list[Any]:
    if isinstance(messages, str):
        decoded = text.told(messages)
        if decoded is None or not _are_turns(decoded):
            return [{"role": "user", "content": messages}] if messages else []
        messages = decoded
    return list(messages) if isinstance(messages, list) else [messages] if messages else []


def _are_turns(decoded: Any) -> bool:
    """Whether a decoded string was turns, and no text that happens to be JSON."""
    if isinstance(decoded, dict):
        return isinstance(decoded.get("messages"), list)
    return bool(decoded) and all(isinstance(each, dict) and ("role" in each or "type" in each) for each in decoded)


def _response(raw: Any, notes: list[str]) -> Any:
    found: Any = raw
    if isinstance(raw, dict):
        if isinstance(raw.get("choices"), list):
            found = [_choice(each) for each in raw["choices"] if isinstance(each, dict)]
        else:
            found = next((raw[name] for name in ("output", "content", "text", "response") if raw.get(name)), raw)
    if isinstance(found, list) and not found:
        return None
    if found and _redacted(found):
        notes.append("response: redacted by the gateway")
        return None
    return found or None


def _choice(choice: dict[str, Any]) -> Any:
    for name in ("message", "delta"):
        if isinstance(choice.get(name), dict):
            return {"role": "assistant", **choice[name]}
    return {"role": "assistant", "content": choice.get("text")}


def _redacted(found: Any) -> bool:
    """Whether an answer has no text but the gateway's; there is none where a call failed."""
    return all(each == _REDACTED for each in text.texts(found)) if found else True


def _attributes(value: dict[str, Any], metadata: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    found = {
        "gateway": "litellm",
        "call_type": value.get("call_type"),
        "status": value.get("status"),
        "provider": value.get("custom_llm_provider"),
        "deployment": value.get("model_id"),
        "route": value.get("model_group"),
        "request_id": value.get("litellm_call_id"),
        "team": metadata.get("user_api_key_team_alias"),
        "organization": metadata.get("user_api_key_org_id"),
        "key_alias": metadata.get("user_api_key_alias"),
        "error_type": _object(value.get("error_information")).get("error_class"),
        "cost": value.get("response_cost"),
        **{name: value.get(name) for name in _COPIED},
        **{name: parameters.get(name) for name in ("temperature", "top_p", "max_tokens", "seed", "reasoning_effort")},
        "request_tags": value.get("request_tags"),
        "requester_metadata": metadata.get("requester_metadata"),
    }
    return {name: each for name, each in found.items() if each is not None and each not in ("", [], {})}


def _first(place: dict[str, Any], *names: str) -> Any:
    return next((place[name] for name in names if place.get(name)), None)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
