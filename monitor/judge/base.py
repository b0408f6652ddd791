"""What a judge is: something that answers the question about one message, over HTTP or as a command.

Contract: `Judge.ask(asked, seconds)` gives a Verdict within so many seconds or raises JudgeError; it is called by
several threads at once. `name` is what rows and the audit say of it (a model and a host, or a program), `key` decides
whether a verdict may be used again for the same text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from monitor.judge.answer import Verdict


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a conversation that was rendered for a judge."""

    probe: str
    question: str
    text: str


class Judge(Protocol):
    """Answers questions."""

    @property
    def name(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def key(self) -> str: ...

    def ask(self, asked: Asked, seconds: float) -> Verdict: ...

    def close(self) -> None: ...
