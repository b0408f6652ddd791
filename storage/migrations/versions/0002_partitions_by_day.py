"""partitions by day

The four tables that grow with traffic become partitioned tables: their rows are copied, so it takes as long, and for
its duration as much disk, as the tables are large, and awry stands still meanwhile. Grants on a table go with it; a
view that an owner made on one refuses the migration by name, with nothing changed.
"""

from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import ReflectedColumn

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = (
    "copies messages, scores, head scores and answers into partitioned tables: stop the workers; some 10 "
    "minutes, and as much free disk as the tables take"
)

# The key without the day, and the indexes.
TABLES = {
    "messages": 'source, partition, "offset", payload_sha256',
    "scores": 'source, partition, "offset", probe',
    "head_scores": 'source, partition, "offset", probe, layer, head',
    "answers": 'source, partition, "offset", kind',
}
INDEXES = {
    "ix_messages_day": "messages (day)",
    "ix_messages_message_id": "messages (message_id)",
    "ix_messages_tenant_day": "messages (tenant, day)",
    "ix_scores_probe_created_at": "scores (probe, created_at)",
    "ix_scores_flagged": "scores (probe, created_at) WHERE flagged",
}
# Days with a partition of their own, newest first; older rows stay in the default partition, from which retention
# deletes them. All partitions are made in one transaction, and each holds several of the server's locks until its end.
MOST_DAYS = 100


def upgrade() -> None:
    for table in TABLES:
        _rebuild(table, partitioned=True)


def downgrade() -> None:
    for table in TABLES:
        _rebuild(table, partitioned=False)


def _rebuild(table: str, *, partitioned: bool) -> None:
    old = f"{table}_old"
    op.execute(f"ALTER TABLE {table} RENAME TO {old}")
    how = "PARTITION BY RANGE (day)" if partitioned else ""
    op.execute(f"CREATE TABLE {table} (LIKE {old} INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS) {how}")
    _grant(old, table)
    # Their names are wanted for the new ones.
    op.execute(f"ALTER TABLE {old} DROP CONSTRAINT pk_{table}")
    indexes = {name: on for name, on in INDEXES.items() if on.startswith(f"{table} (")}
    for name in indexes:
        op.execute(f"DROP INDEX {name}")
    if partitioned:
        op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
        for day in _days(old):
            op.execute(
                f"CREATE TABLE {table}_{day:%Y%m%d} PARTITION OF {table} "
                f"FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
            )
    columns = [_kept(c) for c in sa.inspect(op.get_bind()).get_columns(old)]
    op.execute(f"INSERT INTO {table} SELECT {', '.join(columns)} FROM {old}")  # noqa: S608
    # After the rows: an index is made faster than it grows.
    key = TABLES[table] + (", day" if partitioned else "")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} PRIMARY KEY ({key})")
    for name, on in indexes.items():
        op.execute(f"CREATE INDEX {name} ON {on}")
    op.execute(f"DROP TABLE {old}")


def _kept(column: ReflectedColumn) -> str:
    """A column as it is copied. The first schema's writer wrote JSON's null where it meant NULL."""
    name = f'"{column["name"]}"'
    return f"NULLIF({name}, 'null')" if isinstance(column["type"], postgresql.JSONB) else name


def _days(table: str) -> list[date]:
    """The days near today that have rows, the newest MOST_DAYS of them."""
    today = datetime.now(UTC).date()
    near = "day BETWEEN :first AND :last"
    found = op.get_bind().execute(
        sa.text(f"SELECT DISTINCT day FROM {table} WHERE {near} ORDER BY day DESC LIMIT :most"),  # noqa: S608
        {"first": today - timedelta(days=400), "last": today + timedelta(days=8), "most": MOST_DAYS},
    )
    return list(found.scalars())


def _grant(old: str, new: str) -> None:
    """What roles may do with the old table they may do with the new one."""
    rights = op.get_bind().execute(
        sa.text(
            "SELECT a.privilege_type, a.is_grantable, "
            "CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role "
            "FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE c.oid = CAST(:old AS regclass)"
        ),
        {"old": old},
    )
    for right, passing_on, role in rights.all():
        op.execute(f"GRANT {right} ON {new} TO {role}{' WITH GRANT OPTION' if passing_on else ''}")
