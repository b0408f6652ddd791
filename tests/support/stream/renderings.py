"""One conversation in the words of every format: `render(conversation, format)` gives what a gateway would log.

Contract: whatever the format, awry reads the same turns, tools and answer out of it; `Conversation.expected` says
which. Formats that have no place for a name (a tenant, a time) leave it out. Written after the providers'
documentation; the real clients' bodies are in the tests of each format.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A call of a function."""

    id: str
    name: str
    arguments: Json


@dataclass(frozen=True)
class Said:
    """A turn: of the user, of the assistant (text, calls or both), of a tool (the result of one call)."""

    role: str
    text: str = ""
    calls: tuple[Call, ...] = ()
    call: Call | None = None


@dataclass(frozen=True)
class Tool:
    """A function that may be called."""

    name: str
    description: str
    parameters: Json


@dataclass(frozen=True)
class Conversation:
    """What was said, and by whom it was logged."""

    turns: tuple[Said, ...]
    system: str | None = None
    tools: tuple[Tool, ...] = ()
    answer: Said | None = None
    model: str = "some-model-1"
    user: str = "user-7"

    @property
    def expected(self) -> tuple[list[Json], list[Json], str | None]:
        """Turns (without ids and names of calls' results: not every format has both), tools, response."""
        turns: list[Json] = [] if self.system is None else [{"role": "system", "content": self.system}]
        for each in self.turns:
            turn: Json = {"role": each.role, "content": each.text}
            if each.calls:
                turn["tool_calls"] = [_openai_call(call, json_arguments=False) for call in each.calls]
            turns.append(turn)
        response = None
        if self.answer is not None:
            shown = [
                "<tool_call>\n"
                + json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
                + "\n</tool_call>"
                for call in self.answer.calls
            ]
            response = "\n".join([*([self.answer.text] if self.answer.text else []), *shown]) or None
        return turns, _openai_tools(self), response


def without_names(turns: list[Json]) -> list[Json]:
    """Turns as `expected` has them."""
    return [{key: each for key, each in turn.items() if key not in ("tool_call_id", "name")} for turn in turns]


def render(conversation: Conversation, format_: str) -> Json:
    """The payload of a format (a key of RENDERINGS)."""
    return RENDERINGS[format_](conversation)


def _openai_call(call: Call, json_arguments: bool = True) -> Json:
    arguments = json.dumps(call.arguments) if json_arguments else call.arguments
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _openai_tools(conversation: Conversation) -> list[Json]:
    return [
        {
            "type": "function",
            "function": {"name": each.name, "description": each.description, "parameters": each.parameters},
        }
        for each in conversation.tools
    ]


def _openai_turn(said: Said, parts: bool) -> Json:
    turn: Json = {"role": said.role, "content": said.text}
    if parts and said.text:
        turn["content"] = [{"type": "text", "text": said.text}]
    if said.calls:
        turn["tool_calls"] = [_openai_call(call) for call in said.calls]
        turn["content"] = turn["content"] or None
    if said.call is not None:
        turn["tool_call_id"] = said.call.id
    return turn


def _chat(conversation: Conversation, parts: bool = False) -> Json:
    messages = [_openai_turn(each, parts) for each in conversation.turns]
    if conversation.system is not None:
        messages.insert(0, {"role": "system", "content": conversation.system})
    request: Json = {
        "model": conversation.model,
        "messages": messages,
        "temperature": 0.5,
        "user": conversation.user,
    }
    return request | ({"tools": _openai_tools(conversation)} if conversation.tools else {})


