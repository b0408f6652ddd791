from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from probes.errors import DataError
from probes.model.load import AdapterSpec, ChatModel, add_adapter
from probes.steer.coherence import MARGIN_NATS, answer_nll, coherence_limit, repetition
from tests.support.models.tiny import make_adapter, shared_chat, tiny_chat, user


def by_hand(chat: ChatModel, prompt: str, text: str) -> float:
    head, tail = chat.token_ids(prompt), chat.token_ids(text)
    total = 0.0
    for i, token in enumerate(tail):
        with torch.no_grad():
            logits = chat.model(input_ids=torch.tensor([head + tail[:i]]), use_cache=False).logits[0, -1]
        total -= float(logits.double().log_softmax(-1)[token])
    return total / len(tail)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_nll_token_by_token(family: str) -> None:
    chat = shared_chat(family)
    prompts = [chat.render(user(t)) for t in ("Hi", "A longer question?", "x")]
    texts = ["Hello there.", "No", "é is a letter"]
    wanted = [by_hand(chat, p, t) for p, t in zip(prompts, texts, strict=True)]
    np.testing.assert_allclose(answer_nll(chat, prompts, texts), wanted, atol=1e-4)
    np.testing.assert_allclose(answer_nll(chat, prompts, texts, token_budget=1), wanted, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_the_judge_is_the_base_whatever_adapter_is_in_use(tmp_path: Path) -> None:
    chat = tiny_chat("llama")
    prompts, texts = [chat.render(user("Hi"))], ["Hello there."]
    plain = answer_nll(chat, prompts, texts)
    add_adapter(chat, AdapterSpec(make_adapter(tmp_path / "a")))
    assert answer_nll(chat, prompts, texts) == plain
    own = by_hand(chat, prompts[0], texts[0])
    assert abs(own - plain[0]) > 0.01  # the adapter itself thinks otherwise
    assert answer_nll(chat, prompts, texts, base=False)[0] == pytest.approx(own, abs=1e-4)
    assert chat.active == "adapter"


def test_an_empty_answer_says_nothing() -> None:
    chat = shared_chat("llama")
    prompt = chat.render(user("Hi"))
    empty, full = answer_nll(chat, [prompt, prompt], ["", "Hello"])
    assert math.isinf(empty)
    assert math.isfinite(full)


def test_the_limit_is_the_95th_percentile_of_the_finite_ones_and_a_margin() -> None:
    assert coherence_limit(np.array([*np.linspace(0, 1, 101), math.inf])) == pytest.approx(0.95 + MARGIN_NATS)
    with pytest.raises(DataError, match="answers none of the messages with a word"):
        coherence_limit(np.array([math.inf, math.inf]))


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0),
        ("three words only", 0),
        ("one two three four five six", 0),
        ("a b c d a b c d", 0.2),
        ("go " * 23, 19 / 20),
    ],
)
def test_repetition_counts_runs_of_four_words_that_were_there_before(text: str, share: float) -> None:
    assert repetition(text) == pytest.approx(share)
