"""Which tokens of a rendered conversation are a turn's own text, the template's markup left out.

Contract: `TurnFinder.tokens(rendered)` gives the ids of the prompt, as ever, and a TurnSpan for each place of a turn's
text. The template itself says where: it renders the conversation again with secret marks inside each turn's
text (behind the white space at its start, before that at its end), and what it makes must be, without the marks, what
it made before. So a message that quotes the template's own markers, or says what another turn says, is told apart. The
turn and the role are those that were sent, also where turns were joined or their role changed (`probes.model.adapt`).

Where the marks change what the template does, one mark in the middle of each turn is tried, with the text around it
compared to what was sent; then the text itself, which must be in the prompt exactly once. A turn that none of them
finds has no span, and is in `lost`. Where the tokenizer does not say which letters a token was made of, no span is
known at all.

A token is a turn's where it has a letter of the text that is not white space, or lies between two such tokens: white
space at the start and the end of a turn is not its own. A token over the border of two turns is of both. The text of an
assistant's turn are its content and its tool calls, each from the name to the last string among the arguments' values.

Cost: one more rendering, linear in the text; at most two more where marks change it.
"""

from __future__ import annotations

import json
import re
import secrets
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any

from probes.errors import ModelError
from probes.model.adapt import call_of
from probes.model.control_tokens import ControlTokens
from probes.model.pieces import FastTokenizer
from probes.model.render import Rendered, form_of
from probes.model.template import KNOWN_ROLES, ChatTemplate

_REASONING = re.compile(r"</?think>")
# Turns that are looked for by their text: each costs a search through the whole prompt.
_MOST_SEARCHED = 64

Turns = Sequence[Mapping[str, Any]]
# A mark's number and kind (`a` opens, `z` closes), and its place in the text without marks.
_Mark = tuple[int, str, int]
# What a pair of marks belongs to: turn, role, and which of its tool calls (-1: its content).
_Spot = tuple[int, str, int]


@dataclass(frozen=True)
class TurnSpan:
    """Tokens [start, stop) are text of turn `turn`, counted from 0; `role` is a known one or `other`."""

    turn: int
    role: str
    start: int
    stop: int


@dataclass(frozen=True)
class Part:
    """Letters [start, stop) are text of a turn: of what was sent, or of what the template made of it."""

    turn: int
    role: str
    start: int
    stop: int


@dataclass(frozen=True)
class PromptTokens:
    """Ids of a prompt with the places of its turns, in their order (None: not known), and turns without a place."""

    ids: list[int]
    turns: tuple[TurnSpan, ...] | None
    lost: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Prompt:
    """What is looked for where: `make` renders turns and tools as `text` was rendered."""

    rendered: Rendered
    text: str
    make: Callable[[Turns, Turns], str]
    wanted: Sequence[Sequence[Part]]
    as_text: bool


def role_of(turn: Mapping[str, Any]) -> str:
    """The role in a closed wording."""
    role = turn.get("role")
    return role if isinstance(role, str) and role in KNOWN_ROLES else "other"


def trimmed(text: str, start: int, stop: int) -> tuple[int, int]:
    """The range without white space at its ends; empty where there is nothing else."""
    piece = text[start:stop]
    left = len(piece) - len(piece.lstrip())
    return start + left, max(start + left, start + len(piece.rstrip()))


