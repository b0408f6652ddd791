"""What `awry check` says of messages, as lines and as JSON documents: names, kinds and counts, never text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import typer

from monitor.cli.render.tables import print_line
from storage.attributes import allowed, bounded

if TYPE_CHECKING:
    from monitor.stream.record import Record
    from monitor.stream.wire import Invalid, WireMessage

_NAMES = ("id", "tenant", "user", "conversation_id", "model")


@dataclass(slots=True)
class Summary:
    """Counts over all messages."""

    records: int = 0
    tombstones: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    noted: int = 0

    def add(self, line: dict[str, Any]) -> None:
        self.statuses[line["status"]] += 1
        self.formats[line["format"] or "unknown"] += 1
        self.noted += bool(line.get("notes"))

    @property
    def invalid(self) -> int:
        return self.statuses["invalid"]

    @property
    def text(self) -> str:
        """One line."""
        total = self.statuses.total()
        counted = ", ".join(f"{self.statuses[each]} {each}" for each in ("readable", "skipped", "invalid"))
        formats = ", ".join(f"{name} {number}" for name, number in self.formats.most_common())
        said = f"{total} messages in {self.records} records: {counted}"
        said += f"; {self.noted} with notes" if self.noted else ""
        said += f"; {self.tombstones} tombstones" if self.tombstones else ""
        return said + (f"; formats: {formats}" if formats else "")


def document(
    record: Record, parsed: Sequence[WireMessage | Invalid] | None, privacy: str, attribute_keys: Collection[str]
) -> Iterator[dict[str, Any]]:
    """A document for each message of a record; `parsed` is None where the record was over the size limit."""
    if parsed is None:
        yield {
            "message": str(record.at),
            "status": "skipped",
            "format": None,
            "reason": f"{record.size} bytes, over max_message_bytes",
        }
        return
    for number, each in enumerate(parsed):
        at = replace(record.at, sub=number) if number else record.at
        yield {"message": str(at)} | _document(each, privacy, attribute_keys)


def _document(parsed: WireMessage | Invalid, privacy: str, attribute_keys: Collection[str]) -> dict[str, Any]:
    from monitor.stream.wire import Invalid

    if isinstance(parsed, Invalid):
        made: dict[str, Any] = {"status": parsed.status, "format": parsed.format, "reason": parsed.reason}
        names = (parsed.message_id, *(getattr(parsed, name) for name in _NAMES[1:]))
    else:
        kept = bounded(parsed.attributes) if privacy == "full" else allowed(parsed.attributes, attribute_keys)
        made = {
            "status": "readable",
            "format": parsed.format,
            "turns": len(parsed.turns),
            "roles": dict(Counter(turn["role"] for turn in parsed.turns)),
            "characters": sum(len(turn["content"]) for turn in parsed.turns),
            "tool_calls": sum(len(turn.get("tool_calls", ())) for turn in parsed.turns),
            "tools": len(parsed.tools),
            "response": parsed.response is not None,
            "timestamp": parsed.timestamp.isoformat() if parsed.timestamp else None,
            "trace_id": parsed.trace_id,
            "attributes": sorted(kept),
            "attributes_dropped": len(parsed.attributes) - len(kept),
        }
        names = tuple(getattr(parsed, name) for name in _NAMES)
    made |= dict(zip(_NAMES, names, strict=True))
    return made | {"notes": list(parsed.notes), "unread": dict(parsed.unread)}


def print_document(line: dict[str, Any]) -> None:
    """One JSON object on one line."""
    typer.echo(json.dumps(line, ensure_ascii=False))


def print_checked(line: dict[str, Any]) -> None:
    """One line."""
    names = [f"{name.removesuffix('_id')}={line[name]}" for name in _NAMES if line.get(name)]
    said = [line["message"], line["format"] or "-"]
    if line["status"] == "readable":
        roles = ", ".join(f"{number} {role}" for role, number in line["roles"].items())
        parts = [f"{_counted(line['turns'], 'turn')} ({roles})", f"{line['characters']} characters"]
        parts += [_counted(line[name], word) for name, word in (("tool_calls", "tool call"), ("tools", "tool"))]
        parts.append("response" if line["response"] else "no response")
        dropped = line["attributes_dropped"]
        parts.append(f"{_counted(dropped, 'attribute')} dropped" if dropped else "")
        said.append(", ".join(part for part in parts if part))
    else:
        said.append(f"{line['status']}: {line['reason']}")
    said += names
    if line.get("unread"):
        said.append("unread: " + ", ".join(f"{number} {kind}" for kind, number in line["unread"].items()))
    said += [f"note: {note}" for note in line.get("notes", ())]
    print_line("  ".join(said))


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}" if number else ""
