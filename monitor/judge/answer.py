"""Reading a judge's answer: strict, so that what was not clearly said is no verdict.

Contract: `read_answer(text)` gives a Verdict for one JSON object with `harmful` (true or false) and, where it is there,
`confidence` (0 to 1), or for one line that is yes or no (yes: harmful); a fence of code around the whole is taken off.
Anything else raises JudgeError("garbage"): prose around the object, two objects, a field given twice, a number for a
boolean. Other fields of the object are not looked at, and nothing of the answer's text is kept.

Does not know: who answered, and whether the answer is right.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from monitor.errors import MonitorError

# Why there is no verdict. The wording is closed: it is in rows, logs and metrics.
Failure = Literal[
    "timeout",  # no answer in time
    "unreachable",  # no connection, or it broke
    "rate limited",  # status 429
    "server error",  # status 500 and above
    "refused by server",  # any other status, a redirect among them
    "too large",  # more bytes than an answer may have
    "garbage",  # an answer that is none of the forms
    "declined",  # the model or its filter did not answer the question
    "command failed",  # it could not be started, or its status is not 0
    "internal error",  # awry's own
]
FAILURES: tuple[Failure, ...] = get_args(Failure)

# Failures of the judge itself and not of one message: only these open the circuit. Otherwise a sender could switch the
# judge off for everybody, with messages that it answers badly.
_DOWN: frozenset[Failure] = frozenset(
    {"timeout", "unreachable", "rate limited", "server error", "refused by server", "command failed"}
)
_AGAIN: frozenset[Failure] = frozenset({"timeout", "unreachable", "rate limited", "server error"})

_FENCE = re.compile(r"\A```(?:json|JSON)?[ \t]*\n(.*)\n```\Z", re.DOTALL)
_LINES = {"yes": True, "yes.": True, "no": False, "no.": False}
# A longer answer is no single object of two fields.
_MAX_CHARACTERS = 4096


class JudgeError(MonitorError):
    """There is no verdict; the message is the failure, and holds nothing of a message or an answer."""

    def __init__(self, failure: Failure, *, retry_after: float | None = None, down: bool | None = None) -> None:
        super().__init__(failure)
        self.failure: Failure = failure
        self.retry_after = retry_after
        self.down = failure in _DOWN if down is None else down

    @property
    def again(self) -> bool:
        """Whether the same question may be answered a moment later."""
        return self.failure in _AGAIN


@dataclass(frozen=True)
class Verdict:
    """What a judge said of one message; `tokens` is what the question and the answer took, 0 where it is not known."""

    harmful: bool
    confidence: float | None = None
    tokens: int = 0


def read_answer(text: object, tokens: int = 0) -> Verdict:
    """The verdict in an answer. Raises JudgeError."""
    if not isinstance(text, str) or len(text) > _MAX_CHARACTERS:
        raise JudgeError("garbage")
    written = text.strip()
    fenced = _FENCE.match(written)
    if fenced is not None:
        written = fenced[1].strip()
    line = _LINES.get(written.lower())
    if line is not None:
        return Verdict(line, tokens=tokens)
    try:
        value = json.loads(written, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise JudgeError("garbage") from None
    if not isinstance(value, dict) or not isinstance(value.get("harmful"), bool):
        raise JudgeError("garbage")
    return Verdict(value["harmful"], _confidence(value), tokens)


def _confidence(value: dict[str, Any]) -> float | None:
    found = value.get("confidence")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
        raise JudgeError("garbage")
    return float(found)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("a field is there twice")
    return dict(pairs)


def _no_number(written: str) -> float:
    raise ValueError(f"{written} is no JSON")
