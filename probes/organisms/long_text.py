"""Benign messages of a wanted length, composed of our own documents, code and everyday messages.

Contract: `long_messages(split, target_chars, count, seed)` is a function of its arguments and of the data files alone.
No document, piece of code, question about a text or everyday message is in two splits: `fit`, `select`, `calibrate` and
`test` by the hash of the text. The kinds of KINDS take turns. Lengths are in characters, summed over all turns, since
this module knows no tokenizer: CHARS_PER_TOKEN is what English has in chat models' tokenizers, and whoever needs tokens
measures them. Most lengths are within a tenth of the target, short ones may miss it by a message.

What it does not know: real long traffic. A composed message is many short texts by few hands, so it changes its subject
more often than a real document of its length. A message repeats pieces when it has used up its split's.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Literal, get_args

from probes.errors import DataError
from probes.hashing import unit_interval
from probes.organisms.messages import by_hash, data_text, everyday

LongSplit = Literal["fit", "select", "calibrate", "test"]
Kind = Literal["paste", "several", "code", "conversation", "everyday"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CHARS_PER_TOKEN = 4.4
MIN_CHARS = 200

# Each split and where it ends on [0, 1). Thresholds by length need the most.
_SHARES = (("fit", 0.25), ("select", 0.4), ("calibrate", 0.75), ("test", 1.0))
# No text of fewer characters is begun to fill what is left of a message.
_LEFT_OVER = 24
_CLOSING = 160
_HEADINGS = ("{n}.", "Text {n}:", "--- {n} ---", "({n})", "#{n}", "[{n}]", "Piece {n}")

Turn = dict[str, str]


@cache
def _rows(name: str) -> tuple[dict[str, str], ...]:
    return tuple(json.loads(line) for line in data_text(name).splitlines() if line.strip())


def _of_split(name: str, split: LongSplit) -> list[dict[str, str]]:
    if split not in get_args(LongSplit):
        raise DataError(f"split: {split!r} is none of {', '.join(get_args(LongSplit))}")
    return [row for row in _rows(name) if _split_of(row["text"]) == split]


def _split_of(text: str) -> str:
    at = unit_interval(f"long text:{text}")
    return next(name for name, upper in _SHARES if at < upper)


def documents(split: LongSplit, *, hard: bool | None = None) -> list[str]:
    """Documents of 120 to 300 words; `hard` are those about crime, war, illness, weapons or security."""
    rows = _of_split("documents.jsonl", split)
    return by_hash([row["text"] for row in rows if hard is None or bool(row["hard"]) == hard])


def code(split: LongSplit) -> list[str]:
    """Source code, configuration, logs, tables and diffs of 15 to 50 lines."""
    return by_hash([row["text"] for row in _of_split("code.jsonl", split)])


def long_messages(split: LongSplit, target_chars: int, count: int, seed: int = 0) -> list[list[Turn]]:
    """`count` messages as turns with `role` and `content`, the last of them a user's; number i is of `kind_of(i)`."""
    if target_chars < MIN_CHARS:
        raise DataError(f"target_chars: {target_chars} is below {MIN_CHARS}: take everyday messages as they are")
    if count < 1:
        raise DataError(f"count: {count} is not positive")
    made = []
    for i in range(count):
        rng = random.Random(f"long text:{split}:{target_chars}:{seed}:{i}")  # noqa: S311 - sampling, not secrets
        made.append(_COMPOSERS[kind_of(i)](_Pool(split, rng), target_chars))
    return made


def kind_of(index: int) -> Kind:
    """The kind of message number `index`, the same for every split, length and seed."""
    return KINDS[index % len(KINDS)]


def padding(split: LongSplit, target_chars: int, seed: int = 0) -> str:
    """Benign prose of about `target_chars`, to stand before or after another text."""
    rng = random.Random(f"padding:{split}:{target_chars}:{seed}")  # noqa: S311 - sampling, not secrets
    return "\n\n".join(_fill(_Pool(split, rng).documents, target_chars))


class _Pool:
    """Endless draws from a split's texts; none comes twice before all have come once."""

    def __init__(self, split: LongSplit, rng: random.Random) -> None:
        self.rng = rng
        self.documents = _endless(documents(split), rng)
        self.code = _endless(code(split), rng)
        self.everyday = _endless(everyday(split), rng)
        self._questions = {
            about: _endless(by_hash([r["text"] for r in questions if r["about"] == about]), rng)
            for questions in (_of_split("questions_about_texts.jsonl", split),)
            for about in ("document", "code", "several")
        }

    def question(self, about: Literal["document", "code", "several"]) -> str:
        return next(self._questions[about])

    def mixed(self) -> Iterator[str]:
        """Documents, and code now and then."""
        while True:
            yield next(self.code if self.rng.random() < 0.25 else self.documents)

    def asked(self, question: str, text: str, gap: str = "\n\n") -> str:
        """The question before or after the text."""
        return gap.join((question, text) if self.rng.random() < 0.5 else (text, question))


