"""The search for a suffix on one message, and how suffixes of words are drawn at random.

Contract: an `Attempt` keeps the best suffix so far and the lowest score after each query, which never rises. The
message stands unchanged in `with_suffix`, whatever the suffix. `RandomProposals` uses the words of a vocabulary alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from probes.attacks.base import request_turn, text_of
from probes.reading import Conversation

# Of a suffix, at most: what is found has a place in a chat.
MOST_WORDS = 40


@dataclass
class Attempt:
    """The search on one message: `best` is the lowest score so far, `history[q]` what it was after q queries."""

    conversation: Conversation
    rng: random.Random
    suffix: str = ""
    history: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        return self.history[-1]

    @property
    def used(self) -> int:
        return len(self.history) - 1

    def with_suffix(self, suffix: str) -> Conversation:
        """The message with a suffix behind it; nothing else is changed."""
        turns = [dict(turn) for turn in self.conversation.turns]
        at = request_turn(turns)
        turns[at]["content"] = text_of(turns[at]) + suffix
        return Conversation(turns, self.conversation.response, self.conversation.tools)

    def learn(self, suffix: str, score: float) -> None:
        """One query: keep the suffix where it lowers the score."""
        if score < self.best:
            self.suffix = suffix
        self.history.append(min(score, self.best))


# For each message that is still searched on: suffixes to try in this step, at most so many.
Propose = Callable[[Sequence[Attempt], int], list[list[str]]]


class RandomProposals:
    """One suffix a message and step: fresh words at first, then a change of the best so far."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._words = list(vocabulary)

    def __call__(self, attempts: Sequence[Attempt], _left: int) -> list[list[str]]:
        return [[self.suffix(attempt)] for attempt in attempts]

    def suffix(self, attempt: Attempt) -> str:
        """One suffix to try for a message."""
        return " " + " ".join(self._changed(attempt.suffix.split(), attempt.rng))

    def _fresh(self, rng: random.Random) -> list[str]:
        return [rng.choice(self._words) for _ in range(rng.choice((1, 2, 3, 5, 8, 13, 20)))]

    def _changed(self, words: list[str], rng: random.Random) -> list[str]:
        if not words or rng.random() < 0.2:
            return self._fresh(rng)
        how = rng.choice(("replace", "replace", "replace some", "append", "append", "insert", "drop"))
        at = rng.randrange(len(words))
        if how == "replace":
            words[at] = rng.choice(self._words)
        elif how == "replace some":
            words = [rng.choice(self._words) if rng.random() < 0.3 else word for word in words]
        elif how == "append":
            words += self._fresh(rng)[:5]
        elif how == "insert":
            words.insert(at, rng.choice(self._words))
        elif len(words) > 1:
            del words[at]
        return words[:MOST_WORDS]


def words_of(texts: Sequence[str]) -> list[str]:
    """The different words of texts, with their punctuation, in the order of the alphabet."""
    return sorted({word for text in texts for word in text.split() if len(word) <= 24 and word.isprintable()})
