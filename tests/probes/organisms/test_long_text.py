"""Long benign messages: well-formed pieces, splits that share nothing, lengths that are met."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from typing import get_args

import pytest

from probes.errors import DataError
from probes.organisms.long_text import (
    KINDS,
    MIN_TOKENS,
    About,
    LongSplit,
    code,
    documents,
    estimated_tokens,
    kind_of,
    long_messages,
    padding,
    questions,
)
from probes.organisms.messages import data_text, everyday

SPLITS: tuple[LongSplit, ...] = get_args(LongSplit)
DOCUMENTS = [json.loads(line) for line in data_text("documents.jsonl").splitlines()]
CODE = [json.loads(line) for line in data_text("code.jsonl").splitlines()]


def sentences(text: str) -> list[str]:
    """What a piece can be recognised by: its longer lines, as far as they fit into a short excerpt."""
    return [line.strip()[:60] for line in text.splitlines() if len(line.strip()) >= 60]


def all_text(messages: list[list[dict[str, str]]]) -> str:
    return "\n".join(turn["content"] for turns in messages for turn in turns)


def test_documents_are_as_long_as_they_claim_and_of_many_kinds() -> None:
    kinds = Counter(row["kind"] for row in DOCUMENTS)
    assert len(DOCUMENTS) >= 160
    assert len(kinds) >= 16
    assert min(kinds.values()) >= 6
    assert {row["kind"] for row in DOCUMENTS if not 120 <= len(row["text"].split()) <= 300} == set()
    assert 0.2 < sum(row["hard"] for row in DOCUMENTS) / len(DOCUMENTS) < 0.4


def test_code_is_of_many_languages_and_no_longer_than_a_screen() -> None:
    kinds = Counter(row["kind"] for row in CODE)
    assert len(CODE) >= 80
    assert len(kinds) >= 16
    assert min(kinds.values()) >= 3
    assert {row["kind"] for row in CODE if not 15 <= len(row["text"].splitlines()) <= 50} == set()


def test_every_json_piece_is_json() -> None:
    for row in CODE:
        if row["kind"] == "json":
            json.loads(row["text"])


def test_pieces_are_all_in_one_split_and_no_text_is_there_twice() -> None:
    pieces = [text for split in SPLITS for text in (*documents(split), *code(split))]
    assert sorted(pieces) == sorted(row["text"] for row in (*DOCUMENTS, *CODE))
    assert len(set(pieces)) == len(pieces)


def test_no_two_pieces_share_a_line_of_prose() -> None:
    seen = Counter(line for row in DOCUMENTS for line in set(sentences(row["text"])))
    assert [line for line, n in seen.items() if n > 1] == []


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_has_its_share_of_everything(split: LongSplit) -> None:
    hard = documents(split, hard=True)
    assert len(documents(split)) >= 20
    assert 0.2 < len(hard) / len(documents(split)) < 0.4
    assert set(hard) | set(documents(split, hard=False)) == set(documents(split))
    assert len(code(split)) >= 12
    assert all(len(questions(split, about)) >= 4 for about in get_args(About))


def test_messages_of_two_splits_share_no_piece_question_or_everyday_message() -> None:
    owned = {
        split: [
            *everyday(split),
            *(text for about in get_args(About) for text in questions(split, about)),
            *(line for text in (*documents(split), *code(split)) for line in sentences(text)),
        ]
        for split in SPLITS
    }
    made = {split: all_text(long_messages(split, 700, 40, seed=1)) + padding(split, 3000) for split in SPLITS}
    for split in SPLITS:
        assert sum(text in made[split] for text in owned[split]) > 60
    for a, b in combinations(SPLITS, 2):
        # Short questions such as "What is a sonnet?" may be part of a longer one of another split.
        assert [text for text in owned[a] if len(text) > 40 and text in made[b] and text not in owned[b]] == []
        assert [text for text in owned[b] if len(text) > 40 and text in made[a] and text not in owned[a]] == []


@pytest.mark.parametrize("tokens", [MIN_TOKENS, 100, 400, 1500, 6000])
def test_lengths_are_met_by_every_kind(tokens: int) -> None:
    for index, turns in enumerate(long_messages("test", tokens, 25, seed=3)):
        got = sum(estimated_tokens(turn["content"]) for turn in turns)
        # Whole everyday messages end where they end.
        assert 0.85 * tokens - 5 <= got <= 1.02 * tokens + 20, kind_of(index)


def test_messages_are_conversations_that_a_user_ends() -> None:
    kinds: Counter[str] = Counter()
    for index, turns in enumerate(long_messages("fit", 600, 50)):
        roles = [turn["role"] for turn in turns]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert all(turn["content"] == turn["content"].strip() != "" for turn in turns)
        kinds[kind_of(index)] += 1
        if kind_of(index) in ("paste", "several", "code"):
            assert len(turns) == 1
            assert any(turns[0]["content"].startswith(q) or turns[0]["content"].endswith(q) for q in asked())
        elif kind_of(index) == "conversation":
            assert len(turns) >= 3
    assert kinds == dict.fromkeys(KINDS, 10)


def asked() -> list[str]:
    return [text for about in get_args(About) for text in questions("fit", about)]


def test_a_seed_decides_everything_and_another_seed_changes_it() -> None:
    assert long_messages("select", 300, 10, seed=5) == long_messages("select", 300, 10, seed=5)
    assert long_messages("select", 300, 10, seed=5)[:4] == long_messages("select", 300, 4, seed=5)
    mine, others = long_messages("select", 300, 10, seed=5), long_messages("select", 300, 10, seed=6)
    assert all(a != b for a, b in zip(mine, others, strict=True))


def test_a_message_repeats_no_document_before_all_have_come() -> None:
    total = sum(estimated_tokens(text) for text in documents("calibrate"))
    text = padding("calibrate", int(0.9 * total))
    assert all(text.count(line) <= 1 for piece in documents("calibrate") for line in sentences(piece))
    assert estimated_tokens(padding("calibrate", 2 * total)) == pytest.approx(2 * total, rel=0.05)


@pytest.mark.parametrize("tokens", [1, 5, 40, 2000])
def test_padding_has_its_length(tokens: int) -> None:
    assert 0.9 * tokens - 2 <= estimated_tokens(padding("test", tokens)) <= tokens


def test_the_estimate_counts_digits_long_words_and_marks() -> None:
    assert estimated_tokens("") == 0
    assert estimated_tokens("a cat sat") == 3
    assert estimated_tokens("1987") == 4
    assert estimated_tokens("extraordinarily") == 3
    assert estimated_tokens("x = y_1;") == 6


def test_bad_arguments_are_named() -> None:
    with pytest.raises(DataError, match="split: 'demo' is none of fit, select, calibrate, test"):
        documents("demo")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="tokens: 10 is below 48"):
        long_messages("fit", 10, 1)
    with pytest.raises(DataError, match="count: 0"):
        long_messages("fit", 100, 0)
    with pytest.raises(DataError, match="tokens: 0"):
        padding("fit", 0)
