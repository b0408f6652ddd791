"""Which heads a row of `head_scores` is of: a probe's heads in order, stored once and named by a number.

Contract: `layout_id(layers, heads)` is the same everywhere and for ever, so that no process has to remember which
number the database gave a layout. `store(connection, layouts)` writes those that are missing, within the caller's
transaction; `head_rows(connection, condition)` gives the rows of `head_scores` with a row for each head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, select

from storage.bulk import insert_rows
from storage.schema import head_layouts, head_scores

Layout = tuple[tuple[int, ...], tuple[int, ...]]


@lru_cache(maxsize=256)
def layout_id(layers: tuple[int, ...], heads: tuple[int, ...]) -> int:
    """The first 64 bits, with their sign, of the SHA-256 of `LAYER.HEAD,LAYER.HEAD,...`."""
    named = ",".join(f"{layer}.{head}" for layer, head in zip(layers, heads, strict=True))
    return int.from_bytes(hashlib.sha256(named.encode()).digest()[:8], "big", signed=True)


def store(connection: Connection, layouts: Iterable[Layout]) -> None:
    """Write the layouts that the database does not have."""
    wanted = {layout_id(*layout): layout for layout in layouts}
    if not wanted:
        return
    known = set(connection.execute(select(head_layouts.c.id).where(head_layouts.c.id.in_(wanted))).scalars())
    rows = [{"id": n, "layers": layers, "heads": heads} for n, (layers, heads) in wanted.items() if n not in known]
    insert_rows(connection, head_layouts, rows)


def head_rows(connection: Connection, condition: ColumnElement[bool]) -> list[dict[str, Any]]:
    """`probe`, `probe_digest`, `layer`, `head` and `score` of each head, in this order."""
    query = (
        select(
            head_scores.c.probe,
            head_scores.c.probe_digest,
            head_layouts.c.layers,
            head_layouts.c.heads,
            head_scores.c.scores,
        )
        .join(head_layouts, head_layouts.c.id == head_scores.c.layout)
        .where(condition)
        .order_by(head_scores.c.probe, head_scores.c.probe_digest)
    )
    return [
        {"probe": row.probe, "probe_digest": row.probe_digest, "layer": layer, "head": head, "score": score}
        for row in connection.execute(query)
        for layer, head, score in sorted(zip(row.layers, row.heads, row.scores, strict=True))
    ]
