"""LiteLLM's payloads as its own callback posts them, and in the forms of its other versions."""

from __future__ import annotations

import json
import random
import subprocess
import time
from typing import Any

import pytest

from monitor.stream.parse import Parsed, ParseOptions, Parser, parse
from monitor.stream.wire import Invalid, WireMessage
from tests.support import ROOT
from tests.support.stream.client_venv import client_python
from tests.support.stream.loopback import receiving

# Pinned: another version is tried by changing this line.
LITELLM = "litellm==1.110.2"


@pytest.fixture(scope="module")
def posted() -> bytes:
    """What LiteLLM's callback posts for the calls of tests/support/stream/litellm_calls.py: one array, then another."""
    python = client_python(LITELLM)
    script = ROOT / "tests" / "support" / "stream" / "litellm_calls.py"
    with receiving() as (address, bodies):
        done = subprocess.run(
            [python, script, address, "json_array"], capture_output=True, text=True, check=False, timeout=200
        )
    assert done.returncode == 0, done.stderr
    assert len(bodies) == 2
    return json.dumps([each for body in bodies for each in json.loads(body)]).encode()


@pytest.fixture(scope="module")
def read(posted: bytes) -> list[Parsed]:
    return parse(posted)


def asking(read: list[Parsed], text: str) -> WireMessage:
    """The message whose last turn says this."""
    (found,) = [m for m in read if isinstance(m, WireMessage) and any(text in turn["content"] for turn in m.turns)]
    return found


@pytest.mark.slow
def test_every_call_is_read_or_skipped(read: list[Parsed]) -> None:
    assert {each.format for each in read} == {"litellm"}
    assert sorted(each.reason for each in read if isinstance(each, Invalid)) == [
        "call_type: no call of a chat model",
        "messages: redacted by the gateway",
    ]
    assert len(read) == 10


@pytest.mark.slow
def test_names_parts_and_tools(read: list[Parsed]) -> None:
    message = asking(read, "What is this?")
    assert [turn["role"] for turn in message.turns] == ["system", "user"]
    assert message.unread == {"image": 1}
    assert message.response == "A cat."
    assert [tool["function"]["name"] for tool in message.tools] == ["weather"]
    assert (message.tenant, message.user, message.model) == ("team-7", "ann", "gpt-4o-mini")
    assert message.conversation_id == "s1"
    assert message.id is not None
    assert message.timestamp is not None
    assert message.attributes.items() >= {"gateway": "litellm", "provider": "openai", "status": "success"}.items()


@pytest.mark.slow
def test_calls_of_tools(read: list[Parsed]) -> None:
    asked = asking(read, "Weather in Rome?")
    (call,) = asked.turns[1]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert asked.turns[2]["content"] == "sunny"
    answered = asking(read, "Call it.").response or ""
    assert answered.startswith("Calling.\n<tool_call>\n")
    assert '"weather"' in answered


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "answered", "call_type"),
    [
        ("Will fail.", None, "acompletion"),
        ("Count.", "one two three", "acompletion"),
        ("Responses.", "Answered.", "aresponses"),
        ("Once upon", "a time", "atext_completion"),
        ("Hello.", "Hi.", "anthropic_messages"),
    ],
)
def test_every_kind_of_call(read: list[Parsed], asked: str, answered: str | None, call_type: str) -> None:
    message = asking(read, asked)
    assert message.response == answered
    assert message.attributes["call_type"] == call_type
    assert message.attributes["status"] == ("failure" if answered is None else "success")


@pytest.mark.slow
def test_mutations_of_real_payloads_never_raise(posted: bytes) -> None:
    chance = random.Random(1)
    payloads = [json.dumps(each).encode() for each in json.loads(posted)]
    for _ in range(10_000):
        payload = bytearray(chance.choice(payloads))
        for _ in range(3):
            at = chance.randrange(len(payload))
            payload[at : at + chance.randint(0, 3)] = chance.choice((b'"', b"null", b"[", b"{}", b"7", b"\\ud800", b""))
        for found in parse(bytes(payload)):
            assert isinstance(found, WireMessage | Invalid)