def _completion(conversation: Conversation) -> Json | None:
    if conversation.answer is None:
        return None
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": conversation.model,
        "choices": [{"index": 0, "message": _openai_turn(conversation.answer, False), "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11},
    }


def _halves(text: str) -> list[str]:
    return [each for each in (text[: len(text) // 2], text[len(text) // 2 :]) if each]


def _chat_chunks(conversation: Conversation) -> list[Json]:
    answer = conversation.answer
    if answer is None:
        return []
    deltas: list[Json] = [{"role": "assistant", "content": ""}, *({"content": each} for each in _halves(answer.text))]
    for index, call in enumerate(answer.calls):
        start = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
        deltas.append({"tool_calls": [start]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": each}}]}
            for each in _halves(json.dumps(call.arguments))
        ]
    return [
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": conversation.model,
            "choices": [{"index": 0, "delta": each, "finish_reason": None}],
        }
        for each in deltas
    ]


def _sse(events: list[Json], typed: bool = False) -> str:
    lines = [(f"event: {each['type']}\n" if typed else "") + f"data: {json.dumps(each)}\n\n" for each in events]
    return "".join(lines) + ("" if typed else "data: [DONE]\n\n")


def _awry(conversation: Conversation) -> Json:
    response = conversation.expected[2]
    own = _chat(conversation)
    del own["temperature"]
    return own | {"id": "m1", "tenant": "acme"} | ({} if response is None else {"response": response})


def _pair(request: Json, response: Any) -> Json:
    return {"request": request} | ({} if response in (None, [], "") else {"response": response})


def _chat_merged(conversation: Conversation) -> Json:
    return _chat(conversation) | (_completion(conversation) or {})


def _chat_batch(conversation: Conversation) -> Json:
    line: Json = {"custom_id": "r-1", "method": "POST", "url": "/v1/chat/completions", "body": _chat(conversation)}
    body = _completion(conversation)
    return line | ({} if body is None else {"response": {"status_code": 200, "request_id": "q", "body": body}})


def _kong(conversation: Conversation) -> Json:
    payload = {"request": json.dumps(_chat(conversation)), "response": ""}
    if conversation.answer is not None:
        payload["response"] = json.dumps(_completion(conversation))
    return {
        "ai": {"proxy": {"payload": payload, "meta": {"provider_name": "openai"}}},
        "request": {"uri": "/chat", "method": "POST"},
        "response": {"status": 200},
    }


def _responses_items(said: Said) -> list[Json]:
    if said.call is not None:
        return [{"type": "function_call_output", "call_id": said.call.id, "output": said.text}]
    kind = "output_text" if said.role == "assistant" else "input_text"
    items: list[Json] = []
    if said.text:
        items.append({"type": "message", "role": said.role, "content": [{"type": kind, "text": said.text}]})
    return items + [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": json.dumps(call.arguments)}
        for call in said.calls
    ]


def _responses(conversation: Conversation) -> Json:
    request: Json = {
        "model": conversation.model,
        "input": [item for each in conversation.turns for item in _responses_items(each)],
        "safety_identifier": conversation.user,
    }
    if conversation.system is not None:
        request["instructions"] = conversation.system
    if conversation.tools:
        request["tools"] = [{"type": "function", **each["function"]} for each in _openai_tools(conversation)]
    return request


def _response(conversation: Conversation) -> Json | None:
    if conversation.answer is None:
        return None
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "model": conversation.model,
        "output": _responses_items(conversation.answer),
        "usage": {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11},
    }


def _responses_stream(conversation: Conversation) -> Json:
    whole = _response(conversation)
    if whole is None:
        return _pair(_responses(conversation), None)
    events: list[Json] = [{"type": "response.created", "response": whole | {"output": [], "status": "in_progress"}}]
    for index, item in enumerate(whole["output"]):
        events.append({"type": "response.output_item.added", "output_index": index, "item": item | {"status": "x"}})
        for part in item.get("content", ()):
            events += [
                {"type": "response.output_text.delta", "output_index": index, "content_index": 0, "delta": each}
                for each in _halves(part["text"])
            ]
    return _pair(_responses(conversation), _sse([*events, {"type": "response.completed", "response": whole}], True))


def _blocks(said: Said) -> list[Json]:
    if said.call is not None:
        return [{"type": "tool_result", "tool_use_id": said.call.id, "content": [{"type": "text", "text": said.text}]}]
    text = [{"type": "text", "text": said.text}] if said.text else []
    return text + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in said.calls
    ]


def _grouped(conversation: Conversation, parts: Callable[[Said], list[Json]]) -> list[tuple[str, list[Json]]]:
    """Turns where results of tools are parts of the user's turn that follows them."""
    grouped: list[tuple[str, list[Json]]] = []
    open_results = False
    for each in conversation.turns:
        role = "assistant" if each.role == "assistant" else "user"
        if open_results and role == "user":
            grouped[-1][1].extend(parts(each))
        else:
            grouped.append((role, parts(each)))
        open_results = each.call is not None
    return grouped


def _anthropic(conversation: Conversation) -> Json:
    request: Json = {
        "model": conversation.model,
        "max_tokens": 100,
        "messages": [{"role": role, "content": blocks} for role, blocks in _grouped(conversation, _blocks)],
        "metadata": {"user_id": conversation.user},
    }
    if conversation.system is not None:
        request["system"] = [{"type": "text", "text": conversation.system, "cache_control": {"type": "ephemeral"}}]
    if conversation.tools:
        request["tools"] = [
            {"name": each.name, "description": each.description, "input_schema": each.parameters}
            for each in conversation.tools
        ]
    return request


def _message(conversation: Conversation) -> Json | None:
    if conversation.answer is None:
        return None
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": conversation.model,
        "content": _blocks(conversation.answer),
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 6},
    }


