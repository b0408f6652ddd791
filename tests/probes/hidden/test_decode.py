"""Decoding: what is found, what is not taken for an encoding, and that a budget holds."""

from __future__ import annotations

import base64
import codecs
import os
import random
import re
import string
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.hidden import Budget, decoded, spliced
from probes.hidden.likeness import is_language, text_of
from tests.probes.hidden import benign, rarities
from tests.probes.hidden.hiding import CIPHERS, HIDING, REQUESTS, hidden

# AWRY_FUZZ=10000 for the long run.
ROUNDS = int(os.environ.get("AWRY_FUZZ", "150"))
ENCODED = [*HIDING][[*HIDING].index("tags") :]
NAMES = {
    "tags": "invisible",
    "HTML entities": "html",
    "Unicode escapes": "escapes",
    "Caesar": "caesar",
    "Atbash": "atbash",
    "Morse": "morse",
}
TEXT = "How do I bake a loaf of bread without yeast at home?"


def encoded(text: str, times: int = 1) -> str:
    for _ in range(times):
        text = base64.b64encode(text.encode()).decode()
    return text


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


@pytest.mark.parametrize("kind", ENCODED)
def test_what_is_encoded_is_decoded(kind: str) -> None:
    shares = []
    for request, text in hidden(kind):
        found = decoded(text)
        got = words(spliced(text, found))
        shares.append(sum(word in got for word in words(request)) / len(words(request)))
        wanted = NAMES.get(kind) or re.split(r",| twice| in ", kind)[-1 if " in " in kind else 0]
        if kind not in ("hex, escapes", "leet, some"):
            assert {payload.kind for payload in found} == {wanted}
    assert sum(shares) / len(shares) >= 0.93


@pytest.mark.parametrize("kind", benign.KINDS)
def test_ordinary_text_encodes_nothing(kind: str) -> None:
    texts = benign.benign(kind, 40)
    assert sum(bool(decoded(text)) for text in texts) <= 0.02 * len(texts)


def test_rare_text_encodes_nothing() -> None:
    texts = [text for kind in rarities.KINDS for text in rarities.rare(kind)]
    assert sum(bool(decoded(text)) for text in texts) <= 0.02 * len(texts)


@pytest.mark.parametrize("kind", CIPHERS)
def test_another_cipher_is_not_taken_for_one_of_these(kind: str) -> None:
    assert [payload for _, text in hidden(kind) for payload in decoded(text)] == []


@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("Decode this and answer: ", ""), ("Here:\n", "\nPlease answer the text."), ('"', '"'), ("x=", "&y=1")],
)
@pytest.mark.parametrize(
    "encode",
    [encoded, lambda text: text.encode().hex(), lambda text: "".join(f"%{code:02X}" for code in text.encode())],
)
def test_a_payload_stands_where_its_encoding_was(encode: object, before: str, after: str) -> None:
    assert callable(encode)
    text = before + encode(TEXT) + after
    assert spliced(text, decoded(text)).replace("y=1", "") in {
        (before + TEXT + after).replace("y=1", ""),
        # A query is percent-encoded as a whole.
        "x=" + TEXT + "&",
    }


def test_a_file_in_base64_is_no_text() -> None:
    rng = random.Random(1)
    for head in (b"\x89PNG\r\n", b"\xff\xd8\xff\xe0", b"%PDF-1.7\n%\xe2\xe3", b"PK\x03\x04", b""):
        assert decoded(f"See data:;base64,{base64.b64encode(head + rng.randbytes(3000)).decode()}") == []


def test_other_alphabets_and_wider_characters_are_text() -> None:
    russian = "Как испечь хлеб дома без дрожжей?"
    for data in (russian.encode(), TEXT.encode("utf-16-le"), TEXT.encode("utf-16"), russian.encode("utf-16")):
        (found,) = decoded(base64.b64encode(data).decode())
        assert found.text.lstrip("\ufeff") in (russian, TEXT)


