"""tokens of one tenant, sessions of the web pages

A token may name a tenant. The cookie of the web pages holds the secret of a session, whose digest is here, and no
longer that of the token. What a token of a tenant may see is held by row-level security, which `storage.tenant_access`
sets up after every upgrade: it needs a role, which a later upgrade may be the first to be allowed to make.

No row is rewritten. On the way back tokens of a tenant are revoked, since nothing would hold them to it, and everybody
who is signed in has to sign in again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = "new tables, a column of api_tokens, policies on tables: exclusive locks for a moment, no row is read"

# As `storage.tenant_access` makes them.
POLICIES = ("awry_all", "awry_tenant")


def upgrade() -> None:
    op.add_column("api_tokens", sa.Column("tenant", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_api_tokens_tenant"), "api_tokens", "tenant IS NULL OR (tenant <> '' AND scope IN ('read', 'act'))"
    )
    op.create_table(
        "web_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("token_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("scope IN ('read', 'act')", name=op.f("ck_web_sessions_scope")),
        sa.ForeignKeyConstraint(
            ["token_id"], ["api_tokens.id"], name=op.f("fk_web_sessions_token_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_web_sessions")),
    )
    op.create_index("ix_web_sessions_secret", "web_sessions", ["secret_sha256"], unique=True)
    op.create_index("ix_web_sessions_expires_at", "web_sessions", ["expires_at"])
    op.create_table(
        "sign_ins",
        sa.Column("state_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("browser_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("verifier", sa.Text(), nullable=False),
        sa.Column("next", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("state_sha256", name=op.f("pk_sign_ins")),
    )
    op.create_index("ix_sign_ins_expires_at", "sign_ins", ["expires_at"])


def downgrade() -> None:
    _drop_policies()
    op.drop_table("sign_ins")
    op.drop_table("web_sessions")
    op.execute("UPDATE api_tokens SET revoked_at = now() WHERE tenant IS NOT NULL AND revoked_at IS NULL")
    op.drop_constraint(op.f("ck_api_tokens_tenant"), "api_tokens")
    op.drop_column("api_tokens", "tenant")


def _drop_policies() -> None:
    """Of every table that has them; and the rights of the role, which stays, since it belongs to the server."""
    connection = op.get_bind()
    found = connection.execute(
        sa.text(
            "SELECT DISTINCT format('%I.%I', schemaname, tablename) FROM pg_policies WHERE policyname = ANY(:names) "
            "AND format('%I.%I', schemaname, tablename)::regclass IN (SELECT oid FROM pg_class WHERE relnamespace = "
            "(SELECT relnamespace FROM pg_class WHERE oid = 'messages'::regclass))"
        ),
        {"names": list(POLICIES)},
    )
    for table in found.scalars().all():
        for policy in POLICIES:
            op.execute(f"DROP POLICY IF EXISTS {policy} ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY")
        op.execute(f"REVOKE ALL ON {table} FROM awry_tenant")
