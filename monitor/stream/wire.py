"""The wire format: one JSON object a message.

`id`, then either `prompt` (a string) or `messages` (chat: a list of {role, content}), optionally `response`, `model`,
`tenant`, `user`, `conversation_id`, `timestamp` (ISO 8601 or seconds), free `attributes`; unknown fields are kept
under `attributes`. Any other payload is an Invalid with a reason that names the field and holds none of the text.

Headers of a Kafka record: CloudEvents in binary mode (`ce_id`, `ce_time`, ... beside a payload as above) fill in `id`
and `timestamp` where the payload has none; they and `traceparent` are kept under `attributes`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

MAX_ID = 512
# Levels of lists and objects in one field; deeper ones cannot be stored.
MAX_DEPTH = 64


@dataclass(frozen=True)
class Invalid:
    """A payload that is not a valid message; `message_id` where one could be read."""

    reason: str
    message_id: str | None = None


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds a lone surrogate, which is no text; send valid Unicode") from None
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


def _with_zone(value: Any) -> Any:
    """A time without a zone is UTC."""
    if isinstance(value, str) and value and value[-1] != "Z" and "+" not in value[10:] and "-" not in value[10:]:
        return value + "Z"
    return value


Text = Annotated[str, AfterValidator(_whole)]
FullText = Annotated[Text, AfterValidator(_not_blank)]
Name = Annotated[Text, Field(max_length=MAX_ID)]


class Turn(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(strict=True, extra="ignore")

    role: Annotated[FullText, Field(max_length=64)]
    content: Text


class WireMessage(BaseModel):
    """A message as it came in."""

    model_config = ConfigDict(strict=True, extra="allow")

    id: Annotated[FullText, Field(max_length=MAX_ID)]
    prompt: FullText | None = None
    messages: Annotated[list[Turn], Field(min_length=1)] | None = None
    response: Text | None = None
    model: Name | None = None
    tenant: Name | None = None
    user: Name | None = None
    conversation_id: Name | None = None
    timestamp: Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_with_zone)] | None = None
    attributes: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_prompt(self) -> WireMessage:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if self.messages is not None and not any(turn.content.strip() for turn in self.messages):
            raise ValueError("messages: every content is empty")
        return self

    @property
    def turns(self) -> list[dict[str, str]]:
        """The conversation, whichever way it was sent."""
        if self.messages is not None:
            return [{"role": t.role, "content": t.content} for t in self.messages]
        return [{"role": "user", "content": self.prompt or ""}]

    @property
    def kept_attributes(self) -> dict[str, Any]:
        """Attributes with the unknown fields beside them."""
        return {**(self.model_extra or {}), **self.attributes}

    @property
    def stored_text(self) -> dict[str, Any]:
        """What privacy `full` keeps."""
        text: dict[str, Any] = {"messages": self.turns}
        return text | {"response": self.response} if self.response is not None else text

    @property
    def text_sha256(self) -> str:
        """A hash of the conversation and its response."""
        return hashlib.sha256(json.dumps(self.stored_text, sort_keys=True).encode()).hexdigest()


# Headers of a record that are stored; others are the transport's own.
_COPIED_HEADERS = ("traceparent", "tracestate")
_EVENT_PREFIX = "ce_"


def parse(payload: bytes, headers: Sequence[tuple[str, bytes | None]] = ()) -> WireMessage | Invalid:
    """Read one payload with its record's headers. Never raises for what is in them."""
    if not payload:
        return Invalid("payload: empty")
    try:
        # Decoded here: left to itself, json would also guess UTF-16 and let lone surrogates through.
        value = json.loads(payload.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Invalid("payload: not UTF-8")
    except RecursionError:
        return Invalid("payload: nested too deeply")
    except ValueError as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        return Invalid(f"payload: not JSON{where}")
    if not isinstance(value, dict):
        return Invalid(f"payload: a JSON {_kind(value)}, not an object")
    if headers:
        _add_headers(value, headers)
    unstorable = _unstorable(value)
    if unstorable is not None:
        return Invalid(unstorable, _readable_id(value))
    try:
        return WireMessage.model_validate(value)
    except ValidationError as error:
        return Invalid(_reason(error), _readable_id(value))
    except RecursionError:
        return Invalid("payload: nested too deeply", _readable_id(value))


def _add_headers(value: dict[str, Any], headers: Sequence[tuple[str, bytes | None]]) -> None:
    """Fill in fields that the payload does not set."""
    copied = {}
    for name, raw in headers:
        if raw is not None and (name in _COPIED_HEADERS or name.startswith(_EVENT_PREFIX)):
            copied[name] = raw.decode("utf-8", "replace")[:MAX_ID]
    if copied.get("ce_specversion"):
        for field, name in (("id", "ce_id"), ("timestamp", "ce_time")):
            if value.get(field) is None and name in copied:
                value[field] = copied[name]
    if copied and isinstance(value.setdefault("attributes", {}), dict):
        value["attributes"] = {**copied, **value["attributes"]}


def _unstorable(value: dict[str, Any]) -> str | None:
    """Why a field cannot be stored: nested too deeply, or a number that JSON does not have."""
    for name, whole in value.items():
        # An unknown field's name may itself be text.
        field = name if name in WireMessage.model_fields else "attributes"
        waiting = [(whole, 1)]
        while waiting:
            part, depth = waiting.pop()
            if isinstance(part, float) and not math.isfinite(part):
                return f"{field}: holds a number that is not finite"
            if isinstance(part, dict | list):
                if depth > MAX_DEPTH:
                    return f"{field}: nested too deeply (over {MAX_DEPTH} levels)"
                waiting += [(inner, depth + 1) for inner in (part.values() if isinstance(part, dict) else part)]
    return None


def _reason(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"]).lstrip(".")
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def _readable_id(value: dict[str, Any]) -> str | None:
    message_id = value.get("id")
    return message_id[:MAX_ID] if isinstance(message_id, str) else None


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
