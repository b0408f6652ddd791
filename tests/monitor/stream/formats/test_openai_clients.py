"""Requests that OpenAI's own client sends, and answers that it reads, are read to the same conversation."""

from __future__ import annotations

import json
from typing import Any

from openai import OpenAI

from tests.monitor.stream.formats.reading import read
from tests.support.stream.recording import recording

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "tide",
            "description": "The tide at a place.",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        },
    }
]
COMPLETION = {
    "id": "chatcmpl-77",
    "object": "chat.completion",
    "created": 1_760_000_000,
    "model": "gpt-x-2026",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [
                    {"id": "call_9", "type": "function", "function": {"name": "tide", "arguments": '{"place": "Ault"}'}}
                ],
            },
        }
    ],
    "usage": {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42},
}
CALL = '<tool_call>\n{"name": "tide", "arguments": {"place": "Ault"}}\n</tool_call>'


def client(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_a_chat_completion_with_tools_parts_and_a_picture() -> None:
    with recording(COMPLETION) as api:
        answer = client(api.url).chat.completions.create(
            model="gpt-x",
            messages=[
                {"role": "developer", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "When is high water here?"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    ],
                },
            ],
            tools=TOOLS,
            temperature=0.2,
            user="u-5",
            metadata={"tenant": "harbour", "conversation_id": "c-3"},
        )
    # As a gateway logs what went over the wire, and as one does that logs the client's objects.
    for response in (COMPLETION, answer.model_dump(), answer.model_dump_json()):
        found = read({"request": api.bodies[0], "response": response})
        assert found.format == "openai_chat"
        assert found.turns == [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "When is high water here?\n[image]"},
        ]
        assert found.unread == {"image": 1}
        assert found.response == f"Let me look.\n{CALL}"
        assert found.tools == TOOLS
        assert (found.id, found.model, found.tenant, found.user) == ("chatcmpl-77", "gpt-x", "harbour", "u-5")
        assert found.conversation_id == "c-3"
        assert found.timestamp is not None
        assert found.timestamp.timestamp() == 1_760_000_000
        assert found.attributes["temperature"] == 0.2
        assert found.attributes["prompt_tokens"] == 30
        assert found.attributes["finish_reason"] == "tool_calls"
        assert found.attributes["response_model"] == "gpt-x-2026"


def test_a_stream_reads_as_the_client_reads_it() -> None:
    chunk: dict[str, Any] = {"id": "chatcmpl-8", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x"}
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"content": "High "},
        {"content": "water\nat six."},
        {
            "tool_calls": [
                {"index": 0, "id": "call_1", "type": "function", "function": {"name": "tide", "arguments": ""}},
                {"index": 1, "id": "call_2", "type": "function", "function": {"name": "tide", "arguments": "{}"}},
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"place": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Ault"}'}}]},
    ]
    events = [chunk | {"choices": [{"index": 0, "delta": each, "finish_reason": None}]} for each in deltas]
    events.append(chunk | {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}})
    sent = "".join(f"data: {json.dumps(each)}\n\n" for each in events) + "data: [DONE]\n\n"
    with recording(sent) as api:
        stream = client(api.url).chat.completions.create(
            model="gpt-x", messages=[{"role": "user", "content": "High water?"}], stream=True
        )
        chunks = [each.model_dump() for each in stream]
    seen = "".join(each["choices"][0]["delta"]["content"] or "" for each in chunks if each["choices"])
    other = '<tool_call>\n{"name": "tide", "arguments": {}}\n</tool_call>'
    for response in (sent, events, chunks):
        found = read({"request": api.bodies[0], "response": response})
        assert found.response == f"{seen}\n{CALL}\n{other}"
        assert found.attributes["completion_tokens"] == 5
        assert found.attributes["stream"] is True


def test_a_conversation_goes_on_with_the_clients_own_messages() -> None:
    with recording(COMPLETION) as api:
        said = client(api.url).chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "Tide?"}])
        client(api.url).chat.completions.create(
            model="gpt-x",
            messages=[
                {"role": "user", "content": "Tide?"},
                said.choices[0].message,  # type: ignore[list-item]
                {"role": "tool", "tool_call_id": "call_9", "content": "06:10"},
            ],
        )
    found = read(api.bodies[1])
    assert found.turns[1]["content"] == "Let me look."
    assert found.turns[1]["tool_calls"][0]["function"] == {"name": "tide", "arguments": {"place": "Ault"}}
    assert found.turns[2] == {"role": "tool", "content": "06:10", "tool_call_id": "call_9"}


