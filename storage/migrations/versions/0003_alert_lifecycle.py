"""alert lifecycle

Silences, verdicts, the messages of each alert, the audit of changes, what rules remember, and what workers say of
themselves. Nothing is copied; the one index on a table that grows (messages that have no score) is made while writers
wait. Alerts that are open stay open; of messages that were flagged before, only the first and the top one are known.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = "new tables and columns; an index on messages is built while writers wait: some 10 seconds"

NEW_TABLES = ("workers", "rule_states", "audit", "silences", "alert_messages")
NEW_COLUMNS = (
    "kind",
    "conversation_id",
    "units",
    "acknowledged_at",
    "acknowledged_by",
    "silenced_at",
    "silenced_until",
    "silenced_severity",
    "resolved_by",
    "reopened",
    "verdict",
    "verdict_at",
    "verdict_by",
)
MAYBE_NONE = ("probe", "first_message", "top_message")


def upgrade() -> None:
    op.add_column("scores", sa.Column("shadow", sa.Boolean(), nullable=True))
    op.create_index(
        "ix_messages_unscored",
        "messages",
        ["ingested_at"],
        postgresql_where=sa.text("status IN ('skipped', 'invalid', 'failed')"),
    )
    _alerts()
    _made_by_people()
    _kept_by_rules()


def downgrade() -> None:
    for table in NEW_TABLES:
        op.drop_table(table)
    op.drop_index("ix_alerts_dedup_key_resolved_at", table_name="alerts")
    for name in ("kind", "verdict"):
        op.drop_constraint(f"ck_alerts_{name}", "alerts")
    # The older schema knows no alert without a probe.
    op.execute("DELETE FROM outbox WHERE alert_id IN (SELECT id FROM alerts WHERE kind <> 'threshold')")
    op.execute("DELETE FROM alerts WHERE kind <> 'threshold'")
    for column in NEW_COLUMNS:
        op.drop_column("alerts", column)
    for column in MAYBE_NONE:
        op.alter_column("alerts", column, nullable=False)
    op.drop_index("ix_messages_unscored", table_name="messages")
    op.drop_column("scores", "shadow")


def _time(name: str, *, now: bool = False) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()") if now else None, nullable=not now
    )


def _text(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _alerts() -> None:
    for column in MAYBE_NONE:
        op.alter_column("alerts", column, nullable=True)
    for added in (
        sa.Column("kind", sa.Text(), server_default="threshold", nullable=False),
        _text("conversation_id"),
        sa.Column("units", sa.Text(), server_default="class gaps", nullable=False),
        _time("acknowledged_at"),
        _text("acknowledged_by"),
        _time("silenced_at"),
        _time("silenced_until"),
        _text("silenced_severity"),
        _text("resolved_by"),
        sa.Column("reopened", sa.Integer(), server_default="0", nullable=False),
        _text("verdict"),
        _time("verdict_at"),
        _text("verdict_by"),
    ):
        op.add_column("alerts", added)
    op.create_check_constraint(op.f("ck_alerts_kind"), "alerts", "kind IN ('threshold', 'rate', 'monitor')")
    op.create_check_constraint(op.f("ck_alerts_verdict"), "alerts", "verdict IN ('true', 'false', 'authorised_test')")
    op.create_index("ix_alerts_dedup_key_resolved_at", "alerts", ["dedup_key", "resolved_at"])
    op.create_table(
        "alert_messages",
        sa.Column("alert_id", sa.Uuid(), nullable=False),
        _text("source", nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        _text("message_id"),
        sa.Column("score", sa.Double(), nullable=False),
        _time("added_at", now=True),
        sa.ForeignKeyConstraint(
            ["alert_id"], ["alerts.id"], name=op.f("fk_alert_messages_alert_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("alert_id", "source", "partition", "offset", name=op.f("pk_alert_messages")),
    )
    op.create_index("ix_alert_messages_alert_id_score", "alert_messages", ["alert_id", "score"])
    op.create_index("ix_alert_messages_day", "alert_messages", ["day"])


def _made_by_people() -> None:
    op.create_table(
        "silences",
        sa.Column("id", sa.Uuid(), nullable=False),
        *(_text(name) for name in ("dedup_key", "rule", "probe", "tenant", "model")),
        _text("severity", nullable=False),
        _time("starts_at", now=True),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        _text("comment", nullable=False),
        _text("created_by", nullable=False),
        _time("created_at", now=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_silences")),
    )
    op.create_index("ix_silences_ends_at", "silences", ["ends_at"])
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _time("at", now=True),
        _text("who", nullable=False),
        _text("via", nullable=False),
        _text("origin"),
        _text("action", nullable=False),
        sa.Column("alert_id", sa.Uuid(), nullable=True),
        sa.Column("silence_id", sa.Uuid(), nullable=True),
        sa.Column("before", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("after", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_alert_id", "audit", ["alert_id"])
    op.create_index("ix_audit_at", "audit", ["at"])


def _kept_by_rules() -> None:
    op.create_table(
        "rule_states",
        _text("dedup_key", nullable=False),
        _text("rule", nullable=False),
        _text("phase", nullable=False),
        sa.Column("held_seconds", sa.Double(), nullable=False),
        _text("severity"),
        sa.Column("alert_id", sa.Uuid(), nullable=True),
        sa.Column("subject", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("evaluated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("dedup_key", name=op.f("pk_rule_states")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid(), nullable=False),
        _text("name", nullable=False),
        _text("source", nullable=False),
        _time("started_at", now=True),
        _time("seen_at", now=True),
        _time("stored_at"),
        sa.Column("lag", sa.BigInteger(), nullable=True),
        _text("lag_unit"),
        sa.Column("oldest_seconds", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
