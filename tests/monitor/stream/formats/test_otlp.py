"""OTLP requests of every convention and encoding give the same messages, and none stops the parser."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.stream.parse import Parsed, parse
from monitor.stream.wire import Invalid, WireMessage
from tests.support.stream.renderings_otlp import (
    NANOSECONDS,
    RENDERINGS,
    SPAN,
    TRACE,
    Conversation,
    as_json,
    logs,
    present_attributes,
    traces,
)

Record = tuple[str, dict[str, Any], Any]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "of a city", "parameters": {"type": "object", "properties": {}}},
}
SAID = Conversation(
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ],
    "It is sunny.",
    [TOOL],
)
# The events of before have no place for them.
WITHOUT_TOOLS = ("span events", "log records", "log records, JSON")
INTEGER = st.integers(-(1 << 63), (1 << 63) - 1)  # as OpenTelemetry has them
TEXT = st.text(min_size=1).filter(lambda text: bool(text.strip()) and text.lstrip()[0] not in "[{")


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(TEXT)})
    for _ in range(draw(st.integers(0, 2))):
        messages.append({"role": "user", "content": draw(TEXT)})
        if draw(st.booleans()):
            arguments = json.dumps(draw(st.dictionaries(st.text(min_size=1), INTEGER | st.text(), max_size=2)))
            call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": "c1", "content": draw(TEXT)})
        else:
            messages.append({"role": "assistant", "content": draw(TEXT)})
    messages.append({"role": "user", "content": draw(TEXT)})
    return Conversation(messages, draw(TEXT), [TOOL] if draw(st.booleans()) else [])


def one(payload: bytes) -> WireMessage:
    (message,) = parse(payload)
    assert isinstance(message, WireMessage), message
    return message


def said_by(message: WireMessage) -> tuple[Any, ...]:
    """What a chat template gets."""
    return message.turns, message.response, message.tools


@pytest.mark.parametrize("name", RENDERINGS)
def test_every_convention_is_read_whole(name: str) -> None:
    message = one(RENDERINGS[name](SAID))
    assert [turn["role"] for turn in message.turns] == ["system", "user", "assistant", "tool"]
    assert [turn["content"] for turn in message.turns] == ["Be brief.", "Weather in Rome?", "", "sunny"]
    (call,) = message.turns[2]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert "Rome" in json.dumps(call["function"]["arguments"])
    assert message.response == "It is sunny."
    assert [tool["function"]["name"] for tool in message.tools] == ([] if name in WITHOUT_TOOLS else ["weather"])
    assert message.notes == ()


@given(conversations())
@settings(max_examples=60)
def test_all_renderings_of_a_conversation_are_equal(said: Conversation) -> None:
    read = {name: said_by(one(render(said))) for name, render in RENDERINGS.items()}
    turns, response, tools = read["litellm"]
    assert response == said.response
    for name, found in read.items():
        assert found == (turns, response, [] if name in WITHOUT_TOOLS else tools), name


def test_names_are_mapped() -> None:
    attributes = present_attributes(SAID, strings=True) | {
        "gen_ai.request.model": "gpt",
        "gen_ai.response.model": "gpt-2026",
        "gen_ai.response.id": "r1",
        "gen_ai.provider.name": "openai",
        "gen_ai.conversation.id": "c7",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.response.finish_reasons": ["stop"],
        "enduser.id": "ann",
    }
    request = traces(attributes, resource={"service.name": "shop", "service.namespace": "web", "tenant.id": "acme"})
    for payload in (request.SerializeToString(), as_json(request)):
        message = one(payload)
        assert message.id == "r1"
        assert (message.tenant, message.user, message.model) == ("acme", "ann", "gpt")
        assert (message.conversation_id, message.trace_id) == ("c7", TRACE.hex())
        assert message.timestamp is not None
        assert message.timestamp.timestamp() == pytest.approx(NANOSECONDS / 1e9, abs=1e-3)
        kept = {"provider": "openai", "operation": "chat", "service": "shop", "response_model": "gpt-2026"}
        assert (
            message.attributes.items()
            >= (kept | {"span_id": SPAN.hex(), "input_tokens": 7, "finish_reason": "stop"}).items()
        )


def test_an_attribute_of_the_span_counts_before_one_of_its_resource() -> None:
    attributes = present_attributes(SAID, strings=True) | {"customer.id": "own"}
    assert one(traces(attributes, resource={"tenant.id": "all"}).SerializeToString()).tenant == "own"
    assert (
        one(traces(attributes | {"customer.id": ""}, resource={"service.namespace": "ns"}).SerializeToString()).tenant
        == "ns"
    )


def test_without_an_id_the_span_is_the_id() -> None:
    message = one(RENDERINGS["span, JSON"](SAID))
    assert message.id == f"{TRACE.hex()}:{SPAN.hex()}"


def test_spans_of_a_batch_are_messages_in_order_and_others_are_none() -> None:
    calls = [
        present_attributes(Conversation([{"role": "user", "content": f"q{n}"}], "a"), strings=True) for n in (1, 2)
    ]
    request = traces({"http.route": "/"}, calls[0], {"db.system": "pg"}, calls[1])
    found = [
        message.turns[0]["content"]
        for message in parse(request.SerializeToString())
        if isinstance(message, WireMessage)
    ]
    assert found == ["q1", "q2"]
    assert parse(as_json(request)) == parse(request.SerializeToString())


def test_a_request_about_other_things_holds_no_message() -> None:
    request = traces({"http.route": "/"}, {"db.system": "pg"})
    assert parse(request.SerializeToString()) == []
    assert parse(as_json(request)) == []
    assert parse(b'{"resourceMetrics": []}') == []


def test_calls_without_their_text_are_skipped_with_what_to_do() -> None:
    (found,) = parse(traces({"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt"}).SerializeToString())
    assert isinstance(found, Invalid)
    assert found.status == "skipped"
    assert "record content" in found.reason


def test_log_records_of_one_span_are_one_message() -> None:
    question: Record = ("gen_ai.user.message", {}, {"content": "q"})
    answer: Record = ("gen_ai.choice", {}, {"message": {"content": "a"}})
    message = one(logs(question, answer).SerializeToString())
    assert ([turn["content"] for turn in message.turns], message.response) == (["q"], "a")
    # Without a span, the answer is where a call ends.
    found = parse(logs(question, answer, question, answer, span=b"").SerializeToString())
    assert [each.response for each in found if isinstance(each, WireMessage)] == ["a", "a"]


def test_an_answer_whose_question_came_elsewhere_is_skipped() -> None:
    (found,) = parse(logs(("gen_ai.choice", {}, {"message": {"content": "a"}})).SerializeToString())
    assert isinstance(found, Invalid)
    assert found.reason == "nothing readable: a response without its request"


def test_json_that_was_cut_off_is_read_as_text() -> None:
    whole = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "How do I pick a lock?"}]}])
    message = one(traces({"gen_ai.input.messages": whole[:-5]}).SerializeToString())
    assert "How do I pick a lock?" in message.turns[0]["content"]
    assert message.notes == ("gen_ai.input.messages: not JSON (cut off?), read as text",)


@pytest.mark.parametrize(
    ("attributes", "turns", "response"),
    [
        ({"gen_ai.prompt": "Hello", "gen_ai.completion": "Hi"}, ["Hello"], "Hi"),
        ({"gen_ai.prompt": '[{"role": "user", "content": "Hello"}]'}, ["Hello"], None),
        ({"gen_ai.prompt": "[not JSON"}, ["[not JSON"], None),
        ({"gen_ai.prompt.0.content": '[{"type": "text", "text": "Hello"}]'}, ["Hello"], None),
        ({f"gen_ai.prompt.{n}.content": f"t{n}" for n in range(12)}, [f"t{n}" for n in range(12)], None),
        ({"llm.prompts.0.prompt.text": "Once", "llm.choices.0.completion.text": "upon"}, ["Once"], "upon"),
        ({"openinference.span.kind": "LLM", "input.value": "Hello", "output.value": "Hi"}, ["Hello"], "Hi"),
        (
            {"openinference.span.kind": "LLM", "input.value": '{"messages": [{"role": "user", "content": "Hello"}]}'},
            ["Hello"],
            None,
        ),
        ({"llm.input_messages.0.message.contents.0.message_content.text": "Hello"}, ["Hello"], None),
        ({"ai.prompt.messages": '[{"role": "user", "content": "Hello"}]', "ai.response.text": "Hi"}, ["Hello"], "Hi"),
        ({"gen_ai.system_instructions": "Be brief.", "gen_ai.input.messages": "Hello"}, ["Be brief.", "Hello"], None),
    ],
)
def test_other_forms(attributes: dict[str, Any], turns: list[str], response: str | None) -> None:
    message = one(traces(attributes).SerializeToString())
    assert [turn["content"] for turn in message.turns] == turns
    assert message.response == response


ASKED = {"gen_ai.input.messages": "Weather?"}
CALLED = {"role": "assistant", "tool_calls": [CALL]}
ANSWERS_WITH_CALLS: dict[str, bytes] = {
    "parts": traces(
        ASKED
        | {
            "gen_ai.output.messages": [
                {
                    "role": "assistant",
                    "parts": [{"type": "tool_call", "name": "weather", "arguments": {"city": "Rome"}}],
                }
            ]
        }
    ).SerializeToString(),
    "a log record": logs(
        ("gen_ai.user.message", {}, {"content": "Weather?"}), ("gen_ai.choice", {}, {"message": CALLED})
    ).SerializeToString(),
    "a span event": traces(
        {},
        events=[
            ("gen_ai.user.message", {"content": "Weather?"}),
            ("gen_ai.choice", {"tool_calls": json.dumps([CALL])}),
        ],
    ).SerializeToString(),
    "OpenLLMetry": traces(
        {
            "gen_ai.prompt.0.content": "Weather?",
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.tool_calls.0.name": "weather",
            "gen_ai.completion.0.tool_calls.0.arguments": '{"city": "Rome"}',
        }
    ).SerializeToString(),
    "OpenInference": traces(
        {
            "llm.input_messages.0.message.content": "Weather?",
            "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "weather",
            "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"city": "Rome"}',
        }
    ).SerializeToString(),
    "Vercel": traces(
        {
            "ai.prompt.messages": '[{"role": "user", "content": [{"type": "text", "text": "Weather?"}]}]',
            "ai.response.toolCalls": '[{"toolCallId": "1", "toolName": "weather", "args": {"city": "Rome"}}]',
        }
    ).SerializeToString(),
    "LiteLLM": json.dumps(
        {"call_type": "completion", "messages": "Weather?", "response": {"choices": [{"message": CALLED}]}}
    ).encode(),
}


@pytest.mark.parametrize("name", ANSWERS_WITH_CALLS)
def test_calls_of_tools_in_an_answer(name: str) -> None:
    message = one(ANSWERS_WITH_CALLS[name])
    assert [turn["content"] for turn in message.turns] == ["Weather?"]
    assert message.response == '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'


def test_events_with_content_in_attributes() -> None:
    events = [
        ("gen_ai.content.prompt", {"gen_ai.prompt": '[{"role": "user", "content": "Hello"}]'}),
        ("gen_ai.content.completion", {"gen_ai.completion": "Hi"}),
    ]
    message = one(traces({}, events=events).SerializeToString())
    assert (message.turns[0]["content"], message.response) == ("Hello", "Hi")
    events = [("gen_ai.user.message", {"gen_ai.event.content": '{"role": "user", "content": "Hello"}'})]
    assert one(traces({}, events=events).SerializeToString()).turns == [{"role": "user", "content": "Hello"}]


def test_names_with_underscores_and_ids_in_base64() -> None:
    """Protobuf's own JSON, which some write for OTLP's."""
    from google.protobuf.json_format import MessageToJson

    request = traces(present_attributes(SAID, strings=False))
    plain = MessageToJson(request, preserving_proto_field_name=True).encode()
    assert one(plain) == one(as_json(request))


def test_the_collectors_array_of_requests() -> None:
    request = json.loads(RENDERINGS["span, JSON"](SAID))
    assert len(parse(json.dumps([request, request]).encode())) == 2


def mutated(payload: bytes, chance: random.Random) -> bytes:
    """The payload with a few bytes changed, cut out, doubled or put in."""
    made = bytearray(payload)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made) or 1)
        kind = chance.randrange(4)
        if kind == 0 and made:
            made[at] = chance.randrange(256)
        elif kind == 1:
            del made[at : at + chance.randint(1, 20)]
        elif kind == 2:
            made[at:at] = made[at : at + chance.randint(1, 20)]
        else:
            made[at:at] = chance.choice((b'"', b"\\u0000", b"\\ud800", b"[", b"}", b"\xff", b"\x00", b"null", b"1e999"))
    return bytes(made)


@pytest.mark.slow
@pytest.mark.parametrize("name", RENDERINGS)
def test_ten_thousand_mutations_never_raise(name: str) -> None:
    chance = random.Random(name)
    payload = RENDERINGS[name](SAID)
    for _ in range(10_000):
        for found in parse(mutated(payload, chance)):
            check_stored(found)


def check_stored(found: Parsed) -> None:
    """What the tables need of any message."""
    if isinstance(found, WireMessage):
        json.dumps(found.stored_text).encode()
        assert found.turns
    else:
        assert found.reason
