"""One conversation as LiteLLM and each convention of OpenTelemetry write it.

A conversation is in OpenAI's form: `messages` (turns), `response` (text), `tools`. Each function gives a payload; spans
and log records are made with OpenTelemetry's own classes for protobuf, and `as_json` writes those as OTLP's JSON.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

TRACE, SPAN = bytes(range(1, 17)), bytes(range(1, 9))
NANOSECONDS = 1_700_000_000_123_456_789


@dataclass(frozen=True)
class Conversation:
    """Turns, the answer, and the functions that the model may call."""

    messages: list[dict[str, Any]]
    response: str
    tools: list[dict[str, Any]] = field(default_factory=list)


def any_value(value: Any) -> AnyValue:
    """A plain value as OpenTelemetry's."""
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(each) for each in value]))
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=pairs(value)))
    return AnyValue()


def pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def traces(
    *spans: dict[str, Any],
    resource: dict[str, Any] | None = None,
    events: list[tuple[str, dict[str, Any]]] | None = None,
) -> ExportTraceServiceRequest:
    """A request with a span for each dict of attributes; `events` are those of the first."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(pairs(resource or {}))
    scope = group.scope_spans.add()
    for number, attributes in enumerate(spans):
        span = scope.spans.add(trace_id=TRACE, span_id=SPAN[:-1] + bytes([8 + number]), name="chat", kind=3)
        span.start_time_unix_nano = NANOSECONDS
        span.end_time_unix_nano = NANOSECONDS + 5
        span.attributes.extend(pairs(attributes))
        for name, own in (events or []) if number == 0 else []:
            span.events.add(name=name, time_unix_nano=NANOSECONDS, attributes=pairs(own))
    return request


def logs(
    *records: tuple[str, dict[str, Any], Any], span: bytes = SPAN, named_by_attribute: bool = False
) -> ExportLogsServiceRequest:
    """A request with a log record for each (event name, attributes, body)."""
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for name, attributes, body in records:
        given = {"event.name": name, **attributes} if named_by_attribute else attributes
        scope.log_records.add(
            time_unix_nano=NANOSECONDS,
            severity_number=9,
            trace_id=TRACE,
            span_id=span,
            event_name="" if named_by_attribute else name,
            attributes=pairs(given),
            body=any_value(body) if body is not None else None,
        )
    return request


def as_json(request: Any) -> bytes:
    """OTLP's JSON: protobuf's, but for ids, which are hex."""
    return json.dumps(_with_hex_ids(MessageToDict(request))).encode()


def _with_hex_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: base64.b64decode(each).hex()
            if key in ("traceId", "spanId", "parentSpanId") and isinstance(each, str)
            else _with_hex_ids(each)
            for key, each in value.items()
        }
    return [_with_hex_ids(each) for each in value] if isinstance(value, list) else value


def parts_of(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn in the shape of `gen_ai.input.messages`."""
    parts: list[dict[str, Any]] = []
    if turn["role"] == "tool":
        parts.append({"type": "tool_call_response", "id": turn["tool_call_id"], "response": turn["content"]})
    elif turn.get("content"):
        parts.append({"type": "text", "content": turn["content"]})
    for call in turn.get("tool_calls", ()):
        function = call["function"]
        parts.append(
            {
                "type": "tool_call",
                "id": call["id"],
                "name": function["name"],
                "arguments": json.loads(function["arguments"]),
            }
        )
    return {"role": turn["role"], "parts": parts}


def present_attributes(said: Conversation, *, strings: bool) -> dict[str, Any]:
    """OpenTelemetry's present names, structured or as JSON in strings."""
    system = [turn for turn in said.messages if turn["role"] == "system"]
    rest = [turn for turn in said.messages if turn["role"] != "system"]
    made: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": [parts_of(turn) for turn in rest],
        "gen_ai.output.messages": [
            {"role": "assistant", "parts": [{"type": "text", "content": said.response}], "finish_reason": "stop"}
        ],
    }
    if system:
        made["gen_ai.system_instructions"] = [{"type": "text", "content": turn["content"]} for turn in system]
    if said.tools:
        made["gen_ai.tool.definitions"] = [{"type": "function", **tool["function"]} for tool in said.tools]
    return {key: json.dumps(value) if strings and not isinstance(value, str) else value for key, value in made.items()}


def events_of(said: Conversation) -> list[tuple[str, dict[str, Any]]]:
    """The events of before, with what each holds."""
    made = []
    for turn in said.messages:
        body = {key: value for key, value in turn.items() if key in ("content", "tool_calls") and value is not None}
        if turn["role"] == "tool":
            body["id"] = turn["tool_call_id"]
        made.append((f"gen_ai.{turn['role']}.message", body))
    answer = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said.response}}
    return [*made, ("gen_ai.choice", answer)]


