"""Over-long messages: the limit is what the model can, and windows read the rest of the text within a budget."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.capture.aggregation import Aggregation
from probes.capture.batches import Encoded, batches, encode, token_limit
from probes.capture.windows import covers, spread, text_of, windows
from probes.model.load import ChatModel, wrap
from probes.scoring import Reader, Scorer, score_all
from tests.probes.model.templates import CHATML, GEMMA, call, chat_with
from tests.support.models.tiny import VOCAB, shared_chat, tiny_tokenizer, user
from tests.support.stream.worker import make_probe

LIMIT = 96


def gpt2(positions: int = 64) -> ChatModel:
    """Learned positions: a token beyond them cannot be read."""
    config = transformers.GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=positions, bos_token_id=257, eos_token_id=257
    )
    torch.manual_seed(0)
    return wrap(transformers.GPT2LMHeadModel(config), tiny_tokenizer(), name="tiny-gpt2")


def piece_of(chat: ChatModel, encoded: Encoded) -> str:
    """The user's text of a window, out of the template's tokens."""
    text: str = chat.tokenizer.decode(encoded.ids)
    assert text.startswith("<|user|>")
    assert text.endswith("<|end|><|assistant|>")
    return text.removeprefix("<|user|>").removesuffix("<|end|><|assistant|>")


def read(chat: ChatModel, turns: list[dict[str, Any]], response: str | None = None, limit: int = LIMIT) -> Encoded:
    return encode(chat, turns, response, limit)


# The limit


def test_the_limit_is_the_smaller_of_the_setting_and_the_positions() -> None:
    assert token_limit(gpt2(64), 2048) == 64
    assert token_limit(gpt2(64), 32) == 32
    assert token_limit(shared_chat("llama"), 2048) == 1024  # max_position_embeddings
    chat = shared_chat("gemma3_vision")
    assert token_limit(chat, 64) == 64  # the text decoder's, in a model with more than one


def test_a_message_over_the_learned_positions_is_scored() -> None:
    chat = gpt2(64)
    probe = make_probe(chat)
    encoded = encode(chat, user("padding " * 200), "answer " * 100)
    assert encoded.truncated
    assert len(encoded.ids) == 64
    scorer = Scorer(chat.layout, [probe.reader], chat.device)
    (batch,) = batches([encoded], chat.device)
    assert torch.isfinite(scorer(batch).total).all()


# Windows


def distinct(n: int) -> str:
    """No two places look alike."""
    return "".join(f"{i:04d} " for i in range(n))


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 300), st.integers(1, 12), st.sampled_from([48, 64, 96, 200]))
def test_windows_are_pieces_of_the_text_within_the_budget(words: int, budget: int, limit: int) -> None:
    chat = shared_chat("llama")
    text = distinct(words)
    found = windows(chat, user(text), read(chat, user(text), limit=limit), None, limit, budget)
    assert 1 <= len(found.windows) <= budget
    assert found.total == len(text)  # one token a byte
    seen = [False] * len(text)
    for window in found.windows:
        assert len(window.encoded.ids) <= limit
        assert not window.encoded.truncated
        assert piece_of(chat, window.encoded) == text[window.first_token : window.first_token + window.tokens]
        seen[window.first_token : window.first_token + window.tokens] = [True] * window.tokens
    assert found.windows[0].first_token == 0
    assert found.covered == all(seen)
    if budget > 1:
        assert seen[-1]
    room = limit - len(encode(chat, user("")).ids) - 8
    assert found.covered == (room * budget >= len(text))  # as soon as the budget allows


@given(st.integers(1, 10_000), st.integers(1, 500), st.integers(0, 20))
def test_spread(total: int, room: int, budget: int) -> None:
    starts = spread(total, room, budget)
    assert len(starts) == min(budget, -(-total // room))
    assert starts == sorted(set(starts))
    if budget:
        assert starts[0] == 0
    if len(starts) > 1:
        assert starts[-1] + room == total
        steps = [b - a for a, b in pairwise(starts)]
        if budget * room >= total:
            # One behind the other, so that they stay where they are in a text that grows.
            assert set(steps[:-1]) <= {room}
        else:
            assert max(steps) - min(steps) <= 1
    assert covers(starts, room, total) == (budget * room >= total)


def test_the_text_is_all_turns_and_their_calls() -> None:
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "A", "tool_calls": [call("f", '{"x": 1}')]},
        {"role": "tool", "content": "T"},
    ]
    assert text_of(turns) == 'S\n\nA\n\n{"name": "f", "arguments": {"x": 1}}\n\nT'


def test_each_window_is_a_message_of_its_own() -> None:
    chat = chat_with(GEMMA)
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": distinct(100)}]
    found = windows(chat, turns, read(chat, turns), None, LIMIT, 8)
    for window in found.windows:
        text = chat.tokenizer.decode(window.encoded.ids)
        assert text.startswith("<|bos|><|turn|>user\n")
        assert text.endswith("<|end|>\n<|turn|>model\n")
    assert "Be kind." in chat.tokenizer.decode(found.windows[0].encoded.ids)


@pytest.mark.parametrize("setting", ["as_tokens", "as_text"])
def test_control_tokens_in_windows_are_what_they_are_in_the_message(setting: Any) -> None:
    chat = chat_with(CHATML, special_tokens=setting)
    text = "<|im_end|>" * 60
    found = windows(chat, user(text), read(chat, user(text)), None, LIMIT, 20)
    assert found.covered
    assert found.total == (60 if setting == "as_tokens" else len(text))
    end = chat.tokenizer.convert_tokens_to_ids("<|im_end|>")
    inside = [window.encoded.ids.count(end) - 1 for window in found.windows]
    assert all(inside) if setting == "as_tokens" else not any(inside)


@pytest.mark.parametrize("letter", ["é", "語", "🙂", "e\u0301", "\u200b"])
def test_letters_of_several_tokens_are_whole(letter: str) -> None:
    chat = shared_chat("llama")
    text = (letter + "a") * 200
    found = windows(chat, user(text), read(chat, user(text)), None, LIMIT, 64)
    assert found.covered
    pieces = [piece_of(chat, w.encoded) for w in found.windows]
    assert not any("\ufffd" in piece for piece in pieces)
    assert all(piece in text for piece in pieces)


def test_a_response_is_read_behind_the_end_of_its_prompt() -> None:
    chat = shared_chat("llama")
    prompt, answer = user("A question that is quite long?"), distinct(120)
    encoded = read(chat, prompt, answer)
    found = windows(chat, prompt, encoded, answer, LIMIT, 16)
    of_answer = [w for w in found.windows if w.reads == "response"]
    of_prompt = [w for w in found.windows if w.reads == "prompt"]
    assert [piece_of(chat, w.encoded) for w in of_prompt] == ["A question that is quite long?"]
    start = of_prompt[0].tokens
    assert found.total == start + len(answer)
    assert found.covered
    kept = encoded.ids[: encoded.n_prompt]
    for window in of_answer:
        assert window.encoded.ids[: window.encoded.n_prompt] == kept[-16:]
        said = chat.tokenizer.decode(window.encoded.ids[window.encoded.n_prompt :])
        assert said == answer[window.first_token - start :][: window.tokens]
        assert len(window.encoded.ids) <= LIMIT
    assert of_answer[0].first_token == start
    assert of_answer[-1].first_token + of_answer[-1].tokens == found.total
    assert len(found.windows) <= 16


def test_a_response_that_is_read_whole_needs_no_window() -> None:
    chat = shared_chat("llama")
    prompt = user(distinct(50))
    found = windows(chat, prompt, read(chat, prompt, "Short."), "Short.", LIMIT, 8)
    assert {w.reads for w in found.windows} == {"prompt"}
    assert found.covered


# Spans in windows

# As sent, and as a span calls it.
ROLES = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool", "critic": "other"}


@settings(max_examples=40, deadline=None)
@given(
    # At most as much as the budget covers.
    st.lists(st.tuples(st.sampled_from([*ROLES]), st.integers(0, 40)), min_size=1, max_size=8),
    st.sampled_from([48, 64, 96]),
    st.sampled_from(["as_tokens", "as_text"]),
)
def test_windows_know_whose_text_they_read(sent: list[tuple[str, int]], limit: int, special: Any) -> None:
    chat = chat_with(CHATML, special_tokens=special)
    # A letter of its own for each turn, and a control token in some.
    turns = [{"role": role, "content": (chr(0x100 + i) + " ") * n} for i, (role, n) in enumerate(sent)]
    turns[0]["content"] += "<|im_end|>"
    encoded = read(chat, turns, limit=limit)
    plain = windows(chat, turns, encoded, None, limit, 64)
    found = windows(chat, turns, encoded, None, limit, 64, spans=True)
    assert found.covered
    users = [i for i, turn in enumerate(turns) if turn["role"] in ("user", "critic") and turn["content"]]
    for window, same in zip(found.windows, plain.windows, strict=True):
        assert (window.encoded.ids, window.first_token, window.tokens) == (
            (same.encoded.ids, same.first_token, same.tokens)
        )
        assert (window.encoded.last_user, window.encoded.spans) == (users[-1] if users else None, "known")
        of = {t.turn: set(chat.tokenizer.decode(window.encoded.ids[t.start : t.stop])) for t in window.encoded.turns}
        everything = set(chat.tokenizer.decode(window.encoded.ids))
        assert all(t.role == ROLES[sent[t.turn][0]] for t in window.encoded.turns)
        for i in range(1, len(sent)):
            assert (chr(0x100 + i) in everything) == (i in of)
            assert of.get(i, set()) <= {chr(0x100 + i), " "}


def test_a_window_without_text_of_the_user_is_not_scored_for_it() -> None:
    chat = shared_chat("llama")
    turns = [
        {"role": "assistant", "content": distinct(60)},
        *user("Thanks."),
        {"role": "assistant", "content": distinct(60)},
    ]
    probe = make_probe(chat)
    reader = Reader(probe.directions, Aggregation("mean", "user"))
    found = windows(chat, turns, read(chat, turns), "x" * 300, LIMIT, 20, spans=True)
    scores = score_all(chat, [w.encoded for w in found.windows], [reader])[:, 0]
    with_user = ["Thanks" in chat.tokenizer.decode(w.encoded.ids) for w in found.windows]
    assert any(with_user)
    assert np.isfinite(scores).tolist() == with_user


def test_a_limit_without_room_for_the_template_gives_no_windows() -> None:
    chat = chat_with(CHATML)
    text = distinct(20)
    found = windows(chat, user(text), read(chat, user(text), limit=8), None, 8, 4)
    assert (found.windows, found.covered) == ((), False)


def test_time_is_linear_in_the_text() -> None:
    """4 MB against 400 KB: what is tokenised for windows does not grow with the text."""
    chat = shared_chat("llama")

    def seconds(n: int) -> float:
        text = "x" * n
        encoded = read(chat, user(text))
        started = time.process_time()
        found = windows(chat, user(text), encoded, None, LIMIT, 8)
        assert len(found.windows) == 8
        assert not found.covered
        return time.process_time() - started

    seconds(1000)
    assert seconds(4_000_000) < 40 * max(seconds(400_000), 0.01)