class TurnFinder:
    """Finds turns in what one template and tokenizer make of them."""

    def __init__(self, template: ChatTemplate, control: ControlTokens, tokenizer: FastTokenizer) -> None:
        self._template, self._control, self._tokenizer = template, control, tokenizer
        # Letters and digits alone: no template trims, escapes or splits them, and no sender knows them.
        self._secret = f"awry{secrets.token_hex(8)}m"
        self._mark = re.compile(f"{self._secret}(\\d+)([az])")

    def tokens(
        self, rendered: Rendered, *, as_text: bool = False, parts: Sequence[Sequence[Part]] | None = None
    ) -> PromptTokens | None:
        """None where the tokenizer does not say where its tokens are.

        `as_text`: control tokens in what was sent are letters. `parts` says for each turn that was sent which letters
        of its content belong to which turn of a message, where that is not the turn itself.
        """
        if not (as_text or self._tokenizer.known):
            return None

        def make(turns: Turns, tools: Turns) -> str:
            if as_text:
                mark = self._control.mark
                return self._control.settled(self._template.text(mark(turns), mark(tools)))
            return self._template.text(turns, tools)

        if as_text:
            text = make(rendered.turns, rendered.tools)
            encoding = self._control.plain_encoding(text)
            ids = self._control.ids_of(encoding)
        else:
            text = rendered.text
            encoding = self._tokenizer.encoding(text)
            ids = list(encoding.ids)
        wanted = _parts(rendered.sent) if parts is None else parts
        places = self._places(_Prompt(rendered, text, make, wanted, as_text))
        offsets = encoding.offsets
        spans = [TurnSpan(p.turn, p.role, *_token_range(offsets, p.start, p.stop)) for p in places]
        turns = tuple(span for span in spans if span.start < span.stop)
        lost = {p.turn for of_turn in wanted for p in of_turn} - {span.turn for span in turns}
        return PromptTokens(ids, turns, tuple(sorted(lost)))

    def _places(self, prompt: _Prompt) -> list[Part]:
        if not any(prompt.wanted):
            return []
        for find in (self._by_edges, self._by_middles):
            try:
                found = find(prompt)
            except ModelError:  # a template may refuse what it does not know
                continue
            if found is not None:
                return found
        return _by_search(prompt)

    def _marked(self, number: int, kind: str) -> str:
        return f"{self._secret}{number}{kind}"

    def _marks(self, prompt: _Prompt, turns: Turns) -> list[_Mark] | None:
        """Where the marks are in the text; None where the template makes another text of marked turns."""
        made = prompt.make(*form_of(turns, prompt.rendered.sent_tools, prompt.rendered.steps)[:2])
        pieces, marks, end, length = [], [], 0, 0
        for found in self._mark.finditer(made):
            piece = made[end : found.start()]
            pieces.append(piece)
            length += len(piece)
            marks.append((int(found[1]), found[2], length))
            end = found.end()
        pieces.append(made[end:])
        return marks if "".join(pieces) == prompt.text else None

    def _by_edges(self, prompt: _Prompt) -> list[Part] | None:
        spots: list[_Spot] = []

        def around(content: str, of: Sequence[Part], call: int) -> str:
            made, end = [], 0
            for part in of:
                opening, closing = self._marked(len(spots), "a"), self._marked(len(spots), "z")
                made += [content[end : part.start], opening, content[part.start : part.stop], closing]
                spots.append((part.turn, part.role, call))
                end = part.stop
            return "".join([*made, content[end:]])

        turns = [_with_marks(turn, of, around) for turn, of in zip(prompt.rendered.sent, prompt.wanted, strict=True)]
        marks = self._marks(prompt, turns)
        return None if marks is None else _joined(marks, spots)

    def _by_middles(self, prompt: _Prompt) -> list[Part] | None:
        turns, middles, sent = [], {}, prompt.rendered.sent
        for number, (turn, of) in enumerate(zip(sent, prompt.wanted, strict=True)):
            content = turn.get("content")
            if of and isinstance(content, str):
                middle = (of[0].start + of[-1].stop) // 2
                while prompt.as_text and self._control.breaks(content, middle):
                    middle -= 1
                middles[number] = middle
                turn = {**turn, "content": f"{content[:middle]}{self._marked(number, 'a')}{content[middle:]}"}
            turns.append(turn)
        marks = self._marks(prompt, turns)
        if marks is None:
            return None
        return [
            part
            for number, _, place in marks
            for part in _around(prompt.text, place, sent[number]["content"], middles[number], prompt.wanted[number])
        ]


def _parts(turns: Turns) -> list[list[Part]]:
    """The whole content of each turn; nothing where a turn says nothing and calls nothing."""
    made = []
    for i, turn in enumerate(turns):
        content = turn.get("content")
        start, stop = trimmed(content, 0, len(content)) if isinstance(content, str) else (0, 0)
        says = start < stop or (content and not isinstance(content, str)) or turn.get("tool_calls")
        made.append([Part(i, role_of(turn), start, stop)] if says else [])
    return made


def _with_marks(
    turn: Mapping[str, Any], of: Sequence[Part], around: Callable[[str, Sequence[Part], int], str]
) -> Mapping[str, Any]:
    """The turn with marks around its parts: of its content, and of its calls, which are of the first part's turn."""
    if not of:
        return turn
    made, first = dict(turn), of[0]

    def whole(text: str, call: int = -1) -> str:
        start, stop = trimmed(text, 0, len(text))
        return around(text, [Part(first.turn, first.role, start, stop)] if start < stop else [], call)

    content = turn.get("content")
    if isinstance(content, str):
        made["content"] = around(content, list(_around_reasoning(content, of)), -1)
    elif isinstance(content, list):
        made["content"] = [
            {**item, "text": whole(item["text"])}
            if isinstance(item, dict) and isinstance(item.get("text"), str)
            else item
            for item in content
        ]
    if turn.get("tool_calls"):
        calls = []
        for i, call in enumerate(turn["tool_calls"]):
            function = call_of(call)
            name = whole(str(function["name"]), i)
            arguments = _leaves(function["arguments"], partial(whole, call=i))
            calls.append({**call, "function": {"name": name, "arguments": arguments}})
        made["tool_calls"] = calls
    return made


