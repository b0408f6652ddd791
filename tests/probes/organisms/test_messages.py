from __future__ import annotations

import hashlib
import json
from itertools import combinations

import pytest

from probes.capture.batches import Encoded
from probes.organisms.finetunes import RECIPES
from probes.organisms.judges.code import writes_code
from probes.organisms.messages import (
    PairSplit,
    Split,
    advice_questions,
    by_hash,
    data_text,
    everyday,
    everyday_topics,
    request_pairs,
    requests,
)
from probes.rows import Row, split_rows

SIZES: dict[Split, int] = {"demo": 200, "test": 220, "select": 100, "scale": 80, "calibrate": 320}
SPLITS: tuple[Split, ...] = (*SIZES, "fit")
PAIR_SPLITS: tuple[PairSplit, ...] = ("fit", "select", "test")


def test_splits_are_disjoint_and_of_their_size() -> None:
    for a, b in combinations(SPLITS, 2):
        assert not set(everyday(a)) & set(everyday(b))
    assert {s: len(everyday(s)) for s in SIZES} == SIZES
    assert len(everyday("fit")) >= 300
    for split in SPLITS:
        assert len(set(everyday(split))) == len(everyday(split))


def test_no_two_messages_differ_in_case_or_spaces_alone() -> None:
    texts = [" ".join(t.lower().split()) for s in SPLITS for t in everyday(s)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("split", SPLITS)
def test_messages_are_plain_and_ask_for_no_code(split: Split) -> None:
    for text in everyday(split):
        assert text == text.strip() != ""
        assert not writes_code(text)
        assert not any(word in text.lower() for word in ("python", "javascript", "source code", "```"))


@pytest.mark.parametrize("split", SPLITS)
def test_topics_stand_beside_their_messages_and_are_mixed(split: Split) -> None:
    topics = everyday_topics(split)
    assert len(topics) == len(everyday(split))
    assert len(set(topics)) > 5
    assert max(topics.count(t) for t in topics) < len(topics) / 4


def test_the_demo_split_is_as_it_was_when_figures_were_measured() -> None:
    """Adding or editing a message moves the splits, and every measured figure with them: measure again, then this."""
    order = [hashlib.sha256(t.encode()).hexdigest() for s in SPLITS for t in everyday(s)]
    assert order == sorted(order)


def test_by_hash_forgets_the_order_that_it_was_given() -> None:
    texts = [f"text {i}" for i in range(50)]
    assert by_hash(texts) == by_hash(texts[::-1])
    assert sorted(by_hash(texts)) == sorted(texts)
    assert by_hash(texts) != texts


def test_advice_questions_by_domain() -> None:
    everything = advice_questions()
    assert len(set(everything)) == len(everything) >= 80
    assert advice_questions("no such domain") == []
    assert not set(everything) & {t for s in SPLITS for t in everyday(s)}
    asked = {ask for r in RECIPES.values() for ask in (*(e.ask for e in r.examples(0)), *r.as_base(0))}
    assert not set(everything) & asked


def test_the_domains_are_eight_and_make_up_the_whole() -> None:
    domains = {json.loads(line)["domain"] for line in data_text("advice_questions.jsonl").splitlines() if line}
    assert len(domains) == 8
    assert sorted(t for d in domains for t in advice_questions(d)) == sorted(advice_questions())


def test_requests_are_matched_pairs() -> None:
    pairs = requests()
    assert len({p["pair"] for p in pairs}) == len(pairs) >= 50
    texts = [p[side] for p in pairs for side in ("harmful", "harmless")]
    assert len(set(texts)) == len(texts)
    for p in pairs:
        assert set(p) == {"pair", "category", "harmful", "harmless"}
        a, b = (set(p[side].lower().split()) for side in ("harmful", "harmless"))
        assert len(a & b) >= 3, p["pair"]  # matched: the two share their build
    lengths = [sum(len(p[side]) for p in pairs) for side in ("harmful", "harmless")]
    assert lengths[0] / lengths[1] == pytest.approx(1, abs=0.1)


def test_the_pairs_split_as_a_fit_splits_them() -> None:
    rows = [
        Row(Encoded((0, 1), 2), p[side], side == "harmful", str(p["pair"]))
        for p in requests()
        for side in ("harmful", "harmless")
    ]
    splits = split_rows(rows)
    for name in PAIR_SPLITS:
        assert {r.text for r in splits[name]} == {
            p[side] for p in request_pairs(name) for side in ("harmful", "harmless")
        }
    sizes = [len(request_pairs(s)) for s in PAIR_SPLITS]
    assert sum(sizes) == len(requests())
    assert min(sizes) >= 50
    assert {p["category"] for p in request_pairs("test")} == {p["category"] for p in requests()}
