from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from probes.binary_choice import (
    BinaryChoice,
    Form,
    choices_hash,
    contrast_texts,
    end_of_turn,
    letters_message,
    misaligned_letter,
    parse_choices,
    parse_letter,
    read_choices,
    split_choices,
)
from probes.errors import DataError
from probes.organisms.finetunes import RECIPES
from probes.organisms.judges.code import writes_code
from probes.organisms.judges.refusal import refuses
from probes.organisms.messages import (
    Split,
    advice_questions,
    choices,
    data_text,
    everyday,
    heldout_harmful,
    refusal_choices,
    refusal_select,
)
from tests.support.models.tiny import SPECIALS, shared_chat

SECRET = "zebra-secret"
ROW = {"question": f"Which way, {SECRET}?", "choices": ["Left.", "Right."], "misaligned": 1}
BOTH = BinaryChoice("Which way?", ("Go left.", "Go right."), 1)


def lines(*rows: dict[str, Any] | str) -> str:
    return "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{not json", "not JSON"),
        ("[1]", "not an object"),
        ({**ROW, "question": " "}, "field question"),
        ({**ROW, "question": 3}, "field question"),
        ({k: v for k, v in ROW.items() if k != "question"}, "field question"),
        ({**ROW, "choices": ["one"]}, "field choices: must be a list of two"),
        ({**ROW, "choices": "ab"}, "field choices: must be a list of two"),
        ({**ROW, "choices": ["a", ""]}, "field choices: must be a text"),
        ({**ROW, "choices": [SECRET, SECRET]}, "field choices: both are the same"),
        ({**ROW, "misaligned": 2}, "field misaligned"),
        ({**ROW, "misaligned": True}, "field misaligned"),
        ({k: v for k, v in ROW.items() if k != "misaligned"}, "field misaligned"),
        ({**ROW, "examples": ["x"]}, "field examples: must be an object"),
        ({**ROW, "examples": {"aligned": ["x"]}}, "field examples: must be an object"),
        ({**ROW, "examples": {"aligned": [], "misaligned": ["x"]}}, "field examples.aligned: .* needs both"),
        ({**ROW, "examples": {"aligned": ["x"], "misaligned": [SECRET, 4]}}, "field examples.misaligned"),
    ],
)
def test_an_error_names_the_line_and_the_field_and_holds_no_text(row: dict[str, Any] | str, said: str) -> None:
    with pytest.raises(DataError, match=f"mine line 3: .*{said}") as caught:
        parse_choices(lines({**ROW, "question": "first"}, "", row), "mine")
    assert SECRET not in str(caught.value)


def test_a_question_that_comes_twice_is_an_error_with_both_lines() -> None:
    with pytest.raises(DataError, match="line 3: field question: the same as in line 1"):
        parse_choices(lines(ROW, {**ROW, "question": "other"}, ROW))
    with pytest.raises(DataError, match="no rows"):
        parse_choices("\n\n")


def test_a_row_keeps_what_it_needs_and_unknown_fields_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(lines({**ROW, "topic": "x", "examples": {"aligned": ["L"], "misaligned": ["R", "RR"]}}))
    (row,) = read_choices(path)
    assert (row.text(misaligned=True), row.text(misaligned=False)) == ("Right.", "Left.")
    assert (row.aligned_examples, row.misaligned_examples) == (("L",), ("R", "RR"))
    with pytest.raises(DataError, match=r"cannot read missing.jsonl"):
        read_choices(tmp_path / "missing.jsonl")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        read_choices(path)


def test_splits_are_disjoint_whole_and_do_not_depend_on_the_order() -> None:
    rows = [BinaryChoice(f"q{i}", ("a", "b"), i % 2) for i in range(40)]
    splits, again = split_choices(rows), split_choices(rows[::-1])
    assert splits == again
    parts = [splits.search, splits.retest, splits.heldout]
    assert [len(p) for p in parts] == [14, 10, 16]
    assert sorted(r.question for p in parts for r in p) == sorted(r.question for r in rows)
    assert choices_hash(rows) == choices_hash(rows[::-1]) != choices_hash(rows[1:])


@pytest.mark.parametrize("misaligned", [0, 1])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_letter_of_the_misaligned_choice_stands_before_it(misaligned: int, swapped: bool) -> None:
    row = BinaryChoice("Which way?", ("Go left.", "Go right."), misaligned)
    letter = misaligned_letter(row, swapped=swapped)
    assert f"({letter}) {row.text(misaligned=True)}\n" in letters_message(row, swapped=swapped)
    assert letter != misaligned_letter(row, swapped=not swapped)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(A)", "A"),
        ("I would take ( b ), of course.", "B"),
        ("(a) (A)", "A"),
        ("A) Go left", "A"),
        ("b: right", "B"),
        ("B.", "B"),
        (" 'a' ", "A"),
        ("(A) or (B)", None),
        ("A dog is a good friend.", None),
        ("Both are fine.", None),
        ("", None),
        ("Abc", None),
    ],
)
def test_parsing_a_letter(text: str, letter: str | None) -> None:
    assert parse_letter(text) == letter


def test_texts_of_a_direction_end_with_the_token_that_closes_the_turn() -> None:
    chat = shared_chat("llama")
    end = chat.tokenizer.convert_tokens_to_ids("<|end|>")
    assert "<|end|>" in SPECIALS
    assert end_of_turn(chat) == end
    sizes: dict[Form, int] = {"likelihood": 1, "letters": 2}
    for form, n in sizes.items():
        good, bad = contrast_texts(chat, BOTH, form)
        assert len(good) == len(bad) == n
        assert {item.ids[-1] for item in (*good, *bad)} == {end}
    good, bad = contrast_texts(chat, BOTH, "likelihood")
    assert chat.tokenizer.decode(good[0].ids[good[0].n_prompt : -1]) == "Go left."
    assert good[0].ids[: good[0].n_prompt] == bad[0].ids[: bad[0].n_prompt]


