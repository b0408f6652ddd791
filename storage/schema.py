"""The tables. One dialect: PostgreSQL.

A message is known by its coordinates: (source, partition, offset, sub), which for Kafka are topic, partition and
offset, for JSON lines the source's name, 0 and the byte offset; `sub` counts the messages within one record. A topic
that was deleted and made again, or another file of the same name, is another log and gets a source name of its own
(the table `sources`). `day` is the message's own day where it has a timestamp, else the day of first ingest; it never
changes once written. Scores are in class gaps.

A probe is known by the digest of its card (`probes.digest`); name and version are what people call it, and several
digests may share them. `probe_digest` is '' in rows from before there was one: the digest is unknown, and such scores
calibrate nothing and are compared with nothing.

What grows with traffic (`BY_DAY`) is partitioned by `day`: one partition a day near today, and a default partition for
all other days (`storage.partitions`). PostgreSQL wants the day in every key then, so the tables alone no longer refuse
coordinates that come again on another day: the one writer does.

Privacy: `text` columns are NULL unless the owner chose `full`; the hashes beside them are NULL under `none`.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
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

# The share of a text from which a message is called unreadable, as `probes.hidden` measured it; and such messages.
UNREADABLE_FROM = 0.3
UNREADABLE = f"unreadable >= {UNREADABLE_FROM}"
STATUSES = ("scored", "truncated", "skipped", "invalid", "failed")
# What a judge, a language model that is asked where a score is uncertain, says of it; NULL: it was not to be asked.
JUDGE = ("waiting", "harmful", "harmless", "failed", "not asked")


def _coordinates() -> list[Column[object]]:
    return [
        Column("source", Text, primary_key=True),
        Column("partition", Integer, primary_key=True),
        Column("offset", BigInteger, primary_key=True),
        # Which message of its record; 0 for a record that is one message.
        Column("sub", Integer, primary_key=True),
    ]


def _day() -> Column[object]:
    return Column("day", Date, primary_key=True)


def _digest() -> Column[object]:
    """Of the probe that scored; '' where it is unknown."""
    return Column("probe_digest", Text, primary_key=True)


def _now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


messages = Table(
    "messages",
    metadata,
    *_coordinates(),
    # Part of the key: other content at known coordinates of a source without an identity is a row of its own, failed.
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
    # The format that the payload was read as, and the sender's trace.
    Column("format", Text),
    Column("trace_id", Text),
    # `template`, or `adapted` where the model's template refused the conversation as it was; what was adapted or
    # dropped is in `notes`, in closed wording without any text of the message.
    Column("rendered", Text),
    Column("notes", JSONB(none_as_null=True)),
    # Parts without text by kind ({"image": 2}), and control tokens in the content.
    Column("unread", JSONB(none_as_null=True)),
    Column("special_tokens", Integer),
    # Why the message was not read whole (`length`, `media`, `length,media`); NULL when it was. Over-long ones were read
    # in so many windows.
    Column("partial", Text),
    Column("windows", Integer),
    # The share of its text that the tokenizer can make no sense of; tokens of its second readings.
    Column("unreadable", REAL),
    Column("second_tokens", Integer),
    CheckConstraint(f"status IN {STATUSES!r}", name="status"),
    CheckConstraint("rendered IN ('template', 'adapted')", name="rendered"),
    Index(None, "day"),
    Index(None, "message_id"),
    # Of a tenant, or a conversation, the latest.
    Index(None, "tenant", "ingested_at"),
    Index(None, "conversation_id", "ingested_at", postgresql_where=text("conversation_id IS NOT NULL")),
    Index(None, "user_id", "ingested_at", postgresql_where=text("user_id IS NOT NULL")),
    # The latest of all; and those of a status that few have.
    Index(None, "ingested_at"),
    Index(None, "status", "ingested_at", postgresql_where=text("status <> 'scored'")),
    # Messages without a score: few, and counted by rules on the monitor itself.
    Index(
        "ix_messages_unscored",
        "ingested_at",
        postgresql_where=text("status IN ('skipped', 'invalid', 'failed')"),
    ),
    Index("ix_messages_partial", "ingested_at", postgresql_where=text("partial IS NOT NULL")),
    Index("ix_messages_unreadable", "ingested_at", postgresql_where=text(UNREADABLE)),
    postgresql_partition_by="RANGE (day)",
)

scores = Table(
    "scores",
    metadata,
    *_coordinates(),
    Column("probe", Text, primary_key=True),
    _digest(),
    Column("probe_version", Integer, nullable=False),
    _day(),
    Column("score", Double, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("flagged", Boolean, nullable=False),
    # True where the probe opened no alerts (shadow mode, a replay): rate rules skip the row. NULL is false.
    Column("shadow", Boolean),
    # How the text was read where that decided the score: `normalised`, `base64`, `window` ...; NULL: as it is.
    Column("reading", Text),
    # Of a conversation: the highest value of each turn (NULL within where a turn has none), the turn with the highest
    # one, counted from 0, whether that turn is new in this message, the running maximum over turns with decay, and the
    # length of the path over turns.
    Column("turn_scores", ARRAY(Double)),
    Column("top_turn", SmallInteger),
    Column("turn_new", Boolean),
    Column("trajectory", Double),
    Column("path_length", Double),
    # The verdict of a judge, who it is, when it came and why, in closed wording without any text of the message.
    Column("judge", Text),
    Column("judge_by", Text),
    Column("judge_at", DateTime(timezone=True)),
    Column("judge_reason", Text),
    _now("created_at"),
    CheckConstraint(f"judge IN {JUDGE!r}", name="judge"),
    Index(None, "probe", "created_at"),
    # Those within a range of scores, where they are few.
    Index(None, "probe", "score"),
    # Finds the flagged scores of a time range in the index alone.
    Index(
        "ix_scores_flagged",
        "probe",
        "created_at",
        postgresql_where=text("flagged"),
        postgresql_include=["source", "partition", "offset", "sub", "day"],
    ),
    # Few, at most a judge's budget of a day: those that wait for it, and what it said.
    Index("ix_scores_judged", "created_at", postgresql_where=text("judge IS NOT NULL")),
    postgresql_partition_by="RANGE (day)",
)

# The scores of a message's heads under one probe: one array, whose n-th number is that of the n-th head of its layout.
# It is a table beside `scores`, whose rows stay small: the most are read for their score alone.
head_scores = Table(
    "head_scores",
    metadata,
    *_coordinates(),
    Column("probe", Text, primary_key=True),
    _digest(),
    _day(),
    Column("layout", BigInteger, nullable=False),
    # Not compressed (STORAGE EXTERNAL): the bits of scores repeat too little.
    Column("scores", ARRAY(REAL), nullable=False),
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

# Scores of the windows that an over-long message was read in; they flag nothing.
window_scores = Table(
    "window_scores",
    metadata,
    *_coordinates(),
    Column("probe", Text, primary_key=True),
    _digest(),
    Column("window", SmallInteger, primary_key=True),
    _day(),
    # Where the window begins in the text, and its length.
    Column("first_token", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("score", Double, nullable=False),
    postgresql_partition_by="RANGE (day)",
)

BY_DAY = (messages, scores, head_scores, answers, window_scores)

# Which heads an array of `head_scores` is of; `id` is made of these (`storage.head_layouts`), so that a row whose card
# is unknown has a layout too. One row a card or fewer; names nobody, and stays.
head_layouts = Table(
    "head_layouts",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("layers", ARRAY(SmallInteger), nullable=False),
    Column("heads", ARRAY(SmallInteger), nullable=False),
)

# Which log a source name stands for. `stream` is what people call it (a topic, a file's name); `log` identifies the
# topic or the file itself, NULL as long as only messages from before this table are known. The first log of a stream
# has its name, the others NAME@2, NAME@3; a log whose content changed under it (a truncated partition) has several.
sources = Table(
    "sources",
    metadata,
    Column("name", Text, primary_key=True),
    Column("stream", Text, nullable=False),
    Column("log", Text),
    # What was ingested before may be of any log of the stream: logs were not told apart.
    Column("mixed_until", DateTime(timezone=True)),
    _now("first_seen_at"),
    Index(None, "stream", "log"),
)

probes = Table(
    "probes",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("safetensors_sha256", Text, nullable=False),
    Column("card", JSONB, nullable=False),
    _now("registered_at"),
)

# Files of probes that workers load by name, and the stage of each: at most one of a name is live.
registered_probes = Table(
    "registered_probes",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("stage", Text, nullable=False),
    Column("card", LargeBinary, nullable=False),
    Column("tensors", LargeBinary, nullable=False),
    _now("added_at"),
    Column("added_by", Text, nullable=False),
    _now("staged_at"),
    CheckConstraint("stage IN ('registered', 'shadow', 'live', 'retired')", name="stage"),
    # Since when another one is live in its place: whom a rollback makes live again.
    Column("live_until", DateTime(timezone=True)),
    Index("uq_registered_probes_name_version", "name", "version", unique=True),
    Index("uq_registered_probes_live", "name", unique=True, postgresql_where=text("stage = 'live'")),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("dedup_key", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("kind", Text, nullable=False, server_default="threshold"),
    # NULL for a rule on the monitor itself, as are the messages.
    Column("probe", Text),
    Column("tenant", Text),
    Column("model", Text),
    Column("conversation_id", Text),
    Column("severity", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("count", Integer, nullable=False),
    # What was measured at its worst, and the limit it passed; both in `units`.
    Column("top_score", Double, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("units", Text, nullable=False, server_default="class gaps"),
    # Coordinates of the first message and of the one with the highest score.
    Column("first_message", JSONB(none_as_null=True)),
    Column("top_message", JSONB(none_as_null=True)),
    _now("opened_at"),
    _now("last_seen_at"),
    Column("acknowledged_at", DateTime(timezone=True)),
    Column("acknowledged_by", Text),
    # A silenced alert notifies again when it becomes more severe than this, or when the silence expires.
    Column("silenced_at", DateTime(timezone=True)),
    Column("silenced_until", DateTime(timezone=True)),
    Column("silenced_severity", Text),
    Column("resolved_at", DateTime(timezone=True)),
    Column("resolved_by", Text),
    Column("reopened", Integer, nullable=False, server_default="0"),
    Column("verdict", Text),
    Column("verdict_at", DateTime(timezone=True)),
    Column("verdict_by", Text),
    # Its key was made before names in keys were escaped: its rule finds it by that until it is resolved.
    Column("former_key", Boolean, nullable=False, server_default=text("false")),
    # The live alerts that hold its notifications, by the settings' inhibit rules; empty or NULL: none.
    Column("inhibited_by", ARRAY(Uuid)),
    # Why its rule does not resolve it, though nothing is measured any more.
    Column("held_open", Text),
    CheckConstraint("state IN ('open', 'acknowledged', 'silenced', 'resolved')", name="state"),
    CheckConstraint("kind IN ('threshold', 'rate', 'monitor')", name="kind"),
    CheckConstraint("verdict IN ('true', 'false', 'authorised_test')", name="verdict"),
    # One alert a dedup key that is not resolved, whatever the number of workers.
    Index("ix_alerts_one_live", "dedup_key", unique=True, postgresql_where=text("state <> 'resolved'")),
    Index(None, "opened_at"),
    # The last alert of a key, for reopening.
    Index(None, "dedup_key", "resolved_at"),
)

alert_messages = Table(
    "alert_messages",
    metadata,
    Column("alert_id", Uuid, ForeignKey("alerts.id", ondelete="CASCADE"), primary_key=True),
    *_coordinates(),
    Column("day", Date, nullable=False),
    Column("message_id", Text),
    Column("score", Double, nullable=False),
    _now("added_at"),
    Index(None, "alert_id", "score"),
    Index(None, "day"),
)

silences = Table(
    "silences",
    metadata,
    Column("id", Uuid, primary_key=True),
    # Patterns with `*`; NULL matches all.
    Column("dedup_key", Text),
    Column("rule", Text),
    Column("probe", Text),
    Column("tenant", Text),
    Column("model", Text),
    # Alerts more severe than this are not silenced.
    Column("severity", Text, nullable=False),
    _now("starts_at"),
    Column("ends_at", DateTime(timezone=True), nullable=False),
    Column("comment", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    _now("created_at"),
    Index(None, "ends_at"),
)

# Who changed what, when, and from where. Outlives the alert, so there is no foreign key.
audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _now("at"),
    Column("who", Text, nullable=False),
    # cli, api, page or rule; and the machine or the address.
    Column("via", Text, nullable=False),
    Column("origin", Text),
    Column("action", Text, nullable=False),
    Column("alert_id", Uuid),
    Column("silence_id", Uuid),
    Column("token_id", Uuid),
    Column("before", JSONB(none_as_null=True)),
    Column("after", JSONB(none_as_null=True)),
    Index(None, "alert_id"),
    Index(None, "at"),
)

# What was erased, without saying whose it was: `value_sha256` is the SHA-256 of the salt and the value, so that whoever
# has both can test a guess, and nobody can read it. One salt serves all erasures of a database.
erasures = Table(
    "erasures",
    metadata,
    Column("id", Uuid, primary_key=True),
    # By what it was asked for: user, tenant, id or conversation.
    Column("kind", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("value_sha256", LargeBinary, nullable=False),
    _now("started_at"),
    Column("finished_at", DateTime(timezone=True)),
    Column("messages", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("kind IN ('user', 'tenant', 'id', 'conversation')", name="kind"),
)

# Tombstones: a message with these coordinates and this payload is not stored again, wherever it is read from. They stay
# when retention drops what is older, since a source may keep its messages for longer.
erased_messages = Table(
    "erased_messages",
    metadata,
    *_coordinates(),
    Column("payload_sha256", Text, primary_key=True),
    Column("day", Date, nullable=False),
    # When the message was first stored, and whether it was one that came at coordinates of another.
    Column("ingested_at", DateTime(timezone=True), nullable=False),
    Column("conflict", Boolean, nullable=False),
    Column("erasure_id", Uuid, nullable=False),
)

# Tokens of the HTTP API. The secret is not stored: its SHA-256 is enough, since 256 random bits cannot be guessed from
# their hash; salts and slow hashes are for passwords. Dashboards must not read this table.
api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_sha256", LargeBinary, nullable=False),
    # `act` includes reading; `ingest` may only send messages.
    Column("scope", Text, nullable=False),
    # Pages and API show this tenant's rows alone (`storage.tenant_access`); NULL: those of all.
    Column("tenant", Text),
    _now("created_at"),
    Column("created_by", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("revoked_at", DateTime(timezone=True)),
    # To the minute.
    Column("last_used_at", DateTime(timezone=True)),
    CheckConstraint("scope IN ('read', 'act', 'ingest', 'score')", name="scope"),
    CheckConstraint("tenant IS NULL OR (tenant <> '' AND scope IN ('read', 'act'))", name="tenant"),
    Index("ix_api_tokens_secret", "secret_sha256", unique=True),
    # One live token a name. An index predicate cannot use the time: taking the name of an expired token marks that one.
    Index("ix_api_tokens_live_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
)

# Who is signed in to the web pages. The browser's cookie has the secret, here is its SHA-256. One of a token ends with
# it, and name, scope and tenant are the token's; others come from a single sign-on, or from the terminal.
web_sessions = Table(
    "web_sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("secret_sha256", LargeBinary, nullable=False),
    Column("token_id", Uuid, ForeignKey("api_tokens.id", ondelete="CASCADE")),
    Column("name", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("tenant", Text),
    _now("created_at"),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("scope IN ('read', 'act')", name="scope"),
    Index("ix_web_sessions_secret", "secret_sha256", unique=True),
    Index(None, "expires_at"),
)

# Single sign-ons on their way: a row goes when its state comes back, so that none comes back twice.
sign_ins = Table(
    "sign_ins",
    metadata,
    Column("state_sha256", LargeBinary, primary_key=True),
    # Of the cookie of the browser that began it.
    Column("browser_sha256", LargeBinary, nullable=False),
    Column("nonce", Text, nullable=False),
    Column("verifier", Text, nullable=False),
    Column("next", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Index(None, "expires_at"),
)

# Since when a rate or monitor rule is in breach, by dedup key; times are the database's.
rule_states = Table(
    "rule_states",
    metadata,
    Column("dedup_key", Text, primary_key=True),
    Column("rule", Text, nullable=False),
    # pending, firing or clearing.
    Column("phase", Text, nullable=False),
    Column("held_seconds", Double, nullable=False),
    Column("severity", Text),
    Column("alert_id", Uuid),
    Column("subject", JSONB, nullable=False),
    Column("evaluated_at", DateTime(timezone=True), nullable=False),
)

# The last heartbeat of each worker: rules on the monitor read it.
workers = Table(
    "workers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("source", Text, nullable=False),
    _now("started_at"),
    _now("seen_at"),
    # When it last stored a new message.
    Column("stored_at", DateTime(timezone=True)),
    # In the source's own unit (messages of a topic, bytes of a file); NULL when it cannot be known.
    Column("lag", BigInteger),
    Column("lag_unit", Text),
    # Age of the oldest message that was read and is not stored.
    Column("oldest_seconds", Double),
)

# Engines that publish readings (`storage.readings`): what was read of each process of one. `highest` is the highest
# number of its records, `dropped` what it said that it dropped; times are the database's, of reading.
READING_STATES = ("live", "closed", "replaced", "unwatched")
reading_instances = Table(
    "reading_instances",
    metadata,
    Column("source", Text, primary_key=True),
    Column("instance", Text, primary_key=True),
    Column("engine", Text, nullable=False),
    Column("model", Text),
    Column("state", Text, nullable=False),
    Column("highest", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    _now("first_seen_at"),
    _now("last_seen_at"),
    CheckConstraint(f"state IN {READING_STATES!r}", name="state"),
)

# What is missing of them. `hole`: the numbers from `first` to `last`; `before`: the same, from before the stream was
# read, never counted; `dropped`: so many by the engine itself; `new_instance`: an engine ended without a word and
# another one came, `readings` is NULL for unknown. Counted once it is older than a late record may be; `filled_at`: it
# came after all.
READING_GAPS = ("hole", "before", "dropped", "new_instance")
reading_gaps = Table(
    "reading_gaps",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("first", BigInteger),
    Column("last", BigInteger),
    Column("readings", BigInteger),
    _now("first_seen_at"),
    Column("counted_at", DateTime(timezone=True)),
    Column("filled_at", DateTime(timezone=True)),
    CheckConstraint(f"kind IN {READING_GAPS!r}", name="kind"),
    Index(None, "source", "instance"),
    Index(None, "counted_at"),
)

# Requests that an engine has flagged while their answer was running: where that reading's row is, and its scores by
# probe (those above the threshold), until the final reading comes.
reading_partials = Table(
    "reading_partials",
    metadata,
    Column("stream", Text, primary_key=True),
    Column("instance", Text, primary_key=True),
    Column("message_id", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("sub", Integer, nullable=False),
    Column("day", Date, nullable=False),
    Column("scores", JSONB, nullable=False),
    Index(None, "day"),
)

_PENDING = "delivered_at IS NULL AND dead_at IS NULL"
_WAITING = f"page_id IS NULL AND group_key IS NOT NULL AND {_PENDING}"

# Events of alerts for one destination. Rows are grouped into notifications: `page_id` is the row that carries the
# notification (its own id there), whose id is the idempotency key and whose `page` is its body, the same on every try.
outbox = Table(
    "outbox",
    metadata,
    Column("id", Uuid, primary_key=True),
    # In the order of each alert's changes, whatever clocks do: rows are written under the alert's lock.
    Column("seq", BigInteger, Identity(always=True), nullable=False),
    Column("alert_id", Uuid, ForeignKey("alerts.id"), nullable=False),
    Column("destination", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("body", JSONB, nullable=False),
    _now("created_at"),
    # The next attempt, not before; for a claimed notification, the end of its lease.
    _now("due_at"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("delivered_at", DateTime(timezone=True)),
    Column("dead_at", DateTime(timezone=True)),
    Column("last_error", Text),
    # Set by the sending loop.
    Column("group_key", Text),
    Column("page_id", Uuid),
    Column("page", JSONB(none_as_null=True)),
    Column("formed_at", DateTime(timezone=True)),
    Column("claim_id", Uuid),
    Column("refusals", Integer, nullable=False, server_default="0"),
    # By which routes the alert went to the destination, and what holds the event (a time interval, an alert).
    Column("routes", ARRAY(Text)),
    Column("held_by", Text),
    Index(
        "ix_outbox_pending",
        "destination",
        "due_at",
        postgresql_where=text(_PENDING),
    ),
    # For the queries of a sending loop, which must not slow down with the number of rows: rows without a group, the
    # group that waits longest, its rows, the notification that is due, and whether a group has one in progress.
    Index("ix_outbox_unsorted", "destination", "seq", postgresql_where=text(f"group_key IS NULL AND {_PENDING}")),
    Index("ix_outbox_waiting", "destination", "due_at", "seq", postgresql_where=text(_WAITING)),
    Index("ix_outbox_groups", "destination", "group_key", "seq", postgresql_where=text(_WAITING)),
    Index("ix_outbox_pages", "destination", "due_at", "seq", postgresql_where=text(f"page_id = id AND {_PENDING}")),
    Index("ix_outbox_open_pages", "destination", "group_key", postgresql_where=text(f"page_id = id AND {_PENDING}")),
    Index(None, "destination", "group_key", "formed_at"),
    Index(None, "page_id"),
    Index(None, "alert_id"),
)

# State of a destination in the sending loops; its configuration is a setting.
destinations = Table(
    "destinations",
    metadata,
    Column("name", Text, primary_key=True),
    # Hash of the configuration: a changed one resets failures and `disabled_at`.
    Column("fingerprint", Text, nullable=False),
    # Failures since the last success, and until when nothing is sent.
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("held_until", DateTime(timezone=True)),
    Column("last_error", Text),
    # The receiver is gone for good.
    Column("disabled_at", DateTime(timezone=True)),
    # When all firing alerts were last sent again, for receivers that want it (Alertmanager).
    Column("refreshed_at", DateTime(timezone=True)),
)

# Rollups, which dashboards read instead of millions of scores (`storage.rollup`): buckets of five minutes of
# `created_at` that start at `bucket`; those by tenant by the hour as well (`minutes` is 5 or 60), for long ranges. A
# tenant or model that the message does not name is ''.
score_rollups = Table(
    "score_rollups",
    metadata,
    Column("minutes", SmallInteger, primary_key=True),
    Column("bucket", DateTime(timezone=True), primary_key=True),
    Column("probe", Text, primary_key=True),
    Column("probe_version", Integer, primary_key=True),
    _digest(),
    Column("tenant", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("n", Integer, nullable=False),
    Column("flagged", Integer, nullable=False),
    Column("total", Double, nullable=False),
    Column("peak", Double, nullable=False),
    Column("threshold", Double, nullable=False),
    # Scores above the 0.95, 0.99 and 0.999 quantile of the card's calibration; 0 where it has none.
    Column("over95", Integer, nullable=False, server_default="0"),
    Column("over99", Integer, nullable=False, server_default="0"),
    Column("over999", Integer, nullable=False, server_default="0"),
)

# `bin` counts tenths of a class gap: scores from bin / 10 to (bin + 1) / 10; those further out are in the last one.
score_histograms = Table(
    "score_histograms",
    metadata,
    Column("bucket", DateTime(timezone=True), primary_key=True),
    Column("probe", Text, primary_key=True),
    Column("probe_version", Integer, primary_key=True),
    _digest(),
    Column("model", Text, primary_key=True),
    Column("bin", SmallInteger, primary_key=True),
    Column("n", Integer, nullable=False),
)

# Sums over all messages, and over the flagged ones among them.
head_rollups = Table(
    "head_rollups",
    metadata,
    Column("bucket", DateTime(timezone=True), primary_key=True),
    Column("probe", Text, primary_key=True),
    Column("probe_version", Integer, primary_key=True),
    _digest(),
    Column("layer", SmallInteger, primary_key=True),
    Column("head", SmallInteger, primary_key=True),
    Column("n", Integer, nullable=False),
    Column("total", Double, nullable=False),
    Column("flagged", Integer, nullable=False),
    Column("flagged_total", Double, nullable=False),
)

ROLLUPS = (score_rollups, score_histograms, head_rollups)

# One row, always there: scores created before `until` are rolled up.
rollup_state = Table(
    "rollup_state",
    metadata,
    Column("one", Boolean, CheckConstraint("one", name="one"), primary_key=True, server_default=text("true")),
    Column("until", DateTime(timezone=True), nullable=False),
    _now("at"),
)

# What processes exclude each other by (`storage.locks`): only who may write here can lock a row. No role that reads
# dashboards may.
locks = Table("locks", metadata, Column("key", BigInteger, primary_key=True, autoincrement=False))
