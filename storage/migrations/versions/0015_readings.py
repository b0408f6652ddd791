"""readings that engines publish: what was read of each process of an engine, and what is missing

Three new tables; nothing of before changes. On the way back they go, and with them what was missing.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = "new tables; at once"

TABLES = ("reading_instances", "reading_gaps", "reading_partials")


def upgrade() -> None:
    op.create_table(
        "reading_instances",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("highest", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state IN ('live', 'closed', 'replaced', 'unwatched')", name=op.f("ck_reading_instances_state")
        ),
        sa.PrimaryKeyConstraint("source", "instance", name=op.f("pk_reading_instances")),
    )
    op.create_table(
        "reading_gaps",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=True),
        sa.Column("last", sa.BigInteger(), nullable=True),
        sa.Column("readings", sa.BigInteger(), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("filled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('hole', 'before', 'dropped', 'new_instance')", name=op.f("ck_reading_gaps_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reading_gaps")),
    )
    op.create_table(
        "reading_partials",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("sub", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("scores", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "instance", "message_id", name=op.f("pk_reading_partials")),
    )
    op.create_index("ix_reading_partials_day", "reading_partials", ["day"])
    op.create_index("ix_reading_gaps_source_instance", "reading_gaps", ["source", "instance"])
    op.create_index("ix_reading_gaps_counted_at", "reading_gaps", ["counted_at"])
    # Dashboards read what is missing; whose answers were flagged is the messages' to say.
    if op.get_bind().execute(sa.text("SELECT 1 FROM pg_roles WHERE rolname = 'awry_reader'")).scalar():
        op.execute(f"GRANT SELECT ON {', '.join(TABLES[:2])} TO awry_reader")


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
