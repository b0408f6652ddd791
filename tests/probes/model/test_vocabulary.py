from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.capture.batches import encode
from probes.errors import ModelError
from probes.model.load import ChatModel, wrap
from probes.scoring import score_all
from probes.steer.generation import generate
from tests.support.models.tiny import VOCAB, tiny_chat, tiny_model, tiny_tokenizer, user
from tests.support.stream.worker import make_probe

WITHOUT_A_ROW = "<image_soft>"


@pytest.fixture
def chat() -> ChatModel:
    """A tokenizer with one token more than the model has rows."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [WITHOUT_A_ROW]})
    return wrap(tiny_model("llama"), tokenizer, name="tiny-llama", revision="seed-0")


def test_a_message_with_a_token_that_the_model_has_no_row_for_is_scored(chat: ChatModel) -> None:
    probe = make_probe(tiny_chat("llama"))
    texts = [f"hello {WITHOUT_A_ROW} there", "hello <|pad|> there", "hello there"]
    items = [encode(chat, user(text)) for text in texts]
    assert max(items[0].ids) == VOCAB
    odd, padded, plain = score_all(chat, items, [probe.reader])[:, 0]
    assert np.isfinite(odd)
    assert odd == pytest.approx(padded, abs=1e-5)
    assert odd != pytest.approx(plain, abs=1e-5)


def test_it_is_answered_too(chat: ChatModel) -> None:
    prompt = chat.prompt_ids(chat.rendered(user(WITHOUT_A_ROW * 3)))
    (reply,) = generate(chat, [prompt], max_new_tokens=2)
    assert reply.tokens == 2


def test_a_tokenizer_of_another_model_is_refused() -> None:
    model: Any = tiny_model("llama")
    model.resize_token_embeddings(200)
    with pytest.raises(ModelError, match=r"tokenizer of x has 56 tokens .* no embedding \(200 rows\)"):
        wrap(model, tiny_tokenizer(), name="x")


def test_a_model_that_has_them_all_is_left_alone() -> None:
    model: Any = tiny_chat("llama").model
    assert not model.get_input_embeddings()._forward_pre_hooks