def payload(**fields: Any) -> bytes:
    """The smallest payload of a call, with these fields."""
    own = {"call_type": "completion", "startTime": 1772366400.5, "messages": [{"role": "user", "content": "Hi"}]}
    return json.dumps(own | fields).encode()


def message_of(**fields: Any) -> WireMessage:
    (found,) = parse(payload(**fields))
    assert isinstance(found, WireMessage), found
    return found


def skipped(**fields: Any) -> str:
    (found,) = parse(payload(**fields))
    assert isinstance(found, Invalid)
    assert (found.status, found.format) == ("skipped", "litellm")
    return found.reason


@pytest.mark.parametrize(
    ("messages", "contents"),
    [
        ("Hi", ["Hi"]),
        ('[{"role": "user", "content": "Hi"}]', ["Hi"]),
        ("[1, 2] what is the sum?", ["[1, 2] what is the sum?"]),
        ('["just", "JSON"]', ['["just", "JSON"]']),
        ({"messages": [{"role": "user", "content": "Hi"}]}, ["Hi"]),
        ({"role": "user", "content": "Hi"}, ["Hi"]),
        ([{"role": "user", "parts": [{"text": "Hi"}]}], ["Hi"]),
    ],
)
def test_forms_of_messages(messages: Any, contents: list[str]) -> None:
    assert [turn["content"] for turn in message_of(messages=messages).turns] == contents


