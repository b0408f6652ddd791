"""OpenTelemetry's GenAI spans and log events, as OTLP in protobuf or JSON.

A request holds many spans or log records: each one that holds messages gives a draft, in the order of the request. Log
records of the older conventions (one a turn) are joined where they are of the same span. Other spans are no messages;
a request of calls whose text was not recorded gives one draft that is skipped, with the reason.

The names that it takes for tenant, user and conversation are below; an attribute of the span counts before one of its
resource. docs/traffic.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from monitor.stream.formats import otlp_protobuf as protobuf
from monitor.stream.formats.draft import Draft, UnreadableError
from monitor.stream.formats.otlp_entries import ROOTS, Attributes, Entry, entries
from monitor.stream.formats.otlp_genai import (
    CHOICE,
    CONTENTS,
    DETAILS,
    ROLES_OF_EVENTS,
    Call,
    Event,
    call_of,
    is_call,
    is_content,
)

NAME = "otlp"

TENANT = (
    *("tenant.id", "tenant", "tenant_id", "customer.id", "organization.id", "metadata.user_api_key_team_id"),
    *("metadata.user_api_key_team_alias", "service.namespace"),
)
USER = (
    *("enduser.id", "user.id", "enduser.pseudo.id", "gen_ai.user", "traceloop.association.properties.user_id"),
    *("metadata.user_api_key_end_user_id", "llm.user"),
)
CONVERSATION = ("gen_ai.conversation.id", "session.id", "traceloop.association.properties.session_id", "thread.id")
MODEL = ("gen_ai.request.model", "gen_ai.response.model", "llm.model_name", "llm.request.model_name", "ai.model.id")
_COPIED: dict[str, tuple[str, ...]] = {
    "provider": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "ai.model.provider"),
    "operation": ("gen_ai.operation.name", "llm.request.type"),
    "service": ("service.name",),
    "environment": ("deployment.environment.name", "deployment.environment"),
    "response_model": ("gen_ai.response.model", "llm.response.model_name"),
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    "error_type": ("error.type",),
    "temperature": ("gen_ai.request.temperature",),
    "top_p": ("gen_ai.request.top_p",),
    "max_tokens": ("gen_ai.request.max_tokens",),
    "finish_reason": ("gen_ai.response.finish_reasons", "gen_ai.response.finish_reason", "llm.finish_reason"),
}
_ROOTS = frozenset(ROOTS)
BESIDE = "otlp: fields that OTLP has not were not read"
_WITHOUT_TEXT = "otlp: calls of a model without their messages; have the instrumentation record content"
_FIELDS = {
    "id": ("gen_ai.response.id",),
    "tenant": TENANT,
    "user": USER,
    "conversation_id": CONVERSATION,
    "model": MODEL,
}


def _names() -> dict[str, list[tuple[str, int]]]:
    """For each attribute what it is, with its rank among those that are the same."""
    made: dict[str, list[tuple[str, int]]] = {}
    for name, keys in (*_FIELDS.items(), *_COPIED.items()):
        for rank, key in enumerate(keys):
            made.setdefault(key, []).append((name, rank))
    return made


_NAMES = _names()
_LOG_EVENTS = frozenset((*ROLES_OF_EVENTS, CHOICE, DETAILS, *CONTENTS))
_KINDS = {"otlp-traces": protobuf.TRACES, "otlp-logs": protobuf.LOGS}


def is_protobuf(payload: bytes, headers: Sequence[tuple[str, bytes | None]]) -> bool:
    """Whether a payload is OTLP in protobuf: JSON begins with a brace, a bracket or white space."""
    if payload[:1] == b"\n":
        return protobuf.looks_like(payload)
    # What says that it is, and is not: the reason should be that of its own decoder.
    return payload[:1] not in (b"{", b"[", b" ", b"\t", b"\r", b"") and any(
        raw is not None and name.lower() == "content-type" and b"protobuf" in raw.lower() for name, raw in headers
    )


# Names with the ranks of their sources, and values.
_Ranked = list[tuple[str, int, Any]]


def decode(payload: bytes, named: str, headers: Sequence[tuple[str, bytes | None]]) -> dict[str, Any]:
    """The request as OTLP JSON has it. Raises UnreadableError."""
    del headers
    return protobuf.decode(payload, _KINDS.get(named))


def recognises(value: Any) -> bool:
    """Whether there are spans or log records by resource; without any, whether there is nothing else: a client may
    write such a field into a request of its own."""
    return isinstance(value, dict) and bool(value) and (_is_plain(value) or any(value.get(root) for root in ROOTS))


def _is_plain(value: dict[str, Any]) -> bool:
    return value.keys() <= _ROOTS


def read(value: Any) -> list[Draft]:
    """A draft for each span or event that holds messages. Raises UnreadableError."""
    if not isinstance(value, dict) or _ROOTS.isdisjoint(value):
        raise UnreadableError("otlp: neither resourceSpans nor resourceLogs")
    drafts: list[Draft] = []
    without_text = False
    known: dict[int, tuple[Attributes, _Ranked]] = {}
    for entry, call in _calls(entries(value)):
        if call:
            drafts.append(_draft(entry, call, known))
        else:
            without_text = without_text or is_call(entry.attributes)
    if not _is_plain(value):
        if not drafts:
            raise UnreadableError("otlp: no message, and fields that OTLP has not")
        drafts[0].notes.append(BESIDE)
    return drafts or ([Draft([], skip=_WITHOUT_TEXT)] if without_text else [])


def _calls(found: Iterable[Entry]) -> Iterator[tuple[Entry, Call]]:
    """Spans and log records with what they say; events of one span as one entry, at the place of their first."""
    together: list[tuple[Entry, list[Event]]] = []
    by_span: dict[Any, list[Event]] = {}
    number = 0
    for entry in found:
        if not entry.is_log:
            yield entry, call_of(entry.attributes, [(name, own, None) for name, own in entry.events])
        elif entry.name not in _LOG_EVENTS:
            # Some write the attributes of a span on a log record; other logs are none of ours.
            if any(map(is_content, entry.attributes)):
                together.append((entry, []))
        else:
            event = (entry.name, entry.attributes, entry.body)
            # Without a span, a choice is the last event of a call.
            key = (entry.trace_id, entry.span_id) if entry.span_id else number
            if entry.name == DETAILS or key not in by_span:
                together.append((entry, [event]))
                if entry.name != DETAILS:
                    by_span[key] = together[-1][1]
            else:
                by_span[key].append(event)
            if entry.name == CHOICE and not entry.span_id:
                number += 1
    for entry, events in together:
        yield entry, call_of(entry.attributes, events)


def _draft(entry: Entry, call: Call, known: dict[int, tuple[Attributes, _Ranked]]) -> Draft:
    named, other = _sorted_out(entry, known)
    attributes = {name: named[name] for name in _COPIED if name in named}
    reasons = named.get("finish_reason")
    if isinstance(reasons, list) and len(reasons) == 1:
        attributes["finish_reason"] = reasons[0]
    spanned = None
    if entry.span_id:
        attributes["span_id"] = entry.span_id
        spanned = f"{entry.trace_id}:{entry.span_id}" if entry.trace_id else None
    return Draft(
        call.turns,
        response=call.response or None,
        tools=call.tools or None,
        id=named.get("id", spanned),
        model=named.get("model"),
        tenant=named.get("tenant"),
        user=named.get("user"),
        conversation_id=named.get("conversation_id"),
        timestamp=entry.time,
        trace_id=entry.trace_id,
        attributes={**other, **attributes},
        notes=call.notes,
    )


def _sorted_out(entry: Entry, known: dict[int, tuple[Attributes, _Ranked]]) -> tuple[Attributes, Attributes]:
    """Values by the names above, and the other attributes that hold no text of the conversation. `known` keeps what a
    resource names, so that its attributes are looked at once, not for each of its spans."""
    named: Attributes = {}
    other = {key: value for key, value in entry.attributes.items() if key not in _NAMES and not is_content(key)}
    ranks: dict[str, int] = {}
    if id(entry.resource) not in known:
        # With the resource itself, so that its id stays its own.
        known[id(entry.resource)] = (entry.resource, _ranked(entry.resource, 1000))
    for name, rank, value in (*_ranked(entry.attributes, 0), *known[id(entry.resource)][1]):
        if rank < ranks.get(name, 2000):
            named[name], ranks[name] = value, rank
    return named, other


def _ranked(attributes: Attributes, behind: int) -> _Ranked:
    return [
        (name, rank + behind, value)
        for key, value in attributes.items()
        if key in _NAMES and value is not None and value != ""
        for name, rank in _NAMES[key]
    ]
