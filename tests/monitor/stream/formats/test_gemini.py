"""Gemini's generateContent, as Google's own client sends and reads it; Vertex AI's forms."""

from __future__ import annotations

from typing import Any

from google import genai
from google.genai import types

from tests.monitor.stream.formats.reading import read, read_all
from tests.support.stream.recording import recording

ANSWER: dict[str, Any] = {
    "candidates": [
        {
            "index": 0,
            "finishReason": "STOP",
            "content": {
                "role": "model",
                "parts": [
                    {"text": "They want the tide.", "thought": True},
                    {"text": "Let me look."},
                    {"functionCall": {"name": "tide", "args": {"place": "Ault"}}},
                ],
            },
        }
    ],
    "usageMetadata": {"promptTokenCount": 30, "candidatesTokenCount": 12, "totalTokenCount": 42},
    "modelVersion": "gemini-x-2026",
    "responseId": "g-1",
}
CALL = '<tool_call>\n{"name": "tide", "arguments": {"place": "Ault"}}\n</tool_call>'
TEXT = "data:text/plain;base64,"


def test_a_request_with_system_parts_tools_and_media() -> None:
    declaration = types.FunctionDeclaration(
        name="tide",
        description="The tide at a place.",
        parameters_json_schema={"type": "object", "properties": {"place": {"type": "string"}}},
    )
    with recording(ANSWER) as api:
        client = genai.Client(api_key="none", http_options=types.HttpOptions(base_url=api.url))
        answer = client.models.generate_content(
            model="gemini-x",
            contents=[
                types.Content(
                    role="user",
                    parts=[
                        types.Part.from_text(text="When is high water?"),
                        types.Part.from_bytes(data=b"\x89PNG", mime_type="image/png"),
                        types.Part.from_bytes(data=b"Springs at new moon.", mime_type="text/plain"),
                        types.Part.from_uri(file_uri="gs://bucket/sea.mp4", mime_type="video/mp4"),
                    ],
                ),
                types.Content(role="model", parts=[types.Part.from_function_call(name="tide", args={"place": "Ault"})]),
                types.Content(
                    role="user", parts=[types.Part.from_function_response(name="tide", response={"result": "06:10"})]
                ),
            ],
            config=types.GenerateContentConfig(
                system_instruction="Be brief.",
                temperature=0.2,
                tools=[types.Tool(function_declarations=[declaration])],
                automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            ),
        )
    logged = {"path": api.paths[0], "request": api.bodies[0], "tenant": "harbour"}
    for response in (ANSWER, answer.model_dump(mode="json"), answer.model_dump_json(by_alias=True, exclude_none=True)):
        found = read(logged | {"response": response})
        assert found.format == "gemini"
        assert found.turns == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "When is high water?\n[image]\nSprings at new moon.\n[video]"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": {"name": "tide", "arguments": {"place": "Ault"}}}],
            },
            {"role": "tool", "content": "06:10", "name": "tide"},
        ]
        assert found.unread == {"image": 1, "video": 1}
        assert found.response == f"They want the tide.\nLet me look.\n{CALL}"
        assert found.tools[0]["function"]["name"] == "tide"
        assert found.tools[0]["function"]["parameters"]["properties"] == {"place": {"type": "string"}}
        assert (found.model, found.tenant, found.id) == ("gemini-x", "harbour", "g-1")
        assert found.attributes["temperature"] == 0.2
        assert found.attributes["input_tokens"] == 30
        assert found.attributes["finish_reason"] == "STOP"


def test_names_with_underscores_and_contents_as_a_string() -> None:
    found = read({"contents": "When is high water?", "system_instruction": {"parts": {"text": "Be brief."}}})
    assert found.turns == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "When is high water?"},
    ]


def test_a_stream_is_joined_without_breaks_in_its_words() -> None:
    chunks = [
        {"candidates": [{"content": {"role": "model", "parts": [{"text": each}]}}], "responseId": "g-2"}
        for each in ("At s", "ix in the", " morning.")
    ]
    found = read({"request": {"contents": [{"parts": [{"text": "Tide?"}]}]}, "response": chunks})
    assert found.response == "At six in the morning."
    assert found.id == "g-2"


def test_instances_are_messages_of_their_own() -> None:
    found = read_all({"instances": [{"prompt": "One?"}, {"context": "Be brief.", "messages": [{"content": "Two?"}]}]})
    assert [[turn["content"] for turn in each.turns] for each in found] == [["One?"], ["Be brief.", "Two?"]]


def test_code_that_the_model_ran_is_read() -> None:
    parts = [
        {"executableCode": {"language": "PYTHON", "code": "print(2 + 2)"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "4"}},
    ]
    found = read({"contents": [{"role": "user", "parts": [{"text": "Sum?"}]}, {"role": "model", "parts": parts}]})
    assert found.turns[1] == {"role": "assistant", "content": "print(2 + 2)\n4"}
