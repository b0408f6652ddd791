"""Further readings of a conversation in which something is hidden.

Contract: `second_readings(turns, budget, response)` gives at most `Budget.readings` further forms of a conversation:
one that is normalised, if its words change by that, and one for each kind of encoding in it, with what was decoded in
the place of the encoded text. Turns that hold nothing hidden are the same objects as before. Ordinary text has no
second reading, and costs microseconds.

Read are the text of turns (a string, or the text of parts) and the response; names and arguments of tool calls are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from probes.hidden.decode import decoded, spliced
from probes.hidden.normal import changed
from probes.hidden.payloads import DEFAULT_BUDGET, Budget, Payload

Turn = Mapping[str, Any]
NORMALISED = "normalised"


@dataclass(frozen=True)
class SecondReading:
    """A conversation as it reads with `kind` undone."""

    kind: str
    turns: Sequence[Turn]
    response: str | None = None


def second_readings(
    turns: Sequence[Turn], budget: Budget = DEFAULT_BUDGET, response: str | None = None
) -> list[SecondReading]:
    """The further readings of a conversation, the normalised one first."""
    texts = [*(text for turn in turns for text in _texts(turn)), *([response] if response else [])]
    plain = [changed(text) for text in texts]
    found: list[SecondReading] = []
    if any(text is not None for text in plain):
        texts = [text if other is None else other for text, other in zip(texts, plain, strict=True)]
        found.append(_with(NORMALISED, turns, response, texts))
    payloads: list[list[Payload]] = []
    left = budget
    for text in texts:
        here = decoded(text, left) if left.payloads > 0 and left.characters > 0 else []
        spent = sum(len(payload.text) for payload in here)
        left = replace(left, payloads=left.payloads - len(here), characters=left.characters - spent)
        payloads.append(here)
    sizes: dict[str, int] = {}
    for payload in (each for here in payloads for each in here):
        sizes[payload.kind] = sizes.get(payload.kind, 0) + len(payload.text)
    for kind in sorted(sizes, key=lambda kind: -sizes[kind]):
        changed_texts = [
            spliced(text, [payload for payload in here if payload.kind == kind])
            for text, here in zip(texts, payloads, strict=True)
        ]
        found.append(_with(kind, turns, response, changed_texts))
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
