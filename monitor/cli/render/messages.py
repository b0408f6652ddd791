"""Messages as a table."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.cli.render.tables import print_line, print_table, utc
from storage.coordinates import Coordinates
from storage.queries.search import Found

_COLUMNS = ("stored", "message", "id", "status", "tenant", "user", "conversation", "score", "probe", "")


def print_messages(found: Sequence[Found]) -> None:
    """With the score that is the highest above its threshold."""
    if not found:
        print_line("no message matches")
        return
    print_table(_COLUMNS, [_row(each) for each in found])


def _row(each: Found) -> list[str]:
    row = each.message
    names = (row[name] or "" for name in ("message_id", "status", "tenant", "user_id", "conversation_id"))
    at = Coordinates(row["source"], row["partition"], row["offset"], row["sub"])
    top = each.scores[0] if each.scores else None
    scored = [f"{top['score']:.3f}", top["probe"], "flagged" if top["flagged"] else ""] if top else ["", "", ""]
    return [utc(row["ingested_at"]), str(at), *names, *scored]