def litellm_payload(said: Conversation) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "call_type": "acompletion",
        "startTime": 1772366400.5,
        "messages": said.messages,
        "model_parameters": {"tools": said.tools} if said.tools else {},
        "response": {"choices": [{"index": 0, "message": {"role": "assistant", "content": said.response}}]},
    }


def openllmetry(said: Conversation) -> dict[str, Any]:
    made: dict[str, Any] = {"llm.request.type": "chat"}
    for number, turn in enumerate(said.messages):
        start = f"gen_ai.prompt.{number}"
        made[f"{start}.role"] = turn["role"]
        if turn.get("content") is not None:
            made[f"{start}.content"] = turn["content"]
        if "tool_call_id" in turn:
            made[f"{start}.tool_call_id"] = turn["tool_call_id"]
        for index, call in enumerate(turn.get("tool_calls", ())):
            made[f"{start}.tool_calls.{index}.id"] = call["id"]
            made[f"{start}.tool_calls.{index}.name"] = call["function"]["name"]
            made[f"{start}.tool_calls.{index}.arguments"] = call["function"]["arguments"]
    made |= {"gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": said.response}
    for number, tool in enumerate(said.tools):
        start = f"llm.request.functions.{number}"
        made[f"{start}.name"] = tool["function"]["name"]
        made[f"{start}.description"] = tool["function"]["description"]
        made[f"{start}.parameters"] = json.dumps(tool["function"]["parameters"])
    return made


def openinference(said: Conversation) -> dict[str, Any]:
    made: dict[str, Any] = {"openinference.span.kind": "LLM"}
    for number, turn in enumerate(said.messages):
        start = f"llm.input_messages.{number}.message"
        made[f"{start}.role"] = turn["role"]
        if turn.get("content") is not None:
            made[f"{start}.content"] = turn["content"]
        if "tool_call_id" in turn:
            made[f"{start}.tool_call_id"] = turn["tool_call_id"]
        for index, call in enumerate(turn.get("tool_calls", ())):
            inner = f"{start}.tool_calls.{index}.tool_call"
            made[f"{inner}.id"] = call["id"]
            made[f"{inner}.function.name"] = call["function"]["name"]
            made[f"{inner}.function.arguments"] = call["function"]["arguments"]
    made |= {
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": said.response,
    }
    for number, tool in enumerate(said.tools):
        made[f"llm.tools.{number}.tool.json_schema"] = json.dumps(tool)
    return made


def _events_as_attributes(said: Conversation) -> list[tuple[str, dict[str, Any]]]:
    """Span events take no structure: what has some is JSON in a string."""
    return [
        (name, {key: json.dumps(each) if isinstance(each, list | dict) else each for key, each in body.items()})
        for name, body in events_of(said)
    ]


def _bodies(said: Conversation) -> list[tuple[str, dict[str, Any], Any]]:
    return [(name, {"gen_ai.system": "openai"}, body) for name, body in events_of(said)]


RENDERINGS: dict[str, Callable[[Conversation], bytes]] = {
    "litellm": lambda said: json.dumps(litellm_payload(said)).encode(),
    "litellm, turns as a string": lambda said: json.dumps(
        litellm_payload(said) | {"messages": json.dumps(said.messages), "response": said.response}
    ).encode(),
    "span, strings": lambda said: traces(present_attributes(said, strings=True)).SerializeToString(),
    "span, structured": lambda said: traces(present_attributes(said, strings=False)).SerializeToString(),
    "span, JSON": lambda said: as_json(traces(present_attributes(said, strings=False))),
    "event": lambda said: logs(
        ("gen_ai.client.inference.operation.details", present_attributes(said, strings=False), None)
    ).SerializeToString(),
    "event, JSON": lambda said: as_json(
        logs(("gen_ai.client.inference.operation.details", present_attributes(said, strings=True), None))
    ),
    "span events": lambda said: traces(
        {"gen_ai.system": "openai"}, events=_events_as_attributes(said)
    ).SerializeToString(),
    "log records": lambda said: logs(*_bodies(said)).SerializeToString(),
    "log records, JSON": lambda said: as_json(logs(*_bodies(said), named_by_attribute=True)),
    "OpenLLMetry": lambda said: traces(openllmetry(said)).SerializeToString(),
    "OpenInference, JSON": lambda said: as_json(traces(openinference(said))),
}
