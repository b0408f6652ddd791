"""One conversation in the words of every format gives the same turns, tools and answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.stream.parse import parse
from monitor.stream.wire import WireMessage
from tests.support.stream.renderings import RENDERINGS, Call, Conversation, Said, Tool, render, without_names

words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=40).filter(
    lambda text: bool(text.strip())
)
names = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
arguments = st.dictionaries(names, values, max_size=3)
tools = st.builds(
    Tool,
    names,
    words,
    st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(names, st.just({"type": "string"}), max_size=2)}
    ),
)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """The user's turn, and any number of answers, calls with their results and further questions."""
    turns = [Said("user", draw(words))]
    number = 0
    for kind in draw(st.lists(st.sampled_from(["answer", "calls", "calls and text"]), max_size=3)):
        if kind == "answer":
            turns += [Said("assistant", draw(words)), Said("user", draw(words))]
            continue
        calls = [
            Call(f"call_{number + index}", draw(names), draw(arguments)) for index in range(draw(st.integers(1, 2)))
        ]
        number += len(calls)
        turns.append(Said("assistant", draw(words) if kind == "calls and text" else "", tuple(calls)))
        turns += [Said("tool", draw(words), call=call) for call in calls]
        if draw(st.booleans()):
            turns.append(Said("user", draw(words)))
    calls_at_end = tuple(Call("call_x", draw(names), draw(arguments)) for _ in range(draw(st.integers(0, 1))))
    answer = Said("assistant", draw(words), calls_at_end)
    return Conversation(
        tuple(turns),
        draw(st.none() | words),
        tuple(draw(st.lists(tools, max_size=2))),
        draw(st.none() | st.just(answer)),
    )


def read(payload: Any) -> WireMessage:
    """The one message in a payload."""
    (found,) = parse(json.dumps(payload).encode())
    assert isinstance(found, WireMessage), found
    return found


@pytest.mark.parametrize("format_", RENDERINGS)
@settings(max_examples=60, deadline=None)
@given(conversation=conversations())
def test_every_format_gives_the_same_turns_tools_and_answer(format_: str, conversation: Conversation) -> None:
    turns, declared, response = conversation.expected
    found = read(render(conversation, format_))
    assert without_names(found.turns) == turns
    assert found.tools == declared
    assert found.response == response
    assert found.unread == {}
    assert found.model == (None if format_.startswith("gemini") and response is None else conversation.model)


ONE = Conversation(
    (
        Said("user", "Is it raining?"),
        Said("assistant", "I look.", (Call("c1", "weather", {"town": "Bern"}),)),
        Said("tool", "dry", call=Call("c1", "weather", {"town": "Bern"})),
    ),
    "Be brief.",
    (Tool("weather", "The weather of a town.", {"type": "object", "properties": {"town": {"type": "string"}}}),),
    Said("assistant", "No."),
)
LABELS = {
    "openai_batch": "openai_chat",
    "kong": "openai_chat",
    "langfuse": "openai_chat",
    "gemini_snake": "gemini",
    "gemini_chunks": "gemini",
    "bedrock_log": "bedrock",
}


@pytest.mark.parametrize("format_", RENDERINGS)
def test_each_format_is_recognised_and_keeps_who_asked(format_: str) -> None:
    found = read(render(ONE, format_))
    known = ("openai_chat", "openai_responses", "anthropic")
    assert found.format == LABELS.get(format_) or next((each for each in known if format_.startswith(each)), format_)
    if not format_.startswith("gemini"):
        assert found.user == "user-7"


@pytest.mark.parametrize("format_", [each for each in RENDERINGS if not each.startswith("gemini")])
def test_results_keep_the_id_of_their_call(format_: str) -> None:
    found = read(render(ONE, format_))
    assert [turn.get("tool_call_id") for turn in found.turns if turn["role"] == "tool"] == ["c1"]
    assert [call["id"] for turn in found.turns for call in turn.get("tool_calls", ())] == ["c1"]
