"""What is called unreadable: benign messages of many kinds are not, hidden ones are, for more than one tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from probes.hidden import UNREADABLE, Tokens, look
from tests.probes.hidden import benign, rarities
from tests.probes.hidden.hiding import CIPHERS, HIDING, REQUESTS, hidden

FALSE = 0.02
# What is hidden weakly: a quarter of the letters, some digits, letters of each word in another order.
WEAK = {"homoglyphs, few": 0.8, "shuffled letters": 0.0}


@cache
def trained(kind: str) -> Tokens:
    """A tokenizer of a few thousand pieces, trained on English only."""
    english = [*REQUESTS, *benign.benign("English", 200), *benign.benign("code", 200), *benign.benign("stack traces")]
    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=1500, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
        )
    tokenizer.train_from_iterator(english, trainer)
    return Tokens(lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids))


def share_called(texts: list[str], tokens: Tokens | None) -> float:
    called = [look([{"role": "user", "content": text}], tokens=tokens).unreadable >= UNREADABLE for text in texts]
    return sum(called) / len(called)


@pytest.mark.parametrize("tokenizer", ["byte-level", "unigram"])
def test_few_benign_messages_are_called_unreadable(tokenizer: str) -> None:
    tokens = trained(tokenizer)
    shares = {kind: share_called(benign.benign(kind, 25), tokens) for kind in benign.KINDS}
    assert len(shares) >= 40
    assert {kind: share for kind, share in shares.items() if share > FALSE} == {}


def test_few_rare_messages_are_called_unreadable() -> None:
    texts = [text for kind in rarities.KINDS for text in rarities.rare(kind)]
    assert share_called(texts, trained("byte-level")) <= FALSE


@pytest.mark.parametrize("tokenizer", ["byte-level", "unigram"])
def test_hidden_messages_are_called_unreadable(tokenizer: str) -> None:
    tokens = trained(tokenizer)
    shares = {kind: share_called([text for _, text in hidden(kind)], tokens) for kind in (*HIDING, *CIPHERS)}
    assert {kind: share for kind, share in shares.items() if share < WEAK.get(kind, 0.9)} == {}


def test_a_tokenizer_of_letters_alone_tells_nothing_and_hides_nothing() -> None:
    letters = Tokens(len)
    assert letters.english < 1.5
    assert share_called([text for _, text in hidden("substitution")], letters) >= 0.9
    assert share_called(benign.benign("Polish"), letters) <= FALSE


def test_a_tokenizer_that_knows_the_words_makes_sense_of_them() -> None:
    """Words that are one token each are no cipher to that model, whatever their letters are."""
    knows = Tokens(lambda text: len(text.split()))
    assert share_called([text for _, text in hidden("substitution")], knows) == 0


@pytest.mark.parametrize("change", [lambda text: text, str.lower, str.upper, lambda text: text.replace(" ", "\u00a0")])
def test_plain_english_is_not_unreadable_at_all(change: Callable[[str], str]) -> None:
    for text in REQUESTS:
        assert look([{"role": "user", "content": change(text)}], tokens=trained("byte-level")).unreadable == 0


def test_characters_that_show_nothing_count_where_no_word_changes() -> None:
    text = "Please tell me a story. " + "\u200b\u2060" * 100
    assert look([{"role": "user", "content": text}]).unreadable > 0.8


@pytest.mark.model
def test_the_built_in_models_tokenizer(state: Path) -> None:
    from transformers import AutoTokenizer

    from probes.model.builtin import SMOLLM2, resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve(SMOLLM2, state))
    tokens = Tokens(lambda text: len(tokenizer.encode(text, add_special_tokens=False)))
    kinds = {
        **{kind: benign.benign(kind) for kind in benign.KINDS},
        "rare": [t for k in rarities.KINDS for t in rarities.rare(k)],
    }
    assert {kind: share for kind, texts in kinds.items() if (share := share_called(texts, tokens)) > FALSE} == {}
    for kind in (*HIDING, *CIPHERS):
        assert share_called([text for _, text in hidden(kind)], tokens) >= WEAK.get(kind, 0.9), kind


def test_the_rule_counts_from_the_threshold_that_was_measured() -> None:
    from storage.schema import UNREADABLE_FROM

    assert UNREADABLE_FROM == UNREADABLE
