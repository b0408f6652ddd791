"""Tables of the registry of probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monitor.cli.render.tables import print_line, print_table
from storage.probe_registry import Entry


def entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "digest": entry.digest,
        "name": entry.name,
        "version": entry.version,
        "stage": entry.stage,
        "added_at": entry.added_at.isoformat(),
        "added_by": entry.added_by,
        "staged_at": entry.staged_at.isoformat(),
    }


def print_entries(entries: Sequence[Entry]) -> None:
    if not entries:
        print_line("nothing is registered; awry probes add CARD adds a probe")
        return
    rows = [(e.name, str(e.version), e.stage, f"{e.staged_at:%Y-%m-%d %H:%M}", e.added_by, e.digest) for e in entries]
    print_table(("probe", "version", "stage", "since", "added by", "digest"), rows)


def print_differences(found: Sequence[tuple[str, str, str]], one: str, other: str) -> None:
    if not found:
        print_line("nothing differs")
        return
    print_table(("what", one, other), found)
