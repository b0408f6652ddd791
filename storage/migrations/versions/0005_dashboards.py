"""dashboards: rollups of scores, and a role that reads

The rollups start empty; the first awry that runs fills them, an hour of scores at a time. The indexes on messages and
scores are made while writers wait.

The role `awry_reader` cannot log in: grant it to one that can (deploy/postgres/roles.sql). Where awry may not make
roles and nobody else has made it, nothing is granted; docs/operations.md says what to run then. Roles belong to the
server and not to a database, so going back leaves it there, with no right on any of these tables.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = "indexes on messages and scores are built while writers wait: some 2 minutes; stop the workers"

# What dashboards read. Not among them: who changed what from where, and anything that lets somebody in.
READABLE = (
    "messages",
    "scores",
    "head_scores",
    "answers",
    "probes",
    "alerts",
    "alert_messages",
    "outbox",
    "destinations",
    "silences",
    "workers",
    "score_rollups",
    "score_histograms",
    "head_rollups",
    "rollup_state",
)

# Migrations of several databases on one server may run at once.
MAKE_ROLE = """
DO $$ BEGIN
    CREATE ROLE awry_reader NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
END $$
"""


def upgrade() -> None:
    op.drop_index("ix_messages_tenant_day", table_name="messages")
    op.create_index("ix_messages_tenant_ingested_at", "messages", ["tenant", "ingested_at"])
    op.create_index(
        "ix_messages_conversation_id_ingested_at",
        "messages",
        ["conversation_id", "ingested_at"],
        postgresql_where=sa.text("conversation_id IS NOT NULL"),
    )
    op.drop_index("ix_scores_flagged", table_name="scores")
    op.create_index(
        "ix_scores_flagged",
        "scores",
        ["probe", "created_at"],
        postgresql_where=sa.text("flagged"),
        postgresql_include=["source", "partition", "offset", "day"],
    )
    _rollups()
    op.execute(MAKE_ROLE)
    _for_reader("GRANT SELECT ON {tables} TO awry_reader")


def downgrade() -> None:
    _for_reader("REVOKE SELECT ON {tables} FROM awry_reader")
    for table in ("rollup_state", "head_rollups", "score_histograms", "score_rollups"):
        op.drop_table(table)
    op.drop_index("ix_scores_flagged", table_name="scores")
    op.create_index("ix_scores_flagged", "scores", ["probe", "created_at"], postgresql_where=sa.text("flagged"))
    op.drop_index("ix_messages_conversation_id_ingested_at", table_name="messages")
    op.drop_index("ix_messages_tenant_ingested_at", table_name="messages")
    op.create_index("ix_messages_tenant_day", "messages", ["tenant", "day"])


def _for_reader(statement: str) -> None:
    if op.get_bind().execute(sa.text("SELECT 1 FROM pg_roles WHERE rolname = 'awry_reader'")).scalar():
        op.execute(statement.format(tables=", ".join(READABLE)))


def _rollups() -> None:
    for table, texts, numbers in (
        ("score_rollups", ("tenant", "model"), ("n", "flagged", "*total", "*peak", "*threshold")),
        ("score_histograms", ("model", "bin"), ("n",)),
        ("head_rollups", ("layer", "head"), ("n", "*total", "flagged", "*flagged_total")),
    ):
        first = ("minutes",) if table == "score_rollups" else ()
        key = [*(f"{name} smallint" for name in first), "bucket timestamptz", "probe text", "probe_version integer"]
        key += [f"{name} {'text' if name in ('tenant', 'model') else 'smallint'}" for name in texts]
        key += [f"{name.removeprefix('*')} {'double precision' if '*' in name else 'integer'}" for name in numbers]
        columns = ", ".join(f"{column} NOT NULL" for column in key)
        primary = ", ".join((*first, "bucket", "probe", "probe_version", *texts))
        op.execute(f"CREATE TABLE {table} ({columns}, CONSTRAINT pk_{table} PRIMARY KEY ({primary}))")
    op.execute(
        "CREATE TABLE rollup_state (one boolean NOT NULL DEFAULT true, until timestamptz NOT NULL, "
        "at timestamptz NOT NULL DEFAULT now(), "
        "CONSTRAINT ck_rollup_state_one CHECK (one), CONSTRAINT pk_rollup_state PRIMARY KEY (one))"
    )
    op.execute("INSERT INTO rollup_state (until) VALUES ('-infinity')")