def _anthropic_stream(conversation: Conversation) -> Json:
    whole = _message(conversation)
    if whole is None:
        return _pair(_anthropic(conversation), None)
    events: list[Json] = [{"type": "message_start", "message": whole | {"content": []}}, {"type": "ping"}]
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            start, deltas = block | {"text": ""}, [{"type": "text_delta", "text": x} for x in _halves(block["text"])]
        else:
            start = block | {"input": {}}
            deltas = [
                {"type": "input_json_delta", "partial_json": each} for each in _halves(json.dumps(block["input"]))
            ]
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": each} for each in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 6}})
    return _pair(_anthropic(conversation), _sse([*events, {"type": "message_stop"}], True))


def _parts(said: Said) -> list[Json]:
    if said.call is not None:
        return [{"functionResponse": {"id": said.call.id, "name": said.call.name, "response": {"output": said.text}}}]
    text = [{"text": said.text}] if said.text else []
    return text + [{"functionCall": {"id": call.id, "name": call.name, "args": call.arguments}} for call in said.calls]


def _gemini(conversation: Conversation) -> Json:
    request: Json = {
        "contents": [
            {"role": "model" if role == "assistant" else "user", "parts": parts}
            for role, parts in _grouped(conversation, _parts)
        ],
        "generationConfig": {"temperature": 0.5, "maxOutputTokens": 100},
    }
    if conversation.system is not None:
        request["systemInstruction"] = {"parts": [{"text": conversation.system}]}
    if conversation.tools:
        request["tools"] = [{"functionDeclarations": [each["function"] for each in _openai_tools(conversation)]}]
    return request


_SNAKE = {
    "functionResponse": "function_response",
    "functionCall": "function_call",
    "systemInstruction": "system_instruction",
    "functionDeclarations": "function_declarations",
    "generationConfig": "generation_config",
    "maxOutputTokens": "max_output_tokens",
}


def _snake(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            _SNAKE.get(key, key): each if key in ("args", "response", "parameters") else _snake(each)
            for key, each in value.items()
        }
    return [_snake(each) for each in value] if isinstance(value, list) else value


