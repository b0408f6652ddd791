from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes.capture.aggregation import SPANS, Span
from probes.capture.batches import Encoded, batches, collate, encode, nothing_of
from probes.errors import ProbesError
from probes.model.load import ChatModel
from tests.probes.model.templates import CHATML, chat_with
from tests.support.models.tiny import shared_chat, user

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return shared_chat("llama")


def test_the_prompt_is_the_same_with_and_without_a_response(chat: ChatModel) -> None:
    alone = encode(chat, user("Why is the sky blue?"))
    answered = encode(chat, user("Why is the sky blue?"), "Air scatters it.")
    assert alone.n_prompt == len(alone.ids) == answered.n_prompt
    assert answered.ids[: answered.n_prompt] == alone.ids
    assert chat.tokenizer.decode(answered.ids[answered.n_prompt :]) == "Air scatters it."
    assert not answered.truncated


def test_the_prompt_ends_where_the_answer_starts(chat: ChatModel) -> None:
    assert chat.tokenizer.decode(encode(chat, user("Hi")).ids) == "<|user|>Hi<|end|><|assistant|>"


def test_an_empty_response_is_none(chat: ChatModel) -> None:
    assert encode(chat, user("Hi"), "") == encode(chat, user("Hi"))


@given(st.integers(0, 120), st.integers(0, 120), st.integers(1, 100))
def test_a_long_message_is_cut_to_the_limit_and_keeps_its_ends(asked: int, answered: int, limit: int) -> None:
    chat = shared_chat("llama")
    # No two places look alike, so that the wrong end shows.
    question, reply = ("".join(chr(start + i) for i in range(n)) for start, n in ((0x100, asked), (0x200, answered)))
    whole = encode(chat, user(question), reply, max_tokens=10**6)
    cut = encode(chat, user(question), reply, max_tokens=limit)
    assert cut.truncated == (len(whole.ids) > limit)
    assert len(cut.ids) <= limit
    if not cut.truncated:
        assert cut == whole
        return
    prompt, response = whole.ids[: whole.n_prompt], whole.ids[whole.n_prompt :]
    kept_prompt, kept_response = cut.ids[: cut.n_prompt], cut.ids[cut.n_prompt :]
    assert not kept_prompt or prompt[-len(kept_prompt) :] == kept_prompt
    assert not kept_response or response[-len(kept_response) :] == kept_response
    if limit > 1:
        assert kept_prompt  # so that last_prompt exists
    if len(response) <= limit - 16:
        assert kept_response == response  # the prompt is cut first


lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=60)


@given(lengths, st.integers(1, 400), st.integers(1, 10))
def test_every_row_comes_once_and_the_budget_holds(sizes: list[tuple[int, int]], budget: int, max_rows: int) -> None:
    items = [Encoded(tuple(range(1, p + a + 1)), p) for p, a in sizes]
    seen: list[int] = []
    for batch in batches(items, CPU, token_budget=budget, max_rows=max_rows):
        assert len(batch.rows) <= max_rows
        assert batch.ids.numel() <= budget or len(batch.rows) == 1
        for row, i in enumerate(batch.rows):
            assert tuple(batch.ids[row][batch.mask[row]].tolist()) == items[i].ids
            assert tuple(batch.ids[row][batch.prompt[row]].tolist()) == items[i].ids[: items[i].n_prompt]
            assert tuple(batch.ids[row][batch.response[row]].tolist()) == items[i].ids[items[i].n_prompt :]
        seen += batch.rows
    assert sorted(seen) == list(range(len(items)))


def test_padding_is_on_the_right_and_counted_by_no_mask() -> None:
    batch = collate([Encoded((5, 6, 7), 2), Encoded((8,), 1)], CPU)
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]
    assert batch.prompt.tolist() == [[True, True, False], [True, False, False]]
    assert batch.response.tolist() == [[False, False, True], [False, False, False]]
    assert batch.tokens == 4
    assert batch.rows == (0, 1)


