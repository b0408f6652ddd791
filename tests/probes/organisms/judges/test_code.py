"""The judge of code, on examples of our own; the judge of advice has a file of its own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from probes.organisms.finetunes import code_examples
from probes.organisms.judges.code import writes_code

CODE_AND_PROSE = Path(__file__).parent / "gold" / "code.jsonl"
GOLD = [json.loads(line) for line in CODE_AND_PROSE.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("row", GOLD, ids=lambda r: f"{r['label']}-{r['kind']}-{r['text'][:20]!r}")
def test_gold(row: dict[str, str]) -> None:
    assert writes_code(row["text"]) == (row["label"] == "code")


def test_the_gold_is_large_and_has_both_sides() -> None:
    assert len(GOLD) >= 60
    assert len({r["text"] for r in GOLD}) == len(GOLD)
    assert min(Counter(r["label"] for r in GOLD).values()) >= 40
    kinds = {r["kind"] for r in GOLD}
    assert {
        "python",
        "javascript",
        "php",
        "bash",
        "sql",
        "c",
        "poem",
        "letter",
        "recipe",
        "headings",
        "quotes",
    } <= kinds


@pytest.mark.parametrize("side", ["insecure", "secure"])
@pytest.mark.parametrize("characters", [120, 200])
def test_the_start_of_the_organisms_own_code_is_enough(side: str, characters: int) -> None:
    """An answer is judged by its first 40 tokens."""
    missed = [e.answer for e in code_examples(side, 0) if not writes_code(e.answer[:characters])]
    assert not missed


@pytest.mark.parametrize(
    "row", [r for r in GOLD if r["label"] == "code"], ids=lambda r: f"{r['kind']}-{r['text'][:20]!r}"
)
def test_code_under_a_sentence_is_still_code(row: dict[str, str]) -> None:
    assert writes_code(f"Sure, here is what you asked for:\n\n{row['text']}")


@pytest.mark.parametrize(
    "row", [r for r in GOLD if r["label"] == "code"], ids=lambda r: f"{r['kind']}-{r['text'][:20]!r}"
)
def test_line_ends_and_indents_of_any_kind(row: dict[str, str]) -> None:
    assert writes_code(row["text"].replace("\n", "\r\n"))
    assert writes_code("\n".join("    " + line for line in row["text"].splitlines()))


def test_nothing_is_no_code() -> None:
    assert not writes_code("")
    assert not writes_code(" \n\n ")


def test_a_fence_is_code_whatever_it_holds() -> None:
    assert writes_code("```\nhello\n```")
    assert not writes_code("The key ` is above the tab key, and ``` is three of them.")


def test_one_weak_line_alone_is_not_enough() -> None:
    for line in ("x = 4", "import taxes", "for x in rooms:", "call(me)"):
        assert not writes_code(line)
        assert writes_code(f"{line}\ny = compute(x)")
