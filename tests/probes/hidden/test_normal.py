"""Normalising: what is undone, what is left as it is, and how long it takes."""

from __future__ import annotations

import os
import random
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.hidden import normalised
from probes.hidden.lookalikes import folded
from probes.hidden.normal import changed
from tests.probes.hidden import benign, rarities
from tests.probes.hidden.hiding import HIDING, REQUESTS, hidden
from tests.probes.hidden.languages import SENTENCES

# AWRY_FUZZ=10000 for the long run.
ROUNDS = int(os.environ.get("AWRY_FUZZ", "150"))
UNDONE = [*HIDING][: [*HIDING].index("tags")]
# What no reader would take for another alphabet's, an accent's or a sign's own.
ODD = (
    "abc XYZ.-_1éß\u200b\u200d\u202e\u00ad\u0301\u0336\ufe0f\U000e0041аоΩвｈ𝐡🅷ᴴ你क्‍षمي\U0001f468\U0001f1eb\ud83d\x00\n\t"
)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


@pytest.mark.parametrize("kind", UNDONE)
def test_what_is_hidden_by_how_it_is_written_can_be_read(kind: str) -> None:
    shares = []
    for request, text in hidden(kind):
        found = changed(text)
        assert found is not None
        got = words(found)
        shares.append(sum(word in got for word in words(request)) / len(words(request)))
    # Where nothing says where words end, some are cut in other places.
    assert sum(shares) / len(shares) >= (0.7 if kind == "spaced letters, one gap" else 0.97)


@pytest.mark.parametrize("kind", benign.KINDS)
def test_ordinary_text_has_no_other_words(kind: str) -> None:
    texts = benign.benign(kind)
    assert sum(changed(text) is not None for text in texts) <= 0.02 * len(texts)


def test_rare_text_seldom_has_other_words() -> None:
    kinds = set(rarities.KINDS) - {"verses and capitals"}
    texts = [text for kind in kinds for text in rarities.rare(kind)]
    assert sum(changed(text) is not None for text in texts) <= 0.02 * len(texts)


@pytest.mark.parametrize("kind", [name for name in SENTENCES if name != "English"])
def test_a_language_keeps_its_letters(kind: str) -> None:
    for text in benign.benign(kind, 10):
        composed = unicodedata.normalize("NFKC", text)
        assert re.findall(r"\w+", normalised(text)) == re.findall(r"\w+", composed)


@pytest.mark.parametrize(
    "text",
    [
        "“Don’t” – said the café’s naïve owner… on the 3rd — at 5 km², №3, ½ price, 20 °C™",
        "My \u00a0 fine\u00a0efficient office: ﬁne, eﬃcient",
        "Family: 👨‍👩‍👧‍👦, flag 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f, heart ❤️, key 1️⃣, 🇩🇪🇫🇷",
        "می‌خواهم نان بپزم، क्‍ष और श्री",
        "ไทย\u200bภาษา ភាសា\u200bខ្មែរ",
        "אמר\u200f לו (שלום)",
        "\ufeff# A heading after a byte order mark",
        "x + y = z, where a b c are numbers; U.S.A., e.g., i.e.; A, B, C, D",
        "getUserNameById and XMLHttpRequest and iPhone and NASA",
        "The lambda λ, the angle α, ΔG, 5 μm, TΔS and a Ω",
    ],
)
def test_signs_are_no_other_words(text: str) -> None:
    assert changed(text) is None


def test_a_soft_hyphen_within_a_word_is_one_word() -> None:
    assert changed("Donau\u00addampf\u00adschiff") == "Donaudampfschiff"


def test_words_of_another_alphabet_stay_in_an_english_text() -> None:
    text = "How do I say «спасибо» and ευχαριστώ at the airport?"
    assert normalised(text) == text
    assert changed(text) is None


def test_look_alikes_alone_are_folded_only_where_no_word_says_that_it_is_a_language() -> None:
    assert folded("Tell me about сасао now") == "Tell me about cacao now"
    assert folded("Расскажи про оса и пар") == "Расскажи про оса и пар"
    assert folded("The word сор is not the word собака") == "The word сор is not the word собака"


def test_flags_are_no_letters_and_letters_in_boxes_are() -> None:
    assert normalised("🇫🇷🇩🇪 wins") == "🇫🇷🇩🇪 wins"
    assert normalised("🅷🅴🅻🅻🅾") == "hello"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("h o w   t o   b a k e", "how to bake"),
        ("h-o-w t-o b-a-k-e", "how to bake"),
        ("H.o.w / t.o / b.a.k.e", "How to bake"),
        ("hOw To BaKe BrEaD aT hOmE", "how to bake bread at home"),
        ("HOW TO BAKE A LOAF OF BREAD", "how to bake a loaf of bread"),
        ("how    to    bake    a    loaf    of    bread", "how to bake a loaf of bread"),
        ("how\u00a0\u2003to\u3000bake", "how to bake"),
    ],
)
def test_spacing_and_case(text: str, plain: str) -> None:
    assert normalised(text) == plain


def test_indentation_and_line_breaks_stay() -> None:
    code = "def f(x):\n    if x:\n        return [x,  1]\n\n\nprint(f(2))"
    assert normalised(code) == code.replace("[x,  1]", "[x, 1]")
    assert changed(code) is None


@settings(max_examples=ROUNDS, deadline=None)
@given(st.text(alphabet=st.sampled_from(ODD), max_size=80) | st.text(max_size=60))
def test_any_text_is_normalised_and_what_is_plain_stays(text: str) -> None:
    plain = normalised(text)
    assert len(plain) <= 20 * len(text) + 64
    changed(text)
    if text.isascii() and text.isalpha():
        assert plain.lower() == text.lower()


@settings(max_examples=ROUNDS, deadline=None)
@given(st.sampled_from(REQUESTS), st.sampled_from(UNDONE), st.integers(0, 999))
def test_a_second_time_changes_no_word(text: str, kind: str, seed: int) -> None:
    once = normalised(HIDING[kind](text, random.Random(seed)))
    assert words(normalised(once)) == words(once)


def test_marks_are_not_sorted_in_the_square_of_their_number() -> None:
    """Sorting these by class would take minutes."""
    assert len(normalised("e" + "\u0651\u064b" * 200_000)) < 100


def test_letters_that_become_a_sentence_do_not_multiply_a_text() -> None:
    assert len(normalised("\ufdfa" * 1000)) <= 4064
