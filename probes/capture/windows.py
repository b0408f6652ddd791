"""Windows of a message that is too long to be read at once: its head, its tail and what is between.

Contract: `windows(chat, turns, read, response, ...)` gives at most `max_windows` of them. The text is the contents of
all turns in their order, tool calls as JSON, with an empty line between them, and then the response. A window of the
turns is a message of its own: its piece of the text is the one user turn of the model's template, with no system turn
and no tools of the message. A window of the response (only where the response is longer than what `encode` keeps) is
its piece behind the last 16 tokens of the prompt, as `encode` does it. `reads` says for which span a window is meant:
those of turns are in the windows of `prompt`, and with `spans` the tokens of a window are those of the message's turns
that they were sent in, so that a window without text of the user has no tokens of `user`.

Windows are of equal size. Where the budget allows they cover everything; else they lie evenly, the first at the head
and the last at the tail of the text. `covered` says whether each token of the text is in a window. With one window it
is the head, since `encode` keeps the tail.

Units: tokens of the text, tokenised once, counted from 0; the response's follow those of the turns. A piece may be read
as a few tokens more or fewer than it has in the text, since it is tokenised anew between the template's words. Time and
memory are linear in the text.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from probes.capture.batches import KEEP_PROMPT, Encoded, encode, last_user, token_limit, with_turns
from probes.model.adapt import call_of, compact_json, content_of
from probes.model.load import ChatModel, user_message
from probes.model.pieces import DecodedText, TokenisedText
from probes.model.spans import Part, role_of, trimmed

# A piece that is cut out of its text may become this many tokens more.
_SPARE = 8
_BETWEEN = "\n\n"


@dataclass(frozen=True)
class Window:
    """A piece of the text, encoded as a message; `reads` is the span that stands for the message's."""

    first_token: int
    tokens: int
    encoded: Encoded
    reads: Literal["prompt", "response"] = "prompt"


@dataclass(frozen=True)
class Windows:
    """Windows in the order of the text, of `total` tokens."""

    windows: tuple[Window, ...]
    total: int
    covered: bool


def windows(
    chat: ChatModel,
    turns: Sequence[Mapping[str, Any]],
    read: Encoded,
    response: str | None = None,
    max_tokens: int = 2048,
    max_windows: int = 8,
    *,
    spans: bool = False,
) -> Windows:
    """The windows of one message, beside what `encode` read of it. ModelError where no user turn can be rendered."""
    limit = token_limit(chat, max_tokens)
    text = chat.tokenised(text_of(turns))
    sent = _Sent(chat, turns) if spans else None
    answer = chat.text_ids(response) if response else []
    room = limit - KEEP_PROMPT
    # A response that `encode` keeps whole needs no windows.
    of_answer = max_windows // 2 if room > 0 and len(answer) > room else 0
    if of_answer:
        of_answer = min(of_answer, -(-len(answer) // room))
    made, covered = _of_text(chat, text, limit, max_windows - of_answer, sent)
    if len(answer) > max(0, room):
        starts = spread(len(answer), room, of_answer)
        prompt = read.ids[: read.n_prompt][-KEEP_PROMPT:]
        for start in starts:
            ids = (*prompt, *answer[start : start + room])
            encoded = Encoded(ids, len(prompt), spans="known" if spans else "not asked")
            made.append(Window(len(text) + start, len(ids) - len(prompt), encoded, "response"))
        covered = covered and covers(starts, room, len(answer))
    return Windows(tuple(made), len(text) + len(answer), covered)


def _of_text(
    chat: ChatModel, text: TokenisedText | DecodedText, limit: int, budget: int, sent: _Sent | None
) -> tuple[list[Window], bool]:
    room = limit - len(chat.prompt_ids(chat.rendered(user_message("")))) - _SPARE
    if room < 1:
        return [], not len(text)
    starts = spread(len(text), room, budget)
    made, whole = [], True
    for start in starts:
        stop = min(start + room, len(text))
        piece = text.piece(start, stop)
        if sent is None:
            encoded = encode(chat, user_message(piece), None, limit)
        else:
            encoded = sent.encode(piece, text.place(start) if isinstance(text, TokenisedText) else None, limit)
        whole = whole and not encoded.truncated
        made.append(Window(start, stop - start, encoded))
    return made, whole and covers(starts, room, len(text))


class _Sent:
    """Where the turns of a message are in the text of its windows."""

    def __init__(self, chat: ChatModel, turns: Sequence[Mapping[str, Any]]) -> None:
        self._chat = chat
        self._last = last_user(turns)
        self._parts: list[Part] = []
        end = 0
        for i, turn in enumerate(turns):
            for text in _texts(turn):
                self._parts.append(Part(i, role_of(turn), end, end + len(text)))
                end += len(text) + len(_BETWEEN)
        self._stops = [part.stop for part in self._parts]

    def encode(self, piece: str, place: int | None, limit: int) -> Encoded:
        """A piece of the text as a user's message, its tokens those of the turns that it was sent in."""
        rendered = self._chat.rendered(user_message(piece))
        tokens = self._chat.prompt_tokens(rendered, [self._within(piece, place or 0)])
        if place is None:
            tokens = replace(tokens, turns=None)
        return with_turns(tokens, [], limit, self._last, rendered.how, rendered.adapted)

    def _within(self, piece: str, place: int) -> list[Part]:
        made = []
        for part in self._parts[bisect_right(self._stops, place) :]:
            if part.start >= place + len(piece):
                break
            start, stop = trimmed(piece, max(0, part.start - place), min(len(piece), part.stop - place))
            if start < stop:
                made.append(Part(part.turn, part.role, start, stop))
        return made


def text_of(turns: Sequence[Mapping[str, Any]]) -> str:
    """What all turns say."""
    return _BETWEEN.join(text for turn in turns for text in _texts(turn))


def _texts(turn: Mapping[str, Any]) -> list[str]:
    calls = (compact_json(call_of(call)) for call in turn.get("tool_calls") or ())
    return [text for text in (content_of(turn), *calls) if text]


def spread(total: int, room: int, budget: int) -> list[int]:
    """Starts of at most `budget` windows of `room` tokens, from the head to the tail: one behind the other where they
    cover all of it, so that those of a text that grows stay the same, else evenly."""
    count = min(budget, -(-total // room)) if room > 0 else 0
    if count <= 1:
        return [0][:count]
    last = total - room
    if count * room >= total:
        return [*(i * room for i in range(count - 1)), last]
    return [last * i // (count - 1) for i in range(count)]


def covers(starts: Sequence[int], room: int, total: int) -> bool:
    """Whether windows of `room` tokens at the starts leave out none of `total` tokens."""
    reached = 0
    for start in starts:
        if start > reached:
            return False
        reached = max(reached, start + room)
    return reached >= total