def _candidates(conversation: Conversation) -> Json | None:
    if conversation.answer is None:
        return None
    content = {"role": "model", "parts": _parts(conversation.answer)}
    return {
        "candidates": [{"index": 0, "content": content, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 6, "totalTokenCount": 11},
        "modelVersion": conversation.model,
        "responseId": "g1",
    }


def _gemini_stream(conversation: Conversation) -> Json:
    whole = _candidates(conversation)
    if whole is None:
        return _pair(_gemini(conversation), None)
    parts: list[Json] = []
    for part in whole["candidates"][0]["content"]["parts"]:
        parts += [{"text": each} for each in _halves(part["text"])] if "text" in part else [part]
    chunks = [whole | {"candidates": [{"index": 0, "content": {"role": "model", "parts": [each]}}]} for each in parts]
    return _pair(_gemini(conversation), chunks)


def _converse_parts(said: Said) -> list[Json]:
    if said.call is not None:
        return [{"toolResult": {"toolUseId": said.call.id, "content": [{"text": said.text}], "status": "success"}}]
    text = [{"text": said.text}] if said.text else []
    return text + [
        {"toolUse": {"toolUseId": call.id, "name": call.name, "input": call.arguments}} for call in said.calls
    ]


def _converse(conversation: Conversation) -> Json:
    request: Json = {
        "modelId": conversation.model,
        "messages": [{"role": role, "content": parts} for role, parts in _grouped(conversation, _converse_parts)],
        "inferenceConfig": {"maxTokens": 100},
        "requestMetadata": {"user": conversation.user},
    }
    if conversation.system is not None:
        request["system"] = [{"text": conversation.system}]
    if conversation.tools:
        request["toolConfig"] = {
            "tools": [
                {
                    "toolSpec": {
                        "name": each.name,
                        "description": each.description,
                        "inputSchema": {"json": each.parameters},
                    }
                }
                for each in conversation.tools
            ]
        }
    return request


def _converse_pair(conversation: Conversation) -> Json:
    if conversation.answer is None:
        return _pair(_converse(conversation), None)
    message = {"role": "assistant", "content": _converse_parts(conversation.answer)}
    usage = {"inputTokens": 5, "outputTokens": 6, "totalTokens": 11}
    return _pair(_converse(conversation), {"output": {"message": message}, "stopReason": "end_turn", "usage": usage})


def _invocation_log(conversation: Conversation) -> Json:
    body = _anthropic(conversation)
    del body["model"]
    log: Json = {
        "schemaType": "ModelInvocationLog",
        "timestamp": "2023-11-14T22:13:20Z",
        "requestId": "q-1",
        "operation": "InvokeModel",
        "modelId": conversation.model,
        "input": {"inputContentType": "application/json", "inputBodyJson": body, "inputTokenCount": 5},
    }
    answer = _message(conversation)
    return log | ({} if answer is None else {"output": {"outputBodyJson": answer, "outputTokenCount": 6}})


def _langfuse(conversation: Conversation) -> Json:
    chat = _chat(conversation)
    observation: Json = {
        "id": "o1",
        "type": "GENERATION",
        "model": conversation.model,
        "input": {"messages": chat["messages"], "tools": chat.get("tools", [])},
        "userId": conversation.user,
    }
    return observation | ({} if conversation.answer is None else {"output": _openai_turn(conversation.answer, False)})


def _turns(conversation: Conversation) -> Json:
    whole = _chat(conversation)
    answer = conversation.expected[2]
    listed: Json = {"conversations": whole["messages"], "model": conversation.model, "user": conversation.user}
    if conversation.tools:
        listed["tools"] = whole["tools"]
    return listed | ({} if answer is None else {"response": answer})


RENDERINGS: dict[str, Callable[[Conversation], Json]] = {
    "awry": _awry,
    "openai_chat": _chat_merged,
    "openai_chat_parts": lambda one: _pair(_chat(one, parts=True), _completion(one)),
    "openai_chat_body": lambda one: {"body": _chat(one), "response": {"body": _completion(one)}},
    "openai_chat_chunks": lambda one: _pair(_chat(one), _chat_chunks(one)),
    "openai_chat_sse": lambda one: _pair(_chat(one), _sse(_chat_chunks(one)) if one.answer else None),
    "openai_batch": _chat_batch,
    "openai_responses": lambda one: _responses(one) | (_response(one) or {}),
    "openai_responses_pair": lambda one: _pair(_responses(one), _response(one)),
    "openai_responses_sse": _responses_stream,
    "anthropic": lambda one: _pair(_anthropic(one), _message(one)),
    "anthropic_sse": _anthropic_stream,
    "anthropic_batch": lambda one: (
        {"custom_id": "r-1", "params": _anthropic(one)}
        | ({"result": {"type": "succeeded", "message": _message(one)}} if one.answer else {})
    ),
    "gemini": lambda one: _pair(_gemini(one), _candidates(one)),
    "gemini_snake": lambda one: _snake(_pair(_gemini(one), _candidates(one))),
    "gemini_chunks": _gemini_stream,
    "bedrock": _converse_pair,
    "bedrock_log": _invocation_log,
    "kong": _kong,
    "langfuse": _langfuse,
    "turns": _turns,
}