def _around_reasoning(content: str, of: Sequence[Part]) -> Iterator[Part]:
    """Parts, cut at the marks of an assistant's reasoning, which templates leave out or write themselves."""
    for part in of:
        cuts = list(_REASONING.finditer(content, part.start, part.stop)) if part.role == "assistant" else []
        if part.start == part.stop:
            continue
        if not cuts:
            yield part
            continue
        # Two without letters hold the ends, where the marks of the reasoning are kept as they came.
        yield Part(part.turn, part.role, part.start, part.start)
        edges = [part.start, *(edge for cut in cuts for edge in cut.span()), part.stop]
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            start, stop = trimmed(content, start, stop)
            if start < stop:
                yield Part(part.turn, part.role, start, stop)
        yield Part(part.turn, part.role, part.stop, part.stop)


def _leaves(value: Any, whole: Callable[[str], str]) -> Any:
    """The value with its strings, keys left out, as `whole` makes them."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, Mapping):
        return {key: _leaves(item, whole) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_leaves(item, whole) for item in value]
    return value


def _joined(marks: Sequence[_Mark], spots: Sequence[_Spot]) -> list[Part]:
    """Ranges between pairs of marks; those of one content or call are one, unless a pair comes again."""
    places: list[Part] = []
    broken: set[int] = set()
    seen: set[int] = set()
    opened: dict[int, int] = {}
    last: _Spot | None = None
    for number, kind, place in marks:
        if kind == "a":
            opened[number] = place
            continue
        start, spot = opened.pop(number, None), spots[number]
        if start is None:
            broken.add(spot[0])
        elif spot == last and number not in seen:
            places[-1] = Part(spot[0], spot[1], places[-1].start, place)
            seen.add(number)
        else:
            places.append(Part(spot[0], spot[1], start, place))
            last, seen = spot, {number}
    broken |= {spots[number][0] for number in opened}
    return [p for p in places if p.start < p.stop and p.turn not in broken]


def _around(text: str, place: int, content: str, middle: int, of: Sequence[Part]) -> Iterator[Part]:
    """The parts of a content whose middle is at a place of the text, as it stands or as JSON escapes it."""
    start, stop = of[0].start, of[-1].stop
    before, after = content[start:middle], content[middle:stop]
    if text.endswith(before, 0, place) and text.startswith(after, place):
        shift = place - middle
        yield from (Part(p.turn, p.role, p.start + shift, p.stop + shift) for p in of)
        return
    for ascii_only in (False, True) if len(of) == 1 else ():
        left, right = (json.dumps(half, ensure_ascii=ascii_only)[1:-1] for half in (before, after))
        if text.endswith(left, 0, place) and text.startswith(right, place):
            yield Part(of[0].turn, of[0].role, place - len(left), place + len(right))
            return


def _by_search(prompt: _Prompt) -> list[Part]:
    """Contents that are in the text exactly once, and over no other's."""
    turns, text = prompt.rendered.sent, prompt.text
    if len(turns) > _MOST_SEARCHED:
        return []
    found: dict[int, list[Part]] = defaultdict(list)
    for number, (turn, of) in enumerate(zip(turns, prompt.wanted, strict=True)):
        content = turn.get("content")
        needle = content[of[0].start : of[-1].stop] if of and isinstance(content, str) else ""
        if needle and text.count(needle) == 1:
            shift = text.index(needle) - of[0].start
            found[number] = [Part(p.turn, p.role, p.start + shift, p.stop + shift) for p in of]
    ranges = sorted((of[0].start, of[-1].stop, number) for number, of in found.items())
    over = {n for a, b in pairwise(ranges) if b[0] < a[1] for n in (a[2], b[2])}
    return [part for _, _, number in ranges if number not in over for part in found[number]]


def _token_range(offsets: Sequence[tuple[int, int]], start: int, stop: int) -> tuple[int, int]:
    """Tokens that have one of the letters from `start` to `stop`, of which the first and the last are not white."""
    return bisect_right(offsets, start, key=itemgetter(1)), bisect_left(offsets, stop, key=itemgetter(0))
