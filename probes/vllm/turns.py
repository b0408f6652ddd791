"""The turns of a prompt, found in its token ids by the marks that the model's chat template sets around them.

Contract: `TurnMarks.of(tokenizer)` renders a short conversation and learns what stands before a turn of each
role and what ends it; None where the template marks turns with ordinary letters alone: then nobody can tell a turn from
text that looks like one, and spans of turns are not read. `spans(ids)` gives the text of each turn, without the white
space around it, as `probes.model.spans` gives it for a conversation that awry renders itself. A system prompt that the
template adds by itself is no turn.

Who sends control tokens within his text, where the server takes them for such, moves the border of a turn: text behind
a forged mark is another turn, of the role that it names, or of an unknown one. It is read all the same by `turns`;
`user` does not read what stands behind a forged mark of an assistant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probes.model.spans import TurnSpan
from probes.model.template import KNOWN_ROLES

_WORDS = {"system": "Arbour", "user": "Meadow", "assistant": "Lantern", "tool": "Copper"}
_OTHER = "other"


@dataclass(frozen=True)
class TurnMarks:
    """`before[role]` are the ids that open a turn, the first of them a control token; `default` the text of a system
    prompt that was not sent; `blank` the ids that are white space alone; `tail` what stands before an answer."""

    before: Mapping[str, tuple[int, ...]]
    control: frozenset[int]
    blank: frozenset[int]
    default: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: Any) -> TurnMarks | None:
        """See the module."""
        control = frozenset(tokenizer.all_special_ids) | frozenset(
            id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special
        )
        before: dict[str, tuple[int, ...]] = {}
        for turns in (("user", "assistant", "user"), ("system", "user"), ("user", "assistant", "tool")):
            before |= _learned(tokenizer, turns, control)
        if not {"user", "assistant"} <= before.keys() or before["user"] == before["assistant"]:
            return None
        blank = frozenset(
            id_ for id_, text in _decoded(tokenizer).items() if text and not text.strip() and id_ not in control
        )
        marks = cls(before, control, blank)
        sent = _ids(tokenizer, ("user",))
        if sent is None:
            return marks
        spans = marks.spans(sent)
        system = next((tuple(sent[span.start : span.stop]) for span in spans if span.role == "system"), ())
        asked = next((span.stop for span in spans if span.role == "user"), len(sent))
        answer = next((i for i in range(asked, len(sent)) if sent[i] == before["assistant"][0]), len(sent))
        return cls(before, control, blank, system, tuple(sent[answer:]))

    def spans(self, ids: Sequence[int]) -> tuple[TurnSpan, ...]:
        """The turns that have text, in their order; all count, also those without."""
        openers = {mark[0] for mark in self.before.values()}
        found: list[TurnSpan] = []
        turn, place = 0, 0
        if self.tail and tuple(ids[len(ids) - len(self.tail) :]) == self.tail:
            ids = ids[: len(ids) - len(self.tail)]
        while place < len(ids):
            opened = ids[place] in openers
            role, start = self._opened(ids, place) if opened else (_OTHER, place + (ids[place] in self.control))
            stop = start
            while stop < len(ids) and ids[stop] not in self.control:
                stop += 1
            place = max(stop, place + 1)
            left, right = start, stop
            while left < right and ids[left] in self.blank:
                left += 1
            while right > left and ids[right - 1] in self.blank:
                right -= 1
            if left == right and not opened:
                continue
            if role == "system" and not found and turn == 0 and tuple(ids[left:right]) == self.default:
                continue
            if left < right:
                found.append(TurnSpan(turn, role, left, right))
            turn += 1
        return tuple(found)

    def _opened(self, ids: Sequence[int], place: int) -> tuple[str, int]:
        """The role that is opened there, and where its text starts."""
        fitting = [
            (len(mark), role) for role, mark in self.before.items() if tuple(ids[place : place + len(mark)]) == mark
        ]
        if fitting:
            length, role = max(fitting)
            return role, place + length
        # A role that the template was not asked about: its name is read with its text.
        return _OTHER, place + 1


def last_user(spans: Sequence[TurnSpan]) -> int | None:
    """The last turn of the user, or of a role that is not known."""
    return max((span.turn for span in spans if span.role in ("user", _OTHER)), default=None)


def _learned(tokenizer: Any, roles: Sequence[str], control: frozenset[int]) -> dict[str, Any]:
    """What stands before the turns of a conversation of these roles, from the last control token on."""
    text = _text(tokenizer, roles)
    if text is None:
        return {}
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    found = {}
    place = 0
    for number, role in enumerate(roles):
        word = f"{_WORDS[role]}{number}"
        start = text.find(word, place)
        if start < 0:
            continue
        place = start + len(word)
        first = next((i for i, (left, right) in enumerate(offsets) if left <= start < right), None)
        if first is None:
            continue
        opener = next((i for i in range(first - 1, -1, -1) if ids[i] in control), None)
        if opener is None:
            continue
        mark = list(ids[opener:first])
        while len(mark) > 1 and not tokenizer.decode(mark[-1:]).strip():
            mark.pop()  # white space may be one token with that of the text
        found[role if role in KNOWN_ROLES else _OTHER] = tuple(mark)
    return found


def _text(tokenizer: Any, roles: Sequence[str]) -> str | None:
    turns = [{"role": role, "content": f"{_WORDS[role]}{number}"} for number, role in enumerate(roles)]
    try:
        made: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception:  # templates raise what they like
        return None
    return made


def _ids(tokenizer: Any, roles: Sequence[str]) -> list[int] | None:
    text = _text(tokenizer, roles)
    return None if text is None else list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _decoded(tokenizer: Any) -> dict[int, str]:
    ids = sorted(tokenizer.get_vocab().values())
    return dict(zip(ids, tokenizer.batch_decode([[id_] for id_ in ids]), strict=True))
