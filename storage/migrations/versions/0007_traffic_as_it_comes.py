"""logs, messages within a record, and what was read of a message

Every key gets `sub`, 0 for all rows of before, and the table `sources` says which log a source name stands for: names
of before keep their rows, and belong to the log whose messages they hold (`storage.sources`). The keys are made again,
which takes as long as their indexes are large, while awry stands still.

Each partition with its indexes takes several of the server's locks until the end: where they would not be enough, the
migration says so before it changes anything.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = "the keys of all tables that grow are made again: stop the workers; some 5 minutes"

# The columns of a key after the coordinates.
KEYS = {
    "messages": ("payload_sha256", "day"),
    "scores": ("probe", "day"),
    "head_scores": ("probe", "layer", "head", "day"),
    "answers": ("kind", "day"),
}
COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "format": sa.Text(),
    "trace_id": sa.Text(),
    "rendered": sa.Text(),
    "notes": postgresql.JSONB(astext_type=sa.Text()),
    "unread": postgresql.JSONB(astext_type=sa.Text()),
    "special_tokens": sa.Integer(),
    "partial": sa.Text(),
    "windows": sa.Integer(),
}
NEW_TABLES = ("window_scores", "sources")

# The names of all sources, by one descent into the keys' indexes for each.
SOURCES = """
WITH RECURSIVE known AS (
    SELECT min(source) AS source FROM messages
    UNION ALL
    SELECT (SELECT min(source) FROM messages WHERE source > known.source) FROM known WHERE known.source IS NOT NULL
)
INSERT INTO sources (name, stream, mixed_until) SELECT source, source, now() FROM known WHERE source IS NOT NULL
"""


def upgrade() -> None:
    _check_locks()
    for table, rest in KEYS.items():
        op.execute(f"ALTER TABLE {table} ADD COLUMN sub integer NOT NULL DEFAULT 0")
        # The writer names it always; the value stays for the rows that are there.
        op.execute(f"ALTER TABLE {table} ALTER COLUMN sub DROP DEFAULT")
        _key(table, ("source", "partition", "offset", "sub", *rest))
    op.execute("ALTER TABLE alert_messages ADD COLUMN sub integer NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE alert_messages ALTER COLUMN sub DROP DEFAULT")
    _key("alert_messages", ("alert_id", "source", "partition", "offset", "sub"))
    for name, type_ in COLUMNS.items():
        op.add_column("messages", sa.Column(name, type_, nullable=True))
    op.create_check_constraint(op.f("ck_messages_rendered"), "messages", "rendered IN ('template', 'adapted')")
    op.create_index("ix_messages_partial", "messages", ["ingested_at"], postgresql_where=sa.text("partial IS NOT NULL"))
    _flagged_index("source", "partition", "offset", "sub", "day")
    _window_scores()
    op.create_table(
        "sources",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("log", sa.Text(), nullable=True),
        sa.Column("mixed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_sources")),
    )
    op.create_index("ix_sources_stream_log", "sources", ["stream", "log"])
    op.execute(SOURCES)
    _scopes("'read', 'act', 'ingest'")
    if _has_reader():
        op.execute(f"GRANT SELECT ON {', '.join(NEW_TABLES)} TO awry_reader")


def downgrade() -> None:
    op.execute("DELETE FROM api_tokens WHERE scope = 'ingest'")
    _scopes("'read', 'act'")
    for table in NEW_TABLES:
        op.drop_table(table)
    _flagged_index("source", "partition", "offset", "day")
    op.drop_index("ix_messages_partial", table_name="messages")
    op.drop_constraint(op.f("ck_messages_rendered"), "messages")
    for name in COLUMNS:
        op.drop_column("messages", name)
    # A key without `sub` holds one message a record.
    for table in (*KEYS, "alert_messages"):
        op.execute(f"DELETE FROM {table} WHERE sub > 0")  # noqa: S608 - our own names
    for table, rest in KEYS.items():
        _key(table, ("source", "partition", "offset", *rest))
        op.drop_column(table, "sub")
    _key("alert_messages", ("alert_id", "source", "partition", "offset"))
    op.drop_column("alert_messages", "sub")


def _check_locks() -> None:
    """Refuse before anything is changed: half-way, the server would only say that it is out of shared memory."""
    relations = op.get_bind().execute(
        sa.text(
            "SELECT count(*) FROM pg_inherits AS i JOIN pg_class AS p ON p.oid = i.inhparent "
            "WHERE p.relkind IN ('p', 'I') AND p.relnamespace = (SELECT relnamespace FROM pg_class "
            "WHERE oid = CAST('messages' AS regclass))"
        )
    )
    # A new index beside an old one, and the TOAST tables.
    wanted = 2 * int(relations.scalar_one())
    setting = "current_setting('{}')::int"
    room = op.get_bind().execute(
        sa.text(
            f"SELECT {setting.format('max_locks_per_transaction')} * ({setting.format('max_connections')} + "
            f"{setting.format('max_prepared_transactions')}), {setting.format('max_connections')}"
        )
    )
    locks, connections = room.one()
    if wanted > locks:
        raise RuntimeError(
            f"schema 0007 needs some {wanted} locks at once and the server has room for {locks}: set "
            f"max_locks_per_transaction = {1 + wanted // connections} in postgresql.conf, restart the server, and run "
            "awry db upgrade again; it may be set back afterwards"
        )


def _key(table: str, columns: tuple[str, ...]) -> None:
    quoted = ", ".join(f'"{c}"' for c in columns)
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT pk_{table}, ADD CONSTRAINT pk_{table} PRIMARY KEY ({quoted})")


def _flagged_index(*include: str) -> None:
    op.drop_index("ix_scores_flagged", table_name="scores")
    op.create_index(
        "ix_scores_flagged",
        "scores",
        ["probe", "created_at"],
        postgresql_where=sa.text("flagged"),
        postgresql_include=list(include),
    )


def _window_scores() -> None:
    op.execute(
        'CREATE TABLE window_scores (source text NOT NULL, partition integer NOT NULL, "offset" bigint NOT NULL, '
        'sub integer NOT NULL, probe text NOT NULL, "window" smallint NOT NULL, day date NOT NULL, '
        "first_token integer NOT NULL, tokens integer NOT NULL, score double precision NOT NULL, "
        'CONSTRAINT pk_window_scores PRIMARY KEY (source, partition, "offset", sub, probe, "window", day)) '
        "PARTITION BY RANGE (day)"
    )
    op.execute("CREATE TABLE window_scores_default PARTITION OF window_scores DEFAULT")


def _scopes(scopes: str) -> None:
    op.drop_constraint(op.f("ck_api_tokens_scope"), "api_tokens")
    op.create_check_constraint(op.f("ck_api_tokens_scope"), "api_tokens", f"scope IN ({scopes})")


def _has_reader() -> bool:
    return bool(op.get_bind().execute(sa.text("SELECT 1 FROM pg_roles WHERE rolname = 'awry_reader'")).scalar())