RESPONSE: dict[str, Any] = {
    "id": "resp_5",
    "object": "response",
    "created_at": 1_760_000_000,
    "status": "completed",
    "model": "gpt-x-2026",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "They ask for the tide."}]},
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}],
        },
        {
            "id": "fc_1",
            "type": "function_call",
            "call_id": "call_9",
            "name": "tide",
            "arguments": '{"place": "Ault"}',
            "status": "completed",
        },
    ],
    "usage": {
        "input_tokens": 30,
        "output_tokens": 12,
        "total_tokens": 42,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": 8},
    },
}


def test_a_response_with_instructions_items_and_tools() -> None:
    flat: list[Any] = [{"type": "function", "strict": True, **TOOLS[0]["function"]}]
    with recording(RESPONSE) as api:
        first = client(api.url).responses.create(
            model="gpt-x",
            instructions="Be brief.",
            input="When is high water?",
            tools=flat,
            safety_identifier="u-5",
            metadata={"tenant_id": "harbour"},
            conversation="conv_2",
        )
        items: list[Any] = [
            {"role": "user", "content": [{"type": "input_text", "text": "When is high water?"}]},
            *first.output,
            {"type": "function_call_output", "call_id": "call_9", "output": "06:10"},
        ]
        client(api.url).responses.create(model="gpt-x", input=items)
    for response in (RESPONSE, first.model_dump()):
        found = read({"request": api.bodies[0], "response": response})
        assert found.format == "openai_responses"
        assert found.turns == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "When is high water?"},
        ]
        assert found.response == f"They ask for the tide.\nLet me look.\n{CALL}"
        assert found.tools == TOOLS
        assert (found.id, found.user, found.tenant) == ("resp_5", "u-5", "harbour")
        assert found.conversation_id == "conv_2"
        assert found.attributes["reasoning_tokens"] == 8
        assert found.attributes["cached_tokens"] == 3
    later = read(api.bodies[1])
    assert later.turns == [
        {"role": "user", "content": "When is high water?"},
        {
            "role": "assistant",
            "content": "They ask for the tide.\nLet me look.",
            "tool_calls": [
                {"id": "call_9", "type": "function", "function": {"name": "tide", "arguments": {"place": "Ault"}}}
            ],
        },
        {"role": "tool", "content": "06:10", "tool_call_id": "call_9"},
    ]


def test_a_response_streamed_and_broken_off() -> None:
    message = RESPONSE["output"][1]
    begun = RESPONSE | {"status": "in_progress", "output": []}
    item = message | {"content": [], "status": "in_progress"}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "sequence_number": 0, "response": begun},
        {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": item},
        {"type": "response.output_text.delta", "sequence_number": 2, "delta": "Let me ", "logprobs": [], **place},
        {"type": "response.output_text.delta", "sequence_number": 3, "delta": "look.", "logprobs": [], **place},
    ]
    end = {"type": "response.completed", "sequence_number": 4, "response": RESPONSE}
    with recording(_sse([*events, end])) as api:
        stream = client(api.url).responses.create(model="gpt-x", input="High water?", stream=True)
        seen = [each.model_dump() for each in stream]
    request = api.bodies[0]
    whole = f"They ask for the tide.\nLet me look.\n{CALL}"
    assert read({"request": request, "response": _sse([*events, end])}).response == whole
    assert read({"request": request, "response": seen}).response == whole
    assert read({"request": request, "response": _sse(events)}).response == "Let me look."


def _sse(events: list[dict[str, Any]]) -> str:
    return "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events)


def test_a_legacy_completion_and_an_embedding() -> None:
    answer = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "gpt-x",
        "choices": [{"index": 0, "text": " at six", "finish_reason": "stop", "logprobs": None}],
    }
    with recording(answer) as api:
        client(api.url).completions.create(model="gpt-x", prompt="High water is", max_tokens=4)
    found = read({"request": api.bodies[0], "response": answer})
    assert found.turns == [{"role": "user", "content": "High water is"}]
    assert found.response == " at six"
    vectors = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "e"}
    with recording(vectors) as api:
        client(api.url).embeddings.create(model="e", input=["High water", "Low water"], encoding_format="float")
    found = read({"request": api.bodies[0], "response": vectors})
    assert [turn["content"] for turn in found.turns] == ["High water", "Low water"]
    assert found.response is None