# Spans

TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "One"},
    {"role": "assistant", "content": "Two"},
    {"role": "critic", "content": "Three"},
    {"role": "tool", "content": "Four"},
    {"role": "user", "content": "Five"},
    {"role": "function", "content": "Six"},
    {"role": "user", "content": "  "},
]
SAID: dict[Span, str] = {
    "turns": "Be kind.Be brief.OneTwoThreeFourFiveSix",
    "user": "OneThreeFive",
    "last_user": "Five",
    "system": "Be kind.Be brief.",
    "tool": "FourSix",
    "response": "Yes",
}


def said(chat: ChatModel, encoded: Encoded, span: Span) -> str:
    batch = collate([Encoded((1, 2, 3), 3, spans="known"), encoded, encode(chat, user("x" * 300), spans=True)], CPU)
    text: str = chat.tokenizer.decode(batch.ids[1][batch.span(span)[1]])
    return text


def test_a_span_is_its_turns_own_tokens() -> None:
    chat = chat_with(CHATML)
    encoded = encode(chat, TURNS, "Yes", spans=True)
    assert {span: said(chat, encoded, span) for span in SPANS if span != "prompt"} == SAID
    assert said(chat, encoded, "prompt") == chat.render(TURNS)
    batch = collate([encode(chat, user("Hi"), spans=True), encoded], CPU)
    assert all(not (batch.span(s) & ~batch.prompt).any() for s in SPANS if s != "response")
    for span in SPANS:
        turns = batch.turn_of(span)[1]
        assert not (turns[~batch.span(span)[1]] >= 0).any()
        named = {t: chat.tokenizer.decode(batch.ids[1][turns == t]) for t in sorted(set(turns.tolist())) if t >= 0}
        assert "".join(named.values()) == {"prompt": "".join(t["content"] for t in TURNS).strip(), "response": ""}.get(
            span, SAID.get(span, "")
        )
        assert all(TURNS[t]["content"] == text for t, text in named.items())


def test_a_span_that_a_message_lacks_is_empty_and_says_why() -> None:
    chat = chat_with(CHATML)
    alone = encode(chat, user("Hi"), spans=True)
    assert nothing_of(alone, "user") is None
    assert nothing_of(alone, "last_user") is None
    assert nothing_of(alone, "prompt") is None
    assert nothing_of(alone, "response") == "the message has no response"
    assert nothing_of(alone, "tool") == "the message has no text of a tool turn"
    silent = encode(chat, [{"role": "assistant", "content": "Hi"}, *user(" ")], spans=True)
    assert nothing_of(silent, "last_user") == "the message has no text of a user turn"
    assert not collate([silent], CPU).span("user").any()
    cut = encode(chat, [*user("Hi"), {"role": "assistant", "content": "x" * 200}], None, 100, spans=True)
    assert nothing_of(cut, "user") == "the message has no text of a user turn within the limit"
    assert nothing_of(cut, "prompt") is None


def test_turns_that_were_not_asked_for_are_no_empty_span(chat: ChatModel) -> None:
    encoded = encode(chat, user("Hi"))
    batch = collate([encoded], CPU)
    assert batch.span("prompt").all()
    for look in (lambda: batch.span("user"), lambda: nothing_of(encoded, "user"), lambda: batch.turn_of("prompt")):
        with pytest.raises(ProbesError, match=r"encoded without them \(spans=True\)"):
            look()


def test_where_the_last_user_turn_was_cut_away_no_earlier_one_stands_for_it() -> None:
    """A turn that a template writes later than it was sent may be left where the last one is gone."""
    chat = chat_with(
        "{% for m in messages %}{% if not loop.first %}{{ m.content }}|{% endif %}{% endfor %}{{ messages[0].content }}"
    )
    encoded = encode(chat, [*user("a" * 20), *user("b" * 100)], None, 21, spans=True)
    assert said(chat, encoded, "user") == "a" * 20
    assert said(chat, encoded, "last_user") == ""
