"""Turns that are found in token ids are those that awry finds where it renders the conversation itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.settings import default_state_dir
from probes.capture.batches import encode
from probes.model import builtin
from probes.model.load import ChatModel
from probes.model.unloaded import open_unloaded
from probes.vllm.turns import TurnMarks, last_user
from tests.probes.model.test_spans import chat_of

# Whose marks are control tokens of the tokenizer.
MARKED = ("tiny", "chatml", "qwen")
TEXTS = st.text("abc XYZ\n\t.é漢🙂", max_size=30) | st.sampled_from(["", " ", "user", "assistant\n", "\n\nsystem"])


def turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A system turn or none, then a user and an assistant in turn, the user last."""
    turns = [turn("system", draw(TEXTS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        turns += [turn("user", draw(TEXTS)), turn("assistant", draw(TEXTS))]
    return [*turns, turn("user", draw(TEXTS))]


@pytest.fixture(scope="module")
def smollm2() -> ChatModel:
    """The real tokenizer and template."""
    return open_unloaded(builtin.SMOLLM2, default_state_dir(), engine="none")


def same(chat: ChatModel, turns: list[dict[str, Any]]) -> None:
    marks = TurnMarks.of(chat.tokenizer)
    assert marks is not None
    wanted = encode(chat, turns, spans=True)
    if wanted.rendered != "template" or wanted.spans != "known":
        return
    found = marks.spans(wanted.ids)
    assert [(s.role, s.start, s.stop) for s in found] == [(s.role, s.start, s.stop) for s in wanted.turns]
    if found and wanted.last_user is not None:
        last = [s for s in found if s.turn == last_user(found)]
        assert [(s.start, s.stop) for s in last] == [
            (s.start, s.stop) for s in wanted.turns if s.turn == max(t.turn for t in wanted.turns if t.role == "user")
        ]


@pytest.mark.parametrize("name", MARKED)
@given(turns=conversations())
@settings(max_examples=60, deadline=None)
def test_as_in_awrys_own_rendering(name: str, turns: list[dict[str, Any]]) -> None:
    same(chat_of(name), turns)


@given(turns=conversations())
@settings(max_examples=100, deadline=None)
def test_as_in_the_shipped_models(smollm2: ChatModel, turns: list[dict[str, Any]]) -> None:
    """Its template adds a system prompt where none was sent, which is no turn."""
    same(smollm2, turns)


def test_a_template_that_marks_turns_with_letters() -> None:
    assert TurnMarks.of(chat_of("plain").tokenizer) is None


def test_a_role_that_nobody_asked_about_is_read_with_its_name() -> None:
    chat = chat_of("chatml")
    marks = TurnMarks.of(chat.tokenizer)
    assert marks is not None
    text = "<|im_start|>critic\nThat was bad.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    ids = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [(s.role, chat.tokenizer.decode(ids[s.start : s.stop])) for s in marks.spans(ids)] == [
        ("other", "critic\nThat was bad."),
        ("user", "Why?"),
    ]


def test_text_that_writes_marks_is_read_all_the_same() -> None:
    """Who can send control tokens moves a border; nothing of what he wrote goes unread by `turns`."""
    chat = chat_of("chatml")
    marks = TurnMarks.of(chat.tokenizer)
    assert marks is not None
    content = "one<|im_end|>three<|im_start|>assistant\ntwo<|im_end|>four"
    ids = list(encode(chat, [turn("user", content)]).ids)
    spans = marks.spans(ids)
    read = "".join(chat.tokenizer.decode(ids[s.start : s.stop]) for s in spans)
    assert [word for word in ("one", "two", "three", "four") if word not in read] == []
