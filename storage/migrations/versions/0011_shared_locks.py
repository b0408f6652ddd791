"""locks are rows of a table, which a role that only reads cannot take

Advisory locks are open to every role that may connect: one that may only read could hold up all workers by them.
Processes of an earlier version still take those, so workers of the two versions would not exclude each other: stop the
earlier ones first.

Where the role owns the database, temporary tables are taken from PUBLIC: they would fill the server's disk. What only a
superuser can take away is in deploy/postgres/roles.sql.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = "a new table; at once, but workers of the version before exclude each other in another way: stop them first"

# As storage.locks has them.
LOCKS = (0x41575250, 0x41575252, 0x41575253, 0x41575255)

NO_TEMPORARY_TABLES = """
DO $$ BEGIN
    IF (SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()) THEN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
END $$
"""


def upgrade() -> None:
    locks = op.create_table(
        "locks",
        sa.Column("key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_locks")),
    )
    op.bulk_insert(locks, [{"key": key} for key in LOCKS])
    op.execute(NO_TEMPORARY_TABLES)


def downgrade() -> None:
    op.drop_table("locks")
