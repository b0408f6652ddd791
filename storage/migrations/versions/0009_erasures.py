"""what was erased is remembered without saying whose it was, and messages are found by any name

Two tables for erasures, and four indexes for the search. The indexes are only declared here: `storage.index_builds`
builds them after the upgrade, a partition at a time, while workers write.

On the way back the tombstones go: what was erased comes back when its source delivers it again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = (
    "new tables; indexes are declared at once, and built afterwards a partition at a time while workers write: "
    "half a minute to some minutes"
)

# Name -> table, columns, predicate.
INDEXES = {
    "ix_messages_user_id_ingested_at": ("messages", "user_id, ingested_at", "user_id IS NOT NULL"),
    "ix_messages_ingested_at": ("messages", "ingested_at", None),
    "ix_messages_status_ingested_at": ("messages", "status, ingested_at", "status <> 'scored'"),
    "ix_scores_probe_score": ("scores", "probe, score", None),
}


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("value_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("messages", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("kind IN ('user', 'tenant', 'id', 'conversation')", name=op.f("ck_erasures_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
    )
    op.create_table(
        "erased_messages",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("sub", sa.Integer(), nullable=False),
        sa.Column("payload_sha256", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("ingested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("conflict", sa.Boolean(), nullable=False),
        sa.Column("erasure_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint(
            "source", "partition", "offset", "sub", "payload_sha256", name=op.f("pk_erased_messages")
        ),
    )
    for name, (table, columns, where) in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON ONLY {table} ({columns})" + (f" WHERE {where}" if where else ""))


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
    op.drop_table("erased_messages")
    op.drop_table("erasures")
