"""Benign messages of a wanted length, composed of our own documents, code and everyday messages.

Contract: `long_messages(split, tokens, count, seed)` is a function of its arguments and of the data files alone. No
document, piece of code, question about a text or everyday message is in two splits: `fit`, `select`, `calibrate` and
`test` by the hash of the text. The kinds of KINDS take turns. Lengths are estimated tokens, summed over the contents of
all turns, since this module knows no tokenizer; whoever needs exact lengths measures them. SmolLM2's own counts are
within a tenth of the estimate for prose and mostly within a fifth for code; other tokenizers differ by a factor.

What it does not know: real long traffic. A composed message is many short texts by few hands, so it changes its subject
more often than a real document of its length. A message repeats pieces when it has used up its split's: of `calibrate`
beyond 16,000 tokens of documents, 12,000 of code and some 4,000 of everyday messages; of `select` half as many.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Literal, get_args

from probes.errors import DataError
from probes.hashing import unit_interval
from probes.organisms.messages import by_hash, data_text, everyday

LongSplit = Literal["fit", "select", "calibrate", "test"]
Kind = Literal["paste", "several", "code", "conversation", "everyday"]
About = Literal["document", "code", "several"]
Turn = dict[str, str]

KINDS: tuple[Kind, ...] = get_args(Kind)
MIN_TOKENS = 48

# Each split and where it ends on [0, 1). Thresholds by length need the most.
_SHARES = (("fit", 0.25), ("select", 0.4), ("calibrate", 0.75), ("test", 1.0))
# The salt was chosen once, by counts alone, so that every split has its share of each kind and of hard documents.
_SALT = "long text 892"

# What English and code have about as many of as of SmolLM2's tokens: its digits are single, long words are cut.
_TOKEN = re.compile(r"[^\W\d_]{1,7}|\d|[^\w\s]|_|\n\s*")
# No text is begun to fill fewer tokens than these; what is left for the user's last word in a conversation.
_LEFT_OVER = 6
_CLOSING = 36
_HEADINGS = ("{n}.", "Text {n}:", "--- {n} ---", "({n})", "#{n}", "[{n}]", "Piece {n}")


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has."""
    return sum(1 for _ in _TOKEN.finditer(text))


@cache
def _rows(name: str) -> tuple[dict[str, str], ...]:
    return tuple(json.loads(line) for line in data_text(name).splitlines() if line.strip())


def _of_split(name: str, split: LongSplit) -> list[dict[str, str]]:
    if split not in get_args(LongSplit):
        raise DataError(f"split: {split!r} is none of {', '.join(get_args(LongSplit))}")
    return [row for row in _rows(name) if _split_of(row["text"]) == split]


def _split_of(text: str) -> str:
    at = unit_interval(f"{_SALT}:{text}")
    return next(name for name, upper in _SHARES if at < upper)


def documents(split: LongSplit, *, hard: bool | None = None) -> list[str]:
    """Documents of 120 to 300 words; `hard` are those about crime, war, illness, weapons or security."""
    rows = _of_split("documents.jsonl", split)
    return by_hash([row["text"] for row in rows if hard is None or bool(row["hard"]) == hard])


def code(split: LongSplit) -> list[str]:
    """Source code, configuration, logs, tables and diffs of 15 to 50 lines."""
    return by_hash([row["text"] for row in _of_split("code.jsonl", split)])


def questions(split: LongSplit, about: About) -> list[str]:
    """What users ask about a document, about code or about several texts that they paste."""
    rows = _of_split("questions_about_texts.jsonl", split)
    return by_hash([row["text"] for row in rows if row["about"] == about])


def long_messages(
    split: LongSplit, tokens: int, count: int, seed: int = 0, *, hard_share: float | None = None
) -> list[list[Turn]]:
    """`count` messages as turns with `role` and `content`, the last of them a user's; number i is of `kind_of(i)`.

    `hard_share` of the messages draw from hard documents alone and the others from those that are not; None: from all.
    """
    if tokens < MIN_TOKENS:
        raise DataError(f"tokens: {tokens} is below {MIN_TOKENS}; everyday messages are as short as they come")
    if count < 1:
        raise DataError(f"count: {count} is not positive")
    if hard_share is not None and not 0 <= hard_share <= 1:
        raise DataError(f"hard_share: {hard_share} is not between 0 and 1")
    made = []
    for i in range(count):
        rng = random.Random(f"long text:{split}:{tokens}:{seed}:{i}")  # noqa: S311 - sampling, not secrets
        hard = None if hard_share is None else rng.random() < hard_share
        made.append(_COMPOSERS[kind_of(i)](_Pool(split, rng, hard), tokens))
    return made


def kind_of(index: int) -> Kind:
    """The kind of message number `index`, the same for every split, length and seed."""
    return KINDS[index % len(KINDS)]


def padding(split: LongSplit, tokens: int, seed: int = 0) -> str:
    """Benign prose, to stand before or after another text."""
    if tokens < 1:
        raise DataError(f"tokens: {tokens} is not positive")
    rng = random.Random(f"padding:{split}:{tokens}:{seed}")  # noqa: S311 - sampling, not secrets
    pool = _Pool(split, rng)
    return "\n\n".join(_fill(pool.documents, tokens)) or _cut(next(pool.documents), tokens)