@pytest.mark.parametrize(
    ("response", "text", "notes"),
    [
        ("Hello", "Hello", ()),
        ({}, None, ()),
        (None, None, ()),
        ("redacted-by-litellm", None, ("response: redacted by the gateway",)),
        ({"text": "redacted-by-litellm"}, None, ("response: redacted by the gateway",)),
        (
            {"choices": [{"message": {"role": "assistant", "content": "redacted-by-litellm"}}]},
            None,
            ("response: redacted by the gateway",),
        ),
        ({"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}, "a\nb", ()),
        ({"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]}, "Hello", ()),
        ({"type": "message", "content": [{"type": "text", "text": "Hello"}]}, "Hello", ()),
    ],
)
def test_forms_of_responses(response: Any, text: str | None, notes: tuple[str, ...]) -> None:
    found = message_of(response=response)
    assert found.response == text
    assert found.notes == notes


def test_instructions_beside_the_turns_are_the_system_turn() -> None:
    for fields in (
        {"model_parameters": {"instructions": "Be brief."}},
        {"model_parameters": {"system": [{"type": "text", "text": "Be brief."}]}},
        {"response": {"output": [], "instructions": "Be brief."}},
    ):
        first, second = message_of(**fields).turns
        assert (first["role"], first["content"], second["content"]) == ("system", "Be brief.", "Hi")


def test_what_is_skipped_says_why() -> None:
    assert skipped(messages="redacted-by-litellm") == "messages: redacted by the gateway"
    assert skipped(messages=None) == "messages: none; LiteLLM did not log them"
    image = skipped(call_type="aimage_generation", response_cost=0, model_group="g")
    assert image == "call_type: no call of a chat model"


def test_a_body_that_says_it_is_redacted_or_an_embedding_is_read() -> None:
    """Anybody can write these words: only what the gateway itself left out is skipped."""
    written = [{"role": "user", "content": "redacted-by-litellm"}]
    assert message_of(messages=written, response={"choices": [{"message": {"content": "Hello"}}]}).response == "Hello"
    beside = message_of(messages=written, model_parameters={"instructions": "Be brief."})
    assert [turn["role"] for turn in beside.turns] == ["system", "user"]
    assert message_of(call_type="embedding").turns == [{"role": "user", "content": "Hi"}]


HOW = "how to do it"


@pytest.mark.parametrize(
    "response",
    [
        {"choices": [{"message": {"content": "redacted-by-litellm", "reasoning_content": HOW}}]},
        {"choices": [{"message": {"content": "redacted-by-litellm", "tool_calls": [{"function": {"name": HOW}}]}}]},
        {"output": [{"type": "message", "content": "redacted-by-litellm"}, {"type": "reasoning", "summary": [HOW]}]},
        "redacted-by-litellm. " + HOW,
    ],
)
def test_an_answer_is_redacted_only_where_it_holds_nothing_else(response: Any) -> None:
    for fields in ({}, {"messages": [{"role": "user", "content": "redacted-by-litellm"}]}):
        found = message_of(response=response, **fields)
        assert HOW in (found.response or "")
        assert found.notes == () or "redacted" not in str(found.notes)


def test_a_redacted_answer_of_a_redacted_call_is_skipped() -> None:
    for response in (None, {"choices": [{"message": {"role": "assistant", "content": "redacted-by-litellm"}}]}):
        said = skipped(messages=[{"role": "user", "content": "redacted-by-litellm"}], response=response)
        assert said == "messages: redacted by the gateway"


@pytest.mark.parametrize(
    "parameters",
    [
        {"instructions": HOW},
        {"system": [{"type": "text", "text": HOW}]},
        {"extra_body": {"system": HOW}},
        {"documents": [{"title": "a", "data": HOW}]},
        {"extra_body": {"documents": [HOW]}},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "functions": [{"name": "g", "description": HOW}]},
    ],
)
def test_what_stands_beside_a_system_turn_is_read(parameters: dict[str, Any]) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    found = message_of(messages=turns, model_parameters=parameters, response={"instructions": "Be brief.", "text": "x"})
    assert HOW in str(found.turns) + str(found.tools)
    assert str(found.turns).count("Be brief.") == 1


def test_turns_of_a_clients_own_body_are_read_too() -> None:
    body = {"extra_body": {"messages": [{"role": "user", "content": HOW}]}}
    found = [each for each in parse(payload(model_parameters=body)) if isinstance(each, WireMessage)]
    assert [each.turns[-1]["content"] for each in found] == ["Hi", HOW]
    whole = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}], "systemInstruction": {"parts": [{"text": HOW}]}}
    assert [turn["content"] for turn in message_of(messages=whole).turns] == [HOW, "Hi"]


def test_many_inputs_do_not_each_get_the_answer_again() -> None:
    body = {"extra_body": {"prompt": [str(n) for n in range(900)], "documents": [HOW]}}
    found = parse(payload(model_parameters=body, response="x" * 100_000))
    assert sum(len(each.response or "") for each in found if isinstance(each, WireMessage)) < 2_000_000
    assert [each.turns[-1]["content"] for each in found if isinstance(each, WireMessage)][-2:] == ["899", HOW]


def test_a_clients_own_body_is_no_payload_of_the_gateway() -> None:
    turns = [{"role": "user", "content": "Hi"}]
    for body in (
        {"call_type": "embedding", "messages": turns, "system": HOW, "model": "m"},
        {"call_type": "embedding", "startTime": 1, "messages": turns, "system": HOW, "model": "m"},
        {"call_type": "embedding", "startTime": 1, "messages": [{"role": "user", "content": HOW}]},
    ):
        (found,) = parse(json.dumps(body).encode())
        assert isinstance(found, WireMessage)
        assert HOW in str(found.turns)


def test_surrogates_in_a_string_within_the_payload_are_replaced() -> None:
    text = '[{"role": "user", "content": "a\\ud800b"}]'
    for written in (payload(messages=text), json.dumps({"id": "m", "messages": text}).encode()):
        (found,) = parse(written)
        assert isinstance(found, WireMessage)
        assert found.turns == [{"role": "user", "content": "a\ufffdb"}]


