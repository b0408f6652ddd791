"""Further readings of a conversation in which something is hidden, and how much of it is unreadable.

Contract: `second_readings(turns, budget, response)` gives at most `Budget.readings` further forms of a conversation:
one that is normalised, if its words change by that, and one for each kind of encoding in it, with what was decoded in
the place of the encoded text. Turns that hold nothing hidden are the same objects as before. Ordinary text has no
second reading, and costs microseconds. `look(turns, budget, response, tokens)` gives these and the highest share of one
of its new texts that is unreadable (`probes.hidden.unreadable`). New are the turns after the last reply, and the
response, so that the history that comes with every message is not counted again.

Read are the text of turns (a string, or the text of parts) and the response; names and arguments of tool calls are not.
The last texts are looked at first: they are the new ones, and the budget is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from probes.hidden.decode import decoded, spliced
from probes.hidden.normal import changed
from probes.hidden.payloads import DEFAULT_BUDGET, Budget
from probes.hidden.unreadable import Looked, Tokens, share

Turn = Mapping[str, Any]
NORMALISED = "normalised"
# A text of fewer characters says too little to be called unreadable.
_FEWEST = 16


@dataclass(frozen=True)
class SecondReading:
    """A conversation as it reads with `kind` undone."""

    kind: str
    turns: Sequence[Turn]
    response: str | None = None


@dataclass(frozen=True)
class _Text:
    """A text: its turn (the response's is one more), what of it was not looked at, and what was found in the rest."""

    turn: int
    head: str
    end: Looked

    @property
    def base(self) -> str:
        return self.end.text if self.end.plain is None else self.end.plain


@dataclass(frozen=True)
class Hidden:
    """What is hidden in a conversation; `unreadable` is the highest share of one of its new texts."""

    readings: tuple[SecondReading, ...]
    unreadable: float


def second_readings(
    turns: Sequence[Turn], budget: Budget = DEFAULT_BUDGET, response: str | None = None
) -> list[SecondReading]:
    """The further readings of a conversation, the normalised one first."""
    return _readings(turns, response, _looked(turns, budget, response), budget)


def look(
    turns: Sequence[Turn],
    budget: Budget = DEFAULT_BUDGET,
    response: str | None = None,
    tokens: Tokens | None = None,
) -> Hidden:
    """The further readings, and how much of the conversation is unreadable."""
    found = _looked(turns, budget, response)
    first = _first_new(turns)
    shares = [share(each.end, tokens) for each in found if each.turn >= first and len(each.end.text) >= _FEWEST]
    return Hidden(tuple(_readings(turns, response, found, budget)), max(shares, default=0.0))


def _looked(turns: Sequence[Turn], budget: Budget, response: str | None) -> list[_Text]:
    """What is in each text, in the texts' order."""
    texts = [(i, text) for i, turn in enumerate(turns) for text in _texts(turn)]
    texts += [(len(turns), response)] if response else []
    found = []
    left = budget
    for turn, text in reversed(texts):
        # The end of a text that is longer than what is left to look at.
        head, end = _cut(text, left.looked)
        plain = changed(end) if end else None
        seen = end if plain is None else plain
        here = decoded(seen, left) if seen and left.payloads > 0 and left.characters > 0 else []
        left = replace(
            left,
            payloads=left.payloads - len(here),
            characters=left.characters - sum(len(payload.text) for payload in here),
            looked=left.looked - len(end),
        )
        found.append(_Text(turn, head, Looked(end, plain, here)))
    return found[::-1]


def _first_new(turns: Sequence[Turn]) -> int:
    """The first turn after the last reply; a reply that ends the conversation is new itself."""
    replies = [i for i, turn in enumerate(turns[:-1]) if turn.get("role") == "assistant"]
    return replies[-1] + 1 if replies else 0


def _cut(text: str, looked: int) -> tuple[str, str]:
    return (text[:-looked], text[-looked:]) if 0 < looked < len(text) else (text, "") if looked <= 0 else ("", text)


def _readings(
    turns: Sequence[Turn], response: str | None, looked: Sequence[_Text], budget: Budget
) -> list[SecondReading]:
    found = []
    if any(each.end.plain is not None for each in looked):
        found.append(_with(NORMALISED, turns, response, [each.head + each.base for each in looked]))
    sizes: dict[str, int] = {}
    for payload in (payload for each in looked for payload in each.end.payloads):
        sizes[payload.kind] = sizes.get(payload.kind, 0) + len(payload.text)
    for kind in sorted(sizes, key=lambda kind: -sizes[kind]):
        undone = [
            each.head + spliced(each.base, [payload for payload in each.end.payloads if payload.kind == kind])
            for each in looked
        ]
        found.append(_with(kind, turns, response, undone))
    return found[: budget.readings]


def _texts(turn: Turn) -> list[str]:
    content = turn.get("content")
    if isinstance(content, str):
        return [content]
    if isinstance(content, Sequence):
        return [part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    return []


def _with(kind: str, turns: Sequence[Turn], response: str | None, texts: Sequence[str]) -> SecondReading:
    """The conversation with other texts, in the order in which they were taken."""
    waiting = iter(texts)
    new = [_turn_with(turn, lambda: next(waiting)) for turn in turns]
    return SecondReading(kind, new, next(waiting) if response else response)


def _turn_with(turn: Turn, text: Callable[[], str]) -> Turn:
    content = turn.get("content")
    if isinstance(content, str):
        new = text()
        return turn if new == content else {**turn, "content": new}
    if isinstance(content, Sequence):
        parts = [
            {**part, "text": text()} if isinstance(part, Mapping) and isinstance(part.get("text"), str) else part
            for part in content
        ]
        return turn if parts == list(content) else {**turn, "content": parts}
    return turn
