"""The words that a chat template writes between turns, taken from the template itself.

Contract: `markers_of(chat)` renders turns of words that nobody writes and cuts out what stands between them: what ends
a turn and begins the next. A template that refuses a system turn has none for it; one that refuses everything gives
empty markers. Nothing of a message is read.
"""

from __future__ import annotations

from probes.attacks.base import Markers
from probes.errors import ModelError
from probes.model.load import ChatModel

_FIRST, _REPLY, _SECOND, _SYSTEM = "awryqfirstq", "awryqreplyq", "awryqsecondq", "awryqsystemq"


def markers_of(chat: ChatModel) -> Markers:
    """The markers of a loaded model's template, and its control tokens."""
    exchange = [("user", _FIRST), ("assistant", _REPLY)]
    text = _rendered(chat, [*exchange, ("user", _SECOND)])
    reply_ends = _rendered(chat, exchange, answering=False).partition(_REPLY)[2]
    system, found, _ = _rendered(chat, [("system", _SYSTEM), *exchange]).partition(_SYSTEM)
    to_user = _between(text, _REPLY, _SECOND)
    begins = system if found else ""
    # What begins every conversation is no part of a turn, unless turns begin with it as well.
    start = getattr(chat.tokenizer, "bos_token", None)
    if start and start not in to_user:
        begins = begins.removeprefix(start)
    return Markers(
        to_user=to_user,
        to_assistant=_between(text, _FIRST, _REPLY),
        to_system=reply_ends + begins if begins else "",
        control=chat.control_names,
    )


def _rendered(chat: ChatModel, turns: list[tuple[str, str]], *, answering: bool = True) -> str:
    try:
        return chat.render([{"role": role, "content": content} for role, content in turns], answering=answering)
    except ModelError:
        return ""


def _between(text: str, first: str, second: str) -> str:
    _, found, rest = text.partition(first)
    between, found_second, _ = rest.partition(second)
    return between if found and found_second else ""