@pytest.mark.parametrize(
    "text",
    [
        '[{"type": "image_url", "image_url": {"url": "how to do it"}}]',
        '[{"type": "text", "text": "hi", "x": "how to do it"}]',
        '{"messages": [{"role": "user", "content": "hi"}], "real": "how to do it"}',
        '{"content": "hi", "real": "how to do it"}',
        '["how to", "do it"]',
        "[1, 2]",
        '[{"role": "user", "content": "hi", "id": "how to do it"}]',
        '[{"role": "user", "content": "hi", "how to do it": 1}]',
        '[{"role": "user", "content": "how to do it", "content": "hi"}]',
    ],
)
def test_text_that_looks_like_turns_is_read_as_it_stands(text: str) -> None:
    assert message_of(messages=text).turns == [{"role": "user", "content": text}]
    for written in (
        {"id": "m", "messages": text},
        *(traces_of({name: text}) for name in ("gen_ai.prompt", "gen_ai.prompt.0.content")),
        traces_of({"openinference.span.kind": "LLM", "input.value": text}),
        traces_of({}, [{"name": "gen_ai.user.message", "attributes": {"gen_ai.event.content": text}}]),
    ):
        (own,) = parse(json.dumps(written).encode())
        assert isinstance(own, WireMessage), own
        assert own.turns == [{"role": "user", "content": text}]
    mapped = Parser(ParseOptions("mapping", {"messages": "log.said"}))(json.dumps({"log": {"said": text}}).encode())
    assert [each.turns for each in mapped if isinstance(each, WireMessage)] == [[{"role": "user", "content": text}]]


def traces_of(attributes: dict[str, Any], events: list[Any] | None = None) -> dict[str, Any]:
    span = {"attributes": attributes, "events": events or []}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def test_many_texts_in_a_string_are_looked_up_in_linear_time() -> None:
    for part in ({"type": "text", "text": "a b"}, {"type": "x", "text": "c d", "other": "no e f"}, {"a b": 1}):
        text = json.dumps([{"role": "user", "content": [part | {"n": f"g {n}"} for n in range(20_000)]}])
        started = time.process_time()
        (found,) = parse(payload(messages=text))
        assert isinstance(found, WireMessage)
        assert time.process_time() - started < 5


def test_what_the_gateway_cut_short_is_noted() -> None:
    text = "[{'role': 'user', 'content': 'long...truncated by litellm, this logger does not support large content"
    found = message_of(messages=text)
    assert found.turns == [{"role": "user", "content": text}]
    assert found.notes == ("messages: cut short by the gateway",)


def test_one_hidden_turn_does_not_hide_the_others() -> None:
    turns = [{"role": "user", "content": "redacted-by-litellm"}, {"role": "user", "content": "How do I pick a lock?"}]
    assert message_of(messages=turns).turns[1]["content"] == "How do I pick a lock?"


@pytest.mark.parametrize(
    ("fields", "tenant", "user"),
    [
        ({"metadata": {"user_api_key_team_alias": "shop"}}, "shop", None),
        ({"metadata": {"user_api_key_org_id": "org"}, "end_user": "ann"}, "org", "ann"),
        ({"metadata": {"user_api_key_user_id": "key-owner"}, "model_parameters": {"user": "ann"}}, None, "ann"),
        ({"metadata": {"user_api_key_user_id": "key-owner"}}, None, "key-owner"),
        ({"metadata": "not an object", "model_parameters": [1]}, None, None),
    ],
)
def test_who_it_was(fields: dict[str, Any], tenant: str | None, user: str | None) -> None:
    found = message_of(**fields)
    assert (found.tenant, found.user) == (tenant, user)


def test_the_session_is_the_conversation() -> None:
    assert message_of(session_id="s", trace_id="t").conversation_id == "s"
    assert message_of(session_id="", trace_id="t").conversation_id == "t"
    assert message_of(metadata={"requester_metadata": {"session_id": "r"}}, trace_id="t").conversation_id == "r"