def _endless(texts: list[str], rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(texts, len(texts))


def _cut(text: str, chars: int) -> str:
    """The start of the text: to the end of a line or sentence if one is near, else of a word."""
    if len(text) <= chars:
        return text
    head = text[:chars]
    end = max(head.rfind("\n"), head.rfind(". ") + 1, head.rfind("? ") + 1)
    if end < 0.9 * chars:
        end = max(head.rfind(" "), head.rfind("\n"))
    return head[:end].rstrip() if end > 0 else head


def _fill(texts: Iterator[str], chars: int, gap: int = 2) -> list[str]:
    """Texts of `chars` altogether with `gap` characters between them; the last one is cut."""
    parts: list[str] = []
    while chars >= _LEFT_OVER:
        parts.append(_cut(next(texts), chars))
        chars -= len(parts[-1]) + gap
    return parts


def _fill_whole(texts: Iterator[str], chars: int, gap: int = 1) -> list[str]:
    """At least one text, and whole ones until `chars` are reached."""
    parts = [next(texts)]
    chars -= len(parts[0])
    while chars >= _LEFT_OVER:
        parts.append(next(texts))
        chars -= len(parts[-1]) + gap
    return parts


def _user(content: str) -> Turn:
    return {"role": "user", "content": content}


def _paste(pool: _Pool, chars: int) -> list[Turn]:
    question = pool.question("document")
    return [_user(pool.asked(question, "\n\n".join(_fill(pool.documents, chars - len(question) - 2))))]


def _several(pool: _Pool, chars: int) -> list[Turn]:
    question, heading = pool.question("several"), pool.rng.choice(_HEADINGS)
    gap = len(heading) + 3
    parts = _fill(pool.mixed(), chars - len(question) - gap, gap)
    return [_user(pool.asked(question, "\n\n".join(f"{heading.format(n=n)}\n{p}" for n, p in enumerate(parts, 1))))]


def _code(pool: _Pool, chars: int) -> list[Turn]:
    question, fenced = pool.question("code"), pool.rng.random() < 0.5
    gap = 10 if fenced else 2
    parts = _fill(pool.code, chars - len(question) - gap, gap)
    return [_user(pool.asked(question, "\n\n".join(f"```\n{part}\n```" if fenced else part for part in parts)))]


def _conversation(pool: _Pool, chars: int) -> list[Turn]:
    """Everyday messages and texts with a question, answered by texts; a user has the last word."""
    turns: list[Turn] = []
    while chars > 2 * _CLOSING:
        message, texts = next(pool.everyday), pool.documents
        if pool.rng.random() < 0.5 and chars > 6 * _CLOSING:
            about: Literal["document", "code"] = "code" if pool.rng.random() < 0.3 else "document"
            texts = pool.code if about == "code" else pool.documents
            message = pool.asked(pool.question(about), _cut(next(texts), chars // 2))
        reply = _cut(next(texts), max(chars - len(message) - _CLOSING, _LEFT_OVER))
        turns += [_user(message), {"role": "assistant", "content": reply}]
        chars -= len(message) + len(reply)
    return [*turns, _user(" ".join(_fill_whole(pool.everyday, chars)))]


def _everyday(pool: _Pool, chars: int) -> list[Turn]:
    """Everyday messages in one message, or one a turn with short answers between them."""
    if pool.rng.random() < 0.5:
        mark = pool.rng.choice(("", "", "- ", "* ", "> "))
        gap = pool.rng.choice(("\n", "\n\n")) if mark else pool.rng.choice((" ", "\n", "\n\n"))
        texts = _fill_whole(pool.everyday, chars - len(mark), len(gap) + len(mark))
        return [_user(gap.join(mark + text for text in texts))]
    turns: list[Turn] = []
    while chars > 2 * _CLOSING:
        reply = _cut(next(pool.documents), pool.rng.randint(60, 240))
        turns += [_user(next(pool.everyday)), {"role": "assistant", "content": reply}]
        chars -= len(turns[-2]["content"]) + len(reply)
    return [*turns, _user(" ".join(_fill_whole(pool.everyday, chars)))]


_COMPOSERS: dict[Kind, Callable[[_Pool, int], list[Turn]]] = {
    "paste": _paste,
    "several": _several,
    "code": _code,
    "conversation": _conversation,
    "everyday": _everyday,
}