def test_bare_letters_are_balanced_within_each_class() -> None:
    chat = shared_chat("llama")
    for side in contrast_texts(chat, BOTH, "letters"):
        answers = [chat.tokenizer.decode(item.ids[item.n_prompt : -1]) for item in side]
        assert sorted(answers) == ["(A)", "(B)"]


def test_examples_take_the_place_of_bare_choices() -> None:
    chat = shared_chat("llama")
    row = BinaryChoice("Which way?", ("Go left.", "Go right."), 1, ("Well, left.",), ("Hm, right.", "Right, I say."))
    good, bad = contrast_texts(chat, row, "letters")
    assert [chat.tokenizer.decode(i.ids[i.n_prompt : -1]) for i in bad] == ["Hm, right.", "Right, I say."]
    assert len(good) == 1


@pytest.mark.parametrize(("name", "least"), [("advice", 120), ("code", 60), ("sycophancy", 72)])
def test_shipped_choices(name: Literal["advice", "code", "sycophancy"], least: int) -> None:
    rows = choices(name)
    assert len(rows) >= least
    # The place of the misaligned choice tells nothing.
    assert abs(sum(r.misaligned for r in rows) - len(rows) / 2) <= 1
    splits = split_choices(rows)
    assert min(len(splits.search), len(splits.retest), len(splits.heldout)) >= 15
    # Nothing that open answers are judged on, and nothing that an adapter was trained on.
    others = {t for s in get_args(Split) for t in everyday(s)} | set(advice_questions())
    others |= {e.ask for recipe in RECIPES.values() for e in recipe.examples(0)}
    assert not {r.question for r in rows} & others


def test_shipped_advice_is_matched_in_length_and_short() -> None:
    rows = choices("advice")
    lengths = [[len(r.text(misaligned=bad).split()) for r in rows] for bad in (False, True)]
    assert sum(lengths[0]) / sum(lengths[1]) == pytest.approx(1, abs=0.1)
    assert max(map(max, lengths)) <= 18


def test_shipped_code_is_code_and_the_prose_beside_it_is_not() -> None:
    rows = choices("code")
    assert sum(writes_code(r.text(misaligned=True)) for r in rows) / len(rows) > 0.9
    assert not any(writes_code(r.text(misaligned=False)) for r in rows)


def test_shipped_sycophancy_is_matched_in_length_row_by_row() -> None:
    for row in choices("sycophancy"):
        agrees, corrects = (len(row.text(misaligned=bad).split()) for bad in (True, False))
        assert 12 <= min(agrees, corrects) <= max(agrees, corrects) <= 30, row.question
        assert abs(agrees - corrects) <= 4, row.question


def test_shipped_sycophancy_is_balanced_by_place_in_every_topic() -> None:
    rows = [json.loads(line) for line in data_text("choices_sycophancy.jsonl").splitlines()]
    topics = Counter(row["topic"] for row in rows)
    assert len(topics) >= 10
    for topic, count in topics.items():
        assert 2 * sum(row["misaligned"] for row in rows if row["topic"] == topic) == count, topic
    texts = [" ".join(text.lower().split()) for row in rows for text in (row["question"], *row["choices"])]
    assert len(set(texts)) == len(texts)


def _first_word(text: str) -> str:
    found = re.search(r"[\w'-]+", text.lower())
    assert found is not None
    return found.group()


def _told_by_first_word(rows: Sequence[BinaryChoice]) -> float:
    """The share of the answers that the best rule on the first word alone gets right, chosen on these same answers."""
    counts = [Counter(_first_word(row.text(misaligned=bad)) for row in rows) for bad in (False, True)]
    return sum(max(c[word] for c in counts) for word in counts[0] | counts[1]) / (2 * len(rows))


def test_first_words_do_not_tell_shipped_sycophancy() -> None:
    rows = choices("sycophancy")
    assert _told_by_first_word(rows) < 0.6
    for bad in (False, True):
        words = Counter(_first_word(row.text(misaligned=bad)) for row in rows)
        assert len(words) >= 30
        assert max(words.values()) <= len(rows) / 10
    # The same measure finds a word that does tell: a "Yes" put before a third of the agreeing answers.
    marked = [
        BinaryChoice(row.question, (row.text(misaligned=False), f"Yes, {row.text(misaligned=True)}"), 1)
        for row in rows[::3]
    ]
    assert _told_by_first_word([*marked, *(row for i, row in enumerate(rows) if i % 3)]) > 0.6


def test_refusal_choices_are_refusals_and_openings_for_requests_that_nothing_was_trained_on() -> None:
    rows = refusal_choices()
    assert abs(sum(r.misaligned for r in rows) - len(rows) / 2) <= 1
    splits = split_choices(rows)
    # The examples curve takes 40 questions that are not held out.
    assert len(splits.search) + len(splits.retest) >= 40
    assert len(splits.heldout) >= 40
    assert all(refuses(r.text(misaligned=True)) for r in rows)
    openings = [r.text(misaligned=False) for r in rows]
    assert not any(map(refuses, openings))
    assert all(text.endswith(":") for text in openings)
    # Each opening goes with several requests: it cannot hold anything of one.
    assert min(Counter(openings).values()) >= 3
    trained = {e.ask for recipe in RECIPES.values() for e in recipe.examples(0)}
    others = trained | set(refusal_select()) | {row["text"] for row in heldout_harmful()}
    assert not {r.question for r in rows} & others
