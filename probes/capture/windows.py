"""Windows of a message that is too long to be read at once: its head, its tail and what is between.

Contract: `windows(chat, turns, read, response, ...)` gives at most `max_windows` of them. The text is the contents of
all turns in their order, tool calls as JSON, with an empty line between them, and then the response. A window of the
turns is a message of its own: its piece of the text is the one user turn of the model's template, with no system turn
and no tools of the message. A window of the response (only where the response is longer than what `encode` keeps) is
its piece behind the last 16 tokens of the prompt, as `encode` does it. `reads` says for which span a window is meant.

Windows are of equal size. Where the budget allows they cover everything; else they lie evenly, the first at the head
and the last at the tail of the text. `covered` says whether each token of the text is in a window. With one window it
is the head, since `encode` keeps the tail.

Units: tokens of the text, tokenised once, counted from 0; the response's follow those of the turns. A piece may be read
as a few tokens more or fewer than it has in the text, since it is tokenised anew between the template's words. Time and
memory are linear in the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from probes.capture.batches import KEEP_PROMPT, Encoded, encode, token_limit
from probes.model.adapt import call_of, compact_json, content_of
from probes.model.load import ChatModel, user_message
from probes.model.pieces import DecodedText, TokenisedText

# A piece that is cut out of its text may become this many tokens more.
_SPARE = 8


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
) -> Windows:
    """The windows of one message, beside what `encode` read of it. ModelError where no user turn can be rendered."""
    limit = token_limit(chat, max_tokens)
    text = chat.tokenised(text_of(turns))
    answer = chat.text_ids(response) if response else []
    room = limit - KEEP_PROMPT
    # A response that `encode` keeps whole needs no windows.
    of_answer = max_windows // 2 if room > 0 and len(answer) > room else 0
    if of_answer:
        of_answer = min(of_answer, -(-len(answer) // room))
    made, covered = _of_text(chat, text, limit, max_windows - of_answer)
    if len(answer) > max(0, room):
        starts = spread(len(answer), room, of_answer)
        prompt = read.ids[: read.n_prompt][-KEEP_PROMPT:]
        for start in starts:
            ids = (*prompt, *answer[start : start + room])
            made.append(Window(len(text) + start, len(ids) - len(prompt), Encoded(ids, len(prompt)), "response"))
        covered = covered and covers(starts, room, len(answer))
    return Windows(tuple(made), len(text) + len(answer), covered)


def _of_text(chat: ChatModel, text: TokenisedText | DecodedText, limit: int, budget: int) -> tuple[list[Window], bool]:
    room = limit - len(chat.prompt_ids(chat.rendered(user_message("")))) - _SPARE
    if room < 1:
        return [], not len(text)
    starts = spread(len(text), room, budget)
    made, whole = [], True
    for start in starts:
        stop = min(start + room, len(text))
        encoded = encode(chat, user_message(text.piece(start, stop)), None, limit)
        whole = whole and not encoded.truncated
        made.append(Window(start, stop - start, encoded))
    return made, whole and covers(starts, room, len(text))


def text_of(turns: Sequence[Mapping[str, Any]]) -> str:
    """What all turns say."""
    parts = []
    for turn in turns:
        parts.append(content_of(turn))
        parts += [compact_json(call_of(call)) for call in turn.get("tool_calls") or ()]
    return "\n\n".join(filter(None, parts))


def spread(total: int, room: int, budget: int) -> list[int]:
    """Starts of at most `budget` windows of `room` tokens: evenly from the head to the tail."""
    count = min(budget, -(-total // room)) if room > 0 else 0
    if count <= 1:
        return [0][:count]
    last = total - room
    return [last * i // (count - 1) for i in range(count)]


def covers(starts: Sequence[int], room: int, total: int) -> bool:
    """Whether windows of `room` tokens at the starts leave out none of `total` tokens."""
    reached = 0
    for start in starts:
        if start > reached:
            return False
        reached = max(reached, start + room)
    return reached >= total
