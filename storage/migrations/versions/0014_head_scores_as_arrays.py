"""head scores are one array a message and probe, instead of a row a head

Every row of before is carried: which heads a message's rows named becomes its layout, whether or not the probe's card
is known; scores are rounded to 32 bits (seven digits). One partition after the other is read in the order of its key,
written anew and dropped, so that memory is bounded (WORK_MEM, and one message's heads) whatever their number; the disk
of the old rows is free at the end. Workers are to be stopped: one of before that goes on is refused by its first row,
and nothing that it read is committed.

A view or function of your own that names the columns layer, head or score of head_scores refuses the migration by its
name, with nothing changed: drop it first and make it again with the query of docs/find.md.

The way back makes a row a head again, with the shortest digits of the rounded scores.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = (
    "locks head_scores alone, for readers too, and writes its rows anew: stop the workers; at once without scores of "
    "heads; a hundred million of them take some 2 minutes, meanwhile with a twentieth of their disk more, and as much "
    "as the largest day has to sort it"
)

KEY = ("source", "partition", '"offset"', "sub", "probe", "probe_digest")
HEAD = ("layer", "head")
WORK_MEM = "64MB"
# Of a partition at the end of the transaction: the old one, dropped, with its index and perhaps its TOAST table with
# one, and the new one with all of them.
LOCKS_A_PARTITION = 8

LAYOUT = (
    "CAST(CAST('x' || left(encode(sha256(convert_to("
    "string_agg(layer || '.' || head, ',' ORDER BY layer, head), 'UTF8')), 'hex'), 16) AS bit(64)) AS bigint)"
)
# What is beyond the range of a real, above or below, PostgreSQL would refuse to convert.
LARGEST, SMALLEST = "3.4028234663852886e38", "1.1754943508222875e-38"
REAL = (
    f"CAST(CASE WHEN abs(score) < {SMALLEST} THEN 0 WHEN abs(score) < 'infinity' "
    f"THEN greatest(-{LARGEST}, least({LARGEST}, score)) ELSE score END AS real)"
)


def upgrade() -> None:
    _begin()
    op.create_table(
        "head_layouts",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("layers", sa.ARRAY(sa.SmallInteger()), nullable=False),
        sa.Column("heads", sa.ARRAY(sa.SmallInteger()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_head_layouts")),
    )
    if op.get_bind().execute(sa.text("SELECT 1 FROM pg_roles WHERE rolname = 'awry_reader'")).scalar():
        op.execute("GRANT SELECT ON head_layouts TO awry_reader")
    old = _set_aside()
    op.execute(
        "ALTER TABLE head_scores DROP CONSTRAINT pk_head_scores, DROP COLUMN layer, DROP COLUMN head, "
        "DROP COLUMN score, ADD COLUMN layout bigint NOT NULL, ADD COLUMN scores real[] NOT NULL, "
        f"ADD CONSTRAINT pk_head_scores PRIMARY KEY ({', '.join(KEY)}, day)"
    )
    op.execute("ALTER TABLE head_scores ALTER COLUMN scores SET STORAGE EXTERNAL")
    key = ", ".join(KEY)
    by_head = f"ORDER BY {', '.join(HEAD)}"
    for name, bounds in old.items():
        op.execute(f"CREATE TABLE {name} PARTITION OF head_scores {bounds}")
        op.execute(
            f"INSERT INTO {name} ({key}, day, layout, scores) "  # noqa: S608 - our own names
            f"SELECT {key}, day, {LAYOUT}, array_agg({REAL} {by_head}) FROM {name}_before GROUP BY {key}, day"
        )
        # Of each layout that is new, the rows of one message.
        op.execute(
            f"INSERT INTO head_layouts SELECT n.layout, array_agg(b.layer {by_head}), array_agg(b.head {by_head}) "  # noqa: S608
            f"FROM (SELECT DISTINCT ON (layout) {key}, day, layout FROM {name} "
            "WHERE layout NOT IN (SELECT id FROM head_layouts) ORDER BY layout) AS n "
            f"JOIN {name}_before AS b USING ({key}, day) GROUP BY n.layout"
        )
        op.execute(f"DROP TABLE {name}_before")


def downgrade() -> None:
    _begin()
    old = _set_aside()
    op.execute(
        "ALTER TABLE head_scores DROP CONSTRAINT pk_head_scores, DROP COLUMN layout, DROP COLUMN scores, "
        "ADD COLUMN layer smallint NOT NULL, ADD COLUMN head smallint NOT NULL, "
        "ADD COLUMN score double precision NOT NULL, "
        f"ADD CONSTRAINT pk_head_scores PRIMARY KEY ({', '.join((*KEY, *HEAD))}, day)"
    )
    key = ", ".join(KEY)
    for name, bounds in old.items():
        op.execute(f"CREATE TABLE {name} PARTITION OF head_scores {bounds}")
        op.execute(
            f"INSERT INTO {name} ({key}, day, layer, head, score) "  # noqa: S608
            f"SELECT {key}, day, e.layer, e.head, CAST(CAST(e.score AS text) AS double precision) "
            f"FROM {name}_before AS b JOIN head_layouts AS l ON l.id = b.layout "
            "CROSS JOIN unnest(l.layers, l.heads, b.scores) AS e (layer, head, score)"
        )
        op.execute(f"DROP TABLE {name}_before")
    op.drop_table("head_layouts")


def _begin() -> None:
    _check_locks()
    op.execute(f"SET LOCAL work_mem = '{WORK_MEM}'")
    # A hash of arrays that are not full yet would be all of a partition, in memory.
    op.execute("SET LOCAL enable_hashagg = off")


def _set_aside() -> dict[str, str]:
    """Detach all partitions and rename them NAME_before; their bounds by name."""
    rows = (
        op.get_bind()
        .execute(
            sa.text(
                "SELECT quote_ident(c.relname) AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds, "
                "quote_ident(k.conname) AS key FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
                "JOIN pg_constraint AS k ON k.conrelid = c.oid AND k.contype = 'p' "
                "WHERE i.inhparent = CAST('head_scores' AS regclass) ORDER BY c.relname"
            )
        )
        .all()
    )
    for row in rows:
        op.execute(f"ALTER TABLE head_scores DETACH PARTITION {row.name}")
        op.execute(f"ALTER TABLE {row.name} RENAME TO {row.name}_before")
        # The new partition's key is to have its name.
        op.execute(f"ALTER TABLE {row.name}_before RENAME CONSTRAINT {row.key} TO {row.name}_before_pkey")
    return {row.name: row.bounds for row in rows}


def _check_locks() -> None:
    """Refuse before anything is changed: half-way, the server would only say that it is out of shared memory. What an
    earlier migration of the same upgrade holds counts too."""
    connection = op.get_bind()

    def number(query: str) -> int:
        return int(connection.execute(sa.text(f"SELECT {query}")).scalar_one())

    partitions = number("count(*) FROM pg_inherits WHERE inhparent = CAST('head_scores' AS regclass)")
    held = number("count(*) FROM pg_locks WHERE pid = pg_backend_pid()")
    connections = number("current_setting('max_connections')::int")
    transactions = connections + number("current_setting('max_prepared_transactions')::int")
    locks = transactions * number("current_setting('max_locks_per_transaction')::int")
    wanted = LOCKS_A_PARTITION * partitions + held
    if wanted > locks:
        raise RuntimeError(
            f"schema 0014 needs some {wanted} locks at once and the server has room for {locks}: set "
            f"max_locks_per_transaction = {1 + wanted // connections} in postgresql.conf, restart the server, and run "
            "awry db upgrade again; it may be set back afterwards"
        )
