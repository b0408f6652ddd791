"""probes are registered, promoted and retired; tokens may be for `awry score-server`

Small tables only; it takes no time. On the way back tokens of the scope `score` are deleted, and the registry's files
with it: write them out before (`awry probes show NAME --out DIR`).
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = "at once: tables with a row for each probe"


def upgrade() -> None:
    _scopes("'read', 'act', 'ingest', 'score'")
    op.create_table(
        "registered_probes",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("card", sa.LargeBinary(), nullable=False),
        sa.Column("tensors", sa.LargeBinary(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("added_by", sa.Text(), nullable=False),
        sa.Column("staged_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("live_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "stage IN ('registered', 'shadow', 'live', 'retired')", name=op.f("ck_registered_probes_stage")
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_registered_probes")),
    )
    op.create_index("uq_registered_probes_name_version", "registered_probes", ["name", "version"], unique=True)
    op.create_index(
        "uq_registered_probes_live",
        "registered_probes",
        ["name"],
        unique=True,
        postgresql_where=sa.text("stage = 'live'"),
    )


def downgrade() -> None:
    op.drop_table("registered_probes")
    op.execute("DELETE FROM api_tokens WHERE scope = 'score'")
    _scopes("'read', 'act', 'ingest'")


def _scopes(scopes: str) -> None:
    op.drop_constraint(op.f("ck_api_tokens_scope"), "api_tokens")
    op.create_check_constraint(op.f("ck_api_tokens_scope"), "api_tokens", f"scope IN ({scopes})")
