"""What a span or an event says about a call of a model, in all conventions that are in use.

In this order, the first that has turns (or a response, or tools) counts:
1. OpenTelemetry's present names: `gen_ai.input.messages`, `gen_ai.output.messages`, `gen_ai.system_instructions`,
   `gen_ai.tool.definitions`, on a span or on the event `gen_ai.client.inference.operation.details`;
2. its events of before: `gen_ai.user.message`, `gen_ai.system.message`, `gen_ai.assistant.message`,
   `gen_ai.tool.message`, `gen_ai.choice`, on a span or as log records;
3. `gen_ai.prompt` and `gen_ai.completion`, as text or as JSON, on a span or on `gen_ai.content.*` events;
4. OpenLLMetry: `gen_ai.prompt.0.content` and the like, `llm.prompts`, `llm.request.functions`;
5. OpenInference: `llm.input_messages.0.message.content` and the like, `llm.tools`, `input.value` of an LLM span;
6. Vercel's AI SDK: `ai.prompt.messages`, `ai.response.text`, `ai.response.toolCalls`.

Structure is taken as attributes have it or as JSON in a string; JSON that was cut off is read as text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from monitor.stream.formats import otlp_flat as flat
from monitor.stream.formats.otlp_entries import Attributes
from monitor.stream.formats.text import structured, told, turns

DETAILS = "gen_ai.client.inference.operation.details"
ROLES_OF_EVENTS = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
CHOICE = "gen_ai.choice"
CONTENTS = ("gen_ai.content.prompt", "gen_ai.content.completion")
# Attributes that hold text begin with one of these: they are no attributes of the message.
_PRESENT = frozenset(
    ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions")
)
_OLDER = (
    *("gen_ai.prompt", "gen_ai.completion", "llm.prompts", "llm.completions", "llm.request.functions", "llm.choices"),
    *("llm.input_messages", "llm.output_messages", "llm.tools", "input.value", "output.value", "ai.prompt"),
    *("ai.response.text", "ai.response.toolCalls"),
)
_CONTENT = (*_PRESENT, *_OLDER, "gen_ai.tool.call")
# Only spans of a call may have these names; agents and tools are made of such calls.
_OPERATIONS = ("chat", "text_completion", "generate_content", "completion")

Event = tuple[str, Attributes, Any]


@dataclass(slots=True)
class Call:
    """Turns, responses and tools as they came."""

    turns: list[Any] = field(default_factory=list)
    response: list[Any] = field(default_factory=list)
    tools: Any = None
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.turns or self.response)

    def add(self, turns_: list[Any], response: list[Any], tools: Any = None) -> None:
        """Fill in what is missing."""
        self.turns = self.turns or turns_
        self.response = self.response or response
        self.tools = self.tools or tools


def is_content(key: str) -> bool:
    """Whether an attribute holds text of the conversation."""
    return key.startswith(_CONTENT)


def is_call(attributes: Attributes) -> bool:
    """Whether a span is a call of a chat model, with its text or without."""
    operation = attributes.get("gen_ai.operation.name") or attributes.get("llm.request.type")
    return operation in _OPERATIONS or attributes.get("openinference.span.kind") == "LLM"


def call_of(attributes: Attributes, events: Iterable[Event]) -> Call:
    """What the attributes of a span (or of an event) and its events hold."""
    call = Call()
    older: list[Event] = []
    for name, own, body in events:
        if name in ROLES_OF_EVENTS or name == CHOICE:
            older.append((name, own, body))
        elif name == DETAILS:
            _present(call, {**own, **body} if isinstance(body, dict) else own)
        elif name in CONTENTS:
            attributes = {**attributes, **own}
    if not _PRESENT.isdisjoint(attributes):
        _present(call, attributes)
    if older:
        _by_events(call, older)
    # Most spans are no calls, and most calls have one convention: the others would find nothing.
    if not (call.turns and call.response and call.tools) and any(map(_is_older, attributes)):
        _plain(call, attributes)
        _flat(call, attributes)
        _vercel(call, attributes)
    return call


def _is_older(key: str) -> bool:
    return key.startswith(_OLDER)


def _present(call: Call, attributes: Attributes) -> None:
    get = attributes.get
    found = turns(get("gen_ai.input.messages"), "user", "gen_ai.input.messages", call.notes)
    system = get("gen_ai.system_instructions")
    if system:
        if isinstance(system, str):
            system = told(system) or system
        instructions = system if isinstance(system, list) else [system]
        if not (isinstance(instructions[0], dict) and "role" in instructions[0]):
            content = system if isinstance(system, str) else instructions
            instructions = [{"role": "system", "content": content}]
        if found[: len(instructions)] != instructions:
            found = [*instructions, *found]
    answer = turns(get("gen_ai.output.messages"), "assistant", "gen_ai.output.messages", call.notes)
    call.add(found, answer, structured(get("gen_ai.tool.definitions")))


def _by_events(call: Call, events: list[Event]) -> None:
    found, answer = [], []
    for name, own, body in events:
        said = _said(own, body)
        if name == CHOICE:
            message = said.get("message")
            if isinstance(message, str):
                message = told(message) or message
            if isinstance(message, dict):
                said = {**{k: v for k, v in said.items() if k != "message"}, **message}
            elif isinstance(message, str):
                said = {**said, "content": message}
            answer.append(_turn(said, "assistant"))
        else:
            found.append(_turn(said, ROLES_OF_EVENTS[name]))
    call.add(found, answer)


def _said(own: Attributes, body: Any) -> dict[str, Any]:
    """What an event carries: its body, else one attribute with JSON, else its attributes."""
    if body in (None, ""):
        body = own.get("gen_ai.event.content")
    if isinstance(body, str):
        body = told(body) or body
    if isinstance(body, dict):
        return {**own, **body}
    return own if body in (None, "") else {**own, "content": body}


def _turn(said: dict[str, Any], role: str) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": said.get("role") or role}
    if said.get("parts") is not None:
        turn["parts"] = structured(said["parts"])
    else:
        turn["content"] = said.get("content")
    if said.get("tool_calls"):
        turn["tool_calls"] = structured(said["tool_calls"])
    called = said.get("tool_call_id") or (said.get("id") if role == "tool" else None)
    if called:
        turn["tool_call_id"] = called
    return turn


def _plain(call: Call, attributes: Attributes) -> None:
    call.add(
        turns(attributes.get("gen_ai.prompt"), "user", None, call.notes),
        turns(attributes.get("gen_ai.completion"), "assistant", None, call.notes),
    )


def _flat(call: Call, attributes: Attributes) -> None:
    # Each dialect asks all attributes: only those that are there are asked.
    heads = {".".join(key.split(".", 2)[:2]) for key in attributes}
    for prompt, completion in (("gen_ai.prompt", "gen_ai.completion"), ("llm.prompts", "llm.completions")):
        if prompt in heads or completion in heads:
            call.add(
                flat.openllmetry_turns(attributes, prompt, "user"),
                flat.openllmetry_turns(attributes, completion, "assistant"),
            )
    if "llm.request" in heads:
        call.tools = call.tools or flat.openllmetry_tools(attributes)
    if "llm.input_messages" in heads or "llm.output_messages" in heads:
        call.add(
            flat.openinference_turns(attributes, "llm.input_messages", "user"),
            flat.openinference_turns(attributes, "llm.output_messages", "assistant"),
        )
    if "llm.tools" in heads:
        call.tools = call.tools or flat.openinference_tools(attributes)
    if "llm.prompts" in heads or "llm.choices" in heads:
        call.add(
            [{"role": "user", "content": each} for each in flat.texts(attributes, "llm.prompts", "prompt")],
            [{"role": "assistant", "content": each} for each in flat.texts(attributes, "llm.choices", "completion")],
        )
    if attributes.get("openinference.span.kind") == "LLM":
        call.add(
            turns(attributes.get("input.value"), "user", None, call.notes),
            turns(attributes.get("output.value"), "assistant", None, call.notes),
        )


def _vercel(call: Call, attributes: Attributes) -> None:
    answer: dict[str, Any] = {"role": "assistant", "content": attributes.get("ai.response.text")}
    if attributes.get("ai.response.toolCalls"):
        answer["tool_calls"] = structured(attributes["ai.response.toolCalls"])
    given = [answer] if answer["content"] or "tool_calls" in answer else []
    tools = attributes.get("ai.prompt.tools")
    call.add(
        turns(attributes.get("ai.prompt.messages"), "user", "ai.prompt.messages", call.notes),
        given,
        [structured(each) for each in tools] if isinstance(tools, list) else None,
    )
