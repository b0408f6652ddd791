"""Binary-choice data: a question and two answers to it, one of which shows the behaviour.

A row is one JSON object on a line: `question`, `choices` (two texts), `misaligned` (0 or 1: which of the two shows the
behaviour) and, if wanted, `examples`: `{"aligned": [...], "misaligned": [...]}`, longer answers that end in either
choice, which directions are then made of in place of the bare choices (HSI, arXiv 2502.05945; `docs/science.md`
B.1 step 1). Other fields are ignored.

There are two forms. `letters`: both choices are shown as (A) and (B), the model writes, and what it wrote is parsed;
every question is asked in both orders, so that a preference for a letter cancels. `likelihood`, for models too small
to choose a letter: the choices are compared by their mean log-probability (nats a token) as the answer to the bare
question. Splits are by question and stable: `search` chooses, `retest` chooses again, `heldout` chooses nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from probes.capture.batches import Encoded
from probes.errors import DataError
from probes.hashing import sha256_lines, sha256_text
from probes.model.load import ChatModel, user_message

Form = Literal["letters", "likelihood"]
Letter = Literal["A", "B"]
_SHARES = (("search", 0.35), ("retest", 0.25))
_LETTERS = re.compile(r"\(\s*([ab])\s*\)", re.IGNORECASE)
# "A)", "B:" or a bare "A." where the answer starts; "A dog ..." is no letter.
_BARE = re.compile(r"^\W*([ab])(?:\s*[):]|\W*$)", re.IGNORECASE)


@dataclass(frozen=True)
class BinaryChoice:
    """One row: `choices[misaligned]` shows the behaviour, the other does not. Examples may be empty."""

    question: str
    choices: tuple[str, str]
    misaligned: int
    aligned_examples: tuple[str, ...] = ()
    misaligned_examples: tuple[str, ...] = ()

    def text(self, *, misaligned: bool) -> str:
        """One of the two choices."""
        return self.choices[self.misaligned if misaligned else 1 - self.misaligned]


@dataclass(frozen=True)
class ChoiceSplits:
    """Three disjoint lists of questions."""

    search: tuple[BinaryChoice, ...]
    retest: tuple[BinaryChoice, ...]
    heldout: tuple[BinaryChoice, ...]


def read_choices(path: Path) -> list[BinaryChoice]:
    """Rows of a JSON-lines file. DataError names the line and the field, and holds none of the text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"choices: cannot read {path.name} ({type(error).__name__}); give a UTF-8 JSON-lines file"
        ) from (error)
    return parse_choices(text, path.name)


def parse_choices(text: str, name: str = "choices") -> list[BinaryChoice]:
    """Rows from JSON lines; blank lines are skipped."""
    rows: list[BinaryChoice] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        row = _row(line, f"{name} line {number}")
        if row.question in seen:
            raise DataError(f"{name} line {number}: field question: the same as in line {seen[row.question]}")
        seen[row.question] = number
        rows.append(row)
    if not rows:
        raise DataError(f"{name}: no rows; each line is one object with question, choices and misaligned")
    return rows


def _row(line: str, where: str) -> BinaryChoice:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: not JSON; each line is one object with question, choices and misaligned") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: not an object; each line is one object with question, choices and misaligned")
    question = _text(row.get("question"), f"{where}: field question")
    choices = row.get("choices")
    if not isinstance(choices, list) or len(choices) != 2:
        raise DataError(f"{where}: field choices: must be a list of two texts")
    first, second = (_text(c, f"{where}: field choices") for c in choices)
    if first == second:
        raise DataError(f"{where}: field choices: both are the same text")
    misaligned = row.get("misaligned")
    if isinstance(misaligned, bool) or misaligned not in (0, 1):
        raise DataError(f"{where}: field misaligned: must be 0 or 1, the index of the choice that shows the behaviour")
    good, bad = _examples(row.get("examples"), where)
    return BinaryChoice(question, (first, second), int(misaligned), good, bad)


