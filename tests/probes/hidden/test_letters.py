"""Costs of letter pairs, and the best run of a row of numbers."""

from __future__ import annotations

import codecs
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.hidden.letters import (
    ATBASH,
    BACKWARDS,
    COST,
    COST_OF_ANY,
    SHIFTS,
    best_run,
    classes,
    cost_a_letter,
    costs,
    gain,
)
from probes.hidden.spelling import split_words
from tests.probes.hidden.benign import benign
from tests.probes.hidden.hiding import REQUESTS
from tests.probes.hidden.languages import SENTENCES

ROUNDS = int(os.environ.get("AWRY_FUZZ", "150"))


@settings(max_examples=ROUNDS, deadline=None)
@given(st.lists(st.integers(-9, 9), max_size=30))
def test_the_best_run_is_the_best_of_all(values: list[int]) -> None:
    total, start, stop = best_run(np.array(values, dtype=np.float32))
    sums = [sum(values[i:j]) for i in range(len(values)) for j in range(i + 1, len(values) + 1)]
    assert total == max([0, *sums])
    assert sum(values[start:stop]) == total


@settings(max_examples=ROUNDS, deadline=None)
@given(st.text(alphabet="abcxyzABCXYZ .é你\ud83d", max_size=40))
def test_classes_are_one_for_each_character(text: str) -> None:
    found = classes(text)
    assert len(found) == len(text)
    for letter, each in zip(text, found, strict=True):
        assert each == (ord(letter.lower()) - 97 if letter.isascii() and letter.isalpha() else 26)


def test_a_gain_is_what_the_exchange_saves() -> None:
    text = "gur dhvpx oebja sbk"
    found, plain = classes(text), classes(codecs.encode(text, "rot13"))
    np.testing.assert_allclose(gain(SHIFTS[13], found), costs(found) - costs(plain), atol=1e-5)
    mirrored = classes("".join(chr(219 - ord(c)) if c.isalpha() else c for c in text))
    np.testing.assert_allclose(gain(ATBASH, found), costs(found) - costs(mirrored), atol=1e-5)
    np.testing.assert_allclose(gain(BACKWARDS, found), costs(found) - costs(found[::-1])[::-1], atol=1e-5)


@pytest.mark.parametrize("text", REQUESTS)
def test_english_costs_less_than_any_exchange_of_it(text: str) -> None:
    assert cost_a_letter(text) < 2.8
    assert min(cost_a_letter(codecs.encode(text, "rot13")), cost_a_letter(text[::-1])) > cost_a_letter(text) + 0.4


@pytest.mark.parametrize("name", ["Polish", "Czech", "Finnish", "Welsh", "Swahili", "Turkish", "German", "French"])
def test_the_table_of_any_language_knows_languages(name: str) -> None:
    assert name in SENTENCES
    text = " ".join(benign(name, 10))
    found = classes(text)
    letters = (found[:-1] < 26) | (found[1:] < 26)
    assert COST_OF_ANY[found[:-1], found[1:]][letters].mean() < COST[found[:-1], found[1:]][letters].mean() + 0.1


def test_words_are_found_where_nothing_says_where_they_end() -> None:
    assert split_words("howtoopenadoorwithoutthekey")[:2] == ["how", "to"]
    assert "without" in split_words("howtoopenadoorwithoutthekey")
    assert "".join(split_words("qzxvk")) == "qzxvk"
