"""alerts whose keys were made before names in keys were escaped; routes, and what holds a notification

Live alerts of before keep their keys, by which pagers know them, and are marked, so that their rules find them until
they are resolved. A silence of such a key stays, and a second one is added for the key that the same names have today.
Columns are added without rewriting a table, and only live alerts are read: it takes no time, and workers may run on.
"""

import hashlib
import itertools
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = "columns of alerts and outbox without rewriting them, and live alerts are read: seconds"

# What may be part of a key after the rule and the probe, in an order that the rule chose.
LABELS = ("tenant", "model", "conversation_id")
COLUMNS = "dedup_key, rule, kind, probe, tenant, model, conversation_id"


def upgrade() -> None:
    op.add_column("alerts", sa.Column("former_key", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("alerts", sa.Column("inhibited_by", postgresql.ARRAY(sa.Uuid()), nullable=True))
    op.add_column("alerts", sa.Column("held_open", sa.Text(), nullable=True))
    op.add_column("outbox", sa.Column("routes", postgresql.ARRAY(sa.Text()), nullable=True))
    op.add_column("outbox", sa.Column("held_by", sa.Text(), nullable=True))
    _mark_alerts()
    _add_silences()


def downgrade() -> None:
    for column in ("held_by", "routes"):
        op.drop_column("outbox", column)
    for column in ("held_open", "inhibited_by", "former_key"):
        op.drop_column("alerts", column)


def _mark_alerts() -> None:
    connection = op.get_bind()
    live = sa.text(f"SELECT id, {COLUMNS} FROM alerts WHERE state <> 'resolved'")  # noqa: S608 - our own names
    former = [row.id for row in connection.execute(live) if _key_of_today(row) is not None]
    if former:
        connection.execute(sa.text("UPDATE alerts SET former_key = true WHERE id = ANY(:ids)"), {"ids": former})


def _add_silences() -> None:
    connection = op.get_bind()
    columns = "dedup_key, severity, starts_at, ends_at, comment, created_by, created_at"
    active = connection.execute(
        sa.text(f"SELECT {columns} FROM silences WHERE dedup_key IS NOT NULL AND ends_at > now()")  # noqa: S608
    ).mappings()
    for silence in list(active):
        of_key = sa.text(f"SELECT {COLUMNS} FROM alerts WHERE dedup_key = :key")  # noqa: S608
        rows = connection.execute(of_key, {"key": silence["dedup_key"]}).all()
        for key in sorted({key for row in rows if (key := _key_of_today(row)) is not None}):
            connection.execute(
                sa.text(
                    f"INSERT INTO silences (id, {columns}) VALUES (:id, :dedup_key, :severity, :starts_at, :ends_at, "  # noqa: S608
                    ":comment, :created_by, :created_at)"
                ),
                {**silence, "id": uuid.uuid4(), "dedup_key": key},
            )


def _key_of_today(row: Any) -> str | None:
    """The escaped key of an alert that was opened under a folded one; None for one whose key is today's."""
    found = None
    for names in _orders(row):
        if _escaped_key(names) == row.dedup_key:
            return None
        if found is None and _folded_key(names) == row.dedup_key:
            found = _escaped_key(names)
    return found


def _orders(row: Any) -> Iterator[Sequence[str | None]]:
    """All names that a key may be made of: an alert does not say which labels its rule has alerts by. Those that it has
    were among them, others without a value perhaps; one on the monitor names a tenant that is in no key."""
    of_key = () if row.kind == "monitor" else LABELS
    about = row.probe if row.probe is not None else row.dedup_key.split(":")[1] if ":" in row.dedup_key else None
    for number in range(len(LABELS) + 1):
        for chosen in itertools.permutations(LABELS, number):
            if all(name in chosen for name in of_key if getattr(row, name)):
                yield (row.rule, about, *(getattr(row, name) for name in chosen))


def _folded_key(names: Sequence[str | None]) -> str:
    key = ":".join((name or "-").replace(":", "_") for name in names)
    if len(key) <= 255:
        return key
    return f"{key[:238]}~{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _escaped_key(names: Sequence[str | None]) -> str:
    key = ":".join(
        "-" if not name else "%2D" if name == "-" else name.replace("%", "%25").replace(":", "%3A") for name in names
    )
    encoded = key.encode("utf-8", "surrogatepass")
    if len(key) <= 255 and len(encoded) <= 1000 and not re.search(r"~[0-9a-f]{64}$", key):
        return key
    return f"{key[:190]}~{hashlib.sha256(encoded).hexdigest()}"