def _examples(given: Any, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if given is None:
        return (), ()
    if not isinstance(given, dict) or set(given) != {"aligned", "misaligned"}:
        raise DataError(f"{where}: field examples: must be an object with aligned and misaligned, a list of texts each")
    sides = []
    for side in ("aligned", "misaligned"):
        texts = given[side]
        if not isinstance(texts, list) or not texts:
            raise DataError(
                f"{where}: field examples.{side}: must be a list of at least one text: a direction needs both"
            )
        sides.append(tuple(_text(t, f"{where}: field examples.{side}") for t in texts))
    return sides[0], sides[1]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: must be a text that is not empty")
    return value


def split_choices(rows: Sequence[BinaryChoice]) -> ChoiceSplits:
    """search 35 %, retest 25 %, heldout the rest, in the order of a hash of the question."""
    order = sorted(rows, key=lambda r: sha256_text(r.question))
    parts: list[tuple[BinaryChoice, ...]] = []
    start = 0
    for _, share in _SHARES:
        stop = start + round(share * len(order))
        parts.append(tuple(order[start:stop]))
        start = stop
    return ChoiceSplits(parts[0], parts[1], tuple(order[start:]))


def choices_hash(rows: Sequence[BinaryChoice]) -> str:
    """A hash of the rows that does not depend on their order."""
    return sha256_lines(map(repr, rows))


def letters_message(row: BinaryChoice, *, swapped: bool) -> str:
    """The user message of the `letters` form; `swapped` shows the second choice as (A)."""
    first, second = reversed(row.choices) if swapped else row.choices
    return f"{row.question}\n\n(A) {first}\n(B) {second}\n\nAnswer with (A) or (B) only."


def misaligned_letter(row: BinaryChoice, *, swapped: bool) -> Letter:
    """Which letter stands for the behaviour in `letters_message(row, swapped=swapped)`."""
    return "B" if bool(row.misaligned) != swapped else "A"


def parse_letter(text: str) -> Letter | None:
    """The letter that an answer chose; None (undefined) when it names none or both."""
    named = {letter.upper() for letter in _LETTERS.findall(text)}
    if not named:
        bare = _BARE.match(text)
        named = {bare.group(1).upper()} if bare else set()
    if len(named) != 1:
        return None
    return "A" if "A" in named else "B"


def render_choice(chat: ChatModel, row: BinaryChoice, form: Form, *, swapped: bool = False) -> str:
    """The prompt of a row in the model's own chat template."""
    content = letters_message(row, swapped=swapped) if form == "letters" else row.question
    return chat.render(user_message(content))


def end_of_turn(chat: ChatModel) -> int | None:
    """The token that closes an assistant's turn in the model's own template; None where there is none."""
    question, reply = user_message("x"), {"role": "assistant", "content": "y"}
    opened = chat.render(question) + "y"
    whole = chat.render([*question, reply], answering=False)
    closing = chat.token_ids(whole[len(opened) :]) if whole.startswith(opened) else []
    special = set(chat.tokenizer.all_special_ids)
    token = next((t for t in closing if t in special), None)
    ends = chat.tokenizer.eos_token_id
    return token if token is not None else (None if ends is None else int(ends))


def contrast_texts(chat: ChatModel, row: BinaryChoice, form: Form) -> tuple[list[Encoded], list[Encoded]]:
    """What directions are made of: the row's aligned and its misaligned texts, each closed by its end-of-turn token.

    In the `letters` form a bare choice is its letter, in both orders, so that the letter itself cancels.
    """
    end = end_of_turn(chat)
    closing = () if end is None else (end,)

    def items(misaligned: bool) -> list[Encoded]:
        examples = row.misaligned_examples if misaligned else row.aligned_examples
        if examples:
            pairs = [(render_choice(chat, row, form), text) for text in examples]
        elif form == "likelihood":
            pairs = [(render_choice(chat, row, form), row.text(misaligned=misaligned))]
        else:
            pairs = []
            for swapped in (False, True):
                bad = misaligned_letter(row, swapped=swapped)
                letter = bad if misaligned else ("B" if bad == "A" else "A")
                pairs.append((render_choice(chat, row, form, swapped=swapped), f"({letter})"))
        ids = [(chat.token_ids(prompt), chat.token_ids(text)) for prompt, text in pairs]
        return [Encoded((*prompt, *answer, *closing), len(prompt)) for prompt, answer in ids]

    return items(False), items(True)
