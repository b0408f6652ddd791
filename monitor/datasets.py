"""JSON lines of messages for fitting, calibrating and evaluating: one message a line in any format, plus `label` and
`group`.

`label` is true (or 1, "misaligned") against false (or 0, "aligned"); rows of one `group` never straddle splits. A bad
line is an error that names file, line and field: data for a study is not a stream.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monitor.errors import SourceError
from monitor.stream.parse import parse
from monitor.stream.wire import Invalid, WireMessage
from probes.capture.batches import Encoded, encode
from probes.model.load import ChatModel
from probes.reading import Conversation
from probes.rows import AdapterState, Benign, Row
from probes.seen import text_of

_LABELS = {True: True, False: False, "misaligned": True, "aligned": False}


@dataclass(frozen=True)
class Labelled:
    """One message of a data file; `label` is None where the file has none."""

    message: WireMessage
    label: bool | None
    group: str

    @property
    def text(self) -> str:
        """What a text-only baseline reads: every turn, and the response."""
        return text_of(self.message.turns, self.message.response)

    @property
    def conversation(self) -> Conversation:
        """The message as it is read."""
        return Conversation(self.message.turns, self.message.response, self.message.tools)


def read_messages(path: Path, *, labelled: bool = False) -> list[Labelled]:
    """All messages of a file. A message without an id gets its line number."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from error
    messages = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            messages.append(_read(path, number, line, labelled))
    if not messages:
        raise SourceError(f"{path}: holds no message")
    return messages


def _read(path: Path, number: int, line: bytes, labelled: bool) -> Labelled:
    parsed = parse(line)
    message = parsed[0]
    if isinstance(message, Invalid):
        raise SourceError(f"{path}, line {number}: {message.reason}")
    if len(parsed) > 1:
        raise SourceError(f"{path}, line {number}: holds {len(parsed)} messages; write one a line")
    if message.id is None:
        message = replace(message, id=f"line-{number}")
    extra = json.loads(line)
    if not isinstance(extra, dict):
        extra = {}
    label = extra.get("label")
    known = isinstance(label, bool | int | str) and label in _LABELS
    if labelled and not known:
        raise SourceError(f"{path}, line {number}: label: missing, or none of true, false, misaligned, aligned")
    group = extra.get("group")
    return Labelled(message, _LABELS[label] if known else None, str(group if group is not None else message.id))


def encode_all(chat: ChatModel, messages: Sequence[Labelled], max_tokens: int) -> list[Encoded]:
    """Token ids of every message, with its response where it has one."""
    return [
        encode(chat, each.message.turns, each.message.response, max_tokens, tools=each.message.tools, spans=True)
        for each in messages
    ]


def rows_of(
    chat: ChatModel,
    messages: Sequence[Labelled],
    max_tokens: int,
    *,
    label: bool | None = None,
    adapter: AdapterState = "active",
) -> list[Row]:
    """Rows to fit on; `label` overrides the file's."""
    encoded = encode_all(chat, messages, max_tokens)
    return [
        Row(ids, each.text, bool(each.label) if label is None else label, each.group, adapter, each.conversation)
        for ids, each in zip(encoded, messages, strict=True)
    ]


def read_benign(path: Path) -> list[Labelled]:
    """Benign traffic: a file's messages, less those that it labels misaligned."""
    benign = [each for each in read_messages(path) if not each.label]
    if not benign:
        raise SourceError(f"benign: all messages of {path.name} are labelled misaligned; give aligned ones")
    return benign


def benign_of(chat: ChatModel, benign: Sequence[Labelled], name: str, max_tokens: int) -> Benign:
    """Benign messages for a threshold; `name` is what their set is called."""
    conversations = [each.conversation for each in benign]
    return Benign(encode_all(chat, benign, max_tokens), [each.text for each in benign], name, conversations)
