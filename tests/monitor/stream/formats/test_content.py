"""Contents of every known shape as text; what has no text leaves a marker and a count; no text is lost."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from monitor.stream.formats.content import Reading, read_response, read_tools, read_turns
from monitor.stream.formats.reading import MAX_DEPTH

HELLO = base64.b64encode("Grüezi, this is text.".encode()).decode()
PDF = base64.b64encode(b"%PDF-1.7 binary").decode()
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3).decode()


def content(raw: Any, role: str = "user") -> tuple[str, dict[str, int]]:
    """The text of the one turn with this content, and the counts."""
    into = Reading()
    (turn,) = read_turns([{"role": role, "content": raw}], into)
    return turn["content"], into.unread


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("plain", "plain"),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}], "a"),
        (["a", "b"], "a\nb"),
        ([[["deep"]]], "deep"),
        ({"type": "text", "text": "alone"}, "alone"),
        ({"text": "without a type"}, "without a type"),
        ({"content_type": "text", "parts": ["a", "b"]}, "a\nb"),
        (5, "5"),
        (True, "True"),
        ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b", "annotations": []}], "a\nb"),
        ([{"type": "refusal", "refusal": "I will not."}], "I will not."),
        ([{"type": "text", "content": "OpenTelemetry's"}], "OpenTelemetry's"),
        ([{"type": "text", "text": {"value": "an assistant's", "annotations": []}}], "an assistant's"),
        ([{"type": "text", "text": "shown", "content": "not read, but noted"}], "shown"),
        ([{"type": "thinking", "thinking": "hm", "signature": "c2ln"}], "hm"),
        ([{"type": "reasoning", "content": "hm"}], "hm"),
        ([{"type": "search_result", "title": "T", "source": "s", "content": [{"type": "text", "text": "b"}]}], "T\nb"),
        ([{"guardContent": {"text": {"text": "guarded"}}}, {"cachePoint": {"type": "default"}}], "guarded"),
        ([{"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}], "hm"),
        ([{"text": "hm", "thought": True}], "hm"),
    ],
)
def test_text_of_every_shape_is_text(raw: Any, text: str) -> None:
    assert content(raw) == (text, {})


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}, "image"),
        ({"type": "image_url", "image_url": "https://x.example/a.png"}, "image"),
        ({"type": "input_image", "file_id": "f", "detail": "auto"}, "image"),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}, "image"),
        ({"image": {"format": "png", "source": {"bytes": PNG}}}, "image"),
        ({"inlineData": {"mimeType": "image/png", "data": PNG}}, "image"),
        ({"type": "blob", "mime_type": "image/png", "content": PNG}, "image"),
        ({"type": "uri", "modality": "image", "uri": "https://x.example/a"}, "image"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "audio"),
        ({"inline_data": {"mime_type": "audio/wav", "data": "AAAA"}}, "audio"),
        ({"type": "video_url", "video_url": {"url": "https://x.example/a"}}, "video"),
        ({"fileData": {"mimeType": "video/mp4", "fileUri": "gs://a"}}, "video"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file"),
        ({"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}"}, "file"),
        ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}}, "file"),
        ({"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}}, "file"),
        ({"type": "redacted_thinking", "data": "QUJD"}, "redacted_thinking"),
        ({"type": "hologram", "payload": {"id": "h1"}}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_a_part_without_text_leaves_a_marker_and_a_count(part: dict[str, Any], kind: str) -> None:
    assert content([{"type": "text", "text": "see"}, part, part]) == (f"see\n[{kind}]\n[{kind}]", {kind: 2})


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_data": f"data:text/plain;base64,{HELLO}"}},
        {"type": "file", "file": {"file_data": f"data:application/octet-stream;base64,{HELLO}"}},
        {"type": "input_file", "file_data": HELLO},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüezi, this is text."}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": HELLO}},
        {
            "type": "document",
            "source": {"type": "content", "content": [{"type": "text", "text": "Grüezi, this is text."}]},
        },
        {"document": {"format": "txt", "source": {"bytes": HELLO}}},
        {"inlineData": {"mimeType": "text/markdown", "data": HELLO}},
        {"inlineData": {"mimeType": "image/svg+xml", "data": HELLO}},
        {"type": "blob", "mime_type": "text/plain", "content": HELLO},
    ],
)
def test_a_file_with_text_is_read_whatever_it_is_called(part: dict[str, Any]) -> None:
    assert content([part]) == ("Grüezi, this is text.", {})


def test_what_stands_beside_a_picture_is_read() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://x.example", "caption": "b"}, "text": "a"}
    assert content([picture])[0] == "[image]\na\nb"
    document = {"type": "document", "title": "T", "context": "C", "source": {"type": "url", "url": "https://x.example"}}
    assert content([document]) == ("T\nC\n[file]", {"file": 1})


@pytest.mark.parametrize(
    "part",
    [
        {"type": "scroll", "text": "the text"},
        {"type": "TEXT", "text": "the text"},
        {"type": "scroll", "leaf": {"inner": [{"value": "the text"}]}},
        {"type": "scroll", "whatever_name": "the text"},
        {"kind": "scroll", "leaf": "the text"},
        {"type": "scroll", "id": "s1", "url": "https://x.example", "markdown": "the text"},
    ],
)
def test_a_part_of_an_unknown_kind_is_read_by_its_strings(part: dict[str, Any]) -> None:
    into = Reading()
    (turn,) = read_turns([{"role": "user", "content": [part]}], into)
    assert turn["content"] == "the text"
    assert into.notes == ["messages: a part of an unknown kind was read by its strings"]


def test_base64_in_a_part_of_an_unknown_kind_is_no_text() -> None:
    assert content([{"type": "scroll", "text": "see", "body": PNG}]) == ("see", {"data": 1})


@pytest.mark.parametrize(
    "call",
    [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "c1", "function": {"name": "f", "arguments": {"a": 1}}},
        {"id": "c1", "name": "f", "args": {"a": 1}, "type": "tool_call"},
        {"id": "c1", "type": "custom", "custom": {"name": "f", "input": '{"a": 1}'}},
    ],
)
def test_calls_beside_a_content_get_one_form(call: dict[str, Any]) -> None:
    (turn,) = read_turns([{"role": "assistant", "content": None, "tool_calls": [call]}], Reading())
    assert turn == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}],
    }


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
        {"type": "tool_call", "id": "c1", "name": "f", "arguments": {"a": 1}},
        {"type": "tool-call", "toolCallId": "c1", "toolName": "f", "input": {"a": 1}},
        {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
        {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}},
        {"toolUse": {"toolUseId": "c1", "name": "f", "input": {"a": 1}}},
    ],
)
def test_calls_within_a_content_get_one_form(part: dict[str, Any]) -> None:
    raw = {"role": "assistant", "content": [{"type": "text", "text": "now"}, part]}
    (turn,) = read_turns([raw], Reading())
    assert turn == {
        "role": "assistant",
        "content": "now",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}],
    }


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool_result", "tool_use_id": "c1", "content": "done"},
        {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "done"}]},
        {"type": "tool_call_response", "id": "c1", "response": "done"},
        {"type": "tool-result", "toolCallId": "c1", "output": {"type": "text", "value": "done"}},
        {"type": "function_call_output", "call_id": "c1", "output": "done"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "done"}]},
        {"functionResponse": {"id": "c1", "response": {"result": "done"}}},
        {"toolResult": {"toolUseId": "c1", "content": [{"text": "done"}]}},
        {"type": "lamp_result", "tool_use_id": "c1", "glow": "done", "text": "done"},
    ],
)
def test_results_become_turns_in_their_order(part: dict[str, Any]) -> None:
    before, after = {"type": "text", "text": "before"}, {"type": "text", "text": "after"}
    turns = read_turns([{"role": "user", "content": [before, part, after]}], Reading())
    assert turns == [
        {"role": "user", "content": "before"},
        {"role": "tool", "content": "done", "tool_call_id": "c1"},
        {"role": "user", "content": "after"},
    ]


def test_results_that_are_json_or_hold_pictures() -> None:
    into = Reading()
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    turns = read_turns(
        [
            {"role": "tool", "tool_call_id": "c1", "name": "f", "content": {"rows": [1, 2], "note": "ok"}},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c2", "content": [picture]}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"rows": [1]}}}]},
        ],
        into,
    )
    assert turns[1:] == [
        {"role": "tool", "content": "[image]", "tool_call_id": "c2"},
        {"role": "tool", "content": '{"rows": [1]}', "name": "f"},
    ]
    assert turns[0]["content"] == '{"rows": [1, 2], "note": "ok"}'
    assert into.unread == {"image": 1}


def test_arguments_that_are_no_object_stay_as_they_are() -> None:
    def arguments(raw: Any) -> Any:
        call = {"function": {"name": "f", "arguments": raw}}
        (turn,) = read_turns([{"role": "assistant", "tool_calls": [call]}], Reading())
        return turn["tool_calls"][0]["function"]["arguments"]

    assert arguments("rm -rf /") == "rm -rf /"
    assert arguments('{"a": NaN}') == '{"a": NaN}'
    assert arguments('["a"]') == '["a"]'
    assert arguments(["a"]) == '["a"]'
    assert arguments(None) == {}
    assert arguments('{"a": "\\ud83d"}') == {"a": "\ufffd"}
    deep: Any = "far down here"
    for _ in range(40):
        deep = {"a": deep}
    assert arguments(deep) == "far down here"


@pytest.mark.parametrize(
    ("raw", "role", "text"),
    [
        ("just text", "user", "just text"),
        ({"role": "user", "parts": [{"text": "a"}]}, "user", "a"),
        ({"from": "human", "value": "a"}, "user", "a"),
        ({"from": "gpt", "value": "a"}, "assistant", "a"),
        ({"author": {"role": "assistant"}, "content": {"content_type": "text", "parts": ["a"]}}, "assistant", "a"),
        ({"type": "human", "data": {"content": "a"}}, "user", "a"),
        ({"type": "ai", "content": "a"}, "assistant", "a"),
        ({"lc": 1, "type": "constructor", "id": ["x", "SystemMessage"], "kwargs": {"content": "a"}}, "system", "a"),
        ({"role": "USER", "content": "a"}, "user", "a"),
        ({"role": "model", "content": "a"}, "assistant", "a"),
        ({"role": "CHATBOT", "message": "a"}, "assistant", "a"),
        ({"content": "a"}, "user", "a"),
        ({"role": 7, "content": "a"}, "user", "a"),
        ({"role": ["system"], "content": "a"}, "user", "a"),
        ({"role": "critic", "content": "a"}, "critic", "a"),
        ({"role": "no name", "content": "a"}, "user", "no name\na"),
        ({"role": "x" * 65, "content": "a"}, "user", "x" * 65 + "\na"),
        ({"role": "user", "content": "a", "parts": [{"text": "b"}]}, "user", "a"),
        ({"role": "user", "question": "a b"}, "user", "a b"),
        ({"message": {"role": "assistant", "content": "a"}}, "assistant", "a"),
        ({"role": "assistant", "reasoning_content": "hm", "content": "a"}, "assistant", "hm\na"),
        ({"role": "assistant", "content": None, "refusal": "no"}, "assistant", "no"),
        ({"role": "assistant", "content": None, "audio": {"id": "x", "transcript": "a"}}, "assistant", "[audio]\na"),
        ({"role": "user", "content": "a", "images": [PNG]}, "user", "a\n[image]"),
    ],
)
def test_turns_in_the_shapes_of_others(raw: Any, role: str, text: str) -> None:
    (turn,) = read_turns([raw], Reading())
    assert (turn["role"], turn["content"]) == (role, text)


def test_items_of_one_answer_are_one_turn_and_the_payload_is_left_as_it_is() -> None:
    raw: list[Any] = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "r"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
    ]
    before = json.dumps(raw)
    turns = read_turns(raw, Reading())
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("user", "q"),
        ("assistant", "a"),
        ("tool", "r"),
        ("assistant", "hm\nb"),
    ]
    assert turns[1]["tool_calls"][0]["function"]["name"] == "f"
    assert json.dumps(raw) == before


def test_providers_own_tools_are_calls_with_what_they_were_asked() -> None:
    def asked(part: dict[str, Any]) -> tuple[str, Any]:
        function = read_turns([part], Reading())[0]["tool_calls"][0]["function"]
        return function["name"], function["arguments"]

    search = {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "q"}}
    assert asked(search) == ("web_search", {"type": "search", "query": "q"})
    assert asked({"type": "code_interpreter_call", "id": "i", "code": "1+1"}) == ("code_interpreter", {"code": "1+1"})
    shell = {"type": "local_shell_call", "call_id": "l", "action": {"type": "exec", "command": ["rm", "-rf"]}}
    assert asked(shell) == ("local_shell", {"type": "exec", "command": ["rm", "-rf"]})
    remote = {"type": "mcp_call", "id": "m", "name": "f", "arguments": '{"a": 1}', "output": "r"}
    turns = read_turns([remote], Reading())
    assert turns[0]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}
    assert turns[1] == {"role": "tool", "content": "r", "tool_call_id": "m", "name": "f"}


def test_depth_has_a_limit_and_what_is_below_counts() -> None:
    deep: Any = "far down"
    for _ in range(MAX_DEPTH + 20):
        deep = [deep]
    assert content(deep) == ("", {"nested": 1})
    part: Any = "far down"
    for _ in range(MAX_DEPTH + 20):
        part = {"type": "scroll", "leaf": part}
    assert content([{"type": "text", "text": "a"}, part])[1] == {"nested": 1, "unknown": 1}
    turn: Any = {"role": "user", "content": "x"}
    for _ in range(MAX_DEPTH + 20):
        turn = [turn]
    into = Reading()
    assert read_turns([turn], into) == []
    assert into.unread == {"nested": 1}


def test_a_long_name_of_a_function_is_read_as_text() -> None:
    name = "please tell me " * 40
    (turn,) = read_turns([{"role": "assistant", "tool_calls": [{"function": {"name": name}}]}], Reading())
    function = turn["tool_calls"][0]["function"]
    assert len(function["name"]) == 256
    assert name in function["arguments"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (None, None),
        ("as it is", "as it is"),
        ("", ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ({"role": "assistant", "content": "a"}, "a"),
        ([{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}], "a\nb"),
        ({"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}, "a\nb"),
        ({"choices": [{"text": "a"}]}, "a"),
        ({"candidates": [{"content": {"parts": [{"text": "a"}]}}]}, "a"),
        ({"output": {"message": {"role": "assistant", "content": [{"text": "a"}]}}}, "a"),
        ({"output": [{"type": "message", "content": [{"type": "output_text", "text": "a"}]}]}, "a"),
        ({"message": {"role": "assistant", "content": "a"}, "done": True}, "a"),
        ({"completion": " a"}, " a"),
        ({"generation": "a"}, "a"),
        ({"results": [{"outputText": "a"}]}, "a"),
        ({"status_code": 200, "body": {"choices": [{"message": {"content": "a"}}]}}, "a"),
        ({"error": {"type": "overloaded", "message": "later"}}, None),
        ({"role": "assistant", "content": None}, None),
        ([{"choices": [{"delta": {"content": "a"}}]}, {"choices": [{"delta": {"content": "b"}}]}], "ab"),
        ([{"message": {"content": "a"}, "done": False}, {"message": {"content": "b"}, "done": True}], "ab"),
        ({"sung": {"verse": "a b"}}, "a b"),
    ],
)
def test_answers_of_every_shape(raw: Any, text: str | None) -> None:
    assert read_response(raw, Reading()) == text


def test_calls_of_an_answer_are_written_as_models_write_them() -> None:
    raw = {"role": "assistant", "content": "Now:", "tool_calls": [{"function": {"name": "f", "arguments": '{"ä": 1}'}}]}
    assert read_response(raw, Reading()) == 'Now:\n<tool_call>\n{"name": "f", "arguments": {"ä": 1}}\n</tool_call>'
    raw["tool_calls"] = [{"function": {"name": "f", "arguments": "raw"}}]
    assert read_response(raw, Reading()) == 'Now:\n<tool_call>\n{"name": "f", "arguments": "raw"}\n</tool_call>'


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
DECLARED = {"name": "f", "description": "Does it.", "parameters": SCHEMA}


@pytest.mark.parametrize(
    "raw",
    [
        [{"type": "function", "function": DECLARED}],
        [DECLARED],
        [{"type": "function", "strict": True, **DECLARED}],
        [{"name": "f", "description": "Does it.", "input_schema": SCHEMA}],
        [{"functionDeclarations": [DECLARED]}],
        [{"function_declarations": [{"name": "f", "description": "Does it.", "parametersJsonSchema": SCHEMA}]}],
        {"tools": [{"toolSpec": {"name": "f", "description": "Does it.", "inputSchema": {"json": SCHEMA}}}]},
        json.dumps([{"type": "function", "function": DECLARED}]),
        {"f": {"description": "Does it.", "parameters": SCHEMA}},
        [{"type": "function", "function": {**DECLARED, "parameters": json.dumps(SCHEMA)}}],
    ],
)
def test_declarations_get_one_form(raw: Any) -> None:
    expected = {"name": "f", "description": "Does it.", "parameters": SCHEMA}
    if isinstance(raw, dict) and "f" in raw:
        # Declared by name.
        raw = {"f": dict(raw["f"])}
    assert read_tools(raw, Reading()) == [{"type": "function", "function": expected}]


def test_tools_of_a_provider_keep_their_settings_and_their_text() -> None:
    raw = [
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
        {"googleSearch": {}},
        {"type": "mcp", "server_label": "s", "server_description": "does what it is told"},
        {"type": "custom", "custom": {"name": "c", "description": "d", "format": {"definition": "start: WORD"}}},
    ]
    found = [each["function"] for each in read_tools(raw, Reading())]
    assert [each["name"] for each in found] == ["web_search", "googleSearch", "mcp", "c"]
    assert found[0]["parameters"] == {"max_uses": 5}
    assert found[2]["parameters"]["server_description"] == "does what it is told"
    assert found[3]["parameters"] == {"format": {"definition": "start: WORD"}}


def test_a_schema_that_no_template_can_take_is_read_by_its_strings() -> None:
    deep: Any = {"description": "far down here"}
    for _ in range(60):
        deep = {"properties": deep}
    into = Reading()
    (found,) = read_tools([{"name": "f", "description": "Does it.", "parameters": deep}], into)
    assert found["function"] == {"name": "f", "description": "Does it.\nfar down here", "parameters": {}}
    assert into.notes
    (odd,) = read_tools([{"name": "f", "parameters": {"maximum": float("inf")}}], Reading())
    assert odd["function"]["parameters"] == {}
