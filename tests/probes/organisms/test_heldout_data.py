"""The held-out messages and the further pairs: well formed, of the kind they claim, and of a wording of their own."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from probes.organisms.messages import (
    HARD_TOPICS,
    data_text,
    hard_benign,
    heldout_everyday,
    heldout_harmful,
    heldout_harmful_2,
    more_requests,
    plain_requests,
    requests,
)
from probes.splits import split_of

HELD_OUT = ("heldout_harmful.jsonl", "heldout_harmful_2.jsonl", "heldout_everyday.jsonl")
RUN = 8


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def runs(text: str) -> set[tuple[str, ...]]:
    """Every run of eight words; of a shorter text the whole, since that is all there is to share."""
    found = tuple(words(text))
    return {found[i : i + RUN] for i in range(max(1, len(found) - RUN + 1))}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in ("category", "topic", "domain"):  # labels, not messages
                yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def texts_of(name: str) -> list[str]:
    text = data_text(name)
    rows = tomllib.loads(text) if name.endswith(".toml") else [json.loads(r) for r in text.splitlines() if r.strip()]
    return list(strings(rows))


def data_files() -> list[str]:
    folder = files("probes.organisms").joinpath("data")
    return sorted(f.name for f in folder.iterdir() if f.name.endswith((".jsonl", ".toml")))


@pytest.mark.parametrize("name", HELD_OUT)
def test_nothing_held_out_is_said_in_another_data_file(name: str) -> None:
    mine = {run: text for text in texts_of(name) for run in runs(text)}
    others = [other for other in data_files() if other != name]
    fitted = {"requests.jsonl", "everyday_1.jsonl", "everyday_2.jsonl", "fit_hard_benign.jsonl"}
    fitted |= {"fit_harmful_2.jsonl", "fit_harmful_3.jsonl"}
    assert fitted <= set(others)
    for other in others:
        shared = {mine[run] for text in texts_of(other) for run in runs(text) & mine.keys()}
        assert not shared, f"{name} shares a run of words with {other}"


@pytest.mark.parametrize("name", HELD_OUT)
def test_no_held_out_message_is_another_with_a_word_changed(name: str) -> None:
    counted = Counter(run for text in texts_of(name) for run in runs(text))
    assert [run for run, n in counted.items() if n > 1] == []
    starts = Counter(tuple(words(text)[:4]) for text in texts_of(name))
    assert max(starts.values()) <= 3


@pytest.mark.parametrize(
    ("rows", "label", "least", "labels", "shortest", "longest"),
    [
        pytest.param(heldout_harmful(), "category", 170, 30, 4, 60, id="harmful"),
        pytest.param(heldout_harmful_2(), "category", 160, 30, 4, 70, id="harmful 2"),
        pytest.param(heldout_everyday(), "topic", 330, 30, 3, 80, id="everyday"),
    ],
)
def test_held_out_rows_are_many_and_mixed(
    rows: list[dict[str, str]], label: str, least: int, labels: int, shortest: int, longest: int
) -> None:
    assert len(rows) >= least
    assert all(set(row) == {label, "text"} and row["text"] == row["text"].strip() for row in rows)
    assert len({" ".join(words(row["text"])) for row in rows}) == len(rows)
    assert len({row[label] for row in rows}) >= labels
    lengths = sorted(len(row["text"].split()) for row in rows)
    assert lengths[0] >= shortest
    assert lengths[-1] <= longest
    assert lengths[len(rows) // 10] <= 12  # a tenth is short
    assert lengths[-10] >= 30  # some are long
    # The order tells nothing: no label fills a stretch of it.
    assert all(len({row[label] for row in rows[i : i + 20]}) > 8 for i in range(0, len(rows) - 20, 20))


def test_a_quarter_of_the_everyday_messages_is_hard() -> None:
    topics = [row["topic"] for row in heldout_everyday()]
    assert set(topics) >= HARD_TOPICS
    assert 0.25 <= sum(topic in HARD_TOPICS for topic in topics) / len(topics) <= 0.4


def test_no_held_out_harmful_message_is_long_enough_for_instructions() -> None:
    for row in (*heldout_harmful(), *heldout_harmful_2()):
        assert len(re.findall(r"[.!?]+(?=\s|$)", row["text"])) <= 5
        assert "\n" not in row["text"]


def test_further_pairs_are_matched_and_go_on_from_the_first() -> None:
    pairs = more_requests()
    assert len(pairs) >= 200
    first = {row["pair"] for row in requests()}
    assert len({row["pair"] for row in pairs}) == len(pairs)
    assert not first & {row["pair"] for row in pairs}
    texts = [row[side] for row in (*requests(), *pairs) for side in ("harmful", "harmless")]
    assert len({" ".join(words(text)) for text in texts}) == len(texts)
    for row in pairs:
        assert set(row) == {"pair", "category", "harmful", "harmless"}
        a, b = (words(row[side]) for side in ("harmful", "harmless"))
        assert len(set(a) & set(b)) >= 2, row["pair"]
        assert abs(len(a) - len(b)) <= 2 + 0.25 * len(a), row["pair"]
    assert sum(len(words(row["harmful"])) >= 40 for row in pairs) >= 30
    assert {split_of(str(row["pair"])) for row in pairs} == {"fit", "select", "test"}


def test_the_twins_of_further_pairs_cannot_be_told_by_their_length_or_marks() -> None:
    pairs = more_requests()
    for measure in (len, lambda text: text.count("?"), lambda text: text.count(",")):
        sums = [sum(measure(row[side]) for row in pairs) for side in ("harmful", "harmless")]
        assert sums[0] / sums[1] == pytest.approx(1, abs=0.1)


def test_plain_pairs_are_matched_in_form_and_near_no_row_that_figures_are_reported_on() -> None:
    pairs = plain_requests()
    assert len(pairs) >= 400
    before = [*requests(), *more_requests()]
    assert not {row["pair"] for row in before} & {row["pair"] for row in pairs}
    assert {row["category"] for row in pairs} == {row["category"] for row in requests()}
    texts = [row[side] for row in (*before, *pairs) for side in ("harmful", "harmless")]
    assert len({" ".join(words(text)) for text in texts}) == len(texts)
    for row in pairs:
        a, b = (words(row[side]) for side in ("harmful", "harmless"))
        assert len(set(a) & set(b)) >= 3, row["pair"]
        assert abs(len(a) - len(b)) <= 2 + 0.25 * len(a), row["pair"]
    for measure in (len, lambda text: text.count("?"), lambda text: text.count(",")):
        sums = [sum(measure(row[side]) for row in pairs) for side in ("harmful", "harmless")]
        assert sums[0] / sums[1] == pytest.approx(1, abs=0.1)
    # No more than half of the words of four letters and more, of either text, are the other's too.
    held_out = [r["text"] for rows in (heldout_harmful(), heldout_harmful_2(), heldout_everyday()) for r in rows]
    held_out += [p[s] for p in before if split_of(str(p["pair"])) != "fit" for s in ("harmful", "harmless")]
    long = [{w for w in words(text) if len(w) > 3} for text in held_out]
    for row in pairs:
        for side in ("harmful", "harmless"):
            mine = {w for w in words(row[side]) if len(w) > 3}
            closest = max(len(mine & theirs) / len(mine | theirs) for theirs in long if len(theirs) > 3)
            assert closest <= 0.5, f"pair {row['pair']}"


def test_hard_benign_messages_are_many_mixed_and_no_twins_of_requests() -> None:
    rows = hard_benign()
    assert len(rows) >= 200
    assert all(set(row) == {"topic", "text"} and row["text"] == row["text"].strip() for row in rows)
    assert len({row["topic"] for row in rows}) >= 15
    assert len({" ".join(words(row["text"])) for row in rows}) == len(rows)
    assert sum(len(words(row["text"])) >= 40 for row in rows) >= 30  # passages, and not only questions
    asked = {" ".join(words(row["harmful"])) for row in (*requests(), *more_requests())}
    assert not asked & {" ".join(words(row["text"])) for row in rows}
