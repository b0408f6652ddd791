import math

import numpy as np
import pytest
import torch

from probes.coherence import MARGIN_NATS, answer_nll, coherence_limit
from tests.probes.tiny import shared_chat, user


def by_hand(chat, prompt, text):
    head, tail = chat.token_ids(prompt), chat.token_ids(text)
    total = 0.0
    for i, token in enumerate(tail):
        with torch.no_grad():
            logits = chat.model(input_ids=torch.tensor([head + tail[:i]]), use_cache=False).logits[0, -1]
        total -= float(logits.double().log_softmax(-1)[token])
    return total / len(tail)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_nll_token_by_token(family):
    chat = shared_chat(family)
    prompts = [chat.render(user(t)) for t in ("Hi", "A longer question?", "x")]
    texts = ["Hello there.", "No", "é is a letter"]
    wanted = [by_hand(chat, p, t) for p, t in zip(prompts, texts, strict=True)]
    np.testing.assert_allclose(answer_nll(chat, prompts, texts), wanted, atol=1e-4)
    np.testing.assert_allclose(answer_nll(chat, prompts, texts, token_budget=1), wanted, atol=1e-4)


def test_an_empty_answer_says_nothing():
    chat = shared_chat("llama")
    prompt = chat.render(user("Hi"))
    empty, full = answer_nll(chat, [prompt, prompt], ["", "Hello"])
    assert math.isinf(empty)
    assert math.isfinite(full)


def test_the_limit_is_the_95th_percentile_of_the_finite_ones_and_a_margin():
    assert coherence_limit(np.array([*np.linspace(0, 1, 101), math.inf])) == pytest.approx(0.95 + MARGIN_NATS)
