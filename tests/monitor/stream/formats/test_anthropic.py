"""Anthropic's Messages, as its own client sends and reads them."""

from __future__ import annotations

import json
from typing import Any

from anthropic import Anthropic

from tests.monitor.stream.formats.reading import read
from tests.support.stream.recording import recording

TOOL = {"name": "tide", "description": "The tide at a place.", "input_schema": {"type": "object", "properties": {}}}
MESSAGE: dict[str, Any] = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "model": "claude-x-2026",
    "content": [
        {"type": "thinking", "thinking": "They want the tide.", "signature": "c2ln"},
        {"type": "text", "text": "Let me look.", "citations": None},
        {"type": "tool_use", "id": "toolu_1", "name": "tide", "input": {"place": "Ault"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 30, "output_tokens": 12, "cache_read_input_tokens": 7},
}
CALL = '<tool_call>\n{"name": "tide", "arguments": {"place": "Ault"}}\n</tool_call>'
CONVERSATION: dict[str, Any] = {
    "model": "claude-x",
    "max_tokens": 200,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "tools": [TOOL],
    "metadata": {"user_id": "u-5"},
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "When is high water?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {
                    "type": "document",
                    "title": "Almanac",
                    "source": {"type": "text", "media_type": "text/plain", "data": "Springs at new moon."},
                },
            ],
        },
        {"role": "assistant", "content": MESSAGE["content"]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{"type": "text", "text": "06:10"}, {"type": "text", "text": "18:40"}],
                },
                {"type": "text", "text": "And today?"},
            ],
        },
    ],
}


def client(url: str) -> Anthropic:
    return Anthropic(base_url=url, api_key="none", max_retries=0)


def test_a_request_with_system_blocks_tools_and_documents() -> None:
    with recording(MESSAGE) as api:
        answer = client(api.url).messages.create(**CONVERSATION)
    for response in (MESSAGE, answer.model_dump()):
        found = read({"request": api.bodies[0], "response": response})
        assert found.format == "anthropic"
        assert found.turns == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "When is high water?\n[image]\nAlmanac\nSprings at new moon."},
            {
                "role": "assistant",
                "content": "They want the tide.\nLet me look.",
                "tool_calls": [
                    {"id": "toolu_1", "type": "function", "function": {"name": "tide", "arguments": {"place": "Ault"}}}
                ],
            },
            {"role": "tool", "content": "06:10\n18:40", "tool_call_id": "toolu_1"},
            {"role": "user", "content": "And today?"},
        ]
        assert found.unread == {"image": 1}
        assert found.response == f"They want the tide.\nLet me look.\n{CALL}"
        assert found.tools == [
            {
                "type": "function",
                "function": {
                    "name": "tide",
                    "description": "The tide at a place.",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ]
        assert (found.id, found.model, found.user) == ("msg_01", "claude-x", "u-5")
        assert found.attributes["finish_reason"] == "tool_use"
        assert found.attributes["input_tokens"] == 30
        assert found.attributes["cached_tokens"] == 7
        assert "messages: thinking was read as text" in found.notes


def test_the_request_alone_keeps_its_system_prompt() -> None:
    found = read({"model": "claude-x", "system": "Be brief.", "messages": [{"role": "user", "content": "Hello"}]})
    assert found.turns[0] == {"role": "system", "content": "Be brief."}
    assert read({"id": "m1", "system": "Be brief.", "messages": [{"role": "user", "content": "x"}]}).turns == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "x"},
    ]


def test_a_stream_reads_as_the_client_reads_it() -> None:
    start = MESSAGE | {"content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        (
            {"type": "thinking", "thinking": "", "signature": ""},
            [{"type": "thinking_delta", "thinking": "They want it."}],
        ),
        ({"type": "text", "text": ""}, [{"type": "text_delta", "text": each} for each in ("Let ", "me ", "look.")]),
        (
            {"type": "tool_use", "id": "toolu_1", "name": "tide", "input": {}},
            [{"type": "input_json_delta", "partial_json": each} for each in ("", '{"place": ', '"Ault"}')],
        ),
    ]
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": each} for each in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": "tool_use", "stop_sequence": None}
    events += [
        {"type": "message_delta", "delta": ending, "usage": {"output_tokens": 12}},
        {"type": "message_stop"},
    ]
    sent = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events)
    with (
        recording(sent) as api,
        client(api.url).messages.stream(
            model="claude-x", max_tokens=9, messages=[{"role": "user", "content": "Tide?"}]
        ) as stream,
    ):
        whole = stream.get_final_message()
    texts = [each.text for each in whole.content if each.type == "text"]
    for response in (sent, events, whole.model_dump()):
        found = read({"request": api.bodies[0], "response": response})
        assert found.response == f"They want it.\n{texts[0]}\n{CALL}"
        assert found.id == "msg_01"
        assert found.attributes["output_tokens"] == 12
        assert found.attributes["finish_reason"] == "tool_use"


def test_lines_of_a_message_batch() -> None:
    found = read({"custom_id": "b-1", "params": CONVERSATION})
    assert (found.id, found.format, found.turns[-1]["content"]) == ("b-1", "anthropic", "And today?")


def test_servers_tools_are_calls_and_results_in_their_order() -> None:
    found = read(
        {
            "model": "claude-x",
            "max_tokens": 9,
            "messages": [
                {"role": "user", "content": "Look it up"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "tide ault"}},
                        {
                            "type": "web_search_tool_result",
                            "tool_use_id": "s1",
                            "content": [
                                {
                                    "type": "web_search_result",
                                    "title": "Tides of Ault",
                                    "url": "https://tides.example",
                                    "encrypted_content": "QUJD",
                                }
                            ],
                        },
                        {"type": "text", "text": "At six."},
                    ],
                },
            ],
        }
    )
    assert [turn["role"] for turn in found.turns] == ["user", "assistant", "tool", "assistant"]
    assert found.turns[1]["tool_calls"][0]["function"]["arguments"] == {"query": "tide ault"}
    assert found.turns[2] == {"role": "tool", "content": "Tides of Ault", "tool_call_id": "s1"}
    assert found.turns[3]["content"] == "At six."


def test_what_a_server_executed_is_read() -> None:
    ran = {"type": "code_execution_result", "stdout": "the sum is 4", "stderr": "", "return_code": 0, "content": []}
    block = {"type": "code_execution_tool_result", "tool_use_id": "s1", "content": ran}
    found = read({"max_tokens": 9, "messages": [{"role": "assistant", "content": [block]}]})
    assert found.turns == [{"role": "tool", "content": "the sum is 4", "tool_call_id": "s1"}]
