"""Tokens of the HTTP API as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from monitor.cli.render.tables import print_table, utc


def print_tokens(rows: Iterable[Mapping[str, Any]]) -> None:
    """One line a token."""
    print_table(
        ("name", "scope", "tenant", "state", "created", "by", "expires", "revoked", "last used"),
        (
            (
                row["name"],
                row["scope"],
                row["tenant"] or "",
                row["state"],
                utc(row["created_at"]),
                row["created_by"],
                utc(row["expires_at"]),
                utc(row["revoked_at"]) if row["state"] == "revoked" else "",
                utc(row["last_used_at"]),
            )
            for row in rows
        ),
    )
