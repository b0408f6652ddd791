"""delivery: pages of many events, order, and what is known of destinations

A delivery that was tried before stays a page of its own, so that its receiver still knows it by its id.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = "the outbox alone: seconds; stop awry send"

PENDING = "delivered_at IS NULL AND dead_at IS NULL"
WAITING = f"page_id IS NULL AND group_key IS NOT NULL AND {PENDING}"
PARTIAL = {
    "ix_outbox_unsorted": (("seq",), f"group_key IS NULL AND {PENDING}"),
    "ix_outbox_waiting": (("due_at", "seq"), WAITING),
    "ix_outbox_groups": (("group_key", "seq"), WAITING),
    "ix_outbox_pages": (("due_at", "seq"), f"page_id = id AND {PENDING}"),
    "ix_outbox_open_pages": (("group_key",), f"page_id = id AND {PENDING}"),
}
WHOLE = ("ix_outbox_destination_group_key_formed_at", "ix_outbox_page_id", "ix_outbox_alert_id")
COLUMNS = ("seq", "group_key", "page_id", "page", "formed_at", "claim_id", "refusals")


def upgrade() -> None:
    op.add_column("outbox", sa.Column("seq", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE outbox AS o SET seq = w.n FROM "
        "(SELECT id, row_number() OVER (ORDER BY created_at, id) AS n FROM outbox) AS w WHERE o.id = w.id"
    )
    op.alter_column("outbox", "seq", nullable=False)
    op.execute("ALTER TABLE outbox ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY")
    op.execute("SELECT setval(pg_get_serial_sequence('outbox', 'seq'), (SELECT count(*) + 1 FROM outbox), false)")
    op.add_column("outbox", sa.Column("group_key", sa.Text(), nullable=True))
    op.add_column("outbox", sa.Column("page_id", sa.Uuid(), nullable=True))
    op.add_column("outbox", sa.Column("page", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column("outbox", sa.Column("formed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("outbox", sa.Column("claim_id", sa.Uuid(), nullable=True))
    op.add_column("outbox", sa.Column("refusals", sa.Integer(), server_default="0", nullable=False))
    op.execute(
        "UPDATE outbox SET page_id = id, page = body, formed_at = created_at, group_key = 'before 0004: ' || id "
        "WHERE attempts > 0"
    )
    for name, (columns, which) in PARTIAL.items():
        op.create_index(name, "outbox", ["destination", *columns], postgresql_where=sa.text(which))
    op.create_index("ix_outbox_destination_group_key_formed_at", "outbox", ["destination", "group_key", "formed_at"])
    op.create_index("ix_outbox_page_id", "outbox", ["page_id"])
    op.create_index("ix_outbox_alert_id", "outbox", ["alert_id"])
    op.create_table(
        "destinations",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refreshed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_destinations")),
    )


def downgrade() -> None:
    op.drop_table("destinations")
    for index in (*PARTIAL, *WHOLE):
        op.drop_index(index, table_name="outbox")
    for column in COLUMNS:
        op.drop_column("outbox", column)
