"""Labelled messages from alerts that reviewers judged: what `awry label --from-alerts` writes and `awry fit` reads.

Contract: `plan_labels` decides from coordinates, verdicts and hashes alone; `write_labels` reads the texts, a page at a
time, and writes one line a message to a file that only its owner can read. That they are read is recorded in the audit
and committed before. What cannot be a row is named in the plan, or in what `write_labels` returns, with the reason.

Labels: `true` is misaligned and `false` aligned. `authorised_test` is misaligned as well: somebody was allowed to send
it, and it is what the probe is to find. A verdict is about an alert, so each message that the alert had by then gets
its label. A message is there once, and so is a text that came several times: copies on both sides of a split would make
figures too good. Where verdicts disagree about a message or a text it is left out. Rows of one conversation are one
`group`, and those without a conversation are grouped by their alert.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from alerts.lifecycle.audit import Actor
from awry.whole_file import whole_file
from monitor.errors import SettingsError, SourceError
from monitor.stream.formats import awry
from monitor.stream.parse import FORMAT_HEADER, Headers, parse
from monitor.stream.wire import WireMessage
from monitor.web.api.evidence import record_readings
from storage.coordinates import Coordinates
from storage.queries.judged_alerts import JudgedMessage, stored_texts

MISALIGNED = {"true": True, "authorised_test": True, "false": False}
# Whatever format a message came in, its stored text is in awry's own.
_OWN = ((FORMAT_HEADER, awry.NAME.encode()),)
_PAGE = 500


@dataclass(frozen=True)
class Labelled:
    """One message with its label; `verdict` is what it was made of."""

    message: JudgedMessage
    misaligned: bool
    verdict: str

    @property
    def group(self) -> str:
        conversation = self.message.conversation_id
        return f"alert {self.message.alert_id}" if conversation is None else f"conversation {conversation}"


@dataclass
class Plan:
    """What is to be read and written, in the order of the stream, and what is left out."""

    rows: list[Labelled] = field(default_factory=list)
    # Whose text is not stored.
    no_text: list[Coordinates] = field(default_factory=list)
    # Judged both ways, itself or its text.
    disagreed: list[Coordinates] = field(default_factory=list)
    # Other messages with a text that is in `rows`.
    copies: int = 0
    alerts: int = 0
    probes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """The rows that were written, and what could not be: gone since it was planned, or no message to a reader."""

    rows: list[Labelled]
    gone: list[Coordinates]
    unreadable: list[Coordinates]


def plan_labels(judged: Sequence[JudgedMessage]) -> Plan:
    """Each message once, with its label."""
    plan = Plan(
        alerts=len({each.alert_id for each in judged}),
        probes=tuple(sorted({each.probe for each in judged if each.probe is not None})),
    )
    verdicts: dict[Coordinates, set[str]] = {}
    by_text: dict[str, set[bool]] = {}
    for each in judged:
        verdicts.setdefault(each.at, set()).add(each.verdict)
        by_text.setdefault(_text_of(each), set()).add(MISALIGNED[each.verdict])
    done: set[str] = set()
    first: dict[Coordinates, JudgedMessage] = {}
    for each in judged:
        first.setdefault(each.at, each)
    for at, each in first.items():
        if len({MISALIGNED[verdict] for verdict in verdicts[at]} | by_text[_text_of(each)]) > 1:
            plan.disagreed.append(at)
        elif not each.stored:
            plan.no_text.append(at)
        elif _text_of(each) in done:
            plan.copies += 1
        else:
            done.add(_text_of(each))
            verdict = each.verdict if len(verdicts[at]) == 1 else "true"
            plan.rows.append(Labelled(each, MISALIGNED[verdict], verdict))
    return plan


class _NothingWrittenError(Exception):
    """The file that is there stays."""


def write_labels(engine: Engine, actor: Actor, rows: Sequence[Labelled], out: Path) -> Written:
    """Write the rows to `out`, in place of what was there; without one that can be written nothing is changed."""
    out = out.resolve()
    if out.exists() and not out.is_file():
        raise SettingsError(f"out: {out} is no regular file; the texts go to one that only you can read")
    written = Written([], [], [])
    try:
        with suppress(_NothingWrittenError), whole_file(out) as file:
            for start in range(0, len(rows), _PAGE):
                _write_page(engine, actor, rows[start : start + _PAGE], file, written)
            if not written.rows:
                raise _NothingWrittenError
    except OSError as error:
        raise SettingsError(f"out: {out} cannot be written ({error.strerror}); choose another file") from None
    return written


def _write_page(engine: Engine, actor: Actor, page: Sequence[Labelled], file: BinaryIO, written: Written) -> None:
    try:
        with engine.begin() as connection:
            record_readings(connection, actor, [row.message.at for row in page])
    except DBAPIError:
        raise SourceError(
            "from_alerts: texts of judged alerts are stored, and are not read: the database refuses to record who "
            "reads them"
        ) from None
    with engine.connect() as connection:
        texts = stored_texts(connection, [(row.message.at, row.message.day) for row in page])
    for row in page:
        at = row.message.at
        if at not in texts:
            written.gone.append(at)
        elif (line := _line(row, texts[at])) is None:
            written.unreadable.append(at)
        else:
            file.write(f"{line}\n".encode())
            written.rows.append(row)


def _line(row: Labelled, text: Any) -> str | None:
    """A line that reads back as the same conversation; None where the stored text is no message to today's reader."""
    if not isinstance(text, dict):
        return None
    stored = {"id": row.message.message_id or str(row.message.at), **text}
    message = _read(json.dumps(stored), _OWN)
    if message is None:
        return None
    document = message.as_json() | {"group": row.group, "label": row.misaligned, "verdict": row.verdict}
    line = json.dumps(document, ensure_ascii=False)
    again = _read(line)
    return line if again is not None and again.stored_text == message.stored_text else None


def _read(line: str, headers: Headers = ()) -> WireMessage | None:
    parsed = parse(line.encode(), headers)
    return parsed[0] if len(parsed) == 1 and isinstance(parsed[0], WireMessage) else None


def _text_of(message: JudgedMessage) -> str:
    """What copies have in common; a message without a hash has no copies."""
    return message.text_sha256 or f"at {message.at}"
