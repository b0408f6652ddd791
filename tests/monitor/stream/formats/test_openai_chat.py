"""Which payloads are requests of an API and which are awry's own JSON; wrappings; names beside a request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from monitor.stream.parse import ParseOptions, Parser, parse
from monitor.stream.wire import Invalid, WireMessage
from tests.monitor.stream.formats.reading import read, read_all, refused

TURNS = [{"role": "user", "content": "Tide?"}]
REQUEST: dict[str, Any] = {"model": "m", "messages": TURNS}
ANSWER: dict[str, Any] = {"id": "chatcmpl-1", "choices": [{"message": {"role": "assistant", "content": "Six."}}]}


@pytest.mark.parametrize(
    ("payload", "format_"),
    [
        ({"messages": TURNS}, "awry"),
        ({"id": "a", "messages": TURNS, "model": "m", "response": "Six."}, "awry"),
        ({"prompt": "Tide?"}, "awry"),
        ({"prompt": "Tide?", "model": "m"}, "awry"),
        ({"id": "a", "messages": TURNS, "ticket": "t-1"}, "awry"),
        (REQUEST, "openai_chat"),
        (REQUEST | {"user": "u"}, "openai_chat"),
        (REQUEST | {"id": "a", "tenant": "t", "temperature": 1}, "openai_chat"),
        ({"messages": TURNS, "response": ANSWER}, "openai_chat"),
        ({"model": "m", "prompt": ["a", "b"]}, "openai_chat"),
        ({"prompt": "Tide?", "max_tokens": 5}, "openai_chat"),
        (REQUEST | {"system": "Be brief."}, "anthropic"),
        (REQUEST | {"tools": [{"name": "f", "input_schema": {}}]}, "anthropic"),
        ({"model": "m", "input": "Tide?"}, "openai_responses"),
        ({"contents": [{"parts": [{"text": "Tide?"}]}]}, "gemini"),
        ({"messages": [{"role": "user", "content": [{"text": "Tide?"}]}]}, "bedrock"),
        ([{"role": "user", "content": "Tide?"}], "turns"),
        ({"conversations": [{"from": "human", "value": "Tide?"}]}, "turns"),
    ],
)
def test_formats_are_told_apart_and_all_are_read(payload: Any, format_: str) -> None:
    found = parse(json.dumps(payload).encode())
    assert all(isinstance(each, WireMessage) and each.format == format_ for each in found)


@pytest.mark.parametrize(
    "payload",
    [
        {"request": REQUEST, "response": ANSWER},
        {"request": json.dumps(REQUEST), "response": json.dumps(ANSWER)},
        {"request_body": json.dumps(REQUEST), "response_body": json.dumps(ANSWER)},
        {"requestBody": REQUEST, "responseBody": ANSWER},
        {"body": REQUEST, "response": {"status_code": 200, "request_id": "r", "body": ANSWER}},
        {"input": REQUEST, "output": ANSWER},
        {"input": TURNS, "output": {"role": "assistant", "content": "Six."}, "model": "m"},
        {"input": {"messages": TURNS, "model": "m"}, "output": "Six."},
        {"request": {"method": "POST", "url": "/v1/chat/completions", "body": REQUEST}, "response": {"body": ANSWER}},
        {"kwargs": REQUEST, "response": ANSWER},
        {"event": "call", "data": {"request": REQUEST, "response": ANSWER}},
        REQUEST | ANSWER,
        REQUEST | {"response": ANSWER},
        {"request": REQUEST, "response": ANSWER["choices"][0]["message"]},
        {"request": REQUEST, "response": "Six."},
        {"schemaType": "ModelInvocationLog", "input": {"inputBodyJson": REQUEST}, "output": {"outputBodyJson": ANSWER}},
        {"ai": {"proxy": {"payload": {"request": json.dumps(REQUEST), "response": json.dumps(ANSWER)}}}},
    ],
)
def test_requests_are_found_in_their_wrappings(payload: dict[str, Any]) -> None:
    found = read(payload)
    assert (found.turns, found.response, found.model) == (TURNS, "Six.", "m")


def test_own_fields_beside_a_request_count_before_its_own() -> None:
    request = REQUEST | {"user": "said", "metadata": {"tenant": "said", "user_id": "said", "session_id": "s-1"}}
    around = {"id": "m-1", "tenant": "known", "user": "known", "timestamp": "2026-02-03T04:05:06Z", "trace_id": "t-1"}
    found = read(around | {"request": request, "response": ANSWER})
    assert (found.id, found.tenant, found.user, found.conversation_id) == ("m-1", "known", "known", "s-1")
    assert found.trace_id == "t-1"
    assert found.timestamp is not None
    assert found.timestamp.year == 2026
    assert found.attributes["response_id"] == "chatcmpl-1"
    alone = read({"request": request})
    assert (alone.id, alone.tenant, alone.user) == (None, "said", "said")


def test_a_gateways_name_under_another_key_counts_before_the_requests() -> None:
    found = read({"user_id": "known", "team_id": "known", "request": REQUEST | {"user": "said", "tenant": "said"}})
    assert (found.user, found.tenant) == ("known", "known")


def test_what_has_no_place_is_kept_as_attributes() -> None:
    request = REQUEST | {"tool_choice": "auto", "top_p": 0.5, "n": 1, "metadata": {"department": "sea"}}
    found = read({"request": request, "environment": "test", "provider": "p", "ticket": "t-1"})
    assert found.attributes == {
        "tool_choice": "auto",
        "top_p": 0.5,
        "n": 1,
        "department": "sea",
        "environment": "test",
        "provider": "p",
        "ticket": "t-1",
    }


@pytest.mark.parametrize("key", ["system", "instructions", "systemInstruction", "system_instruction", "preamble"])
@pytest.mark.parametrize("name", ["auto", "openai_chat", "anthropic", "openai_responses", "gemini", "bedrock"])
def test_instructions_at_the_top_are_never_lost(key: str, name: str) -> None:
    payload = json.dumps(REQUEST | {"id": "a", "tenant": "t", key: "Be brief."}).encode()
    (found,) = Parser(ParseOptions(format=name))(payload)
    assert isinstance(found, WireMessage)
    assert found.turns == [{"role": "system", "content": "Be brief."}, *TURNS]
    assert found.tenant == "t"


@pytest.mark.parametrize(
    ("beside", "text"),
    [
        ({"documents": [{"title": "T", "text": "hidden here"}]}, "T\nhidden here"),
        ({"prediction": {"type": "content", "content": "hidden here"}}, "hidden here"),
        (
            {"response_format": {"json_schema": {"schema": {"description": "do what is hidden here"}}}},
            "do what is hidden here",
        ),
        ({"chat_template": "hidden {{ here }}"}, "hidden {{ here }}"),
        ({"extra_body": {"documents": [{"text": "hidden here"}]}}, "hidden here"),
    ],
)
def test_text_beside_the_turns_is_read(beside: dict[str, Any], text: str) -> None:
    found = read(REQUEST | {"temperature": 1} | beside)
    assert found.turns == [{"role": "system", "content": text}, *TURNS]
    assert "request: text beside the turns was read as a system turn" in found.notes


def test_names_of_fields_in_a_schema_are_no_text_beside() -> None:
    schema = {
        "type": "object",
        "title": "Tide Table",
        "properties": {"at": {"type": "string", "description": "a time"}},
    }
    found = read(REQUEST | {"response_format": {"type": "json_schema", "json_schema": {"name": "t", "schema": schema}}})
    assert found.turns == TURNS


@pytest.mark.parametrize(
    "beside",
    [{"prompt": "hidden"}, {"input": "hidden"}, {"contents": [{"parts": [{"text": "hidden"}]}]}, {"inputs": "hidden"}],
)
def test_no_input_hides_behind_another(beside: dict[str, Any]) -> None:
    found = read_all(REQUEST | {"max_tokens": 5} | beside)
    assert sorted(each.turns[-1]["content"] for each in found) == ["Tide?", "hidden"]
    assert all("request: has several inputs, each was read as a message of its own" in each.notes for each in found)


def test_prompts_are_paired_with_their_choices() -> None:
    choices = [{"index": index, "text": text} for index, text in enumerate(["a1", "a2", "b1", "b2"])]
    found = read_all({"model": "m", "prompt": ["a", "b"], "n": 2, "choices": choices})
    assert [(each.turns[0]["content"], each.response) for each in found] == [("a", "a1\na2"), ("b", "b1\nb2")]


def test_several_choices_are_all_read() -> None:
    found = read(REQUEST | {"choices": [{"message": {"content": "One."}}, {"message": {"content": "Two."}}]})
    assert found.response == "One.\nTwo."
    assert found.attributes["n_choices"] == 2


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2], [3]]])
def test_token_ids_are_no_text(prompt: Any) -> None:
    for found in parse(json.dumps({"model": "m", "prompt": prompt, "max_tokens": 5}).encode()):
        assert isinstance(found, Invalid)
        assert (found.status, found.reason) == ("skipped", "nothing readable: only token_ids")
        assert found.unread == {"token_ids": 1}


def test_what_a_request_only_points_at_is_said() -> None:
    found = read({"model": "m", "input": "And now?", "previous_response_id": "resp_1"})
    assert "previous_response_id: the turns before were not in the payload" in found.notes
    stored = read({"model": "m", "prompt": {"id": "pmpt_1", "version": "2", "variables": {"town": "in Ault"}}})
    assert stored.turns == [{"role": "user", "content": "[stored_prompt]\nin Ault"}]
    pointed = refused({"model": "m", "input": [{"type": "item_reference", "id": "msg_1"}]})
    assert pointed.unread == {"item_reference": 1}


def test_an_answer_that_is_json_stays_as_it_is() -> None:
    assert read({"request": REQUEST, "response": '{"content": "Six."}'}).response == '{"content": "Six."}'
    assert read({"request": REQUEST, "response": "data: six"}).response == "data: six"


def test_an_answer_without_its_request_is_skipped() -> None:
    for payload in (ANSWER, {"id": "b", "custom_id": "c", "response": {"status_code": 200, "body": ANSWER}}):
        found = refused(payload)
        assert (found.status, found.reason) == ("skipped", "nothing readable: a response without its request")


def test_a_failed_call_is_read_without_an_answer() -> None:
    found = read({"request": REQUEST, "response": {"error": {"type": "overloaded", "message": "Later."}}})
    assert found.response is None
    assert found.attributes["error_type"] == "overloaded"


def test_arrays_of_requests_are_messages_each_also_under_a_named_format() -> None:
    payload = json.dumps([REQUEST, {"request": REQUEST, "response": ANSWER}, 5, [REQUEST]]).encode()
    for options in (ParseOptions(), ParseOptions(format="openai_chat")):
        found = Parser(options)(payload)
        assert [isinstance(each, WireMessage) for each in found] == [True, True, False, False]


def test_lone_surrogates_within_json_strings_are_replaced() -> None:
    body = '{"model": "m", "messages": [{"role": "user", "content": "a\\ud83db"}]}'
    assert read({"request_body": body}).turns[0]["content"] == "a\ufffdb"


@pytest.mark.parametrize(
    "added",
    [
        {"resourceSpans": []},
        {"resourceLogs": [{}]},
        {"prompt": ""},
        {"request": {"messages": [{"role": "user", "content": "Hello"}]}},
        {"conversations": [{"from": "human", "value": "Hello"}]},
        {"output": "Six."},
        {"tenant": ["odd"], "id": {"odd": 1}, "timestamp": "yesterday", "user": "u" * 600},
        {"type": "message", "stop_reason": "end_turn", "role": "assistant"},
    ],
)
def test_fields_that_a_client_adds_hide_nothing(added: dict[str, Any]) -> None:
    for request in (REQUEST, REQUEST | {"max_tokens": 5}):
        assert "Tide?" in [turn["content"] for each in read_all(request | added) for turn in each.turns]


def test_a_prompt_beside_messages_is_read_too_where_they_are_a_request() -> None:
    found = read_all({"model": "m", "messages": [], "prompt": "Tide?"})
    assert [each.turns for each in found] == [TURNS]
    assert len(read_all({"model": "m", "messages": TURNS, "prompt": "hidden"})) == 2


def test_an_input_of_another_shape_is_read_by_its_strings() -> None:
    assert read({"model": "m", "input": {"role": "user", "content": "Tide?"}}).turns == TURNS
    found = read({"input": {"question": "When is high water?"}, "output": {"answer": "At six."}})
    assert found.turns == [{"role": "user", "content": "When is high water?"}]
    assert found.response == "At six."
