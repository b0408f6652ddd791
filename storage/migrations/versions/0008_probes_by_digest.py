"""probes by the digest of their cards, and what is stored of readings, turns and a judge

A probe's key becomes the digest of its card; for cards of before it is computed from the stored card. Scores of before
get '' as the digest: which card they were made by is not known, since the first card of a name and version stayed. The
keys of what is stored by probe are made again, which takes as long as their indexes are large, while awry stands still.

Each partition with its indexes takes several of the server's locks until the end: where they would not be enough, the
migration says so before it changes anything.

On the way back a message keeps the latest score of each probe's name, and a name and version the card that came first.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# What it locks and how long it takes, on ten million messages (awry db upgrade --dry-run).
PLAN = "the keys of scores and sums are made again: stop the workers; some 5 minutes"

COORDINATES = ("source", "partition", "offset", "sub")
# By table: the columns of its key before and after the digest.
KEYS = {
    "scores": ((*COORDINATES, "probe"), ("day",)),
    "head_scores": ((*COORDINATES, "probe"), ("layer", "head", "day")),
    "window_scores": ((*COORDINATES, "probe"), ("window", "day")),
    "score_rollups": (("minutes", "bucket", "probe", "probe_version"), ("tenant", "model")),
    "score_histograms": (("bucket", "probe", "probe_version"), ("model", "bin")),
    "head_rollups": (("bucket", "probe", "probe_version"), ("layer", "head")),
}
# What the rollups of several digests are together.
SUMS = {
    "score_rollups": {"n": "sum", "flagged": "sum", "total": "sum", "peak": "max", "threshold": "max"},
    "score_histograms": {"n": "sum"},
    "head_rollups": {"n": "sum", "total": "sum", "flagged": "sum", "flagged_total": "sum"},
}
SCORE_COLUMNS = {
    "reading": "text",
    "turn_scores": "double precision[]",
    "top_turn": "smallint",
    "turn_new": "boolean",
    "trajectory": "double precision",
    "path_length": "double precision",
    "judge": "text",
    "judge_by": "text",
    "judge_at": "timestamptz",
    "judge_reason": "text",
}
MESSAGE_COLUMNS = {"unreadable": "real", "second_tokens": "integer"}
EXCEEDED = ("over95", "over99", "over999")


def upgrade() -> None:
    _check_locks()
    _digests_of_probes()
    _change("messages", *(f"ADD COLUMN {name} {type_}" for name, type_ in MESSAGE_COLUMNS.items()))
    # Those that are called unreadable: few, and counted by a rule on the monitor itself.
    few = sa.text("unreadable >= 0.3")
    op.create_index("ix_messages_unreadable", "messages", ["ingested_at"], postgresql_where=few)
    for table, (before, after) in KEYS.items():
        more = [f"ADD COLUMN {name} {type_}" for name, type_ in SCORE_COLUMNS.items()] if table == "scores" else []
        if table == "score_rollups":
            more = [f"ADD COLUMN {name} integer NOT NULL DEFAULT 0" for name in EXCEEDED]
        _change(
            table,
            f"DROP CONSTRAINT pk_{table}",
            "ADD COLUMN probe_digest text NOT NULL DEFAULT ''",
            *more,
            _key(table, (*before, "probe_digest", *after)),
        )
        # The writer names it always; the value stays for the rows that are there.
        _change(table, "ALTER COLUMN probe_digest DROP DEFAULT")
    words = "'waiting', 'harmful', 'harmless', 'failed', 'not asked'"
    op.create_check_constraint(op.f("ck_scores_judge"), "scores", f"judge IN ({words})")
    op.create_index("ix_scores_judged", "scores", ["created_at"], postgresql_where=sa.text("judge IS NOT NULL"))


def downgrade() -> None:
    same = " AND ".join(f'a."{name}" = b."{name}"' for name in (*COORDINATES, "day", "probe"))
    op.execute(
        f"DELETE FROM scores AS a USING scores AS b WHERE {same} "  # noqa: S608 - our own names
        "AND (b.created_at, b.probe_digest) > (a.created_at, a.probe_digest)"
    )
    for table in ("head_scores", "window_scores"):
        op.execute(f"DELETE FROM {table} AS a USING scores AS b WHERE {same} AND b.probe_digest <> a.probe_digest")  # noqa: S608
    op.drop_index("ix_scores_judged", table_name="scores")
    op.drop_constraint(op.f("ck_scores_judge"), "scores")
    for table, (before, after) in KEYS.items():
        key = ", ".join((*before, *after))
        if table in SUMS:
            sums = ", ".join(f"{function}({name}) AS {name}" for name, function in SUMS[table].items())
            op.execute(
                f"CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT {key}, {sums} FROM {table} GROUP BY {key}"  # noqa: S608
            )
            op.execute(f"TRUNCATE {table}")
        dropped = ["probe_digest"]
        dropped += list(SCORE_COLUMNS) if table == "scores" else EXCEEDED if table == "score_rollups" else []
        _change(
            table,
            f"DROP CONSTRAINT pk_{table}",
            *(f"DROP COLUMN {name}" for name in dropped),
            _key(table, (*before, *after)),
        )
        if table in SUMS:
            op.execute(f"INSERT INTO {table} ({key}, {', '.join(SUMS[table])}) SELECT * FROM kept")  # noqa: S608
            op.execute("DROP TABLE kept")
    op.drop_index("ix_messages_unreadable", table_name="messages")
    _change("messages", *(f"DROP COLUMN {name}" for name in MESSAGE_COLUMNS))
    op.execute(
        "DELETE FROM probes AS a USING probes AS b WHERE a.name = b.name AND a.version = b.version "
        "AND (b.registered_at, b.digest) < (a.registered_at, a.digest)"
    )
    _change("probes", "DROP CONSTRAINT pk_probes", "DROP COLUMN digest", _key("probes", ("name", "version")))


def _change(table: str, *changes: str) -> None:
    op.execute(f"ALTER TABLE {table} {', '.join(changes)}")


def _key(table: str, columns: tuple[str, ...]) -> str:
    quoted = ", ".join(f'"{name}"' for name in columns)
    return f"ADD CONSTRAINT pk_{table} PRIMARY KEY ({quoted})"


def _digests_of_probes() -> None:
    _change("probes", "ADD COLUMN digest text")
    probes = sa.table(
        "probes",
        *(sa.column(name, type_) for name, type_ in (("name", sa.Text()), ("version", sa.Integer()))),
        *(sa.column(name, sa.Text()) for name in ("safetensors_sha256", "digest")),
        sa.column("card", postgresql.JSONB()),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(probes)).all():
        # A card of ours has all three; what stands for one in a table that was filled otherwise may not.
        about = {"name": row.name, "version": row.version, "safetensors_sha256": row.safetensors_sha256}
        digest = _card_digest({**about, **(row.card if isinstance(row.card, dict) else {})})
        connection.execute(
            sa.update(probes).where(probes.c.name == row.name, probes.c.version == row.version).values(digest=digest)
        )
    _change("probes", "DROP CONSTRAINT pk_probes", _key("probes", ("digest",)))


def _card_digest(card: Mapping[str, Any]) -> str:
    """As `probes.hashing.card_digest` had it when this was written: a migration stands alone, and must not change."""
    kept = {k: v for k, v in card.items() if k not in ("description", "evaluation", "attacks", "created")}
    identity = kept.get("identity")
    if isinstance(identity, Mapping) and identity.get("special_tokens") == "as_tokens":
        kept["identity"] = {k: v for k, v in identity.items() if k != "special_tokens"}
    return hashlib.sha256(json.dumps(_plain(kept), sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        plain = {key: _plain(each) for key, each in value.items()}
        return {key: each for key, each in plain.items() if each is not None and each not in ({}, [])}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_locks() -> None:
    """Refuse before anything is changed: half-way, the server would only say that it is out of shared memory. What an
    earlier migration of the same upgrade holds counts too."""
    connection = op.get_bind()

    def number(query: str) -> int:
        return int(connection.execute(sa.text(f"SELECT {query}")).scalar_one())

    relations = number(
        "count(*) FROM pg_inherits AS i JOIN pg_class AS p ON p.oid = i.inhparent WHERE p.relkind IN ('p', 'I') "
        "AND p.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = CAST('messages' AS regclass))"
    )
    held = number("count(*) FROM pg_locks WHERE pid = pg_backend_pid()")
    connections = number("current_setting('max_connections')::int")
    transactions = connections + number("current_setting('max_prepared_transactions')::int")
    locks = transactions * number("current_setting('max_locks_per_transaction')::int")
    # A new index beside an old one, and the TOAST tables.
    wanted = 2 * relations + held
    if wanted > locks:
        raise RuntimeError(
            f"schema 0008 needs some {wanted} locks at once and the server has room for {locks}: set "
            f"max_locks_per_transaction = {1 + wanted // connections} in postgresql.conf, restart the server, and run "
            "awry db upgrade again; it may be set back afterwards"
        )