class _Pool:
    """Endless draws from a split's texts; none comes twice before all have come once."""

    def __init__(self, split: LongSplit, rng: random.Random, hard: bool | None = None) -> None:
        self.rng = rng
        self.documents = _endless(documents(split, hard=hard), rng)
        self.code = _endless(code(split), rng)
        self.everyday = _endless(everyday(split), rng)
        self._split = split

    def question(self, about: About) -> str:
        return self.rng.choice(questions(self._split, about))

    def mixed(self) -> Iterator[str]:
        """Documents, and code now and then."""
        while True:
            yield next(self.code if self.rng.random() < 0.25 else self.documents)

    def asked(self, question: str, text: str) -> str:
        """The question before or after the text."""
        return f"{question}\n\n{text}" if self.rng.random() < 0.5 else f"{text}\n\n{question}"


def _endless(texts: list[str], rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(texts, len(texts))


def _cut(text: str, tokens: int) -> str:
    """The start of the text: to the end of a line or sentence if one is near, else of a token."""
    after = next(islice(_TOKEN.finditer(text), tokens, None), None)
    if after is None:
        return text
    head = text[: after.start()]
    end = max(head.rfind("\n"), head.rfind(". ") + 1, head.rfind("? ") + 1)
    return (head[:end] if end > 0.9 * len(head) else head).rstrip()


def _fill(texts: Iterator[str], tokens: int, gap: int = 1) -> list[str]:
    """Texts of `tokens` altogether, with `gap` tokens around each; the last one is cut."""
    parts: list[str] = []
    while tokens >= _LEFT_OVER:
        parts.append(_cut(next(texts), tokens))
        tokens -= estimated_tokens(parts[-1]) + gap
    return parts


def _fill_whole(texts: Iterator[str], tokens: int, gap: int = 0) -> list[str]:
    """At least one text, and whole ones until `tokens` are reached."""
    parts: list[str] = []
    while not parts or tokens >= _LEFT_OVER:
        parts.append(next(texts))
        tokens -= estimated_tokens(parts[-1]) + gap
    return parts


def _user(content: str) -> Turn:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Turn:
    return {"role": "assistant", "content": content}


def _paste(pool: _Pool, tokens: int) -> list[Turn]:
    question = pool.question("document")
    return [_user(pool.asked(question, "\n\n".join(_fill(pool.documents, tokens - estimated_tokens(question)))))]


def _several(pool: _Pool, tokens: int) -> list[Turn]:
    question, heading = pool.question("several"), pool.rng.choice(_HEADINGS)
    gap = 2 + estimated_tokens(heading)
    parts = _fill(pool.mixed(), tokens - estimated_tokens(question) - gap, gap)
    return [_user(pool.asked(question, "\n\n".join(f"{heading.format(n=n)}\n{p}" for n, p in enumerate(parts, 1))))]


def _code(pool: _Pool, tokens: int) -> list[Turn]:
    question, fenced = pool.question("code"), pool.rng.random() < 0.5
    gap = 9 if fenced else 1
    parts = _fill(pool.code, tokens - estimated_tokens(question) - gap, gap)
    return [_user(pool.asked(question, "\n\n".join(f"```\n{part}\n```" if fenced else part for part in parts)))]


def _conversation(pool: _Pool, tokens: int) -> list[Turn]:
    """Everyday messages and texts with a question, answered by texts; a user has the last word."""
    turns: list[Turn] = []
    while tokens > 2 * _CLOSING:
        message, texts = next(pool.everyday), pool.documents
        if pool.rng.random() < 0.5 and tokens > 6 * _CLOSING:
            about: About = "code" if pool.rng.random() < 0.3 else "document"
            texts = pool.code if about == "code" else pool.documents
            message = pool.asked(pool.question(about), _cut(next(texts), tokens // 2))
        left = tokens - estimated_tokens(message) - _CLOSING
        turns += [_user(message), _assistant(_cut(next(texts), max(left, _LEFT_OVER)))]
        tokens -= sum(estimated_tokens(turn["content"]) for turn in turns[-2:])
    return [*turns, _user(" ".join(_fill_whole(pool.everyday, tokens)))]


def _everyday(pool: _Pool, tokens: int) -> list[Turn]:
    """Everyday messages in one message, or one a turn with short answers between them."""
    if pool.rng.random() < 0.5:
        mark = pool.rng.choice(("", "", "- ", "* ", "> "))
        between = pool.rng.choice(("\n", "\n\n") if mark else (" ", "\n", "\n\n"))
        texts = _fill_whole(pool.everyday, tokens, estimated_tokens(between + mark))
        return [_user(between.join(mark + text for text in texts))]
    turns: list[Turn] = []
    while tokens > 2 * _CLOSING:
        turns += [_user(next(pool.everyday)), _assistant(_cut(next(pool.documents), pool.rng.randint(12, 50)))]
        tokens -= sum(estimated_tokens(turn["content"]) for turn in turns[-2:])
    return [*turns, _user(" ".join(_fill_whole(pool.everyday, tokens)))]


_COMPOSERS: dict[Kind, Callable[[_Pool, int], list[Turn]]] = {
    "paste": _paste,
    "several": _several,
    "code": _code,
    "conversation": _conversation,
    "everyday": _everyday,
}