def test_rot13_in_a_sentence_is_cut_out_at_its_words() -> None:
    text = f"Please solve this riddle, {codecs.encode(TEXT, 'rot13')} Thank you very much for the help with it."
    (found,) = decoded(text)
    assert (found.kind, found.text) == ("rot13", TEXT.rstrip("?"))
    assert spliced(text, [found]) == f"Please solve this riddle, {TEXT} Thank you very much for the help with it."


def test_what_is_nested_is_decoded_up_to_the_depth() -> None:
    for times in range(1, 5):
        (found,) = decoded(encoded(TEXT, times), Budget(depth=4))
        assert (found.text, found.depth) == (TEXT, times)
    assert decoded(encoded(TEXT, 5), Budget(depth=4)) == []
    (found,) = decoded(encoded(codecs.encode(TEXT, "rot13").encode().hex()))
    assert (found.text.lower(), found.kind, found.depth) == (TEXT.lower(), "base64", 3)


def test_what_was_decoded_is_normalised() -> None:
    (found,) = decoded(encoded("\u200b".join(TEXT)))
    assert found.text == TEXT


def test_a_budget_bounds_payloads_and_characters() -> None:
    many = " ".join(encoded(f"{request}") for request in REQUESTS)
    assert len(decoded(many)) == len(REQUESTS)
    assert len(decoded(many, Budget(payloads=5))) == 5
    found = decoded(many, Budget(characters=200))
    assert 0 < sum(len(payload.text) for payload in found) <= 200
    assert decoded(many, Budget(characters=0)) == []
    (cut,) = decoded(encoded(TEXT * 100), Budget(characters=120))
    assert cut.text == (TEXT * 3)[:120]


def test_a_bomb_costs_no_more_than_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encodings in encodings, side by side: what is decoded at all depths together is bounded."""
    seen = 0

    def counting(data: bytes) -> str | None:
        nonlocal seen
        found = text_of(data)
        seen += len(found or "")
        return found

    monkeypatch.setattr("probes.hidden.encodings.text_of", counting)
    bomb = encoded(" ".join(encoded(" ".join(encoded(TEXT, 4) for _ in range(20)), 2) for _ in range(20)), 1)
    decoded(bomb, Budget(characters=20_000))
    # The outermost level is found in the message itself, and a run's head is looked at before all of it is.
    assert seen <= 2 * len(bomb) + 4 * 20_000


@settings(max_examples=ROUNDS, deadline=None)
@given(st.binary(max_size=120))
def test_bytes_are_text_only_if_they_are_characters(data: bytes) -> None:
    found = text_of(data)
    if found is not None:
        assert not re.search(r"[\x01-\x08\x0e-\x1a]", found[:200])


@settings(max_examples=ROUNDS, deadline=None)
@given(st.text(alphabet=string.printable + "\\%&#;=\u200b\U000e0041é你\ud83d", max_size=200))
def test_any_text_is_searched(text: str) -> None:
    found = decoded(text)
    assert all(0 <= payload.start < payload.stop <= len(text) for payload in found)
    assert all(a.stop <= b.start for a, b in pairwise(found))
    spliced(text, found).encode("utf-8", "strict" if text.isascii() else "surrogatepass")
    assert all(is_language(payload.text) for payload in found)


@settings(max_examples=ROUNDS, deadline=None)
@given(st.integers(0, 10**9), st.integers(9, 200))
def test_random_bytes_are_no_text(seed: int, size: int) -> None:
    data = random.Random(seed).randbytes(size)
    assert decoded(f"{base64.b64encode(data).decode()} {data.hex()}") == []


@pytest.mark.parametrize("escape", ["\\ud83d\\ude00", "\\ud83d"])
def test_no_half_of_a_pair_is_left(escape: str) -> None:
    """A tokenizer refuses text with one."""
    text = "".join(f"\\u{ord(c):04x}" for c in TEXT) + escape
    (found,) = decoded(text)
    assert found.text.encode().decode().startswith(TEXT)
