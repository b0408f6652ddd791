"""The readings of a message: as it is, in windows where it is too long, and once more where it hides something.

Contract: `readings(chat, conversation, settings)` gives what is to be scored. The plain reading is the message as it
is, its end where it is over-long. Windows (`probes.capture.windows`) then read all of it. A second reading
(`probes.hidden`) is the message with its look-alike letters, invisible characters and the like undone, or with what it
encodes in place of the encoding; only messages that change by it have one. Where the user speaks in several short
turns, these are read joined as well, as one turn: a request that is split over turns stands in none of them. A reading
that cannot be made is left out: the message still has the plain one.

Raises ModelError where the model's template takes the message in no form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from probes.capture.aggregation import Span
from probes.capture.batches import Encoded, encode
from probes.capture.windows import Window, windows
from probes.hidden import Hidden, Tokens, look
from probes.model.adapt import content_of
from probes.model.load import ChatModel, user_message
from probes.reading.conversation import Conversation
from probes.scoring import Reader

PLAIN = "plain"
WINDOW = "window"
JOINED = "joined"
# The user's last turns are joined up to so many, of so many characters in all: what is split is short.
_MOST_JOINED = 8
_JOINED_CHARACTERS = 1200
_JOINED_FOR: tuple[Span, ...] = ("turns", "user")
_WHOLE_SIDES: tuple[Span, ...] = ("prompt", "response")


@dataclass(frozen=True)
class ReadingSettings:
    """`spans` are those that the probes read; `max_tokens` bounds one reading; `second`: what is hidden is read too."""

    spans: tuple[Span, ...]
    max_tokens: int = 2048
    max_windows: int = 8
    second: bool = True

    @classmethod
    def of(cls, readers: Sequence[Reader], *, max_tokens: int = 2048, max_windows: int = 8) -> ReadingSettings:
        """For these readers."""
        spans = tuple(dict.fromkeys(reader.aggregation.span for reader in readers))
        return cls(spans, max_tokens, max_windows)

    @property
    def of_turns(self) -> bool:
        """Whether a probe reads the tokens of turns, which costs a second rendering."""
        return any(span not in _WHOLE_SIDES for span in self.spans)


@dataclass(frozen=True)
class Reading:
    """One way to read a message. `kind` is `plain`, `window`, `joined`, `normalised` or the encoding that was undone;
    `window` says which piece of the text a window is, of the message as it is or with something undone, and whether it
    stands for the turns or the response."""

    kind: str
    encoded: Encoded
    window: Window | None = None

    def stands_for(self, span: Span) -> bool:
        """Whether a probe that reads this span is meant by it."""
        if self.kind == JOINED:
            return span in _JOINED_FOR
        return self.window is None or (self.window.reads == "response") == (span == "response")


@dataclass(frozen=True)
class Readings:
    """All readings of a message, the plain one first; `unreadable` is the share of its text that says nothing to the
    tokenizer (`probes.hidden.unreadable`), None where it was not looked for."""

    all: tuple[Reading, ...]
    unreadable: float | None = None

    @property
    def plain(self) -> Encoded:
        return self.all[0].encoded

    @property
    def windows(self) -> tuple[Window, ...]:
        return tuple(reading.window for reading in self.all if reading.window is not None and reading.kind == WINDOW)

    @property
    def second_tokens(self) -> int:
        """Tokens of the readings of what is hidden, or split over turns."""
        return sum(len(r.encoded.ids) for r in self.all if r.kind not in (PLAIN, WINDOW))


def tokens_of(chat: ChatModel) -> Tokens:
    """How the model's tokenizer cuts text, for `readings`: to be made once, since it is measured at its first use."""
    return Tokens(lambda text: len(chat.text_ids(text)))


def readings(
    chat: ChatModel, conversation: Conversation, settings: ReadingSettings, tokens: Tokens | None = None
) -> Readings:
    """What is to be scored of one message; with `tokens` also how much of it is unreadable."""
    if "response" not in settings.spans:
        conversation = replace(conversation, response=None)
    plain = _encode(chat, conversation, settings)
    found = [Reading(PLAIN, plain)]
    if not plain.ids:
        return Readings(tuple(found))
    found += _windows(chat, conversation, plain, settings)
    if not settings.second:
        return Readings(tuple(found))
    found += _joined(chat, conversation, settings)
    hidden = look(conversation.turns, response=conversation.response, tokens=tokens)
    found += _second(chat, conversation, settings, hidden)
    return Readings(tuple(found), hidden.unreadable if tokens is not None else None)


def _encode(chat: ChatModel, conversation: Conversation, settings: ReadingSettings) -> Encoded:
    return encode(
        chat,
        conversation.turns,
        conversation.response,
        settings.max_tokens,
        tools=conversation.tools,
        spans=settings.of_turns,
    )


def _windows(
    chat: ChatModel,
    conversation: Conversation,
    plain: Encoded,
    settings: ReadingSettings,
    kind: str = WINDOW,
) -> list[Reading]:
    if not plain.truncated or not settings.max_windows:
        return []
    try:
        made = windows(
            chat,
            conversation.turns,
            plain,
            conversation.response,
            settings.max_tokens,
            settings.max_windows,
            spans=settings.of_turns,
        )
    except Exception:
        # The message has its score without them, and its `partial` says that it was not read whole.
        return []
    return [Reading(kind, each.encoded, each) for each in made.windows]


def _joined(chat: ChatModel, conversation: Conversation, settings: ReadingSettings) -> list[Reading]:
    if not any(span in _JOINED_FOR for span in settings.spans):
        return []
    texts: list[str] = []
    left = _JOINED_CHARACTERS
    for turn in reversed(conversation.turns):
        text = content_of(turn).strip() if turn.get("role") == "user" else ""
        left -= len(text)
        if left < 0 or len(texts) == _MOST_JOINED:
            break
        texts += [text] if text else []
    if len(texts) < 2:
        return []
    encoded = _encode_other(chat, Conversation(user_message(" ".join(reversed(texts)))), settings)
    return [Reading(JOINED, encoded)] if encoded is not None else []


def _second(chat: ChatModel, conversation: Conversation, settings: ReadingSettings, hidden: Hidden) -> list[Reading]:
    found = []
    for other in hidden.readings:
        undone = replace(conversation, turns=other.turns, response=other.response)
        encoded = _encode_other(chat, undone, settings)
        if encoded is not None and encoded.ids:
            found.append(Reading(other.kind, encoded))
            found += _windows(chat, undone, encoded, settings, other.kind)
    return found


def _encode_other(chat: ChatModel, conversation: Conversation, settings: ReadingSettings) -> Encoded | None:
    try:
        return _encode(chat, conversation, settings)
    except Exception:
        # What was made of a message may be nothing that the template takes.
        return None
