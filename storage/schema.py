"""The tables. One dialect: PostgreSQL.

A message is known by its coordinates: (source, partition, offset), which for Kafka are topic, partition and offset,
for JSON lines the source's name, 0 and the byte offset. `day` is the message's own day where it has a timestamp,
else the day of first ingest; it never changes once written. Scores are in class gaps.

What grows with traffic (`BY_DAY`) is partitioned by `day`: one partition a day near today, and a default partition for
all other days (`storage.partitions`). PostgreSQL wants the day in every key then, so the tables alone no longer refuse
coordinates that come again on another day: the one writer does.

Privacy: `text` columns are NULL unless the owner chose `full`; the hashes beside them are NULL under `none`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

STATUSES = ("scored", "truncated", "skipped", "invalid", "failed")


def _coordinates() -> list[Column[object]]:
    return [
        Column("source", Text, primary_key=True),
        Column("partition", Integer, primary_key=True),
        Column("offset", BigInteger, primary_key=True),
    ]


def _day() -> Column[object]:
    return Column("day", Date, primary_key=True)


def _now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


messages = Table(
    "messages",
    metadata,
    *_coordinates(),
    # Part of the key: other content at known coordinates (a recreated topic) is a row of its own, marked failed.
    Column("payload_sha256", Text, primary_key=True),
    _day(),
    Column("message_id", Text),
    Column("tenant", Text),
    Column("user_id", Text),
    Column("model", Text),
    Column("conversation_id", Text),
    Column("sent_at", DateTime(timezone=True)),
    _now("ingested_at"),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("tokens", Integer),
    # Python's None is NULL here, not JSON's null, which `IS NULL` would not find.
    Column("text", JSONB(none_as_null=True)),
    Column("text_sha256", Text),
    Column("attributes", JSONB(none_as_null=True)),
    CheckConstraint(f"status IN {STATUSES!r}", name="status"),
    Index(None, "day"),
    Index(None, "message_id"),
    Index(None, "tenant", "day"),
    postgresql_partition_by="RANGE (day)",
)

scores = Table(
    "scores",
    metadata,
    *_coordinates(),
    Column("probe", Text, primary_key=True),
    Column("probe_version", Integer, nullable=False),
    _day(),
    Column("score", Double, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("flagged", Boolean, nullable=False),
    _now("created_at"),
    Index(None, "probe", "created_at"),
    Index("ix_scores_flagged", "probe", "created_at", postgresql_where=text("flagged")),
    postgresql_partition_by="RANGE (day)",
)

head_scores = Table(
    "head_scores",
    metadata,
    *_coordinates(),
    Column("probe", Text, primary_key=True),
    Column("layer", SmallInteger, primary_key=True),
    Column("head", SmallInteger, primary_key=True),
    _day(),
    Column("score", Double, nullable=False),
    postgresql_partition_by="RANGE (day)",
)

answers = Table(
    "answers",
    metadata,
    *_coordinates(),
    Column("kind", Text, primary_key=True),
    _day(),
    Column("recipe", Text),
    Column("tokens", Integer, nullable=False),
    Column("text", Text),
    Column("text_sha256", Text),
    _now("created_at"),
    CheckConstraint("kind IN ('plain', 'mitigated')", name="kind"),
    postgresql_partition_by="RANGE (day)",
)

BY_DAY = (messages, scores, head_scores, answers)

probes = Table(
    "probes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("safetensors_sha256", Text, nullable=False),
    Column("card", JSONB, nullable=False),
    _now("registered_at"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("dedup_key", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("probe", Text, nullable=False),
    Column("tenant", Text),
    Column("model", Text),
    Column("severity", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("top_score", Double, nullable=False),
    Column("threshold", Double, nullable=False),
    # Coordinates of the first message and of the one with the highest score.
    Column("first_message", JSONB, nullable=False),
    Column("top_message", JSONB, nullable=False),
    _now("opened_at"),
    _now("last_seen_at"),
    Column("resolved_at", DateTime(timezone=True)),
    CheckConstraint("state IN ('open', 'acknowledged', 'silenced', 'resolved')", name="state"),
    # One alert a dedup key that is not resolved, whatever the number of workers.
    Index("ix_alerts_one_live", "dedup_key", unique=True, postgresql_where=text("state <> 'resolved'")),
    Index(None, "opened_at"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("alert_id", Uuid, ForeignKey("alerts.id"), nullable=False),
    Column("destination", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("body", JSONB, nullable=False),
    _now("created_at"),
    _now("due_at"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("delivered_at", DateTime(timezone=True)),
    Column("dead_at", DateTime(timezone=True)),
    Column("last_error", Text),
    Index(
        "ix_outbox_pending",
        "destination",
        "due_at",
        postgresql_where=text("delivered_at IS NULL AND dead_at IS NULL"),
    ),
)
